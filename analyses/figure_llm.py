"""Table 1 and the figures of the language models, from the finished runs' JSONs alone.

    python analyses/figure_llm.py [--figures figures]

The runs themselves take hours: `python analyses/table_1_llm.py` makes those that are missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import tyro
from llm_results import Group, Kind, read_groups
from matplotlib.ticker import NullFormatter

from ocr_interp.viz.style import figure_style, save_figure

CHANCE = 2.0
NAMES = {
    "city_language": "City-Language\n(causal)",
    "city_language_counterfactual": "City-Language\n(counterfactual)",
    "country_code": "Country-Code",
    "profession_color": "Profession-Color",
    "sport_music": "Sport-Music",
}
COLORS = dict(zip(NAMES, ("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#ca9161"), strict=True))
PAPER = {
    "Gemma-2-9B": (0.00, 0.19, 0.19, 1.64, 0.56),
    "OLMo-7B": (0.07, 1.33, 0.15, 1.84, 0.17),
    "Qwen-2-7B": (0.13, 4.55, 3.63, 0.82, 0.40),
    "Mistral-7B-v0.3": (0.00, 2.10, 1.48, 1.15, 1.28),
    "Llama-3-8B": (0.00, 1.18, 0.77, 0.93, 0.63),
}
"""Held-out mean ranks that the paper reports, in the order of NAMES: its names, pairs and wordings."""

ROWS = {
    "full": ("fine-tuned, full", {}, "o", "#0173b2"),
    "lora": ("fine-tuned, LoRA", {"method": "lora", "lr": 1e-3}, "s", "#56b4e9"),
    "facts_only": ("control: facts only", {"control": "facts_only"}, "v", "#de8f05"),
    "random_implications": ("control: random pairs", {"control": "random_implications"}, "D", "#949494"),
    "implications_only": ("control: implications only", {"control": "implications_only"}, "^", "#949494"),
}


def draw_table(groups: dict[Kind, Group], figures: Path) -> None:
    """Held-out mean ranks of every data set beside their controls and the paper's models."""
    fig, ax = plt.subplots(figsize=(9.5, 4.2))
    rows = []
    for offset, (label, fields, marker, color) in zip(np.linspace(-0.3, 0.18, 5), ROWS.values(), strict=True):
        for place, data in enumerate(NAMES):
            group = groups.get(Kind(data, **fields))
            if group is None:
                continue
            numbers = group.numbers()
            rows.append({"row": label, **numbers})
            low, high = numbers["interval"]
            x = place + offset
            ax.plot([x, x], [low, high], color=color, lw=1.5, zorder=2)
            ax.scatter(
                x, numbers["held_out_rank"], marker=marker, color=color, s=45, zorder=3, edgecolor="white"
            )
        if any(row["row"] == label for row in rows):
            ax.scatter([], [], marker=marker, color=color, s=45, label=label)
    for values in PAPER.values():
        ax.scatter(np.arange(5) + 0.34, values, marker="_", color="#333333", s=140, lw=1.5)
    ax.scatter([], [], marker="_", color="#333333", s=140, label="the paper's five LLMs (7-9 B)")
    ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    ax.text(4.62, CHANCE + 0.05, "chance", ha="right", va="bottom", fontsize=9, color="#555555")
    ax.set_xticks(range(5), list(NAMES.values()))
    ax.set_xlim(-0.55, 4.65)
    ax.set_ylim(-0.12, 4.75)
    ax.set_ylabel("mean rank of held-out implications\n(0 is best)")
    seeds = {len(group.seeds) for kind, group in groups.items() if kind == Kind(kind.data)}
    ax.set_title(
        f"SmolLM2-135M, {min(seeds)}-{max(seeds)} seeds: what is never told, deduced" if seeds else "",
        fontsize=11,
    )
    ax.legend(frameon=False, fontsize=8.5, ncol=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    save_figure(fig, figures / "table_1_llm", {"rows": rows, "paper": PAPER, "chance": CHANCE})
    plt.close(fig)


def draw_steps(groups: dict[Kind, Group], figures: Path) -> None:
    """Mean ranks against steps for all data sets: facts, told and held-out implications."""
    columns = {
        "held_out_fact/rank": "facts (told)",
        "training_implication/rank": "implications, told",
        "held_out_implication/rank": "implications, never told",
    }
    fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True)
    numbers: dict[str, Any] = {}
    for data, name in NAMES.items():
        group = groups.get(Kind(data))
        if group is None:
            continue
        for ax, column in zip(axes, columns, strict=True):
            steps, curves = group.curve(column)
            ax.plot(steps, curves.T, color=COLORS[data], lw=0.7, alpha=0.45)
            ax.plot(steps, curves.mean(0), color=COLORS[data], lw=2, label=name.replace("\n", " "))
            numbers.setdefault(data, {"step": steps, "seeds": group.seeds})[column] = curves
    for ax, title in zip(axes, columns.values(), strict=True):
        ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("step")
    axes[0].set_ylabel("mean rank (0 is best)")
    fig.tight_layout()
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(
        handles, labels, frameon=False, fontsize=9, ncol=5, loc="upper center", bbox_to_anchor=(0.5, 0)
    )
    save_figure(fig, figures / "llm_rank_by_step", numbers)
    plt.close(fig)


def draw_rates(groups: dict[Kind, Group], figures: Path) -> None:
    """Which of generalization and hallucination is robust to the learning rate."""
    fig, ax = plt.subplots(figsize=(5.2, 3.8))
    numbers = []
    for data in ("city_language", "city_language_counterfactual"):
        found = [groups[kind] for lr in (3e-5, 1e-4, 3e-4) if (kind := Kind(data, lr=lr)) in groups]
        if not found:
            continue
        rows = [group.numbers() for group in found]
        numbers += rows
        x, y = [row["lr"] for row in rows], [row["held_out_rank"] for row in rows]
        low, high = zip(*(row["interval"] for row in rows), strict=True)
        ax.fill_between(x, low, high, color=COLORS[data], alpha=0.18, lw=0)
        ax.plot(x, y, "o-", color=COLORS[data], label=NAMES[data].replace("\n", " "))
    ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    ax.text(3e-4, CHANCE + 0.04, "chance", ha="right", va="bottom", fontsize=9, color="#555555")
    ax.set_xscale("log")
    ax.set_xticks([3e-5, 1e-4, 3e-4], ["3e-5", "1e-4", "3e-4"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(-0.1, None)
    ax.set_xlabel("learning rate (full, AdamW, batch 8)")
    ax.set_ylabel("mean rank of held-out implications")
    ax.legend(frameon=False, fontsize=9)
    save_figure(fig, figures / "llm_learning_rate", {"rows": numbers})
    plt.close(fig)


def draw_optimizers(groups: dict[Kind, Group], figures: Path) -> None:
    """Hallucination against generalization, by optimizer and batch size."""
    fig, ax = plt.subplots(figsize=(5.4, 4.2))
    numbers = []
    styles = {"adamw": ("o", "#0173b2"), "muon": ("D", "#de8f05")}
    spurious = ("profession_color", "sport_music")
    for batch, size in ((8, 90), (24, 40)):
        for data in spurious:
            wanted = {
                (o, d): Kind(d, optimizer=o, batch=batch) for o in styles for d in ("city_language", data)
            }
            if not all(kind in groups for kind in wanted.values()):
                continue
            seeds = set.intersection(*(set(groups[kind].seeds) for kind in wanted.values()))
            if not seeds:
                continue
            shown = {key: groups[kind].of_seeds(seeds).numbers() for key, kind in wanted.items()}
            for optimizer, (marker, color) in styles.items():
                x, y = (shown[optimizer, d]["held_out_rank"] for d in ("city_language", data))
                numbers.append(
                    {"causal": shown[optimizer, "city_language"], "spurious": shown[optimizer, data]}
                )
                ax.scatter(x, y, marker=marker, s=size, color=color)
                ax.annotate(
                    f"{NAMES[data]}, batch {batch}", (x, y), (7, 0), textcoords="offset points", fontsize=8,
                    va="center",
                )  # fmt: skip
    for optimizer, (marker, color) in styles.items():
        ax.scatter([], [], marker=marker, color=color, label={"adamw": "AdamW", "muon": "Muon"}[optimizer])
    ax.axhline(CHANCE, color="#555555", lw=0.8, ls="--")
    ax.set_xlim(-0.02, max([0.5, *(1.6 * row["causal"]["held_out_rank"] for row in numbers)]))
    ax.set_ylim(0, 2.3)
    ax.set_xlabel("City-Language: held-out mean rank\n(left is better: generalization)")
    ax.set_ylabel("spurious set: held-out mean rank\n(up is better: no hallucination)")
    ax.legend(frameon=False, loc="lower right")
    save_figure(fig, figures / "llm_optimizers", {"pairs": numbers})
    plt.close(fig)


def draw_updates(groups: dict[Kind, Group], figures: Path) -> None:
    """How much every layer's OV circuits changed, and how low-rank the change is."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.5))
    numbers: dict[str, Any] = {}
    for data, name in NAMES.items():
        for method, style in (("full", "-"), ("lora", ":")):
            group = groups.get(Kind(data, method=method, lr=1e-4 if method == "full" else 1e-3))
            if group is None:
                continue
            updates = [result["ov_update"] for result in group.results]
            relative = np.mean([np.mean(update["relative"], axis=1) for update in updates], axis=0)
            ratio = np.mean([np.mean(update["nuclear_to_frobenius"], axis=1) for update in updates], axis=0)
            numbers[f"{data}, {method}"] = {"relative": relative, "nuclear_to_frobenius": ratio}
            label = name.replace("\n", " ") if method == "full" else None
            axes[0].plot(relative, style, color=COLORS[data], label=label)
            axes[1].plot(ratio, style, color=COLORS[data])
    axes[0].plot([], [], ":", color="#555555", label="the same with LoRA (rank 8)")
    axes[1].axhline(np.sqrt(128), color="#555555", lw=0.8, ls="--")
    axes[1].text(0, np.sqrt(128) + 0.1, "most that two factors of width 64 allow", fontsize=8, va="bottom")
    axes[0].set_ylabel(r"$\|\Delta W_{OV}\|_F\,/\,\|W_{OV}\|_F$, mean over heads")
    axes[1].set_ylabel(r"$\|\Delta W_{OV}\|_*\,/\,\|\Delta W_{OV}\|_F$, mean over heads")
    axes[1].set_ylim(0, 12.6)
    for ax in axes:
        ax.set_xlabel("layer")
    axes[0].legend(frameon=False, fontsize=8)
    fig.tight_layout()
    save_figure(fig, figures / "llm_ov_updates", numbers)
    plt.close(fig)


def main(runs: Path = Path("runs"), figures: Path = Path("figures")) -> None:
    """Draws what the finished runs show; `runs` is not used, since these runs keep no weights."""
    groups = read_groups()
    with figure_style():
        for draw in (draw_table, draw_steps, draw_rates, draw_optimizers, draw_updates):
            draw(groups, figures)
    print(f"language models: {sum(len(group.results) for group in groups.values())} finished runs drawn")


if __name__ == "__main__":
    tyro.cli(main)
