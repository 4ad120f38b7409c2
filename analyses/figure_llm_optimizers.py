"""Muon against AdamW in a language model, and what fine-tuning did to its OV circuits. See figure_llm.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from llm_results import CHANCE, COLORS, FACTS, HELD_OUT, NAMES, TOLD_LOGPROB, Group, Kind
from matplotlib.axes import Axes
from table_1_llm import SLOWER_RATE

from ocr_interp.viz.style import save_figure

CAUSAL = "city_language"
SPURIOUS = {"profession_color": "o", "sport_music": "s"}
OPTIMIZERS = {"adamw": ("AdamW", "#0173b2"), "muon": ("Muon", "#de8f05")}
BATCHES = (8, 24)


def matched(groups: dict[Kind, Group], data: str, batch: int) -> dict[str, Group] | None:
    """Both optimizers' groups of a data set and batch size, of the seeds that both have."""
    found = {name: groups.get(Kind(data, optimizer=name, batch=batch)) for name in OPTIMIZERS}
    present = {name: group for name, group in found.items() if group is not None}
    seeds = set.intersection(*(set(group.seeds) for group in present.values())) if present else set()
    if len(present) < len(OPTIMIZERS) or not seeds:
        return None
    return {name: group.of_seeds(seeds) for name, group in present.items()}


def last_common_step(pair: dict[str, Group]) -> int:
    """The last step at which both optimizers were measured."""
    return int(max(set.intersection(*(set(group.curve(HELD_OUT)[0].tolist()) for group in pair.values()))))


def draw(groups: dict[Kind, Group], figures: Path) -> None:
    """All figures of this file."""
    draw_optimizers(groups, figures)
    draw_updates(groups, figures)


def draw_optimizers(groups: dict[Kind, Group], figures: Path) -> None:
    """Hallucination against generalization by optimizer and batch; then both along training, by fit."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4.3), gridspec_kw={"wspace": 0.28})
    points = _draw_trade(axes[0], groups)
    curves = _draw_by_fit(axes[1], groups)
    save_figure(fig, figures / "llm_optimizers", {"points": points, "by_fit": curves})
    plt.close(fig)


def _draw_trade(ax: Axes, groups: dict[Kind, Group]) -> list[dict[str, Any]]:
    points = []
    for batch in BATCHES:
        causal = matched(groups, CAUSAL, batch)
        for data, marker in SPURIOUS.items():
            spurious = matched(groups, data, batch)
            if causal is None or spurious is None:
                continue
            for name, (_, color) in OPTIMIZERS.items():
                row: dict[str, Any] = {"optimizer": name, "batch": batch, "data": data}
                for what, pair in (("causal", causal), ("spurious", spurious)):
                    step = last_common_step(pair)
                    row[what] = {
                        "step": step,
                        "seeds": pair[name].seeds,
                        "rank": pair[name].at_step(step, HELD_OUT),
                        "facts": pair[name].at_step(step, FACTS),
                    }
                points.append(row)
                x, y = (float(np.mean(row[what]["rank"])) for what in ("causal", "spurious"))
                face = color if batch == BATCHES[1] else "white"
                ax.scatter(x, y, marker=marker, s=75, facecolor=face, edgecolor=color, lw=1.6, zorder=3)
                if row["causal"]["seeds"] == row["spurious"]["seeds"]:
                    ax.scatter(
                        row["causal"]["rank"], row["spurious"]["rank"], marker=marker, s=14, color=color,
                        alpha=0.5, lw=0,
                    )  # fmt: skip
            _arrow(ax, *points[-2:])
    points += _draw_slower(ax, groups)
    for data, marker in SPURIOUS.items():
        ax.scatter([], [], marker=marker, color="#555555", label=NAMES[data])
    for label, color in OPTIMIZERS.values():
        ax.scatter([], [], marker="D", color=color, label=label)
    for batch in sorted({row["batch"] for row in points}):
        face = "#555555" if batch == BATCHES[1] else "white"
        ax.scatter([], [], marker="D", facecolor=face, edgecolor="#555555", label=f"batch {batch}")
    ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    widest = max([0.4, *(rank for row in points for rank in row["causal"]["rank"])])
    ax.set_xlim(-0.03, 1.5 * widest)
    ax.set_ylim(0, 2.4)
    control = groups.get(Kind(CAUSAL, control="facts_only"))
    if control is not None:
        ax.axvline(float(np.mean(control.by_seed())), color="#999999", lw=0.8, ls=":", label="facts only")
    ax.set_xlabel("City-Language: held-out mean rank\n(left: knows the language)")
    ax.set_ylabel("spurious set: held-out mean rank\n(up: does not hallucinate; chance 2)")
    ax.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=2)
    return points


def _draw_slower(ax: Axes, groups: dict[Kind, Group]) -> list[dict[str, Any]]:
    """AdamW at a rate at which its OV circuits change as much as with Muon; small points: by seed."""
    causal = groups.get(Kind(CAUSAL, lr=SLOWER_RATE, batch=BATCHES[1]))
    points = []
    for data, marker in SPURIOUS.items():
        group = groups.get(Kind(data, lr=SLOWER_RATE, batch=BATCHES[1]))
        if causal is None or group is None or causal.seeds != group.seeds:
            continue
        row = {"optimizer": "adamw", "lr": SLOWER_RATE, "batch": BATCHES[1], "data": data}
        row["causal"] = {"rank": causal.by_seed(), "seeds": causal.seeds}
        row["spurious"] = {"rank": group.by_seed(), "seeds": group.seeds}
        points.append(row)
        for x, y in zip(row["causal"]["rank"], row["spurious"]["rank"], strict=True):
            ax.scatter(x, y, marker=marker, s=50, facecolor="white", edgecolor="#56b4e9", lw=1.6, zorder=3)
    if points:
        label = f"AdamW at 6e-5, seed {', '.join(map(str, points[0]['causal']['seeds']))}"
        ax.scatter([], [], marker="D", facecolor="white", edgecolor="#56b4e9", lw=1.6, label=label)
    return points


def _arrow(ax: Axes, start: dict[str, Any], end: dict[str, Any]) -> None:
    """From AdamW to Muon, same data, batch and seeds."""
    (x0, y0), (x1, y1) = (
        (float(np.mean(row["causal"]["rank"])), float(np.mean(row["spurious"]["rank"])))
        for row in (start, end)
    )
    ax.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": "#888888", "lw": 1})


def _draw_by_fit(ax: Axes, groups: dict[Kind, Group]) -> list[dict[str, Any]]:
    """Held-out implications against how well the told ones are known, along training."""
    curves = []
    batch = BATCHES[1]
    styles = dict(zip((CAUSAL, *SPURIOUS), ("-", "--", ":"), strict=True))
    for data, style in styles.items():
        pair = matched(groups, data, batch)
        if pair is None:
            continue
        for name, (_, color) in OPTIMIZERS.items():
            steps, told = pair[name].curve(TOLD_LOGPROB)
            held_out = pair[name].curve(HELD_OUT)[1]
            mean = {"told": -told.mean(0), "held_out": held_out.mean(0)}
            ax.plot(mean["told"], mean["held_out"], style, marker=".", color=color, lw=1.6)
            curves.append(
                {"data": data, "optimizer": name, "batch": batch, "seeds": pair[name].seeds, "step": steps}
                | mean
            )
        ax.plot([], [], style, color="#555555", label=NAMES[data])
    for label, color in OPTIMIZERS.values():
        ax.plot([], [], color=color, lw=3, label=label)
    ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    ax.set_xscale("log")
    ax.invert_xaxis()
    ax.set_ylim(0, 2.4)
    ax.set_xlabel(f"loss of told implications, nats, batch {batch}\n(training goes to the right)")
    ax.set_ylabel("held-out implications: mean rank")
    ax.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=2)
    return curves


def draw_updates(groups: dict[Kind, Group], figures: Path) -> None:
    """How much every layer's OV circuits changed, and how low-rank the change is, by method and optimizer."""
    kinds = {
        "full, AdamW, batch 24": ({"batch": 24}, "-"),
        "full, Muon, batch 24": ({"optimizer": "muon", "batch": 24}, "--"),
        "LoRA, AdamW, batch 8": ({"method": "lora", "lr": 1e-3}, ":"),
    }
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.2))
    numbers: dict[str, Any] = {}
    for label, (fields, style) in kinds.items():
        for data in NAMES:
            group = groups.get(Kind(data, **fields))
            if group is None:
                continue
            updates = [result["ov_update"] for result in group.results]
            means = {
                what: np.mean([np.mean(update[what], axis=1) for update in updates], axis=0)
                for what in ("relative", "nuclear_to_frobenius", "effective_rank")
            }
            numbers[f"{data}, {label}"] = {"seeds": group.seeds, **means}
            for ax, what in zip(axes, ("relative", "nuclear_to_frobenius"), strict=True):
                ax.plot(means[what], style, color=COLORS[data], lw=1.3)
    for data, name in NAMES.items():
        axes[0].plot([], [], color=COLORS[data], label=name)
    for label, (_, style) in kinds.items():
        axes[1].plot([], [], style, color="#555555", label=label)
    limits = {
        "two factors of width 64": (128, 0.1, "bottom"),
        "two LoRA factors of rank 8": (16, -0.15, "top"),
    }
    for what, (rank, above, va) in limits.items():  # a product's change has the sum of its factors' ranks
        axes[1].axhline(np.sqrt(rank), color="#555555", lw=0.8, ls="--")
        axes[1].text(0, np.sqrt(rank) + above, f"most that {what} allow", fontsize=8, va=va)
    axes[0].set_ylabel(r"$\|\Delta W_{OV}\|_F\,/\,\|W_{OV}\|_F$, mean over heads")
    axes[1].set_ylabel(r"$\|\Delta W_{OV}\|_*\,/\,\|\Delta W_{OV}\|_F$, mean over heads")
    axes[0].set_ylim(0, None)
    axes[1].set_ylim(0, 12.6)
    for ax in axes:
        ax.set_xlabel("layer")
        ax.legend(frameon=False, fontsize=8, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    fig.tight_layout()
    save_figure(fig, figures / "llm_ov_updates", numbers)
    plt.close(fig)
