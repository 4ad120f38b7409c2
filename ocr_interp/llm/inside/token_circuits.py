"""OV circuits of single heads between the tokens of a fact set, before and after fine-tuning.

A circuit here is W_E W_V W_O W_U between token sets: only the direct path from a token's embedding through
one head to the logits. Limits of this measurement: in a model of many layers most of a head's input comes
from the layers below and most of its output goes to the layers above, so a head without contrast here may
still take part; a name is represented by its last token only; and a fact's token never occurs in a prompt
that asks for the implication. With full fine-tuning the changes of embeddings, unembedding and norms are
part of the circuit's change; with LoRA only the head changes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import WeightsError
from ocr_interp.hooked.protocol import check_head, check_layer
from ocr_interp.hooked.tokens.labels import labels_of
from ocr_interp.llm.inside.token_sets import NONE, FactTokens
from ocr_interp.storage.plain import plain

STATES = ("before", "after", "change")
"""The circuits before and after fine-tuning, and their difference."""

CONTRASTS = (
    "facts to implications",
    "names to facts",
    "told names to implications",
    "held-out names to implications",
)
MOST_ASSIGNMENTS = 5040
"""Up to this number (7!) all assignments are tried; if there are more, this many are drawn."""

SMALL_SHARE = 0.05


@dataclass(frozen=True)
class Contrast:
    """Whether rows of a block have more weight on their own column than on the others.

    Attributes:
        value: mean own entry minus mean other entry, divided by its standard deviation over all assignments
            of columns; 0 is the mean over assignments. NaN if no row has an own column.
        share: share of assignments with at least this contrast, including the true one. With 5 columns the
            smallest value is 1/120; by chance it is at most 0.05 in 5 % of cases.
    """

    value: float
    share: float


@dataclass(frozen=True)
class TokenCircuits:
    """Token circuits of heads before and after fine-tuning.

    Attributes:
        tokens: rows and columns.
        heads: (layer, head); the most changed heads first, then heads drawn at random.
        n_chosen: number of the most changed heads among them.
        inputs, outputs: names of the groups.
        norms: Frobenius norm of every block in STATES, in logits per unit of attention, with the scales of
            the norms set to 1.
        contrasts, shares: `Contrast.value` and `.share`, by CONTRASTS and STATES.
        rows: number of rows with an own column, by CONTRASTS.
    """

    tokens: FactTokens
    heads: tuple[tuple[int, int], ...] = field(repr=False)
    n_chosen: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    norms: Float[np.ndarray, "head input_group output_group state"] = field(repr=False)
    contrasts: Float[np.ndarray, "head contrast state"] = field(repr=False)
    shares: Float[np.ndarray, "head contrast state"] = field(repr=False)
    rows: tuple[int, ...] = field(repr=False)

    @property
    def relative_change(self) -> Float[np.ndarray, "head input_group output_group"]:
        """‖ΔW‖_F / ‖W‖_F of every block, W before fine-tuning; NaN or infinite if W was zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.norms[..., 2] / self.norms[..., 0]

    def groups(self) -> dict[str, slice]:
        """The heads by group: most changed, and drawn at random."""
        return {"most changed": slice(self.n_chosen), "random": slice(self.n_chosen, None)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, four significant digits, NaN as None."""
        return {
            "tokens": self.tokens.to_dict(),
            "heads": [list(head) for head in self.heads],
            "n_chosen": self.n_chosen,
            "states": list(STATES),
            "norms": {
                f"{row} to {column}": plain(self.norms[:, i, j], 4)
                for i, row in enumerate(self.inputs)
                for j, column in enumerate(self.outputs)
            },
            "contrasts": {name: plain(self.contrasts[:, k], 4) for k, name in enumerate(CONTRASTS)},
            "shares": {name: plain(self.shares[:, k], 4) for k, name in enumerate(CONTRASTS)},
            "rows": dict(zip(CONTRASTS, self.rows, strict=True)),
        }

    def summary(self) -> str:
        """Sizes of blocks and contrasts, of the most changed heads beside the random ones."""
        of, count = self.tokens.to_dict(), len(self.heads) - self.n_chosen
        lines = [
            "OV circuits between tokens, W_E W_V W_O W_U of a head: the direct path only, without the layers",
            f"below and above it; the {self.n_chosen} most changed heads beside {count} drawn at random",
            f"{of['names']} names by their last token ({of['name_tokens']} different, "
            f"{of['shared_name_tokens']} of them shared by names of several facts: these have no contrast),",
            f"relations by the last token of a prompt ({of['relation_tokens']}), answers by their first",
            "",
            f"{'mean change of a block, |dW| / |W|':40}{'most changed':>16}{'random':>16}",
        ]
        chosen, random = (self.relative_change[part] for part in self.groups().values())
        lines += [
            f"{f'{row} to {column}':40}{chosen[:, i, j].mean():16.4f}{random[:, i, j].mean():16.4f}"
            for i, row in enumerate(self.inputs)
            for j, column in enumerate(self.outputs)
        ]
        lines += [
            "",
            "own answer against others, in standard deviations over assignments (0 by chance);",
            f"% of heads: those whose change is among the {SMALL_SHARE:.0%} of assignments with the largest",
            f"{'':40}{'most changed':^32}{'random':^32}".rstrip(),
            f"{'':40}" + f"{'before':>8}{'after':>8}{'change':>8}{'% heads':>8}" * 2,
        ]
        for k, name in enumerate(CONTRASTS):
            if self.rows[k]:
                lines.append(f"{f'{name} ({self.rows[k]})':40}" + "".join(map(self._row(k), self.groups())))
        return "\n".join(lines)

    def _row(self, k: int) -> Any:
        def row(group: str) -> str:
            part = self.groups()[group]
            means = "".join(f"{value:8.2f}" for value in self.contrasts[part, k].mean(0))
            # With few columns there are too few assignments for a share this small.
            small = 100 * (self.shares[part, k, 2] <= SMALL_SHARE).mean()
            possible = math.factorial(len(self.tokens.implications)) * SMALL_SHARE >= 1
            return means + (f"{small:8.0f}" if possible else f"{'-':>8}")

        return row


def read_circuits(bridge: Any, tokens: FactTokens, heads: Sequence[tuple[int, int]]) -> tuple[OVCircuit, ...]:
    """The OV circuit of every head between names, relations and facts, and facts and implications.

    Args:
        bridge: a TransformerBridge or HookedTransformer, with LoRA merged.
        tokens: rows and columns.
        heads: (layer, head).

    Raises:
        ModelError: no such layer or head, or norms after attention.
    """
    for layer, head in heads:
        check_layer(bridge, layer)
        check_head(bridge, head)
    labels = labels_of(bridge, None)  # computed once: one label for each token of the vocabulary
    return tuple(
        OVCircuit.from_model(
            bridge, layer=layer, head=head, inputs=tokens.inputs, outputs=tokens.outputs, labels=labels
        )
        for layer, head in heads
    )


def compare_circuits(
    before: Sequence[OVCircuit], after: Sequence[OVCircuit], tokens: FactTokens, n_chosen: int
) -> TokenCircuits:
    """Compares the circuits of the same heads before and after fine-tuning.

    Args:
        before, after: results of `read_circuits` for the same heads.
        tokens: the tokens that they were read with.
        n_chosen: the first `n_chosen` heads are the most changed ones.

    Raises:
        WeightsError: circuits of different heads, or no circuits.
    """
    heads = [_place(circuit) for circuit in before]
    if not heads or heads != [_place(circuit) for circuit in after]:
        raise WeightsError(f"circuits must be of the same heads, got {heads} and {list(map(_place, after))}")
    first = before[0]
    rows, columns = first.inputs, first.outputs
    blocks = [
        [(rows.of_group(i), columns.of_group(o)) for o in columns.group_names] for i in rows.group_names
    ]
    questions = _questions(tokens)
    norms, found = [], []
    for old, new in zip(before, after, strict=True):
        states = (old.W, new.W, new.W - old.W)
        norms.append(
            [[[np.linalg.norm(W[np.ix_(*block)]) for W in states] for block in line] for line in blocks]
        )
        found.append(
            [
                [own_contrast(W[np.ix_(rows.of_group(i), columns.of_group(o))], own) for W in states]
                for i, o, own in questions
            ]
        )
    return TokenCircuits(
        tokens=tokens,
        heads=tuple(heads),
        n_chosen=n_chosen,
        inputs=rows.group_names,
        outputs=columns.group_names,
        norms=np.array(norms),
        contrasts=np.array([[[c.value for c in states] for states in head] for head in found]),
        shares=np.array([[[c.share for c in states] for states in head] for head in found]),
        rows=tuple(int((own != NONE).sum()) for _, _, own in questions),
    )


def _place(circuit: OVCircuit) -> tuple[int, int]:
    return circuit.provenance.layer, circuit.provenance.head


def _questions(tokens: FactTokens) -> list[tuple[str, str, Int[np.ndarray, " row"]]]:
    """For each of CONTRASTS: rows, columns, and every row's own column."""
    return [
        ("facts", "implications", tokens.own_of_facts),
        ("names", "facts", tokens.own_of_names(tokens.facts_of.subject_fact)),
        ("names", "implications", tokens.own_of_told(True)),
        ("names", "implications", tokens.own_of_told(False)),
    ]


def own_contrast(block: Float[np.ndarray, "row column"], own: Int[np.ndarray, " row"]) -> Contrast:
    """The contrast of a block, compared with all assignments of its columns.

    An assignment permutes columns: rows with the same own column still share one, so the names of one fact
    count as one cluster.

    Args:
        block: weights.
        own: every row's own column; NONE leaves a row out.
    """
    n_columns = block.shape[1]
    used = own != NONE
    if not used.any() or n_columns < 2:
        return Contrast(math.nan, math.nan)
    # A contrast depends only on the sums over rows with the same own column.
    sums = np.zeros((n_columns, n_columns))
    np.add.at(sums, own[used], block[used])
    assigned = sums[np.arange(n_columns), _assignments(n_columns)].sum(1)
    count = int(used.sum())
    contrasts = assigned / count - (sums.sum() - assigned) / (count * (n_columns - 1))
    spread = contrasts.std()
    if spread <= 1e-12 * np.abs(block).max():
        return Contrast(math.nan, math.nan)
    share = float((contrasts >= contrasts[0] - 1e-9 * spread).mean())
    return Contrast(float((contrasts[0] - contrasts.mean()) / spread), share)


def _assignments(n_columns: int) -> Int[np.ndarray, "assignment column"]:
    """All permutations, or a random sample of them; the identity first."""
    if math.factorial(n_columns) <= MOST_ASSIGNMENTS:
        return np.array(list(itertools.permutations(range(n_columns))))
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(n_columns) for _ in range(MOST_ASSIGNMENTS - 1)]
    return np.array([np.arange(n_columns), *drawn])
