"""`find_circuit`: edge attribution, then pruned to a size or to a faithfulness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ocr_interp.checks import check_choice, check_count, check_number
from ocr_interp.discovery.attribution import attribute_edges
from ocr_interp.discovery.circuit import OF, Circuit
from ocr_interp.discovery.contrast import Contrast
from ocr_interp.discovery.finding.removal import removed
from ocr_interp.discovery.finding.search import searched
from ocr_interp.discovery.paths import differs_at_query
from ocr_interp.discovery.runner import CircuitRunner
from ocr_interp.discovery.scores import EdgeScores
from ocr_interp.errors import ConfigError
from ocr_interp.stream.checks import fingerprint

PRUNING = ("scores", "removal", "search")
"""How edges are chosen: the largest scores; from the largest scores of POOL times the size, by removing in
rounds the edges without which real ablation loses least; or so from all edges, in small rounds, and then by
exchanges of single edges."""

POOL = 4
"""Edges that removal starts from, as a multiple of the size."""


def find_circuit(
    model: Any,
    contrast: Contrast,
    *,
    size: int | None = None,
    faithfulness: float | None = None,
    of: str = "edges",
    pruning: str = "scores",
    steps: int | None = 5,
    ablation: str = "donor",
    seed: int = 0,
    scores: EdgeScores | None = None,
) -> Circuit:
    """The circuit of the top edges by |score|, each on a path that carries a difference to the logits.

    Paths know positions: where prompts and donors have the same token at the query, only paths through keys
    or values of a head count, since nothing else brings what differs to the query.

    Args:
        model: a HookedTransformer, TransformerBridge or PeftModel.
        contrast: prompts, donors, answers and measure.
        size: at most so many edges, or heads and MLPs; or
        faithfulness: at least this, above 0 and at most 1, measured by real ablation of all other edges.
            Sizes are doubled until one has it, and then bisected; a smaller size may have it too, since
            faithfulness does not always grow with size.
        of: "edges", or "nodes": heads and MLPs with all edges among them, ranked by the sums of their edges'
            scores. In a large model what a head brings spreads over thousands of edges, so that a circuit
            of few nodes is found where one of few edges is not.
        pruning: an entry of PRUNING; of nodes "scores" alone. "removal" measures every edge that is left in
            every round, so it is for circuits of some hundred edges; with a faithfulness it goes on from the
            circuit of the scores. "search" does so from all edges of the model, for models of some hundred
            edges, and takes a size.
        steps: of the integrated gradients; None is plain EAP.
        ablation: what an edge outside carries, an entry of `runner.ABLATIONS`.
        seed: of "resample".
        scores: of this model on this contrast, if they were computed before.

    Raises:
        ConfigError: neither or both of size and faithfulness, a faithfulness outside of (0, 1], a size that
            no path fits in, no difference between prompts and donors, or scores of another model, of another
            ablation or of donors that differ elsewhere.
    """
    if (size is None) == (faithfulness is None):
        raise ConfigError("find_circuit needs either size or faithfulness: pass size=20 or faithfulness=0.9")
    check_choice("pruning", pruning, PRUNING)
    check_choice("of", of, OF)
    if of == "nodes" and pruning != "scores":
        raise ConfigError(f"circuits of nodes are pruned by 'scores', got {pruning!r}: pass of='edges'")
    if faithfulness is not None:
        check_number("faithfulness", faithfulness, above=0.0, at_most=1.0)
        if pruning == "search":
            raise ConfigError(
                "pruning 'search' takes a size, got a faithfulness: pass size=20, or pruning='removal'"
            )
    if scores is None:
        scores = attribute_edges(model, contrast, steps=steps, ablation=ablation, seed=seed)
    else:
        _check_scores(scores, model, contrast, ablation, seed)
    if size is not None:
        check_count("size", size, 1, scores.most(of))
        if pruning == "scores":
            return _with_paths(scores.circuit(size, of), size)
    runner = CircuitRunner(model, contrast, ablation, seed)
    if size is not None:
        if pruning == "search":
            mask = searched(runner, size)
        else:
            start = scores.circuit(min(POOL * size, scores.nodes.n_edges))
            mask = removed(runner, start.mask, size)
        return _with_paths(_renamed(scores.with_edges(mask), pruning), size)
    assert faithfulness is not None
    found = _faithful(runner, scores, faithfulness, of)
    if pruning == "scores":
        return found
    return _renamed(scores.with_edges(removed(runner, found.mask, 0, faithfulness)), pruning)


def _check_scores(scores: EdgeScores, model: Any, contrast: Contrast, ablation: str, seed: int) -> None:
    """Requires scores of this model, of this ablation and of prompts and donors that differ as these do."""
    found = fingerprint(model)
    if scores.fingerprint != found:
        raise ConfigError(
            f"scores must be of this model, weights {found}, got those of {scores.model or 'a model'}, "
            f"weights {scores.fingerprint}: leave scores out"
        )
    if scores.ablation != ablation:
        raise ConfigError(
            f"scores must be of the same ablation, {ablation!r}, got {scores.ablation!r}: pass "
            f"ablation={scores.ablation!r}, or leave scores out"
        )
    if scores.at_query != differs_at_query(contrast, ablation, seed):
        raise ConfigError(
            "scores must be of prompts and donors that differ at the query as these do, got those of others: "
            "leave scores out"
        )


def _renamed(circuit: Circuit, pruning: str) -> Circuit:
    return replace(circuit, method=f"{circuit.method}; pruned by {pruning}")


def _with_paths(circuit: Circuit, size: int) -> Circuit:
    if not len(circuit):
        raise ConfigError(
            f"size must leave room for a path from what differs to the logits, got {size}: the top "
            f"{circuit.of} have none as short; take a larger size"
        )
    return circuit


def _faithful(runner: CircuitRunner, scores: EdgeScores, least: float, of: str) -> Circuit:
    """The smallest of the sizes tried; all edges together have 1, so one always is."""
    most = scores.most(of)

    def enough(size: int) -> bool:
        return float(runner.faithfulness([scores.circuit(size, of).mask])[0]) >= least

    high = 1
    while high < most and not enough(high):
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return scores.circuit(high, of)
