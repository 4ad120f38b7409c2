"""Pruning by search: from all edges down, each measured anew after every cut, then by exchanges."""

from __future__ import annotations

import numpy as np

from ocr_interp.discovery.finding.removal import least_needed, without
from ocr_interp.discovery.paths import live
from ocr_interp.discovery.runner import CircuitRunner, Mask

ROUND, EXCHANGES = 0.2, 50
"""Share, of the edges that are still to go, that goes in a round (at least one edge), and most exchanges."""


def searched(runner: CircuitRunner, size: int) -> Mask:
    """The circuit that backward elimination from all edges and exchanges find; it has at most `size` edges.

    It asks ACDC's question, what is lost without an edge, but of every edge after every cut, and cuts those
    that lose least. Then the edge from outside that adds most comes in, and the edge that loses least goes,
    as long as faithfulness grows and is below 1. A dead end of single exchanges is not left.

    Args:
        runner: measures circuits.
        size: most edges.

    Source: after Conmy et al. 2023 (arXiv 2304.14997); stepwise selection.
    """
    nodes = runner.stream.nodes
    mask = live(nodes, nodes.allowed, runner.at_query)
    while (excess := int(mask.sum()) - size) > 0:
        places = np.argwhere(mask)
        order = least_needed(runner, mask, places)
        mask = live(nodes, without(mask, places[order[: max(1, int(ROUND * excess))]]), runner.at_query)
    best = float(runner.faithfulness([mask])[0])
    for _ in range(EXCHANGES):
        if best >= 1:
            break
        outside = np.argwhere(nodes.allowed & ~mask)
        if not len(outside):
            break
        larger = [_with(mask, place) for place in outside]
        tried = larger[int(runner.faithfulness(larger).argmax())]
        if int(tried.sum()) > size:
            inside = np.argwhere(tried)
            tried = without(tried, inside[least_needed(runner, tried, inside)[:1]])
        tried = live(nodes, tried, runner.at_query)
        found = float(runner.faithfulness([tried])[0])
        if not found > best:
            break
        mask, best = tried, found
    return mask


def _with(mask: Mask, place: np.ndarray) -> Mask:
    found = mask.copy()
    found[tuple(place)] = True
    return found
