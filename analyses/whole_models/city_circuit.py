"""SmolLM2-135M's circuit from city to language: of the top edges, of the top nodes, and random ones, by size.

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
from analyses.whole_models.city_circuit_criteria import (
    FAITHFUL,
    MOST_NODES,
    NODES_FAITHFUL,
    NODES_RANDOM_FAITHFUL,
    RANDOM,
    RANDOM_FAITHFUL,
    SHARE,
)
from ocr_interp.viz.style import current_style, figure_style, save_figure

RESULT = Path(__file__).resolve().parents[1] / "results" / "circuits" / "city_circuit.json"
PICTURE = "circuit_city_sizes"
WAYS = {"found on": "the 8 cities they were found on", "others": "8 other cities"}
NODE_WAYS = (*WAYS, "other name")


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
        "of nodes": list(content["of nodes"]["sizes"].values()),
    }
    return {"title": _title(found)} | found


def _title(found: dict[str, Any]) -> str:
    edges = max(found["edges"])
    best = max(found["others"])
    enough = _smallest_of_nodes(found["of nodes"])
    if enough is None:
        return f"City to language in SmolLM2: the top {edges:,} edges carry {best:.2f} of it"
    return (
        f"City to language in SmolLM2: {enough['nodes']} of 300 heads and MLPs carry "
        f"{enough['others']:.2f} of it,\nthe top {edges:,} edges {best:.2f}"
    )


def _smallest_of_nodes(sizes: list[dict[str, Any]]) -> dict[str, Any] | None:
    faithful = [one for one in sizes if min(one[name] for name in NODE_WAYS) >= NODES_FAITHFUL]
    return min(faithful, key=lambda one: one["nodes"], default=None)


def draw(runs: Path, figures: Path) -> dict[str, Any]:
    """Draws both curves and every random circuit; nothing before the run has left its JSON."""
    if not RESULT.is_file():
        return {}
    found = measured(json.loads(RESULT.read_text(encoding="utf-8")))
    style = current_style()
    with figure_style():
        fig, ax = plt.subplots(figsize=(6.6, 3.4), layout="constrained")
        nodes, size = found["of nodes"], {"ms": 4, "lw": 1.4}
        for name, label in WAYS.items():
            marker, color = "o-" if name == "others" else "o--", style.colour(0)
            alpha = 1.0 if name == "others" else 0.55
            at = [one["edges"] for one in nodes]
            values = [one[name] for one in nodes]
            ax.plot(at, values, marker, color=color, alpha=alpha, label=f"top nodes, {label}", **size)
            color = style.colour(1)
            ax.plot(
                found["edges"],
                found[name],
                marker,
                color=color,
                alpha=alpha,
                label=f"top edges, {label}",
                **size,
            )
        for one in nodes:
            if one["nodes"] in (5, 20, 80):
                ax.annotate(
                    f"{one['nodes']} nodes", (one["edges"], one["others"]), xytext=(-5, 5),
                    textcoords="offset points", ha="right", fontsize=7.5,
                )  # fmt: skip
        drawn = [
            (edges, value)
            for edges, random in zip(found["edges"], found["random"], strict=True)
            for values in random.values()
            for value in values
        ]
        drawn += [
            (one["edges"], value) for one in nodes for v in one.get("random", {}).values() for value in v
        ]
        if drawn:
            ax.plot(*np.array(drawn).T, ".", color=style.neutral, ms=4, label="random ones as large")
        ax.axhline(FAITHFUL, color="0.3", ls=":", lw=1)
        ax.axvline(SHARE * found["n_edges"], color="0.3", ls=":", lw=1)
        ax.set(xscale="log", xlabel="edges of the circuit", ylabel="faithfulness", ylim=(-0.1, 1.05))
        ax.set_xticks([2, 10, 100, 1000, 10000], ["2", "10", "100", "1,000", "10,000"])
        ax.minorticks_off()
        ax.annotate(
            "a tenth\nof all", (SHARE * found["n_edges"], 0.6), xytext=(3, 0), textcoords="offset points",
            fontsize=7.5, va="center",
        )  # fmt: skip
        ax.set_title(found["title"], loc="left", fontsize=10)
        ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0.0, 0.79))
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
    nodes = found["of nodes"]
    few = max((one for one in nodes if one["nodes"] <= MOST_NODES), key=lambda one: one["nodes"])
    enough = _smallest_of_nodes(nodes)
    drawn = {} if enough is None else {k: float(np.mean(v)) for k, v in enough["random"].items()}
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
        Claim(
            "city_circuit_nodes",
            f"SmolLM2-135M from city to language: {MOST_NODES} of 300 heads and MLPs carry it, on other "
            "cities and with another name too",
            source,
            f"faithfulness at least {NODES_FAITHFUL:g} with at most {MOST_NODES} heads and MLPs on 8 cities "
            "that they were found on, on 8 others and on these with another name",
            {name: round(few[name], 3) for name in ("nodes", "edges", *NODE_WAYS)}
            | {"smallest that has it": 0 if enough is None else enough["nodes"]},
            0.0,
            enough is not None and enough["nodes"] <= MOST_NODES,
            PICTURE,
        ),
        Claim(
            "city_circuit_random_nodes",
            "SmolLM2-135M from city to language: as many random heads and MLPs carry little of it",
            source,
            "mean faithfulness of random sets of as many heads and MLPs as the smallest circuit of nodes "
            f"that has {NODES_FAITHFUL:g} at most {NODES_RANDOM_FAITHFUL:g}",
            drawn or {"sets": 0},
            0.0,
            bool(drawn) and max(drawn.values()) <= NODES_RANDOM_FAITHFUL,
            PICTURE,
        ),
    ]


FIGURE = Figure(pictures=(PICTURE,), draw=draw, claims=claims)


if __name__ == "__main__":
    main()
