"""The induction circuit, found without being told which heads: edges by integrated gradients, then pruned.

Two-layer attention-only models, 5 seeds, each trained in this process. Two circuits of a tenth of the edges:
the top edges by |score|; and what is left when edges that lose least are removed from four times as many.
Faithfulness is of real ablation on prompts that neither was found on. Beside it: random circuits of equal
kinds, and connected ones; and the score of every edge against its exact effect.

What failed: two of five seeds stay below 0.9 (they need a fifth of the edges), and the head of layer 1 that
attends most to what follows the last appearance gives it 0.15 of its attention at the query, where heads
differ little; in three seeds it is not in the circuit. Seed 0, looked at afterwards, attends more to what
follows earlier appearances, most of all in a head of its circuit. Ranks of small effects disagree: over all
edges Spearman is 0.66 to 0.80, over those above 1% of the measure 0.84 to 0.95.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import spearmanr

from analyses.circuits import worked_models
from analyses.discovery.criteria import (
    ACCURACY,
    FAITHFUL,
    HEADS,
    PATTERN_SEED,
    PROMPT_SEED,
    PROMPTS,
    RANDOM_CIRCUITS,
    RANDOM_FAITHFUL,
    RANK_CORRELATION,
    SEEDS,
    SHARE,
    STEPS,
    TOP,
    TOP_SHARED,
)
from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from ocr_interp.discovery import (
    Contrast,
    EdgeScores,
    attribute_edges,
    evaluate_circuit,
    faithfulness_of,
    find_circuit,
    patch_every_edge,
)
from ocr_interp.viz.style import figure_style, save_figure

PICTURE = "discovery_induction"
OTHER_SEED = PROMPT_SEED + 1
"""Of the prompts that circuits are judged on."""

WAYS = {"scores": "top edges by |score|", "removal": "pruned by removal"}
COLORS = {"scores": "#0173b2", "removal": "#029e73"}
SIZES = (5, 8, 12, 16, 20, 25, 32, 40, 50, 64, 90, 128, 180, 257)


@dataclass(frozen=True)
class Found:
    """One seed.

    Attributes:
        accuracy: of the model.
        heads: the previous-token head and the induction head, from attention patterns.
        attention: how much they attend there.
        edges: way -> the circuit's edges.
        faithfulness, completeness, needed: way -> of this circuit.
        random: way -> control -> faithfulness of each random circuit.
        curve: faithfulness of the top edges of each size in SIZES, by score.
        rank_correlation, shared: scores against exact effects: over all edges, and of the largest.
        large_rank_correlation: over the edges whose exact effect is at least 1% of the measure.
    """

    seed: int
    accuracy: float
    heads: tuple[str, str]
    attention: tuple[float, float]
    n_edges: int
    edges: dict[str, list[str]]
    faithfulness: dict[str, float]
    completeness: dict[str, float]
    needed: dict[str, float]
    random: dict[str, dict[str, list[float]]]
    curve: list[float]
    rank_correlation: float
    shared: int
    large_rank_correlation: float


def models() -> Any:
    """The module that trains the models; tests use the same ones."""
    return worked_models


def contrast_of(model: Any, seed: int) -> Contrast:
    """Repeated random tokens, other ones as donors, and what comes next."""
    batch, generator = models().induction_batch, torch.Generator().manual_seed(seed)
    tokens, donors = (batch(PROMPTS, generator)[0] for _ in range(2))
    return Contrast.of(model, tokens[:, :-1], donors[:, :-1], tokens[:, -1])


def heads_by_pattern(model: Any) -> tuple[tuple[str, str], tuple[float, float]]:
    """The previous-token head and the induction head, from attention patterns alone (see HEADS)."""
    tokens, periods = models().induction_batch(PROMPTS, torch.Generator().manual_seed(PATTERN_SEED))
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in (0, 1)]
    tokens = tokens[:, :-1]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=names)
    before = cache[names[0]].diagonal(offset=-1, dim1=2, dim2=3).mean((0, 2))
    last = tokens.shape[1] - 1
    after = (last + 1 - periods)[:, None, None].expand(-1, cache[names[1]].shape[1], 1)
    induced = cache[names[1]][:, :, last].gather(2, after)[:, :, 0].mean(0)
    chosen = int(before.argmax()), int(induced.argmax())
    return (f"a0.h{chosen[0]}", f"a1.h{chosen[1]}"), (float(before.max()), float(induced.max()))


def measure(seed: int) -> Found:
    """Trains a model, finds its circuits and measures them."""
    model = models().induction_model(seed)
    contrast, others = contrast_of(model, PROMPT_SEED), contrast_of(model, OTHER_SEED)
    scores = attribute_edges(model, contrast, steps=STEPS)
    size = int(SHARE * scores.nodes.n_edges)
    circuits = {way: find_circuit(model, contrast, size=size, pruning=way, scores=scores) for way in WAYS}
    judged = {
        way: evaluate_circuit(model, circuit, others, random_circuits=RANDOM_CIRCUITS, seed=seed)
        for way, circuit in circuits.items()
    }
    exact = patch_every_edge(model, contrast)
    heads, attention = heads_by_pattern(model)
    curve = faithfulness_of(model, [scores.circuit(min(n, scores.nodes.n_edges)) for n in SIZES], others)
    all_edges, large = agreement(scores, exact)
    return Found(
        seed=seed,
        accuracy=float(models().induction_accuracy(model)),
        heads=heads,
        attention=attention,
        n_edges=scores.nodes.n_edges,
        edges={way: list(circuit.edges) for way, circuit in circuits.items()},
        faithfulness={way: one.faithfulness for way, one in judged.items()},
        completeness={way: one.completeness for way, one in judged.items()},
        needed={way: one.minimality() for way, one in judged.items()},
        random={way: {k: v.tolist() for k, v in one.random.items()} for way, one in judged.items()},
        curve=curve.tolist(),
        rank_correlation=all_edges,
        shared=len(set(scores.table()["edge"][:TOP]) & set(exact.table()["edge"][:TOP])),
        large_rank_correlation=large,
    )


def agreement(scores: EdgeScores, exact: EdgeScores) -> tuple[float, float]:
    """Spearman's correlation over all edges, and over those with an exact effect of 1% of the measure."""
    ours, theirs = scores.scores[scores.nodes.allowed], exact.scores[scores.nodes.allowed]
    large = np.abs(theirs) >= 0.01 * abs(exact.full - exact.empty)
    every, of_large = spearmanr(ours, theirs), spearmanr(ours[large], theirs[large])
    return float(cast(Any, every).statistic), float(cast(Any, of_large).statistic)


def make(runs: Path, figures: Path) -> list[Found]:
    found = [measure(seed) for seed in SEEDS]
    with figure_style():
        fig, ax = plt.subplots(figsize=(6.6, 3.6), layout="constrained")
        for k, one in enumerate(found):
            share = [min(n, one.n_edges) / one.n_edges for n in SIZES]
            label = "top edges by |score|, 5 seeds" if not k else None
            ax.plot(share, one.curve, color=COLORS["scores"], lw=1.1, alpha=0.75, label=label)
            label = "pruned by removal" if not k else None
            size = len(one.edges["removal"]) / one.n_edges
            ax.plot(size, one.faithfulness["removal"], "o", color=COLORS["removal"], ms=5, label=label)
            drawn = [value for values in one.random["removal"].values() for value in values]
            label = "random circuits" if not k else None
            ax.plot([size] * len(drawn), drawn, ".", color="0.45", ms=3, label=label)
        ax.axhline(FAITHFUL, color="0.3", ls=":", lw=1)
        ax.axvline(SHARE, color="0.3", ls=":", lw=1)
        ax.set(xscale="log", xlabel="share of the model's edges", ylabel="faithfulness", ylim=(-0.12, 1.1))
        ax.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5, 1.0], ["2%", "5%", "10%", "20%", "50%", "100%"])
        ax.minorticks_off()
        ax.set_title(
            "A tenth of the edges carries most of induction; random circuits none", loc="left", fontsize=10
        )
        ax.legend(frameon=False, loc="center right", fontsize=8.5)
        save_figure(fig, figures / PICTURE, {"sizes": list(SIZES), "seeds": [asdict(one) for one in found]})
        plt.close(fig)
    return found


def has_heads(one: Found, way: str) -> bool:
    """Whether both heads, and the edge from the first to the keys of the second, are in a circuit."""
    previous, induction = one.heads
    edges = set(one.edges[way])
    writes = {edge.partition("->")[0] for edge in edges}
    return {previous, induction} <= writes and f"{previous}->{induction}<k>" in edges


def claims(found: list[Found]) -> list[Claim]:
    """Heads, faithfulness, controls and agreement, every seed."""
    source = "written before (analyses/discovery/criteria.py)"
    made = []
    for way, words in WAYS.items():
        note = "" if way == "scores" else " (added after the top edges of seed 0 were seen at 0.86)"
        faithful = [one.faithfulness[way] for one in found]
        means = {
            name: [float(np.mean(one.random[way][name])) for one in found] for name in found[0].random[way]
        }
        largest = max(len(one.edges[way]) / one.n_edges for one in found)
        made += [
            Claim(
                id=f"discovery_induction_faithful_{way}",
                statement=f"A tenth of the edges carries induction: {words}{note}",
                source=source,
                expected=f"faithfulness >= {FAITHFUL} on other prompts with at most {SHARE:.0%} of the "
                f"edges, every seed; accuracy >= {ACCURACY}",
                measured={
                    "faithfulness": faithful,
                    "largest_share": largest,
                    "completeness": [one.completeness[way] for one in found],
                    "share_of_edges_needed": [one.needed[way] for one in found],
                    "accuracy": [one.accuracy for one in found],
                },
                tolerance=0.0,
                holds=min(faithful) >= FAITHFUL
                and largest <= SHARE
                and min(one.accuracy for one in found) >= ACCURACY,
                figure=PICTURE,
            ),
            Claim(
                id=f"discovery_induction_heads_{way}",
                statement=f"The circuit holds the previous-token and the induction head: {words}{note}",
                source=source,
                expected=" ".join(HEADS.split()),
                measured={
                    "heads": [list(one.heads) for one in found],
                    "attention": [list(one.attention) for one in found],
                    "in_circuit": [has_heads(one, way) for one in found],
                },
                tolerance=0.0,
                holds=all(has_heads(one, way) for one in found),
                figure=PICTURE,
            ),
            Claim(
                id=f"discovery_induction_random_{way}",
                statement=f"Random circuits of equal kinds, and connected ones, carry none: {words}{note}",
                source=source,
                expected=f"mean of {RANDOM_CIRCUITS} <= {RANDOM_FAITHFUL}, each control and seed",
                measured={name.replace(" ", "_"): values for name, values in means.items()},
                tolerance=0.0,
                holds=all(value <= RANDOM_FAITHFUL for values in means.values() for value in values),
                figure=PICTURE,
            ),
        ]
    ranks, shared = [one.rank_correlation for one in found], [one.shared for one in found]
    made.append(
        Claim(
            id="discovery_induction_scores_exact",
            statement="Integrated gradients rank edges as their exact ablation does",
            source=source,
            expected=f"Spearman >= {RANK_CORRELATION} over all edges and {TOP_SHARED} of the top {TOP} "
            "shared, every seed",
            measured={
                "rank_correlation": ranks,
                "shared_of_top": shared,
                "rank_correlation_of_effects_above_1_percent": [one.large_rank_correlation for one in found],
            },
            tolerance=0.0,
            holds=min(ranks) >= RANK_CORRELATION and min(shared) >= TOP_SHARED,
        )
    )
    return made


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow")


if __name__ == "__main__":
    main()
