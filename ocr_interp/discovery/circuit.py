"""A circuit that was found: edges of a model, with the scores that they were found by."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from ocr_interp.errors import ConfigError
from ocr_interp.stream.nodes import StreamNodes


@dataclass(frozen=True, eq=False)
class Circuit:
    """Edges of a model.

    Attributes:
        nodes: of the model.
        mask: which edges are in it.
        scores: of all edges of the model, in the unit of the measure; zero where none were computed.
        method: how it was found, in words.
        model, fingerprint: the model's name, and the fingerprint of its weights ("" if unknown).
    """

    nodes: StreamNodes = field(repr=False)
    mask: Bool[np.ndarray, "writer reader"] = field(repr=False)
    scores: Float[np.ndarray, "writer reader"] = field(repr=False)
    method: str
    model: str = ""
    fingerprint: str = ""

    def __post_init__(self) -> None:
        shape = self.nodes.allowed.shape
        if self.mask.shape != shape or self.scores.shape != shape:
            raise ConfigError(
                f"mask and scores must be [writer, reader] {shape}, got {self.mask.shape} and "
                f"{self.scores.shape}"
            )
        if bool((self.mask & ~self.nodes.allowed).any()):
            raise ConfigError("mask must mark edges alone, got pairs whose writer comes after the reader")

    def __len__(self) -> int:
        return int(self.mask.sum())

    @property
    def edges(self) -> tuple[str, ...]:
        """Names of its edges, such as "a0.h1->a1.h3<k>"; also for `ablation.Edges(..., outside=True)`."""
        return self.nodes.names(self.mask)

    @property
    def writers(self) -> tuple[str, ...]:
        """Names of the nodes that write in it, such as "input", "a0.h1", "m0"."""
        return tuple(np.array(self.nodes.writers)[self.mask.any(1)].tolist())

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """(layer, head) of the heads that write in it."""
        found = [name[1:].split(".h") for name in self.writers if name.startswith("a")]
        return tuple((int(layer), int(head)) for layer, head in found)

    def table(self) -> pd.DataFrame:
        """One row per edge of it, the largest score by size first: edge, score."""
        values = self.scores.T[self.mask.T]
        order = np.argsort(-np.abs(values), kind="stable")
        return pd.DataFrame({"edge": [self.edges[k] for k in order], "score": values[order]})

    def __repr__(self) -> str:
        return (
            f"Circuit({len(self)} of {self.nodes.n_edges} edges of {self.model or 'a model'}; {self.method})"
        )

    def _repr_html_(self) -> str:
        return self.table().to_html(index=False)
