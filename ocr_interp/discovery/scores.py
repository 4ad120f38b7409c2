"""Scores of all edges of a model: the fall of the measure when an edge is ablated, estimated or exact."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from ocr_interp.checks import check_choice, check_count
from ocr_interp.discovery.circuit import OF, Circuit
from ocr_interp.discovery.node_sets import edges_among, top_nodes
from ocr_interp.discovery.paths import largest_live
from ocr_interp.errors import ConfigError
from ocr_interp.stream.nodes import StreamNodes


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """How much each edge does for the measure of a contrast.

    Attributes:
        nodes: of the model.
        scores: the fall of the measure when the edge alone is ablated, in the measure's unit; 0 at pairs that
            are no edge.
        method: "exact", "EAP" or "EAP-IG" with its steps, in words.
        ablation: what an ablated edge carries.
        full, empty: the mean measure of the whole model and with all edges ablated.
        model, fingerprint: the model's name, and the fingerprint of its weights.
        at_query: whether the input differs at the query in some prompt; otherwise a path must pass keys or
            values of a head to carry the difference there.
    """

    nodes: StreamNodes = field(repr=False)
    scores: Float[np.ndarray, "writer reader"] = field(repr=False)
    method: str
    ablation: str
    full: float
    empty: float
    model: str
    fingerprint: str
    at_query: bool = True

    def __post_init__(self) -> None:
        if self.scores.shape != self.nodes.allowed.shape:
            raise ConfigError(
                f"scores must be [writer, reader] {self.nodes.allowed.shape}, got {self.scores.shape}"
            )
        if not np.isfinite(self.scores).all():
            bad = int((~np.isfinite(self.scores)).sum())
            raise ConfigError(
                f"scores must be finite, got {bad} that are not: the model's weights may be NaN"
            )

    def __getitem__(self, edge: str) -> float:
        """The score of one edge by name."""
        return float(self.scores[self.nodes.mask([edge])].sum())

    def most(self, of: str = "edges") -> int:
        """Size of the largest circuit: the number of edges, or of heads and MLPs."""
        check_choice("of", of, OF)
        return self.nodes.n_edges if of == "edges" else len(self.nodes.writers) - 1

    def circuit(self, size: int, of: str = "edges") -> Circuit:
        """The largest set of top edges by |score|, at most `size`, each on a path that carries a difference
        from the input to the logits. It is empty where no such path has so few edges.

        Args:
            size: number of edges, or of heads and MLPs.
            of: "nodes" takes the top heads and MLPs by |sum of the scores of their edges|, which is the fall
                of the measure, to first order, when all that they write is ablated; with all edges among
                them that can carry a difference. Those of them on no path are left out.

        Raises:
            ConfigError: a size below 1 or above the number of edges, or of nodes.
        """
        check_count("size", size, 1, self.most(of))
        if of == "nodes":
            kept = top_nodes(self.scores.sum(1), size)
            return self.with_edges(edges_among(self.nodes, kept, self.at_query), of)
        return self.with_edges(largest_live(self.nodes, np.abs(self.scores), size, self.at_query))

    def with_edges(self, mask: Any, of: str = "edges") -> Circuit:
        """Some edges with their scores."""
        return Circuit(
            self.nodes,
            np.asarray(mask, dtype=bool) & self.nodes.allowed,
            self.scores,
            f"{self.method}, edges outside: {self.ablation}",
            self.model,
            self.fingerprint,
            of,
        )

    def table(self) -> pd.DataFrame:
        """One row per edge, the largest by size first: edge, score."""
        names = self.nodes.edges
        values = self.scores.T[self.nodes.allowed.T]
        order = np.argsort(-np.abs(values), kind="stable")
        return pd.DataFrame({"edge": [names[k] for k in order], "score": values[order]})

    def _repr_html_(self) -> str:
        return self.table().head(20).to_html(index=False)
