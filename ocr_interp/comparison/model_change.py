"""What differs between two states of a model, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from ocr_interp.comparison.circuits import CircuitChange
from ocr_interp.errors import unknown_name
from ocr_interp.hooked.tokens.token_set import TokenSet

KINDS = ("OV", "QK", "in", "out")
"""Circuits of a model: W_V W_O and W_Q W_Kᵀ of a head, what an MLP reads, and what it writes."""


STANDS_OUT = 2.0
"""Times the largest random change from which a circuit is said to have changed for the tokens."""


@dataclass(frozen=True)
class UnitChange:
    """How much one circuit of a head or an MLP changed.

    Attributes:
        unit: "L3H7" or "MLP 3".
        kind: an entry of KINDS.
        layer, head: where it is; head is None for an MLP.
        weights: relative change of the weights, whatever the tokens.
        tokens: relative change of the circuit between the tokens.
        random: the latter, if each weight's change has the same singular values and random directions.
    """

    unit: str
    kind: str
    layer: int
    head: int | None
    weights: float
    tokens: float
    random: Float[np.ndarray, " draw"] = field(repr=False)

    @property
    def changed(self) -> bool:
        """Whether its weights did, or what stands before and after them (embeddings, gains of norms)."""
        return self.weights != 0 or self.tokens != 0


@dataclass(frozen=True, repr=False)
class ModelChange:
    """What differs between two states of a model.

    Attributes:
        before, after: name and fingerprint of both.
        inputs, outputs: tokens that circuits lead from and to; queries and keys are the inputs.
        units: every circuit of every head and MLP, in the order of the layers.
        circuits: the most changed ones (or those asked for) by degenerate block: "L3H7 OV" -> its change.
        statement: what is compared with what.
        notes: what could not be read, one sentence each.
        seed: of the random changes.
    """

    before: tuple[str, str]
    after: tuple[str, str]
    inputs: TokenSet = field(repr=False)
    outputs: TokenSet = field(repr=False)
    units: tuple[UnitChange, ...]
    circuits: dict[str, CircuitChange]
    statement: str
    notes: tuple[str, ...]
    seed: int

    def __repr__(self) -> str:
        changed = sum(unit.changed for unit in self.units)
        return f"{type(self).__name__}({changed} of {len(self.units)} circuits of {self.before[0]} changed)"

    def of(self, unit: str, kind: str = "OV") -> UnitChange:
        """One circuit by name, e.g. ("L3H7", "QK") or ("MLP 3", "out"); unknown ones raise."""
        known = {(each.unit, each.kind): each for each in self.units}
        if (unit, kind) not in known:
            raise unknown_name("circuit of the model", f"{unit} {kind}", [" ".join(key) for key in known])
        return known[unit, kind]

    def table(self) -> Any:
        """A DataFrame with one row per circuit, the largest change between the tokens first: unit, kind,
        layer, head, weights, tokens, random (mean over draws), random std, and over random (their ratio)."""
        import pandas as pd

        frame = pd.DataFrame(
            {
                "unit": [each.unit for each in self.units],
                "kind": [each.kind for each in self.units],
                "layer": [each.layer for each in self.units],
                "head": pd.array([each.head for each in self.units], dtype="Int64"),
                "weights": [each.weights for each in self.units],
                "tokens": [each.tokens for each in self.units],
                "random": [_mean(each.random) for each in self.units],
                "random std": [
                    float(each.random.std()) if len(each.random) else np.nan for each in self.units
                ],
            }
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            frame["over random"] = frame["tokens"] / frame["random"]
        return frame.sort_values("tokens", ascending=False, kind="stable").reset_index(drop=True)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    @property
    def standing_out(self) -> frozenset[tuple[str, str]]:
        """(unit, kind) of the circuits that changed for these tokens: between them at least STANDS_OUT times
        as much as in the largest of the random changes."""
        return frozenset(
            (each.unit, each.kind)
            for each in self.units
            if len(each.random) and each.tokens > 0 and each.tokens >= STANDS_OUT * float(each.random.max())
        )

    def grid(self, kind: str = "OV") -> Float[np.ndarray, "layer head"]:
        """Relative change between the tokens by layer and head (of MLPs one column); NaN where none is."""
        if kind not in KINDS:
            raise unknown_name("kind of circuit", kind, KINDS)
        shape = [
            1 + max((getattr(each, name) or 0 for each in self.units), default=0)
            for name in ("layer", "head")
        ]
        found = np.full((shape[0], 1 if kind in ("in", "out") else shape[1]), np.nan)
        for each in self.units:
            if each.kind == kind:
                found[each.layer, each.head or 0] = each.tokens
        return found

    def summary(self, rows: int = 10) -> str:
        """Readable text: the most changed circuits between the tokens, beside random changes, by block."""
        table = self.table()
        changed = sum(each.changed for each in self.units)
        lines = [
            f"before: {self.before[0]}, weights {self.before[1]}",
            f"after:  {self.after[0]}, weights {self.after[1]}",
            f"{changed} of {len(table)} circuits changed, between {len(self.inputs)} inputs and "
            f"{len(self.outputs)} outputs",
        ]
        if not changed:
            lines.append("nothing changed: both have the same weights, as far as these circuits go")
        else:
            lines.append(f"{'circuit':>12}{'weights':>12}{'tokens':>12}{'random':>12}{'times':>8}")
        for row in table[(table["weights"] != 0) | (table["tokens"] != 0)].head(rows).itertuples(index=False):
            name, times = f"{row.unit} {row.kind}", row.tokens / row.random if row.random else float("nan")
            mark = " *" if (row.unit, row.kind) in self.standing_out else ""
            lines.append(
                f"{name:>12}{row.weights:>12.4g}{row.tokens:>12.4g}{row.random:>12.4g}{times:>8.2g}{mark}"
            )
        if self.standing_out:
            lines.append(
                f"* changed for these tokens, at least {STANDS_OUT:g} times as much as the largest random "
                f"change: {len(self.standing_out)} circuits"
            )
        for name, change in self.circuits.items():
            lines += ["", name, *change.summary(rows=3).splitlines()[2:]]
        return "\n".join([*lines, "", self.statement, *(f"note: {note}" for note in self.notes)])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
