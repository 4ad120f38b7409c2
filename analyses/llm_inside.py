"""Inside SmolLM2-135M after fine-tuning: which part of the update holds the facts, which the implication.

    python analyses/llm_inside.py [--only WORD ...] [--figures figures] [--draw]

Trains the runs again (they keep no weights), cuts parts, heads and directions out of them, and leaves one
small JSON each in analyses/results/llm_inside; what is there is not made again. `--draw` only draws.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import tyro
from table_1_llm import full, lora, run_name

from ocr_interp.llm.finetune_config import FORMAT_VERSION, LLMRunConfig
from ocr_interp.llm.store import read_result, write_result
from ocr_interp.viz.style import figure_style, save_figure

RESULTS = Path(__file__).resolve().parent / "results" / "llm_inside"
RUNS = (
    full("city_language", 0),
    full("profession_color", 0),
    lora("city_language", 0),
    lora("profession_color", 0),
    full("country_code", 0),
    full("city_language", 1),
    full("profession_color", 1),
)
N_HEADS = 27
"""A tenth of the 270 heads."""

SPLITS = {
    "held_out_fact": ("facts (told)", "o", "#0173b2"),
    "training_implication": ("implications, told", "s", "#029e73"),
    "held_out_implication": ("implications, never told", "D", "#de8f05"),
}


@dataclass(frozen=True)
class Arguments:
    """Inspects what is missing, then draws."""

    only: tuple[str, ...] = ()
    """words of a run's name, all of which it must have"""
    figures: Path = Path("figures")
    draw: bool = False
    """only draw what is there"""
    threads: int = 1
    """of torch"""


def inspect(config: LLMRunConfig, path: Path) -> None:
    """Trains a run, cuts it and writes what came out."""
    from ocr_interp.llm.drawing import make_facts
    from ocr_interp.llm.finetune import finetune
    from ocr_interp.llm.inside import inspect_models
    from ocr_interp.llm.loading import LanguageModel, load_model

    before = load_model(config.train.model)
    own = LanguageModel(before.name, copy.deepcopy(before.model), before.tokenizer)
    run = finetune(config, lm=own)
    inside = inspect_models(before, run.lm, make_facts(config.facts), N_HEADS)
    print(f"\n{path.stem}\n{inside.summary()}", flush=True)
    found = {"format_version": FORMAT_VERSION, "fingerprint": config.fingerprint, "config": config.to_dict()}
    write_result(path, {**found, **inside.to_dict()})


def draw(figures: Path) -> None:
    """Mean ranks after every cut, one panel a run; for the full runs that there are."""
    found = {path.stem: read_result(path) for path in sorted(RESULTS.glob("*--full--*--seed0.json"))}
    if not found:
        return
    fig, axes = plt.subplots(1, len(found), figsize=(2.2 + 3.6 * len(found), 4.8), sharey=True, squeeze=False)
    for ax, (name, result) in zip(axes[0], found.items(), strict=True):
        cuts: list[dict[str, Any]] = result["cuts"]
        y = np.arange(len(cuts))[::-1]
        for split, (label, marker, color) in SPLITS.items():
            shift = 0.18 * (list(SPLITS).index(split) - 1)
            ax.scatter([c["rank"][split] for c in cuts], y - shift, marker=marker, color=color, label=label)
        ax.set_yticks(y, [cut["what"] for cut in cuts])
        for line in y[1:] + 0.5:
            ax.axhline(line, color="#dddddd", lw=0.6, zorder=0)
        ax.axvline(2.0, color="#555555", lw=0.8, ls="--")
        ax.set_title(name.split("--")[0].replace("_", "-").title(), fontsize=11)
        ax.set_xlabel("mean rank (0 is best, chance 2)")
        ax.set_xlim(-0.15, None)
    fig.tight_layout()
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, ncol=3, loc="upper center", bbox_to_anchor=(0.55, 0))
    save_figure(fig, figures / "llm_inside", found)
    plt.close(fig)


def main(arguments: Arguments) -> None:
    import torch

    from ocr_interp.llm.allocator import keep_freed_memory

    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    for config in RUNS:
        name = run_name(config)
        path = RESULTS / f"{name}.json"
        if not arguments.draw and not path.exists() and set(arguments.only) <= set(name.split("--")):
            inspect(config, path)
    with figure_style():
        draw(arguments.figures)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
