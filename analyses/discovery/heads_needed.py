"""Induction by heads: how many of 16 a model needs, and what is lost without each.

Made after the circuits of a tenth of the edges had fallen short in seeds 2 and 3 (`induction`), to explain
that; so it judges no claim. Circuits of heads keep all edges among them. Both seeds need eight or nine heads
for 0.9, the other three five or six: their job is spread over more heads, and a tenth of the edges is too few
to hold these. Faithfulness and falls are of real ablation on prompts that none was found on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure as Picture

from analyses.discovery.criteria import FAITHFUL, PROMPT_SEED, SEEDS, SHARE, STEPS
from analyses.discovery.kept import kept, model_of
from analyses.discovery.measuring import OTHER_SEED, contrast_of
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from ocr_interp.discovery import attribute_edges
from ocr_interp.discovery.node_sets import edges_among
from ocr_interp.discovery.runner import CircuitRunner
from ocr_interp.viz.style import current_style

PICTURE = "discovery_heads_needed"
SHORT = (2, 3)
"""Seeds whose circuits of a tenth of the edges stay below 0.9, whatever the pruning."""


def measured(seed: int, runs: Path) -> dict[str, Any]:
    """One seed: what is lost without each head, and the faithfulness of the top heads by their number."""
    model = model_of(seed, runs)
    scores = attribute_edges(model, contrast_of(model, PROMPT_SEED), steps=STEPS)
    runner, nodes = CircuitRunner(model, contrast_of(model, OTHER_SEED)), scores.nodes
    every = range(1, len(nodes.writers))
    without = [edges_among(nodes, [k for k in every if k != one], runner.at_query) for one in every]
    falls = 1 - runner.faithfulness(without)
    circuits = [scores.circuit(size, of="nodes") for size in every]
    values = runner.faithfulness([circuit.mask for circuit in circuits])
    return {
        "seed": seed,
        "falls": dict(zip(nodes.writers[1:], falls.tolist(), strict=True)),
        "faithfulness": values.tolist(),
        "edges": [len(circuit) for circuit in circuits],
        "n_edges": nodes.n_edges,
        "needed": next(size for size, value in zip(every, values, strict=True) if value >= FAITHFUL),
    }


def make(runs: Path, figures: Path) -> dict[str, Any]:
    """Measures every seed and draws the curves."""
    sources = ("criteria", "measuring", "heads_needed")
    folder = runs / "discovery"
    found = {
        "seeds": [
            kept(folder / f"heads_{seed}.json", sources, lambda seed=seed: measured(seed, runs))
            for seed in SEEDS
        ]
    }
    DRAWING.write(figures / PICTURE, found)
    return found


def picture(numbers: dict[str, Any]) -> Picture:
    """Faithfulness by the number of heads; beside it what is lost without each head, the largest first."""
    style = current_style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.0), layout="constrained")
    for one in numbers["seeds"]:
        short = one["seed"] in SHORT
        line: dict[str, Any] = {"color": style.colour(int(short)), "lw": 1.3, "ms": 3.5}
        label = None
        if one["seed"] in (0, SHORT[0]):
            label = f"seeds {SHORT[0]} and {SHORT[1]}" if short else "seeds 0, 1 and 4"
        left.plot(range(1, len(one["faithfulness"]) + 1), one["faithfulness"], "o-", label=label, **line)
        falls = sorted(one["falls"].values(), reverse=True)
        right.plot(range(1, len(falls) + 1), falls, "o-", **line)
    left.axhline(FAITHFUL, color="0.3", ls=":", lw=1)
    left.set(xlabel="heads kept, of 16", ylabel="faithfulness", ylim=(-0.05, 1.05))
    left.legend(frameon=False, loc="lower right")
    for ax in (left, right):
        ax.set_xticks([1, 4, 8, 12, 16])
    right.set(xlabel="heads, the most needed first", ylabel="share lost without it")
    return fig


def sentence(numbers: dict[str, Any]) -> str:
    """Whether the seeds that fall short need more heads than all others, and how many both need."""
    short, others = (
        sorted(one["needed"] for one in numbers["seeds"] if (one["seed"] in SHORT) == is_short)
        for is_short in (True, False)
    )
    if min(short) <= max(others):
        return f"How many of 16 heads induction needs for a faithfulness of {FAITHFUL:g}, in every seed"
    return (
        f"Where {SHARE:.0%} of the edges fall short, induction is spread over {short[0]} to {short[-1]} "
        f"heads, elsewhere over {others[0]} to {others[-1]}"
    )


DRAWING = Drawing(sentence, picture)
FIGURE = Figure(pictures=(PICTURE,), draw=make, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
