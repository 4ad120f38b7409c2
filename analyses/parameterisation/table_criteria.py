"""Maps, tasks, predictions and criteria of the table of all parameterisations. Written down before its runs.

Known from earlier studies and so expected to fail: deep maps from small random entries learn fewer modes than
pairs and miss their rank-one point; one of five starts of Compacter, aligned, is slower than t = 1e20; AdamW
deduces where PHM's norm says 0. They are judged like the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from ocr_interp import FactRecallTask
from ocr_interp.maps.routing import expert_of_subjects
from ocr_interp.theory import aligned_compacter, deep_point, saddle_solution

Sizes = tuple[int, int, int]

TASKS: tuple[Sizes, ...] = ((4, 1, 1), (6, 2, 3), (8, 1, 3), (6, 1, 9))
"""(n, m_train, m_test): ratios of told to untold of 1, 2/3, 1/3 and 1/9. n is even, for PHM's closed form in
the order of the vocabulary."""

SEEDS = (0, 1, 2, 3, 4)

TIME = 20.0
"""log10 of the time of gradient descent, the sum of its step sizes."""

PLAIN = {"steps": 6_000, "lr": 1.0}
"""Full-batch gradient descent with a fixed step, of maps that route whole prompts: `long_descent` follows one
W_OV. t = 6e3, so β may still be on its way. A factorized control is trained alike and reported."""

ADAMW = {"steps": 2_000, "lr": 5e-3, "weight_decay": 0.0}
STOP = 1e-6
"""AdamW on the full batch without noise. β is read at the first logged step with a mean loss below STOP nats,
or at the last step; the step is recorded."""

LOGGED = 20
"""Steps between logged rows of AdamW."""

FITTED = 1.0
"""A model has fitted when its smallest training margin is at least this, in logits, so that every told answer
is right. The cost of a fit is the CPU time of one AdamW step, trained alone, times the steps to there."""

TIMED, REPEATS = 200, 2
"""Steps of a timed AdamW run, and how many of them the fastest is of."""

NEAR, NEAR_ADAMW = 0.05, 0.15
"""Largest |β − predicted| of every seed and task: of gradient descent, and of AdamW, for which no theory here
speaks: its claim is that the parameterisation decides whatever the rule of the steps."""


def noise_free(sizes: Sizes) -> FactRecallTask:
    """A balanced task with the smallest vocabulary."""
    return FactRecallTask(*sizes, n_noise=0, seq_len=3)


def nothing(task: FactRecallTask) -> float:
    """The untold entry is in no constraint, and costs norm: β = 0."""
    return 0.0


def saddle(task: FactRecallTask) -> float:
    """The rank-one saddle of two factors; for m_train >= m_test the max-margin solution."""
    return saddle_solution(task).beta


def depth_3(task: FactRecallTask) -> float:
    """The symmetric rank-one point of Σ σ^(2/3)."""
    return deep_point(task, 3).beta


def depth_4(task: FactRecallTask) -> float:
    """The same of Σ σ^(1/2)."""
    return deep_point(task, 4).beta


def vocabulary_order(task: FactRecallTask) -> float:
    """PHM with A over (pair, type): the smallest norm with the matrix of (member, type) of rank one.

    Source: docs/theory.md §13, "Where gradient descent of Kronecker products goes".
    """
    n, a, b = _sizes(task)
    if a >= b:
        return 1.0
    pairs = np.sqrt(n / 2) + np.sqrt(n / 2 - 1)  # ‖P'‖_* for q = 2

    def cost(tau: float) -> float:
        first, second = 1 - (1 - 1 / n) * (1 - 1 / tau), 1 + (1 - 1 / n) * (tau - 1)
        grid = pairs * np.sqrt((a * tau**2 + b) * (1 + tau**-2))
        return float(grid + np.sqrt(n / 2) * np.hypot(first, second))

    found: Any = minimize_scalar(cost, bounds=(1.0, (b / a) ** 0.25), method="bounded")
    return float(1 / found.x)


def one_term(task: FactRecallTask) -> float:
    """Compacter's stationary point of one term."""
    return aligned_compacter(task).beta


def pair_block(task: FactRecallTask) -> float:
    """The pair block of rank one alone, min(r^¼, 1): facts and implications do not compete, so τ is free."""
    _, a, b = _sizes(task)
    return min((a / b) ** 0.25, 1.0)


def expert_by_expert(task: FactRecallTask) -> float:
    """Mean of min((a_e / b_e)^¼, 1) over untold subjects, a_e and b_e those of the pair in their expert.

    The pair blocks of each expert alone; what relations cost is left out.
    """
    expert = np.asarray(expert_of_subjects(task.n_subjects, 2, "index", 0))
    fact, told = task.subject_fact, task.subject_trained
    found = []
    for subject in np.flatnonzero(~told):
        beside = (expert == expert[subject]) & (fact == fact[subject])
        found.append(min(((beside & told).sum() / (beside & ~told).sum()) ** 0.25, 1.0))
    return float(np.mean(found))


def _sizes(task: FactRecallTask) -> Sizes:
    sizes = task.balanced_sizes
    assert sizes is not None
    return sizes


@dataclass(frozen=True)
class MapRow:
    """One map of the table.

    Attributes:
        ov: name of the map.
        predict: β that theory gives for a task.
        theory: which theory, in a word.
        options: of the map; "rank" of low_rank is the number of pairs, that of the saddle, and is added.
        entries: standard deviation of the entries at the start.
        is_plain: whether it is trained by PLAIN instead of `long_descent`.
        pretrained: whether W_0 is that of a model of other subjects; such a row has no AdamW.
    """

    ov: str
    predict: Callable[[FactRecallTask], float]
    theory: str
    options: Mapping[str, Any] = field(default_factory=dict)
    entries: float = 1e-3
    is_plain: bool = False
    pretrained: bool = False

    def options_for(self, task: FactRecallTask) -> dict[str, Any]:
        """The options for a task."""
        if self.ov != "low_rank":
            return dict(self.options)
        return {"base": "zero", "rank": task.n_facts, "alpha": float(task.n_facts), **self.options}


MAPS: dict[str, MapRow] = {
    "factorized": MapRow("factorized", saddle, "saddle"),
    "non-factorized": MapRow("non_factorized", nothing, "max-margin"),
    "deep, 3 factors": MapRow("deep", depth_3, "stationary point", {"depth": 3}, 0.1),
    "deep, 4 factors": MapRow("deep", depth_4, "stationary point", {"depth": 4}, 0.1),
    "LoRA on zero": MapRow("low_rank", saddle, "saddle"),
    "LoRA, pretrained": MapRow("low_rank", saddle, "saddle", pretrained=True),
    "PHM, aligned": MapRow("kronecker", nothing, "max-margin", {"layout": "aligned"}),
    "PHM, vocabulary order": MapRow("kronecker", vocabulary_order, "saddle", {"layout": "vocabulary"}),
    "Compacter, aligned": MapRow("compacter", one_term, "stationary point", {"layout": "aligned"}, 1e-2),
    "Compacter, transposed": MapRow("compacter", nothing, "stationary point", {"layout": "transposed"}, 1e-2),
    "by relation, read": MapRow(
        "routed", nothing, "max-margin", {"by": "relation", "routed_side": "read"}, is_plain=True
    ),
    "by relation, write": MapRow(
        "routed", pair_block, "pair block", {"by": "relation", "routed_side": "write"}, is_plain=True
    ),
    "by subject, read": MapRow(
        "routed", saddle, "saddle", {"by": "subject", "n_experts": 2, "routed_side": "read"}
    ),
    "by subject, write": MapRow(
        "routed", expert_by_expert, "pair block", {"by": "subject", "n_experts": 2, "routed_side": "write"}
    ),
}
"""Entries of 0.001 where two matrices are multiplied, so that β is near the saddle's at TIME; larger
ones where three or four are, since small starts of these are slower than TIME (docs/theory.md §13) or learn
fewer modes (§10). LoRA's W_0 of the pretrained row holds the relations of a model of other subjects, told
everything up to t = 1e4; theory: it fades."""

CONTROL = "factorized, plain"
"""The factorized map trained by PLAIN, beside the maps that have to be."""

PRETRAINED_TOLD, PRETRAINED_TIME = 4, 4.0
"""Told subjects of a pair of the pretrained model, and log10 of its time."""
