"""Which edges of a set lie on a path from the input to the logits, and the largest such sets of top edges."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from ocr_interp.stream.nodes import StreamNodes


def live(nodes: StreamNodes, mask: Bool[np.ndarray, "writer reader"]) -> Bool[np.ndarray, "writer reader"]:
    """The edges of a set that lie on a path, within the set, from the input to the logits.

    A head that reads at one of its inputs alone counts as reached; the others are then ablated.
    """
    mask = np.asarray(mask, dtype=bool) & nodes.allowed
    readers_of = [list(nodes.nodes_reading(writer)) for writer in nodes.writers]
    reached = np.zeros(len(nodes.writers), dtype=bool)
    reached[0] = True
    for writer in range(1, len(nodes.writers)):  # in the order in which they write
        reached[writer] = bool((mask[:, readers_of[writer]] & reached[:, None]).any())
    wanted = np.zeros(len(nodes.readers), dtype=bool)
    wanted[-1] = True
    for writer in reversed(range(len(nodes.writers))):
        if (mask[writer] & wanted).any():
            wanted[readers_of[writer]] = True
    return mask & reached[:, None] & wanted[None, :]


def largest_live(
    nodes: StreamNodes, sizes: Float[np.ndarray, "writer reader"], most: int
) -> Bool[np.ndarray, "writer reader"]:
    """The live part of the top edges, with as many top edges as leave at most `most` live ones.

    Edges are ranked by size; of equal ones the first is first. The live part grows with the number of top
    edges, so this number is found by bisection.
    """
    places = np.flatnonzero(nodes.allowed)
    order = places[np.argsort(-sizes.ravel()[places], kind="stable")]

    def of(count: int) -> np.ndarray:
        mask = np.zeros(nodes.allowed.size, dtype=bool)
        mask[order[:count]] = True
        return live(nodes, mask.reshape(nodes.allowed.shape))

    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        if of(middle).sum() <= most:
            low = middle
        else:
            high = middle - 1
    return of(low)
