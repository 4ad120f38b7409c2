"""Which singular blocks and which paths carry facts, training implications and held-out implications.

Accuracy and margins by split after each ablation: the closed form with the same ablation, the max-margin
solution computed and written into a HookedTransformer (no evidence about training), the model that gradient
descent trained for 30,000 steps (three seeds), and random subspaces of equal rank and equal removed norm in
both. The picture shows accuracies; all splits, paths and margins are in its JSON. Then subspaces that
take the out-of-context implications and leave the rest: `low_rank`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from analyses.ablations import low_rank
from analyses.ablations.tables import (
    HELD_OUT_IMPLICATION,
    METRICS,
    SHOWN,
    by_spec,
    derived,
    kept_and_taken,
    limit_as_model,
    mean_of,
    of_matrix,
    unit_of,
)
from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER, load_all, named
from ocr_interp import OVCircuit, solve
from ocr_interp.ablation import output_subspace, ov_block, run_ablation_study, tokens_of_kind
from ocr_interp.ablation.controls import EQUAL_NORM
from ocr_interp.task import SPLITS
from ocr_interp.training.run import Snapshot

SEEDS = range(5)
"""Draws of the random subspaces."""

PATHS = {
    "training subjects → facts": ("training subjects", "facts"),
    "training subjects → implications": ("training subjects", "implications"),
    "held-out subjects → facts": ("held-out subjects", "facts"),
    "held-out subjects → implications (sanity: the effect itself)": (
        "held-out subjects",
        "implications",
    ),
    "relations → facts": ("relations", "facts"),
    "relations → implications": ("relations", "implications"),
}
RELATION, LARGE, SMALL = "relation block (1)", "large block (19)", "small block (19)"


Measured = tuple[dict, tuple, list[tuple], list[pd.DataFrame], list[str]]
"""Closed form, computed solution, gradient descent, the paper's recipe, names of the subspaces."""

MODEL_WORDS = {"computed limit": "computed max-margin"}


def make(runs: Path, figures: Path) -> Measured:
    W = solve(PAPER).W
    trained = load_all(runs, "descent_factorized")
    subspaces = low_rank.constructed(W)
    predicted = {name: of_matrix(ablated_W) for name, ablated_W in _ablated_predictions(W, subspaces).items()}
    limit = _studied(limit_as_model("factorized"), subspaces)
    descent = [_studied(run, subspaces) for run in trained]
    recipe = [_without_large_block(run) for run in load_all(runs, "factorized")]
    searched = low_rank.search_all(W)
    margin = float(trained[0].history["train_margin"].iloc[-1])
    in_descent = low_rank.search_all(_circuit(trained[0]).W / margin, ranks=(1, 2, 4))
    numbers = {
        "unit": "logits over the smallest training margin before",
        "predicted": predicted,
        "computed_limit": by_spec(limit[0]),
        "random_of_equal_norm_in_computed_limit": _by_draw(limit[1]),
        "descent_by_seed": [by_spec(found) for found, _ in descent],
        "random_of_equal_norm_in_descent_by_seed": [_by_draw(random) for _, random in descent],
        "paper_recipe_by_seed": [by_spec(found) for found in recipe],
        "descent_blocks": [low_rank.blocks_against(W, _circuit(run)) for run in trained],
        "descent_beta": [float(run.history["beta"].iloc[-1]) for run in trained],
        "unit_of_searches": "smallest told margin of the matrix alone, without what EOS adds",
        "searched_in_the_closed_form": searched,
        "searched_in_descent_seed_0": in_descent,
    }
    DRAWING.write(figures / "ablation_study", numbers)
    return predicted, limit, descent, recipe, list(subspaces)


def claims(
    predicted: dict, limit: tuple, descent: list[tuple], recipe: list[pd.DataFrame], subspaces: list[str]
) -> list[Claim]:
    """The claims about the singular blocks, then those about the low-rank subspaces."""
    blocks = _block_claims(predicted, limit[0], [found for found, _ in descent], recipe)
    return blocks + _subspace_claims(subspaces, limit, descent)


def _circuit(run: Snapshot) -> OVCircuit:
    return OVCircuit.from_run(run).effective.subjects_and_relations


def _studied(run: Snapshot, subspaces: dict[str, np.ndarray]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics of a model and of its random controls, over its smallest training margin."""
    circuit = _circuit(run)
    specs: dict = {
        name: output_subspace(circuit, basis) for name, basis in low_rank.blocks_of(circuit.W).items()
    }
    specs |= {name: ov_block(PAPER, start, end) for name, (start, end) in PATHS.items()}
    specs |= {name: low_rank.as_spec(circuit, basis) for name, basis in subspaces.items()}
    plain = run_ablation_study(run, specs, METRICS, controls=False).table
    controlled = {name: specs[name] for name in (RELATION, LARGE, SMALL, *subspaces)}
    random = run_ablation_study(run, controlled, METRICS, seeds=SEEDS).table
    unit = unit_of(plain)
    for table in (plain, random):
        table[list(METRICS[:3])] /= unit
    return plain, random.loc[random["control"] == EQUAL_NORM].copy()


def _by_draw(random: pd.DataFrame) -> list[dict]:
    return [by_spec(random.loc[random["seed"] == seed]) for seed in SEEDS]


def _without_large_block(run: Snapshot) -> pd.DataFrame:
    """The metrics of a model without ablation, and without its large block."""
    circuit = _circuit(run)
    spec = {LARGE: output_subspace(circuit, low_rank.blocks_of(circuit.W)[LARGE])}
    found = run_ablation_study(run, spec, METRICS, controls=False).table
    found[list(METRICS[:3])] /= unit_of(found)
    return found


def _ablated_predictions(W: np.ndarray, subspaces: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The closed form with each ablation applied to the matrix itself."""
    kinds = {k: np.array(tokens_of_kind(PAPER, k)) for pair in PATHS.values() for k in pair}
    found = {"none": W}
    found |= {name: W - W @ B @ B.T for name, B in low_rank.blocks_of(W).items()}
    for name, (start, end) in PATHS.items():
        found[name] = W.copy()
        found[name][np.ix_(kinds[start], kinds[end] - PAPER.n_inputs)] = 0
    for name, B in subspaces.items():
        found[name] = W - W @ B[: W.shape[1]] @ B[: W.shape[1]].T
    return found


TITLE = (
    "Two subspaces of the closed form take the untold implications alone from the computed solution, but not "
    "from trained models"
)
ROWS = {
    "none": "nothing cut",
    "rank-1 subspace: facts minus implications, damped": "rank-1 subspace",
    "rank-19 subspace: damped pair patterns": "rank-19 subspace",
    RELATION: "relation block (rank 1)",
    LARGE: "large block (rank 19)",
    SMALL: "small block (rank 19)",
}


def draw(numbers: dict[str, Any]) -> Picture:
    """Accuracy on what was told and on untold implications after each cut, beside random subspaces."""
    drawn = numbers["random_of_equal_norm_in_descent_by_seed"]
    panels = {
        "computed max-margin solution": (
            [numbers["computed_limit"]],
            numbers["random_of_equal_norm_in_computed_limit"],
        ),
        "gradient descent (3 seeds)": (numbers["descent_by_seed"], [draw for seed in drawn for draw in seed]),
    }
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.1), sharey=True, layout="constrained")
    marks = {"told": ("o", "#0173b2"), "untold": ("D", "#de8f05")}
    for ax, (title, (found, random)) in zip(axes, panels.items(), strict=True):
        ax.axhspan(0.5, 2.5, color="0.92", lw=0)
        for y, name in enumerate(ROWS):
            cuts = [each[name] for each in found]
            mean = {of: float(np.mean([_accuracy(cut, of) for cut in cuts])) for of in marks}
            ax.plot(list(mean.values()), [y - 0.1] * 2, color="0.6", lw=1, zorder=1)
            for of, (mark, color) in marks.items():
                values = [_accuracy(cut, of) for cut in cuts]
                size = 7 if of == "told" else 5
                ax.plot(values, [y - 0.1] * len(values), mark, ms=size, color=color, zorder=2)
                values = [_accuracy(draw[name], of) for draw in random if name in draw]
                ax.plot(values, [y + 0.27] * len(values), mark, ms=3, color=color, mfc="none", alpha=0.7)
        ax.set_title(title, loc="left")
        ax.set(xlim=(-0.06, 1.06), xlabel="accuracy")
    axes[0].set_yticks(range(len(ROWS)), list(ROWS.values()))
    axes[0].set_ylim(len(ROWS) - 0.4, -0.6)
    words = {"told": "told (lowest of three splits)", "untold": "untold implications"}
    handles = [
        Line2D([], [], ls="", marker=m, color=color, ms=6, label=words[of])
        for of, (m, color) in marks.items()
    ]
    label = "random, equal rank and norm"
    handles.append(Line2D([], [], ls="", marker="o", color="0.3", mfc="none", ms=3, label=label))
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, columnspacing=1.2)
    return fig


def _accuracy(cut: dict[str, dict[str, float]], of: str) -> float:
    """Accuracy on untold implications, or the lowest of the three splits that were told."""
    if of == "untold":
        return cut[HELD_OUT_IMPLICATION]["accuracy"]
    return min(cut[split]["accuracy"] for split in SPLITS[:3])


DRAWING = Drawing(TITLE, draw)


def _block_claims(
    predicted: dict, limit: pd.DataFrame, descent: list[pd.DataFrame], recipe: list[pd.DataFrame]
) -> list[Claim]:
    error = max(
        abs(mean_of(limit, name, split, m) - values[split][m])
        for name, values in predicted.items()
        for split in SPLITS
        for m in SHOWN
    )
    small = mean_of(limit, SMALL, SPLITS[3], "logit_difference")
    ablated_limit = derived(
        "ablation_study",
        "ablated_limit",
        "Margins after each ablation of the computed max-margin solution are those of the ablated closed "
        "form",
        "largest difference <= 0.02",
        {"largest_difference": error},
        0.02,
        error <= 0.02,
    )
    small_block = derived(
        "ablation_study",
        "ablated_small_block",
        "Removing the small block of the max-margin solution raises the held-out coefficient from 0.577 to "
        "0.659",
        "coefficient within 0.01 of 0.577 before and of 0.659 after",
        {"before": mean_of(limit, "none", SPLITS[3], "logit_difference"), "without_small_block": small},
        0.01,
        abs(mean_of(limit, "none", SPLITS[3], "logit_difference") - 0.577) <= 0.01
        and abs(small - 0.659) <= 0.01,
    )
    return [ablated_limit, small_block, *_large_block_claims(limit, descent, recipe)]


def _large_block_claims(
    limit: pd.DataFrame, descent: list[pd.DataFrame], recipe: list[pd.DataFrame]
) -> list[Claim]:
    """Removing the large block destroys facts only for held-out subjects of trained models."""
    training, held_out = SPLITS[0], SPLITS[2]
    one = _of_large_block([limit])
    survives = (
        one[f"{training}_accuracy"] == [0]
        and one[f"{held_out}_accuracy"] == [1]
        and one["held_out_fact_share_of_margin"][0] < 0.1
    )
    claims = [
        derived(
            "ablation_study",
            "ablated_large_block_computed_limit",
            "Removing the large block of the max-margin solution takes every training fact but no held-out "
            "fact: those keep less than a tenth of their margin, and stay right",
            "accuracy 0 on training facts, 1 on held-out facts with a margin < 0.1 of that before",
            one,
            0,
            survives,
        )
    ]
    for model, tables in {"gradient descent": descent, "paper's recipe": recipe}.items():
        found = _of_large_block(tables)
        worst = max(found[f"{training}_accuracy"] + found[f"{held_out}_accuracy"])
        claims.append(
            derived(
                "ablation_study",
                f"ablated_large_block_{model}".replace("'s", "").replace(" ", "_"),
                f"Removing the large block of the {model} model takes the facts of training and of held-out "
                "subjects",
                f"accuracy at most chance (1/{PAPER.n_pairs}) on both kinds of facts, every seed",
                found,
                0,
                worst <= 1 / PAPER.n_pairs,
            )
        )
    return claims


def _of_large_block(tables: list[pd.DataFrame]) -> dict[str, list[float]]:
    """Accuracy of every split without the large block, and the remaining margin of held-out facts."""
    found = {f"{s}_accuracy": [mean_of(t, LARGE, s, "accuracy") for t in tables] for s in SPLITS}
    split = SPLITS[2]
    left = [mean_of(t, LARGE, split, "margin") / mean_of(t, "none", split, "margin") for t in tables]
    return {**found, "held_out_fact_share_of_margin": left}


def _subspace_claims(names: list[str], limit: tuple, descent: list[tuple]) -> list[Claim]:
    claims = []
    for model, tables in {"computed limit": [limit], "gradient descent": descent}.items():
        for name in names:
            kept, taken = map(list, zip(*(kept_and_taken(t, name) for t, _ in tables), strict=True))
            draws = [
                kept_and_taken(random.loc[random["seed"] == seed], name)
                for _, random in tables
                for seed in SEEDS
            ]
            measured = {
                "kept": kept,
                "held_out_implications": taken,
                "kept_by_random": [one for one, _ in draws],
                "held_out_implications_by_random": [other for _, other in draws],
            }
            claims.append(
                derived(
                    "ablation_study",
                    f"ablated_{name.split(':')[0]} {model}".replace(" ", "_").replace("-", "_"),
                    f"{name} (from the closed form), in the {MODEL_WORDS.get(model, model)} model: its "
                    "removal takes every out-of-context implication and leaves all that was told",
                    "accuracy 1 on the three trained splits, 0 on held-out implications, every seed; no "
                    "random subspace of equal rank and removed norm does both",
                    measured,
                    0,
                    min(kept) == 1 and max(taken) == 0 and (1, 0) not in draws,
                )
            )
    return claims


FIGURE = Figure(
    pictures=("ablation_study",),
    drawings={"ablation_study": DRAWING},
    draw=make,
    claims=lambda measured: claims(*measured),
    cost="slow",
    experiments=named("factorized", "descent_factorized"),
)


if __name__ == "__main__":
    main()
