"""`find_circuit`: edge attribution, then pruned to a size or to a faithfulness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ocr_interp.checks import check_choice, check_count, check_number
from ocr_interp.discovery.attribution import attribute_edges
from ocr_interp.discovery.circuit import Circuit
from ocr_interp.discovery.contrast import Contrast
from ocr_interp.discovery.pruning import live
from ocr_interp.discovery.runner import CircuitRunner, Mask
from ocr_interp.discovery.scores import EdgeScores
from ocr_interp.errors import ConfigError

PRUNING = ("scores", "removal")
"""How edges are chosen: the largest scores; or, from the largest scores of POOL times the size, by removing
in rounds the edges without which real ablation loses least."""

POOL, ROUND = 4, 0.15
"""Edges that removal starts from, as a multiple of the size; and the share of edges removed in a round."""


def find_circuit(
    model: Any,
    contrast: Contrast,
    *,
    size: int | None = None,
    faithfulness: float | None = None,
    pruning: str = "scores",
    steps: int | None = 5,
    ablation: str = "donor",
    seed: int = 0,
    scores: EdgeScores | None = None,
) -> Circuit:
    """The circuit of the top edges by |score|, each on a path from the input to the logits.

    Paths do not know positions. Where prompt and donor have the same last token, a circuit of MLPs alone is
    on such paths and carries nothing: no attention moves what differs to the end. Its faithfulness is then 0
    (`evaluate_circuit`): take a larger size, or ask for a faithfulness.

    Args:
        model: a HookedTransformer, TransformerBridge or PeftModel.
        contrast: prompts, donors, answers and measure.
        size: at most so many edges; or
        faithfulness: at least this, measured by real ablation of all other edges. Sizes are doubled until one
            has it, and then bisected; a smaller size may have it too, since faithfulness does not always grow
            with size.
        pruning: an entry of PRUNING. "removal" measures every edge that is left in every round, so it is for
            circuits of some hundred edges. With a faithfulness it goes on from the circuit of the scores.
        steps: of the integrated gradients; None is plain EAP.
        ablation: what an edge outside carries, an entry of `runner.ABLATIONS`.
        seed: of "resample".
        scores: of this model, if they were computed before.

    Raises:
        ConfigError: neither or both of size and faithfulness, or a faithfulness that no size has.
    """
    if (size is None) == (faithfulness is None):
        raise ConfigError("find_circuit needs either size or faithfulness: pass size=20 or faithfulness=0.9")
    check_choice("pruning", pruning, PRUNING)
    if scores is None:
        scores = attribute_edges(model, contrast, steps=steps, ablation=ablation, seed=seed)
    if size is not None:
        check_count("size", size, 1, scores.nodes.n_edges)
        if pruning == "scores":
            return scores.circuit(size)
    else:
        check_number("faithfulness", faithfulness, above=0.0)
    runner = CircuitRunner(model, contrast, ablation, seed)
    if runner.stream.nodes != scores.nodes:
        raise ConfigError(f"scores must be of this model, got those of {scores.model}")
    if size is not None:
        start = scores.circuit(min(POOL * size, scores.nodes.n_edges))
        return _renamed(scores.with_edges(_removed(runner, start.mask, size, None)))
    assert faithfulness is not None
    found = _faithful(runner, scores, faithfulness)
    if pruning == "scores":
        return found
    return _renamed(scores.with_edges(_removed(runner, found.mask, 0, faithfulness)))


def _renamed(circuit: Circuit) -> Circuit:
    return replace(circuit, method=f"{circuit.method}; pruned by removal")


def _removed(runner: CircuitRunner, mask: Mask, size: int, least: float | None) -> Mask:
    """The edges that are left when those that lose least are removed, down to a size or a faithfulness."""
    nodes, share = runner.stream.nodes, ROUND
    mask = live(nodes, mask)
    while int(mask.sum()) > size:
        places = np.argwhere(mask)
        smaller = [_but(mask, places[k : k + 1]) for k in range(len(places))]
        order = np.argsort(-runner.faithfulness(smaller), kind="stable")
        count = min(len(places) - size, max(1, int(share * len(places))))
        while True:
            tried = live(nodes, _but(mask, places[order[:count]]))
            if least is None or float(runner.faithfulness([tried])[0]) >= least:
                mask, share = tried, min(share, count / len(places)) if least is not None else share
                break
            if count == 1:
                return mask
            count //= 2
    return mask


def _but(mask: Mask, places: np.ndarray) -> Mask:
    found = mask.copy()
    found[places[:, 0], places[:, 1]] = False
    return found


def _faithful(runner: CircuitRunner, scores: EdgeScores, least: float) -> Circuit:
    most, tried = scores.nodes.n_edges, {}

    def enough(size: int) -> bool:
        tried[size] = float(runner.faithfulness([scores.circuit(size).mask])[0])
        return tried[size] >= least

    high = 1
    while not enough(high):
        if high == most:
            raise ConfigError(
                f"faithfulness must be one that some circuit has, got {least:g}; the largest was "
                f"{max(tried.values()):.3f}"
            )
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return scores.circuit(high)
