"""SmolLM2-135M's circuit from city to language: faithfulness by its number of edges, beside random circuits.

Drawn from the JSON of `analyses.whole_models.city_circuit_run`; no model is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.whole_models.city_circuit_criteria import FAITHFUL, RANDOM, RANDOM_FAITHFUL, SHARE
from ocr_interp.viz.style import current_style, figure_style, save_figure

RESULT = Path(__file__).resolve().parents[1] / "results" / "circuits" / "city_circuit.json"
PICTURE = "circuit_city_sizes"
WAYS = {"found on": "the 8 cities it was found on", "others": "8 other cities"}


def measured(content: dict[str, Any]) -> dict[str, Any]:
    """What is drawn, and the smallest circuit that is faithful on both sets of cities."""
    sizes = list(content["sizes"].values())
    n_edges = content["n_edges"]
    faithful = [one for one in sizes if min(one[name] for name in WAYS) >= FAITHFUL]
    smallest = min(faithful, key=lambda one: one["edges"], default=None)
    found = {
        "n_edges": n_edges,
        "edges": [one["edges"] for one in sizes],
        "heads": [one["heads"] for one in sizes],
        **{name: [one[name] for one in sizes] for name in WAYS},
        "random": [one.get("random", {}) for one in sizes],
        "smallest": smallest,
        "measure": {"found on": [content["full"], content["empty"]], "others": content["measure of others"]},
        "method": content["method"],
    }
    return {"title": _title(found)} | found


def _title(found: dict[str, Any]) -> str:
    if found["smallest"] is None:
        best = max(found["others"])
        most = max(found["edges"])
        return f"City to language in SmolLM2: the top {most:,} edges carry {best:.2f} of it, not {FAITHFUL:g}"
    edges = found["smallest"]["edges"]
    return f"{edges:,} of {found['n_edges']:,} edges carry city to language in SmolLM2"


def draw(runs: Path, figures: Path) -> dict[str, Any]:
    """Draws both curves and every random circuit; nothing before the run has left its JSON."""
    if not RESULT.is_file():
        return {}
    found = measured(json.loads(RESULT.read_text(encoding="utf-8")))
    style = current_style()
    with figure_style():
        fig, ax = plt.subplots(figsize=(6.6, 3.4), layout="constrained")
        for k, (name, label) in enumerate(WAYS.items()):
            ax.plot(found["edges"], found[name], "o-", color=style.colour(k), ms=4, lw=1.4, label=label)
        drawn = [
            (edges, value)
            for edges, random in zip(found["edges"], found["random"], strict=True)
            for values in random.values()
            for value in values
        ]
        if drawn:
            ax.plot(*np.array(drawn).T, ".", color=style.neutral, ms=4, label="random circuits as large")
        ax.axhline(FAITHFUL, color="0.3", ls=":", lw=1)
        ax.axvline(SHARE * found["n_edges"], color="0.3", ls=":", lw=1)
        ax.set(xscale="log", xlabel="edges of the circuit", ylabel="faithfulness", ylim=(-0.1, 1.05))
        ax.set_xticks([2, 10, 100, 1000, 10000], ["2", "10", "100", "1,000", "10,000"])
        ax.minorticks_off()
        ax.annotate(
            "a tenth of all",
            (SHARE * found["n_edges"], 0.95),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
        ax.set_title(found["title"], loc="left", fontsize=10)
        ax.legend(frameon=False, fontsize=8.5, loc="center left")
        save_figure(fig, figures / PICTURE, found)
        plt.close(fig)
    return found


def claims(found: dict[str, Any]) -> list[Claim]:
    """The criteria, which were written down before the run."""
    if not found:
        return []
    smallest, source = found["smallest"], "this library; EAP-IG, Hanna et al. 2024"
    random = {} if smallest is None else smallest.get("random", {})
    means = {name: float(np.mean(values)) for name, values in random.items()}
    shown = {} if smallest is None else {name: smallest[name] for name in ("edges", "heads", *WAYS)}
    best = {f"largest, {name}": max(found[name]) for name in WAYS}
    return [
        Claim(
            "city_circuit_faithful",
            "SmolLM2-135M from city to language: a tenth of the edges carries it, on other cities too",
            source,
            f"faithfulness at least {FAITHFUL:g} on 8 cities that it was found on and on 8 others, with at "
            f"most {SHARE:.0%} of {found['n_edges']:,} edges",
            {**shown, **best},
            0.0,
            smallest is not None and smallest["edges"] <= SHARE * found["n_edges"],
            PICTURE,
        ),
        Claim(
            "city_circuit_random",
            "SmolLM2-135M from city to language: random circuits as large carry little of it",
            source,
            f"mean faithfulness of {RANDOM} random circuits of each kind at most {RANDOM_FAITHFUL:g}",
            means or {"circuits": 0},
            0.0,
            bool(means) and max(means.values()) <= RANDOM_FAITHFUL,
            PICTURE,
        ),
    ]


FIGURE = Figure(pictures=(PICTURE,), draw=draw, claims=claims)


if __name__ == "__main__":
    main()
