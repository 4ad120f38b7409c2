"""Direct attribution as data: a logit difference of each prompt as a sum over all parts of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from ocr_interp.errors import ModelError, unknown_name

PART_KINDS = ("embedding", "head", "attention", "mlp", "layer", "bias")
"""Kinds of parts: "attention" and "layer" stand where heads, or attention and MLP, cannot be told apart."""


@dataclass(frozen=True)
class Part:
    """A part of a model that writes to the residual stream or to the logits.

    Attributes:
        name: e.g. "L3H7", "MLP 3", "b_O 3", "token embedding", "b_U".
        kind: an entry of PART_KINDS.
        layer, head: where it is; None where it is in no layer or is no head.
    """

    name: str
    kind: str
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class BlockParts:
    """What a head adds, by singular block of its W_V W_O (d_model by d_model, gain of ln1 folded in).

    Attributes:
        layer, head: which head.
        values, multiplicities: mean singular value and number of directions of every degenerate block.
        contributions: of every block, in logits.
        outside: what no block spans (biases of values); with it the blocks sum to the head's contribution.
    """

    layer: int
    head: int
    values: Float[np.ndarray, " block"] = field(repr=False)
    multiplicities: tuple[int, ...]
    contributions: Float[np.ndarray, "prompt block"] = field(repr=False)
    outside: Float[np.ndarray, " prompt"] = field(repr=False)

    def table(self) -> Any:
        """A DataFrame with one row per block, and one for what is outside: block, multiplicity, value, mean
        and std over prompts."""
        import pandas as pd

        each = np.column_stack([self.contributions, self.outside])
        return pd.DataFrame(
            {
                "block": [*map(str, range(len(self.values))), "outside"],
                "multiplicity": pd.array([*self.multiplicities, None], dtype="Int64"),
                "value": [*self.values, np.nan],
                "mean": each.mean(0),
                "std": each.std(0),
            }
        )


@dataclass(frozen=True)
class NeuronParts:
    """What an MLP adds, by neuron.

    Attributes:
        layer: which MLP.
        contributions: of every neuron, in logits.
        bias: what b_out adds; with it the neurons sum to the MLP's contribution.
    """

    layer: int
    contributions: Float[np.ndarray, "prompt neuron"] = field(repr=False)
    bias: Float[np.ndarray, " prompt"] = field(repr=False)

    def table(self) -> Any:
        """A DataFrame with one row per neuron, largest mean contribution first: neuron, mean and std over
        prompts, and share, the mean over the sum of all |mean|."""
        import pandas as pd

        mean, size = self.contributions.mean(0), np.abs(self.contributions.mean(0)).sum()
        order = np.argsort(-np.abs(mean), kind="stable")
        values = {"neuron": order, "mean": mean[order], "std": self.contributions.std(0)[order]}
        return pd.DataFrame(values | {"share": mean[order] / size if size else np.zeros(len(order))})


@dataclass(frozen=True, repr=False)
class DirectAttribution:
    """A logit, or a logit difference, at the end of each prompt as a sum over all parts of a model.

    Direct: what a part adds to the residual stream, read by the final norm (its scale held at what it is in
    this prompt) and W_U. What it does through later layers is counted there.

    Attributes:
        prompts: labels of the positions of each prompt.
        answers: label of each prompt's answer.
        against: labels of the outputs whose mean logit is subtracted; empty for the logit itself.
        parts: all parts of the model, in the order of the layers.
        contributions: of each part, in logits.
        totals: the logit (difference) as the model gives it.
        remainders: total minus the sum of the contributions: rounding, checked.
        heads_by_position: contribution of every position through every head, in the order of the parts of
            kind "head"; NaN beyond the end of a prompt. None if not asked for.
        blocks: heads by singular block, those that were asked for.
        neurons: MLPs by neuron, those that were asked for.
        statement: what is exact and what is held fixed.
        notes: what could not be split, and factors that were measured, one sentence each.
        model, fingerprint: the model's name, and a fingerprint of W_O, the final norm and W_U of the answers.
    """

    prompts: tuple[tuple[str, ...], ...] = field(repr=False)
    answers: tuple[str, ...]
    against: tuple[tuple[str, ...], ...]
    parts: tuple[Part, ...]
    contributions: Float[np.ndarray, "prompt part"]
    totals: Float[np.ndarray, " prompt"]
    remainders: Float[np.ndarray, " prompt"]
    heads_by_position: Float[np.ndarray, "prompt head position"] | None
    blocks: tuple[BlockParts, ...]
    neurons: tuple[NeuronParts, ...]
    statement: str
    notes: tuple[str, ...]
    model: str
    fingerprint: str

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.prompts)} prompt{'s' if len(self.prompts) > 1 else ''}, "
            f"{len(self.parts)} parts of {self.model}, mean total {self.totals.mean():.4g})"
        )

    @property
    def mean(self) -> Float[np.ndarray, " part"]:
        """Mean contribution of every part over the prompts."""
        return self.contributions.mean(0)

    def of(self, name: str) -> Float[np.ndarray, " prompt"]:
        """Contributions of a part by name, e.g. "L3H7"; an unknown one raises with the close matches."""
        names = [part.name for part in self.parts]
        if name not in names:
            raise unknown_name("part of the model", name, names)
        return self.contributions[:, names.index(name)]

    @property
    def heads(self) -> Float[np.ndarray, "prompt layer head"]:
        """Contributions of all heads; NaN where a layer has none or is not split."""
        return self._grid("head")

    @property
    def mlps(self) -> Float[np.ndarray, "prompt layer"]:
        """Contributions of all MLPs; NaN where a layer has none or is not split."""
        return self._grid("mlp")[:, :, 0]

    def _grid(self, kind: str) -> Float[np.ndarray, "prompt layer head"]:
        chosen = [(k, part) for k, part in enumerate(self.parts) if part.kind == kind]
        layers = 1 + max((part.layer or 0 for part in self.parts), default=0)
        width = 1 + max((part.head or 0 for _, part in chosen), default=0)
        grid = np.full((len(self.prompts), layers, width), np.nan)
        for k, part in chosen:
            grid[:, part.layer or 0, part.head or 0] = self.contributions[:, k]
        return grid

    def of_position(self, layer: int, head: int) -> Float[np.ndarray, "prompt position"]:
        """Contributions of every position through a head.

        Raises:
            ModelError: positions were not asked for, or there is no such head.
        """
        heads = [(part.layer, part.head) for part in self.parts if part.kind == "head"]
        if self.heads_by_position is None:
            raise ModelError("contributions by position were not asked for: pass by_position=True")
        if (layer, head) not in heads:
            raise ModelError(f"no head {head} in layer {layer} was attributed, got {len(heads)} others")
        return self.heads_by_position[:, heads.index((layer, head))]

    def position_table(self, heads: int | None = None) -> Any:
        """A DataFrame with one row per prompt, position and head: prompt, position, token, part and
        contribution; of each prompt the largest first.

        Args:
            heads: only of so many heads, those of the largest mean; None is all.

        Raises:
            ModelError: positions were not asked for.
        """
        import pandas as pd

        if self.heads_by_position is None:
            raise ModelError("contributions by position were not asked for: pass by_position=True")
        columns = [k for k, part in enumerate(self.parts) if part.kind == "head"]
        order = np.argsort(-np.abs(self.mean[columns]), kind="stable")[:heads]
        rows = []
        for row, tokens in enumerate(self.prompts):
            found = self.heads_by_position[row][order, : len(tokens)]
            for place in np.argsort(-np.abs(found), axis=None, kind="stable"):
                head, at = divmod(int(place), len(tokens))
                name = self.parts[columns[order[head]]].name
                rows.append((row, at, tokens[at], name, found[head, at]))
        return pd.DataFrame(rows, columns=["prompt", "position", "token", "part", "contribution"])

    def table(self) -> Any:
        """A DataFrame with one row per part, largest mean contribution first: part, kind, layer, head, mean,
        std over prompts and share, the part's mean over the sum of all parts' |mean|."""
        import pandas as pd

        mean, size = self.mean, np.abs(self.mean).sum()
        frame = pd.DataFrame(
            {
                "part": [part.name for part in self.parts],
                "kind": [part.kind for part in self.parts],
                "layer": pd.array([part.layer for part in self.parts], dtype="Int64"),
                "head": pd.array([part.head for part in self.parts], dtype="Int64"),
                "mean": mean,
                "std": self.contributions.std(0),
                "share": mean / size if size else np.zeros(len(mean)),
            }
        )
        order = np.argsort(-np.abs(mean), kind="stable")
        return frame.iloc[order].reset_index(drop=True)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def summary(self, rows: int = 12) -> str:
        """Readable text: the total, the largest parts and the rest, and what was checked."""
        order = np.argsort(-np.abs(self.mean), kind="stable")
        shown, rest = order[:rows], order[rows:]
        one = len(self.prompts) == 1
        against = f" - {', '.join(self.against[0]) or '?'}" if one and self.against[0] else ""
        what = f"{self.answers[0]}{against}" if one else f"answers of {len(self.prompts)} prompts"
        lines = [
            f"direct attribution of {what} in {self.model}, weights {self.fingerprint}",
            f"total {self.totals.mean():.6g}{'' if one else ' (mean)'}, {len(self.parts)} parts, largest "
            f"remainder {np.abs(self.remainders).max():.2g}",
            *(f"{self.parts[k].name:>24} {self.mean[k]:+.6g}" for k in shown),
        ]
        if len(rest):
            name = f"{len(rest)} other part{'s' if len(rest) > 1 else ''}"
            lines.append(f"{name:>24} {self.mean[rest].sum():+.6g}")
        return "\n".join([*lines, self.statement, *(f"note: {note}" for note in self.notes)])
