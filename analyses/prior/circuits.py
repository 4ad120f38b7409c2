"""Which hidden directions carry recall and which deduction, in a model that was misled.

After fine-tuning on other pairs, W_OV = W_V W_O is cut in its hidden space: without the span of the pretrained
features p_i (pair parts of b_i + c_i in the pretrained W_O), without the other directions that pair features
have now (what fine-tuning added), and without random subspaces of those directions, as control.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from analyses.house.claims import Claim
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.prior.circuits_criteria import (
    FIRST,
    GONE,
    LEFT,
    NEAREST,
    PREDICTED,
    RANDOM,
    SETTINGS,
    TOLD,
)
from analyses.prior.criteria import SEEDS, N
from analyses.prior.stages import Pretrained, fine_tune, new_task, outcome, pretrain
from ocr_interp.viz.style import figure_style, save_figure

PICTURE = "prior_circuits"
CUTS = ("whole", "without pretrained features", "without what was added", "random")
COLORS = {"deduced": "#0173b2", "recalled": "#de8f05", "fact": "0.6"}


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

    def cut(name: str, basis: np.ndarray | None) -> Cut:
        removed = np.zeros_like(W_V @ W_O) if basis is None else (W_V @ basis) @ (basis.T @ W_O)
        found = outcome(W_V @ W_O - removed, task)
        subjects = slice(0, task.n_subjects)
        energy = (removed[subjects] ** 2).sum() / ((W_V @ W_O)[subjects] ** 2).sum()
        return Cut(
            setting,
            seed,
            name,
            float(energy),
            found.fact,
            found.recall * found.fact,
            found.deduced * found.fact,
            found.first,
        )

    rng = np.random.default_rng(seed)
    both = np.concatenate([old, added], axis=1)
    draws = []
    for _ in range(RANDOM):
        basis = both @ np.linalg.qr(rng.standard_normal((both.shape[1], N - 1)))[0]
        draws.append(cut("random", basis))
    named = [cut("whole", None), cut(CUTS[1], old), cut(CUTS[2], added)]
    for name, like in ((CUTS[1], named[1]), (CUTS[2], named[2])):
        nearest = sorted(draws, key=lambda draw: abs(draw.energy - like.energy))[:NEAREST]
        named.append(_mean(f"random, like {name}", nearest))
    return named


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
    return found


def claims(found: list[Cut]) -> list[Claim]:
    return []


if __name__ == "__main__":
    main()
