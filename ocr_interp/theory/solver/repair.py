"""Training margins below 1 raised row by row, so that one bad row does not scale the whole matrix up.

An upper bound is the norm over the smallest margin. Late in a solve most rows have their margins and a few
lag: adding to each row its own pattern (correct output up, the others of its kind down) costs a little norm
in those rows, where dividing by the smallest margin would cost it everywhere.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from ocr_interp.theory.reduction.margins import ExampleMap
from ocr_interp.theory.reduction.symmetry import Blocks


class MarginRepair:
    """Repairs matrices of one reduced problem; the result's norm over its smallest margin is a bound."""

    def __init__(self, examples: ExampleMap, relation: Int[np.ndarray, "example value"]) -> None:
        self._examples = examples
        n = examples.reduced.n_groups
        index = np.arange(len(examples.correct))
        same = relation == relation[index, examples.correct][:, None]
        self._same = same & (examples.multiplicity > 0)
        self._other = ~same & (examples.multiplicity > 0)
        counted = examples.multiplicity * self._same
        share = counted.sum(axis=1, keepdims=True) + 1
        pattern = np.where(self._same, -1 / share, 0.0)
        pattern[index, examples.correct] = 1 - 1 / share[:, 0]
        self._pattern = pattern  # of one example, mean 0 over the outputs of its kind
        self._n = n
        columns, kinds = examples.reduced.constant_shape[1], examples.reduced.task.n_relations
        # Every relation up for its own answers and down for others: what tells the kinds apart.
        self._relation = np.zeros((kinds, columns))
        of_column = examples.reduced.column_relation
        own = of_column == np.arange(kinds)[:, None]
        self._relation[:, : len(of_column)] = np.where(own, 1 - 1 / kinds, -1 / kinds)
        self._relation *= np.sqrt(examples.reduced.column_size)

    def __call__(self, blocks: Blocks) -> Blocks:
        """A matrix near `blocks` whose training margins are nearly 1 or more."""
        examples, reduced, n = self._examples, self._examples.reduced, self._n
        margins = examples.margins(examples.values(examples.logits(blocks)))
        lack = np.maximum(1 - np.where(self._same, margins, np.inf).min(axis=1), 0.0)
        logits = examples.from_values(self._pattern * lack[:, None])
        fixed = Blocks(blocks.constant.copy(), blocks.pair.copy())
        np.add.at(fixed.constant, examples.rows, logits.constant)
        if reduced.has_pairs:
            np.add.at(
                fixed.pair,
                (reduced.row_type[examples.rows], reduced.row_offset[examples.rows]),
                logits.pair[:, 0],
            )
        margins = examples.margins(examples.values(examples.logits(fixed)))
        across = np.where(self._other, margins, np.inf).min(axis=1)
        for relation, pattern in enumerate(self._relation):
            chosen = examples.relations == relation
            short = max(0.0, 1 - float(across[chosen].min(initial=np.inf)))
            fixed.constant[n + relation] += short * pattern
        return fixed
