"""Two circuit graphs of one question, before and after a change: which edges changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ocr_interp.checks import check_number
from ocr_interp.errors import ConfigError, shown
from ocr_interp.graphs.graph import CircuitGraph, Edge

SHARE = 0.1
"""Share of the largest edge of both graphs from which a change is marked."""


@dataclass(frozen=True)
class GraphChange:
    """Two graphs over the same nodes, and what changed from one to the other.

    Attributes:
        before, after: the graphs; an edge that one of them lacks stands there with 0.
        marked: (source, target) of the edges that changed by at least `share` of the largest edge.
        share: of the largest edge of both.
    """

    before: CircuitGraph = field(repr=False)
    after: CircuitGraph = field(repr=False)
    marked: frozenset[tuple[str, str]]
    share: float

    def table(self) -> Any:
        """A DataFrame with one row per edge, the largest change first: source, target, before, after, change,
        marked."""
        import pandas as pd

        both = zip(self.before.edges, self.after.edges, strict=True)
        frame = pd.DataFrame(
            [
                {
                    "source": old.source,
                    "target": old.target,
                    "before": old.contribution,
                    "after": new.contribution,
                    "change": new.contribution - old.contribution,
                    "marked": (old.source, old.target) in self.marked,
                }
                for old, new in both
            ]
        )
        order = np.argsort(-np.abs(frame["change"].to_numpy()), kind="stable")
        return frame.iloc[order].reset_index(drop=True)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def compare_graphs(before: CircuitGraph, after: CircuitGraph, share: float = SHARE) -> GraphChange:
    """Which edges changed between two graphs of one question, such as one prompt before and after training.

    Nodes are the same if their names are; both graphs get the nodes and edges of both, so that they are laid
    out alike. `viz.save_diagram(change, path)` draws both on one scale with what changed marked.

    Args:
        before, after: of one kind, such as two of `circuit_as_graph` or of `mechanism_graph`.
        share: of the largest edge of both from which a change is marked.

    Raises:
        ConfigError: nodes of one name that are of two kinds or in two columns, or other answers.
    """
    check_number("share", share, above=0.0)
    names = {node.name: node for node in before.nodes}
    for node in after.nodes:
        first = names.setdefault(node.name, node)
        if (first.kind, first.place) != (node.kind, node.place):
            raise ConfigError(
                f"two graphs that are compared must be of one kind, got the node {shown(node.name)} as "
                f"{first.kind} in column {first.place} and as {node.kind} in column {node.place}"
            )
    answers = [sorted(effect.node for effect in graph.effects) for graph in (before, after)]
    if answers[0] != answers[1]:
        raise ConfigError(
            f"two graphs that are compared must have the same answers, got {shown(answers[0])} and "
            f"{shown(answers[1])}: ask both models the same question"
        )
    nodes = sorted(names.values(), key=lambda node: node.place)
    keys = dict.fromkeys((e.source, e.target, e.kind) for g in (before, after) for e in g.edges)
    aligned = []
    for graph in (before, after):
        own = {(e.source, e.target, e.kind): e.contribution for e in graph.edges}
        edges = tuple(
            Edge(source, target, own.get((source, target, kind), 0.0), kind) for source, target, kind in keys
        )
        # What flows into a node need not flow out of it where one of the graphs was pruned.
        pruned = max(before.pruned_below, after.pruned_below)
        statement = f"{graph.statement}; edges that changed by less than {share:.0%} of the largest fade"
        options = {"pruned_below": pruned, "statement": statement}
        aligned.append(replace(graph, nodes=tuple(nodes), edges=edges, **options))
    largest = max((abs(e.contribution) for g in aligned for e in g.edges), default=0.0)
    marked = frozenset(
        (old.source, old.target)
        for old, new in zip(aligned[0].edges, aligned[1].edges, strict=True)
        if largest and abs(new.contribution - old.contribution) >= share * largest
    )
    return GraphChange(aligned[0], aligned[1], marked, share)
