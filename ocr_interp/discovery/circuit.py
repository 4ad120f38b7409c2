"""A circuit that was found: edges of a model, with the scores that they were found by."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from ocr_interp.checks import check_choice
from ocr_interp.errors import ConfigError
from ocr_interp.stream.nodes import StreamNodes

OF = ("edges", "nodes")
"""What a circuit consists of: edges, or heads and MLPs with all edges among them."""


@dataclass(frozen=True, eq=False)
class Circuit:
    """Edges of a model.

    Attributes:
        nodes: of the model.
        mask: which edges are in it.
        scores: of all edges of the model, in the unit of the measure; zero where none were computed.
        method: how it was found, in words.
        model, fingerprint: the model's name, and the fingerprint of its weights ("" if unknown).
        of: what was chosen, "edges", or "nodes" with all edges among them.
    """

    nodes: StreamNodes = field(repr=False)
    mask: Bool[np.ndarray, "writer reader"] = field(repr=False)
    scores: Float[np.ndarray, "writer reader"] = field(repr=False)
    method: str
    model: str = ""
    fingerprint: str = ""
    of: str = "edges"

    def __post_init__(self) -> None:
        shape = self.nodes.allowed.shape
        if self.mask.shape != shape or self.scores.shape != shape:
            raise ConfigError(
                f"mask and scores must be [writer, reader] {shape}, got {self.mask.shape} and "
                f"{self.scores.shape}"
            )
        if bool((self.mask & ~self.nodes.allowed).any()):
            raise ConfigError("mask must mark edges alone, got pairs whose writer comes after the reader")
        check_choice("of", self.of, OF)

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
    def kept(self) -> Int[np.ndarray, " node"]:
        """Indices of the heads and MLPs that write in it, among the writers of `nodes`."""
        return 1 + np.flatnonzero(self.mask[1:].any(1))

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """(layer, head) of the heads that write in it."""
        found = [name[1:].split(".h") for name in self.writers if name.startswith("a")]
        return tuple((int(layer), int(head)) for layer, head in found)

    def node_table(self) -> pd.DataFrame:
        """One row per head and MLP that writes in it, the largest score by size first: node, score.

        The score of a node sums those of all its edges, in the circuit and outside of it: the fall of the
        measure, to first order, when all that it writes is ablated.
        """
        values = self.scores.sum(1)[self.kept]
        order = np.argsort(-np.abs(values), kind="stable")
        names = np.array(self.nodes.writers)[self.kept[order]]
        return pd.DataFrame({"node": names.tolist(), "score": values[order]})

    def table(self) -> pd.DataFrame:
        """One row per edge of it, the largest score by size first: edge, score."""
        values = self.scores.T[self.mask.T]
        order = np.argsort(-np.abs(values), kind="stable")
        return pd.DataFrame({"edge": [self.edges[k] for k in order], "score": values[order]})

    def __repr__(self) -> str:
        among = ""
        if self.of == "nodes":
            among = f"{len(self.kept)} of {len(self.nodes.writers) - 1} heads and MLPs, with "
        return (
            f"Circuit({among}{len(self)} of {self.nodes.n_edges} edges of {self.model or 'a model'}; "
            f"{self.method})"
        )

    def _repr_html_(self) -> str:
        return self.table().to_html(index=False)
