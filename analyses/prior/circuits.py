"""Which hidden directions carry recall and which deduction, in a model that was misled.

After fine-tuning on other pairs, W_OV = W_V W_O is cut in two ways. In its hidden space: without the span
of the pretrained features (pair parts of b_i + c_i in the pretrained W_O), or without the other directions
that pair features have now; control: random subspaces of the same dimension, nearest in energy. And in W_O:
without the pair parts that it held before, or without what it learned; control: the same part with its
pairs permuted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.prior.circuits_criteria import (
    FIRST,
    GONE,
    LEFT,
    NEAREST,
    PREDICTED,
    RANDOM,
    SAME_SPACE,
    SETTINGS,
    TOLD,
)
from analyses.prior.criteria import SEEDS, N
from analyses.prior.stages import Pretrained, fine_tune, new_task, outcome, pretrain

PICTURE = "prior_circuits"
SPANS = ("without pretrained features", "without what was added")
"""Cuts of hidden directions."""

PARTS = ("without pretrained W_O", "without what W_O learned")
"""Cuts of W_O's pair parts."""

SHOWN = {
    "whole": "whole model",
    PARTS[0]: "without what\n$W_O$ held before",
    f"{PARTS[0]}, control": "control: the same,\npairs permuted",
    PARTS[1]: "without what\n$W_O$ learned",
    f"{PARTS[1]}, control": "control: the same,\npairs permuted ",
}
COLORS = {"recalled": "#de8f05", "deduced": "#0173b2"}
LABELS = {"recalled": "pretrained answer (recalled)", "deduced": "told subjects' answer (deduced)"}


@dataclass(frozen=True)
class Cut:
    """A model after one cut; coefficients of held-out subjects in logits.

    Attributes:
        energy: share of the squared subjects' part of W_OV that the cut removes.
        first: shares whose first answer is (told, pretrained, another).
    """

    setting: tuple[float, float]
    seed: int
    cut: str
    energy: float
    fact: float
    recalled: float
    deduced: float
    first: tuple[float, float, float]


def pair_directions(W_O: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair parts of the columns of facts and implications [hidden, pair]."""
    parts = W_O[:, :N], W_O[:, N:]
    facts, implications = (part - part.mean(axis=1, keepdims=True) for part in parts)
    return facts, implications


def span(columns: np.ndarray, dimension: int) -> np.ndarray:
    """Orthonormal basis [hidden, dimension] of the leading directions."""
    return np.linalg.svd(columns, full_matrices=False)[0][:, :dimension]


def subspaces(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bases of the pretrained features' span, and of the directions that pair features have beside it now."""
    facts, implications = pair_directions(before)
    old = span(facts + implications, N - 1)
    beside = np.concatenate(pair_directions(after), axis=1)
    beside = beside - old @ (old.T @ beside)
    return old, span(beside, N - 1)


def cuts_of(before: Pretrained, setting: tuple[float, float], seed: int) -> list[Cut]:
    """Fine-tunes and cuts."""
    task = new_task("mislead", TOLD)
    _, parameters = fine_tune(before, task, seed, log10_time=setting[1])
    W_V, W_O = (parameters[name].numpy() for name in ("W_V", "W_O"))
    old, added = subspaces(before.parameters["W_O"].numpy(), W_O)

    before_O, subjects = before.parameters["W_O"].numpy(), slice(0, task.n_subjects)

    def cut(name: str, removed: np.ndarray) -> Cut:
        found = outcome(W_V @ W_O - removed, task)
        energy = (removed[subjects] ** 2).sum() / ((W_V @ W_O)[subjects] ** 2).sum()
        numbers = (found.fact, found.recall * found.fact, found.deduced * found.fact)
        return Cut(setting, seed, name, float(energy), *numbers, first=found.first)

    def through(basis: np.ndarray) -> np.ndarray:
        return (W_V @ basis) @ (basis.T @ W_O)

    rng = np.random.default_rng(seed)
    parts = dict(zip(PARTS, (_pair_part(before_O), _pair_part(W_O - before_O)), strict=True))
    both = np.concatenate([old, added], axis=1)
    drawn = [np.linalg.qr(rng.standard_normal((both.shape[1], N - 1)))[0] for _ in range(RANDOM)]
    randomly = [cut("", through(both @ basis)) for basis in drawn]
    found = [cut("whole", 0 * W_V @ W_O)]
    for name, basis in zip(SPANS, (old, added), strict=True):
        found.append(cut(name, through(basis)))
        nearest = sorted(randomly, key=lambda draw: abs(draw.energy - found[-1].energy))[:NEAREST]
        found.append(_mean(f"{name}, control", nearest))
    for name, part in parts.items():
        found.append(cut(name, W_V @ part))
        orders = [_derangement(rng) for _ in range(NEAREST)]
        others = [cut("", W_V @ part[:, np.concatenate([order, N + order])]) for order in orders]
        found.append(_mean(f"{name}, control", others))
    return found


def _pair_part(W_O: np.ndarray) -> np.ndarray:
    """W_O [hidden, answer] without the means of its facts and of its implications."""
    return np.concatenate(pair_directions(W_O), axis=1)


def _derangement(rng: np.random.Generator) -> np.ndarray:
    """A permutation of pairs that maps none to itself, to the pair told for it or to the one before."""
    while True:
        order = rng.permutation(N)
        if not np.isin((order - np.arange(N)) % N, (0, 1, N - 1)).any():
            return order


def _mean(name: str, cuts: list[Cut]) -> Cut:
    def mean(what: str) -> float:
        return float(np.mean([getattr(cut, what) for cut in cuts]))

    first = np.mean([cut.first for cut in cuts], axis=0)
    numbers = {what: mean(what) for what in ("energy", "fact", "recalled", "deduced")}
    return Cut(cuts[0].setting, cuts[0].seed, name, **numbers, first=tuple(first.tolist()))  # pyright: ignore


def make(runs: Path, figures: Path) -> list[Cut]:
    torch.set_num_threads(1)
    found: list[Cut] = []
    for seed in SEEDS:
        for setting in SETTINGS:
            before = pretrain("factorized", seed, log10_time=setting[0])
            found += cuts_of(before, setting, seed)
    DRAWING.write(figures / PICTURE, {"cuts": [asdict(cut) for cut in found]})
    return found


def draw(numbers: dict[str, Any]) -> Picture:
    """Coefficients after each cut of W_O, a panel each for short and for long training."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6), sharey=True, layout="constrained")
    for ax, setting in zip(axes, (SETTINGS[0], SETTINGS[-1]), strict=True):
        for y, name in enumerate(SHOWN):
            mine = [cut for cut in numbers["cuts"] if (cut["cut"], *cut["setting"]) == (name, *setting)]
            for k, (what, color) in enumerate(COLORS.items()):
                values = [cut[what] for cut in mine]
                place, label = y + 0.34 * (k - 0.5), LABELS[what] if y == 0 else None
                ax.barh(place, np.mean(values), height=0.32, color=color, label=label)
                ax.plot(values, [place] * len(values), "o", color="0.2", ms=2)
        ax.axvline(0, color="0.4", lw=0.8)
        ax.set_title(
            f"pretrained to $10^{{{setting[0]:g}}}$, tuned to $10^{{{setting[1]:g}}}$", loc="left", fontsize=9
        )
        ax.set_xlabel("coefficient, logits")
    axes[0].set_yticks(range(len(SHOWN)), SHOWN.values())
    axes[0].set_ylim(len(SHOWN) - 0.5, -0.5)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return fig


DRAWING = Drawing(
    "Recall sits in what W_O held before fine-tuning, deduction nearly all in what W_O learned then",
    draw,
)


def claims(found: list[Cut]) -> list[Claim]:
    """One claim per cut of PREDICTED, and where W_OV lies."""
    by = {(cut.setting, cut.seed, cut.cut): cut for cut in found}
    cases = [(setting, seed) for setting in SETTINGS for seed in SEEDS]
    made = []
    for name, (first, words) in PREDICTED.items():
        left: dict[str, list[float]] = {"recalled": [], "deduced": []}
        control: dict[str, list[float]] = {"recalled": [], "deduced": []}
        for case in cases:
            whole = by[*case, "whole"]
            for what in left:
                before = getattr(whole, what)
                left[what].append(getattr(by[*case, name], what) / before)
                control[what].append(getattr(by[*case, f"{name}, control"], what) / before)
        gone, stays = ("recalled", "deduced") if first == "told" else ("deduced", "recalled")
        place = 0 if first == "told" else 1
        shares = [by[*case, name].first[place] for case in cases]
        made.append(
            Claim(
                id="prior_circuits_" + name.replace(" ", "_").lower(),
                statement=f"A misled model {name}: {words}",
                source="conjectured (analyses/prior/circuits_criteria.py)",
                expected=f"{gone} coefficient < {GONE}, {stays} > {LEFT} of the whole model's, {first} "
                f"answer first for >= {FIRST}, every seed and setting",
                measured={
                    f"{gone}_left": left[gone],
                    f"{stays}_left": left[stays],
                    f"{first}_first": shares,
                    f"control_{gone}_left": control[gone],
                    f"control_{first}_first": [by[*case, f"{name}, control"].first[place] for case in cases],
                },
                tolerance=0.0,
                holds=max(left[gone]) < GONE and min(left[stays]) > LEFT and min(shares) >= FIRST,
                figure=PICTURE,
            )
        )
    energy = [by[*case, SPANS[0]].energy for case in cases]
    made.append(
        Claim(
            id="prior_circuits_same_space",
            statement="Fine-tuning of all weights adds no direction: what new subjects write lies in the "
            "span of the pretrained features",
            source="derived after a first trial (docs/theory.md §11)",
            expected=f"share of the subjects' squared W_OV >= {SAME_SPACE}, every seed and setting",
            measured={"share": energy},
            tolerance=0.0,
            holds=min(energy) >= SAME_SPACE,
            figure=PICTURE,
        )
    )
    return made


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
