"""Circuits of nodes: some heads and MLPs, with all edges among them, the input and the logits."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int

from ocr_interp.discovery.paths import live
from ocr_interp.stream.nodes import INPUT, StreamNodes


def edges_among(
    nodes: StreamNodes, kept: Iterable[int] | np.ndarray, at_query: bool = True
) -> Bool[np.ndarray, "writer reader"]:
    """All edges among some writers, the input and the logits that can carry a difference to the logits.

    With all other edges ablated, what every other head and MLP writes is ablated wherever it is read.

    Args:
        nodes: of the model.
        kept: indices of the writers; the input is always kept.
        at_query: as for `paths.live`.
    """
    writers = np.array(sorted({0, *map(int, kept)}))
    readers = {len(nodes.readers) - 1}
    for writer in writers:
        readers.update(nodes.nodes_reading(nodes.writers[writer]))
    mask = np.zeros_like(nodes.allowed)
    mask[np.ix_(writers, np.array(sorted(readers)))] = True
    return live(nodes, mask, at_query)


def top_nodes(scores: Float[np.ndarray, " writer"], count: int) -> Int[np.ndarray, " kept"]:
    """Indices of the heads and MLPs with the largest scores by size; of equal ones the first is first."""
    return 1 + np.argsort(-np.abs(scores[1:]), kind="stable")[:count]


def random_nodes(
    nodes: StreamNodes, kept: Iterable[int] | np.ndarray, rng: np.random.Generator
) -> Int[np.ndarray, " kept"]:
    """As many random heads and as many random MLPs, uniform over all such sets."""
    is_head = np.array(["." in name for name in nodes.writers])
    is_mlp = ~is_head & (np.array(nodes.writers) != INPUT)
    chosen = np.array(sorted({int(k) for k in kept} - {0}), dtype=int)
    drawn = [rng.permutation(np.flatnonzero(kind))[: int(kind[chosen].sum())] for kind in (is_head, is_mlp)]
    return np.concatenate(drawn)
