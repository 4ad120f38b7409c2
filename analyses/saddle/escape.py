"""Which training rule leaves the saddle: ten rules go on from the same point of gradient descent.

Full batch unless said. β after 20,000 more steps against the number of steps, 5 starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from torch import Tensor
from torch.nn.functional import cross_entropy, dropout

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.saddle.escape_criteria import (
    BEFORE,
    ENTRIES,
    LEAVES,
    LOGGED,
    PREDICTED,
    SEEDS,
    SIZES,
    STAYS,
    STEPS,
)
from analyses.saddle.runs import descend, noise_free
from ocr_interp import solve
from ocr_interp.devices import seeded_generator
from ocr_interp.theory import held_out_beta, saddle_solution
from ocr_interp.theory.problem import max_margin_problem

PICTURE = "saddle_escape"


@dataclass(frozen=True)
class Rule:
    """A training rule.

    Attributes:
        optimizer: makes the optimiser of the two factors.
        batch: examples of a step, drawn with replacement; None: all.
        label_noise: share of the labels of a step that are another answer of the same kind.
        dropout: share of the hidden dimensions that a step leaves out.
    """

    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer]
    batch: int | None = None
    label_noise: float = 0.0
    dropout: float = 0.0


class SignSGD(torch.optim.SGD):
    """Steps of lr times the sign of the gradient."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.sign_()
        return super().step(closure)


def sgd(
    lr: float, momentum: float = 0.0, weight_decay: float = 0.0
) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    return lambda factors: torch.optim.SGD(factors, lr=lr, momentum=momentum, weight_decay=weight_decay)


RULES = {
    "gradient descent": Rule(sgd(2.0)),
    "momentum 0.9": Rule(sgd(0.2, momentum=0.9)),
    "batches of 10": Rule(sgd(0.5), batch=10),
    "label noise 5 %": Rule(sgd(0.5), label_noise=0.05),
    "dropout 0.1": Rule(sgd(0.5), dropout=0.1),
    "weight decay 1e-3": Rule(sgd(2.0, weight_decay=1e-3)),
    "Adam": Rule(lambda factors: torch.optim.Adam(factors, lr=2e-3)),
    "AdamW, decay 0.03": Rule(lambda factors: torch.optim.AdamW(factors, lr=2e-3, weight_decay=0.03)),
    "SignSGD": Rule(lambda factors: SignSGD(factors, lr=2e-4)),
    "Muon": Rule(lambda factors: torch.optim.Muon(factors, lr=2e-3, weight_decay=0.0)),
}


@dataclass(frozen=True)
class RulePath:
    """β over the steps of one rule, one list per start; and training losses at the end."""

    step: list[int]
    beta: list[list[float]]
    second_mode: list[float]
    loss: list[float]


def follow(rule: Rule, start: dict[str, Tensor], seed: int) -> tuple[list[int], list[float], float, float]:
    """STEPS steps of a rule: steps, β, second mode over the first of the pair block, training loss."""
    task = noise_free(SIZES)
    problem = max_margin_problem(task)
    x, correct = torch.from_numpy(problem.x.toarray()), torch.from_numpy(problem.correct)
    W_V, W_O = (start[name].clone().requires_grad_() for name in ("W_V", "W_O"))
    optimizer, draw = rule.optimizer([W_V, W_O]), seeded_generator("cpu", seed, 7)
    n, steps, betas = SIZES[0], [0], [held_out_beta((W_V @ W_O).detach().numpy(), task).projection]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(1, STEPS + 1):
            optimizer.zero_grad()
            chosen, labels = x, correct
            if rule.batch:
                kept = torch.randint(len(x), (rule.batch,), generator=draw)
                chosen, labels = x[kept], correct[kept]
            if rule.label_noise:
                wrong = torch.rand(len(labels), generator=draw) < rule.label_noise
                other = labels // n * n + torch.randint(n, labels.shape, generator=draw)
                labels = torch.where(wrong, other, labels)
            hidden = chosen @ W_V
            cross_entropy(dropout(hidden, rule.dropout) @ W_O, labels).backward()
            optimizer.step()
            if step % (STEPS // LOGGED) == 0:
                W = (W_V @ W_O).detach().numpy()
                steps.append(step)
                betas.append(held_out_beta(W, task).projection)
    loss = cross_entropy(x @ W_V @ W_O, correct).item()
    values = np.linalg.svd((W_V @ W_O).detach().numpy(), compute_uv=False)
    return steps, betas, float(values[n] / values[1]), loss


def make(runs: Path, figures: Path) -> dict[str, RulePath]:
    torch.set_num_threads(1)
    starts = [descend(runs, SIZES, BEFORE, entries=ENTRIES, seed=seed).parameters for seed in SEEDS]
    measured = {}
    for name, rule in RULES.items():
        found = [follow(rule, start, seed) for start, seed in zip(starts, SEEDS, strict=True)]
        measured[name] = RulePath(
            found[0][0], [f[1] for f in found], [f[2] for f in found], [f[3] for f in found]
        )
    DRAWING.write(figures / PICTURE, numbers_of(measured))
    return measured


def draw(numbers: dict[str, Any]) -> Picture:
    """β before the other rule takes over and after its steps, one row per rule."""
    fig, ax = plt.subplots(figsize=(WIDTH, 4.0), layout="constrained")
    marks = {"stays": ("o", "#0173b2", "expected to stay"), "leaves": ("D", "#d55e00", "expected to leave")}
    for y, (name, path) in enumerate(numbers.items()):
        ends, before = ([betas[at] for betas in path["beta"]] for at in (-1, 0))
        marker, color, label = marks[PREDICTED[name]]
        ax.plot([np.mean(before), np.mean(ends)], [y, y], color="0.75", lw=3, zorder=0)
        ax.plot(np.mean(before), y, "|", color="0.4", ms=10, mew=2, label=None if y else "before, mean")
        drawn = ax.get_legend_handles_labels()[1]
        label = None if label in drawn else label
        ax.plot(ends, [y] * len(ends), marker, color=color, ms=5, alpha=0.8, label=label)
    task = noise_free(SIZES)
    for beta, label in ((saddle_solution(task).beta, "saddle"), (solve(task).beta, "max-margin")):
        ax.axvline(beta, color="0.25", ls=":", lw=1.2)
        ax.text(beta, -0.7, label, ha="center", va="bottom", fontsize=8, color="0.25")
    ax.set_yticks(range(len(numbers)), list(numbers))
    ax.set(xlabel=f"held-out coefficient β after {STEPS:,} more steps, every start")
    ax.set_ylim(len(numbers) - 0.5, -0.6)
    fig.legend(loc="outside lower center", ncols=3, frameon=False)
    return fig


DRAWING = Drawing(
    "Momentum and small batches stay near the saddle; label noise takes descent to full deduction, SignSGD "
    "and Muon to less than before",
    draw,
)


def numbers_of(measured: dict[str, RulePath]) -> dict[str, object]:
    """β over steps by rule and start, and the second mode and loss at the end."""
    return {
        name: {
            "step": path.step,
            "beta": path.beta,
            "second_mode_over_first": path.second_mode,
            "training_loss": path.loss,
        }
        for name, path in measured.items()
    }


def claims(measured: dict[str, RulePath]) -> list[Claim]:
    """One claim per rule: whether it stays or leaves as predicted."""
    found = []
    for name, path in measured.items():
        moved = [betas[-1] - betas[0] for betas in path.beta]
        stays = PREDICTED[name] == "stays"
        found.append(
            Claim(
                id="saddle_escape_" + "".join(c if c.isalnum() else "_" for c in name.lower()),
                statement=f"{name}: {'stays at' if stays else 'leaves'} the saddle of gradient descent",
                source="conjectured (analyses/saddle/escape_criteria.py)",
                expected=f"|change of β| {'<' if stays else '>'} {STAYS if stays else LEAVES} in "
                f"{STEPS:,} steps, "
                "every seed",
                measured={
                    "change_of_beta": moved,
                    "beta_at_the_end": [betas[-1] for betas in path.beta],
                    "training_loss": path.loss,
                },
                tolerance=STAYS if stays else LEAVES,
                holds=all(math.isfinite(m) and (abs(m) < STAYS if stays else abs(m) > LEAVES) for m in moved),
                figure=PICTURE,
            )
        )
    return found


FIGURE = Figure(pictures=(PICTURE,), draw=make, claims=claims, cost="slow", drawings={PICTURE: DRAWING})


if __name__ == "__main__":
    main()
