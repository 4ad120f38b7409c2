"""Pruning by removal: edges without which real ablation loses least go, in rounds."""

from __future__ import annotations

import numpy as np

from ocr_interp.discovery.paths import live
from ocr_interp.discovery.runner import CircuitRunner, Mask

ROUND = 0.15
"""Share of the edges removed in a round; at least one edge is."""


def removed(runner: CircuitRunner, mask: Mask, size: int, least: float | None = None) -> Mask:
    """The edges that are left when those that lose least are removed, down to a size or a faithfulness.

    Args:
        runner: measures circuits.
        mask: edges to start from.
        size: at most so many edges are left.
        least: faithfulness that is left at least; None for any.
    """
    nodes, share = runner.stream.nodes, ROUND
    mask = live(nodes, mask, runner.at_query)
    while int(mask.sum()) > size:
        places = np.argwhere(mask)
        order = least_needed(runner, mask, places)
        count = min(len(places) - size, max(1, int(share * len(places))))
        while True:
            tried = live(nodes, without(mask, places[order[:count]]), runner.at_query)
            if least is None or float(runner.faithfulness([tried])[0]) >= least:
                mask, share = tried, min(share, count / len(places)) if least is not None else share
                break
            if count == 1:
                return mask
            count //= 2
    return mask


def least_needed(runner: CircuitRunner, mask: Mask, places: np.ndarray) -> np.ndarray:
    """The order of the edges at some places by the faithfulness of the mask without each, largest first."""
    smaller = [without(mask, places[k : k + 1]) for k in range(len(places))]
    return np.argsort(-runner.faithfulness(smaller), kind="stable")


def without(mask: Mask, places: np.ndarray) -> Mask:
    """A mask without the edges at some places [edge, (writer, reader)]."""
    found = mask.copy()
    found[places[:, 0], places[:, 1]] = False
    return found
