"""Stationary points of Σ σ^(2/L), which is the smallest (1/L) Σ ‖W_l‖² of L matrices with product W.

For L >= 3 that is not convex, and no point is promised to be the one that descent goes to. Two families are
known: completions of the pair block with every told coefficient 1, and the pair block of rank one, which is
that of `saddle_solution` with other weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar

from ocr_interp.checks import check_count
from ocr_interp.errors import ConfigError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.closed.closed_form import ClosedForm
from ocr_interp.theory.geometry import SpectrumBlock
from ocr_interp.theory.problem import check_problem, feature_length
from ocr_interp.theory.saddle.flow import saddle_sizes
from ocr_interp.theory.saddle.program import RankOneOptimum, frozen_optimum
from ocr_interp.theory.saddle.solution import NORM, rank_one_form


@dataclass(frozen=True)
class PairCompletion:
    """A stationary completion of the pair block [[√a, √a], [√b, √b β]], told coefficients fixed at 1.

    Attributes:
        beta: the held-out implication's coefficient.
        value: Σ σ^(2/L) of the block.
        rank: 1 at β = 1, else 2.
        is_stable: whether it is a local minimum in β; else a local maximum.
        is_lowest: whether no other completion has a smaller value.
        is_kkt: whether it stays stationary when told coefficients may grow above 1, as margins allow: their
            multipliers are >= 0.
    """

    beta: float
    value: float
    rank: int
    is_stable: bool
    is_lowest: bool
    is_kkt: bool


def pair_completions(m_train: int, m_test: int, depth: int) -> tuple[PairCompletion, ...]:
    """All stationary points in β of the pair block's Σ σ^(2/depth) with told coefficients 1, by β.

    β = 1 is one for depth >= 3, always a local minimum: there the smaller singular value is 0 and its power
    has infinite slope. Below it there are none, or a local minimum and a local maximum: outside of 0 <= β < 1
    the value only grows with the distance.

    Args:
        m_train: told subjects of a pair, >= 1.
        m_test: held-out subjects of a pair, >= 1.
        depth: number of factors, >= 2.

    Raises:
        ConfigError: a number that is too small.

    Source: docs/theory.md §10, "More than two factors".
    """
    check_count("m_train", m_train, 1)
    check_count("m_test", m_test, 1)
    check_count("depth", depth, 2)
    a, b, power = float(m_train), float(m_test), 2 / depth
    near_1 = 1 - np.exp(np.linspace(0.0, -40.0, 4_001))  # 0 to 1, dense towards 1
    grid = np.unique(np.concatenate([near_1[near_1 < 1], np.linspace(0, 1, 2_001)[:-1]]))
    slopes = np.array([_completed(a, b, power, beta)[1] for beta in grid])
    found: list[tuple[float, bool, int]] = []
    crossings = np.flatnonzero(np.sign(slopes[:-1]) != np.sign(slopes[1:]))
    if depth == 2 and m_train >= m_test:
        crossings = crossings[:0]  # the only minimum is the kink at 1
    for k in crossings:
        between = (grid[k], grid[k + 1])
        root = root_scalar(lambda beta: _completed(a, b, power, beta)[1], bracket=between, xtol=1e-15).root
        found.append((float(root), bool(slopes[k] < 0), 2))
    if depth > 2 or m_train >= m_test:
        found.append((1.0, True, 1))
    values = [_completed(a, b, power, beta)[0] for beta, _, _ in found]
    return tuple(
        PairCompletion(beta, value, rank, stable, value <= min(values), _is_kkt(a, b, power, beta))
        for (beta, stable, rank), value in zip(found, values, strict=True)
    )


def _completed(a: float, b: float, power: float, beta: float) -> tuple[float, float]:
    """Σ σ^power of the block and its derivative by β, for 0 <= β <= 1 (no derivative at 1)."""
    trace, det = 2 * a + b + b * beta**2, np.sqrt(a * b) * (1 - beta)
    root = np.sqrt(trace**2 - 4 * det**2)
    first = np.sqrt((trace + root) / 2)
    second = det / first
    value = first**power + second**power
    if beta == 1:
        return float(value), float("nan")
    by_trace, by_det = 2 * b * beta, -np.sqrt(a * b)
    by_root = (trace * by_trace - 4 * det * by_det) / root
    of_first = (by_trace + by_root) / (4 * first)
    of_second = by_det / first - det * of_first / first**2
    return float(value), float(power * (first ** (power - 1) * of_first + second ** (power - 1) * of_second))


def _is_kkt(a: float, b: float, power: float, beta: float) -> bool:
    """Whether the gradient of Σ σ^power is >= 0 at every told coefficient.

    At rank one: whether multipliers >= 0 make G v = c u and Gᵀ u = c v, which at u ∝ (√a, √b), v ∝ (1, 1) is
    2 u_1² >= 1.
    """
    if beta == 1:
        return a >= b
    block = np.array([[np.sqrt(a), np.sqrt(a)], [np.sqrt(b), np.sqrt(b) * beta]])
    U, s, Vt = np.linalg.svd(block)
    gradient = (U * s ** (power - 1)) @ Vt
    return bool(min(gradient[0, 0], gradient[0, 1], gradient[1, 0]) >= -1e-9 * np.abs(gradient).max())


@dataclass(frozen=True)
class DeepPoint:
    """The KKT point of L factors whose pair block has rank one; made by `deep_point`.

    For L >= 3 no mode that W lacks can grow into it: a mode of size ε costs ε^(2/L) and gains ε of margin. So
    it does not leave as it does with two factors. But it is a KKT point and no more: among matrices of rank n
    some that break the symmetry between pairs are lower (by 0.03 % at (5, 1, 2) with three factors), and with
    more factors some of fewer modes than pairs (by 5 % at (5, 1, 2) with four), where descent from small
    random entries goes.

    Attributes:
        task, outputs, inputs: the problem.
        depth: number of factors.
        beta: coefficient of the held-out implication block relative to the training one.
        objective: Σ σ^(2/L) of W at margin 1.
        keeps_its_modes: whether modes that it lacks stay away: depth >= 3, or a max-margin solution.
        found: W in blocks.
    """

    task: FactRecallTask
    outputs: str
    inputs: str
    depth: int
    beta: float
    objective: float
    keeps_its_modes: bool
    found: ClosedForm = field(repr=False)
    optimum: RankOneOptimum = field(repr=False)

    @property
    def W(self) -> Float[np.ndarray, "input output"]:
        """The matrix at margin 1, in the task's order."""
        return self.found.W

    @property
    def spectrum(self) -> tuple[SpectrumBlock, ...]:
        """Non-zero singular values of W with multiplicities, largest first."""
        return self.found.spectrum


def deep_point(task: FactRecallTask, depth: int = 3, *, inputs: str = "subject_relation") -> DeepPoint:
    """The KKT point of a product of `depth` matrices with a pair block of rank one, attention frozen.

    Two factors have that of `saddle_solution`. With more the program is the same, but each singular value
    counts σ^(2/depth): β stays near (m_train / m_test)^¼. For the pair block alone it is the lowest point of
    any depth: Σ σ^p >= (Σ σ)^p >= (√a + √b)^p, which rank one attains at β = (a/b)^¼, for a <= b.

    Args:
        task: balanced, m_train and m_test >= 1; any number of pairs.
        depth: number of factors, >= 2.
        inputs: what an example holds; see `theory.problem`.

    Raises:
        ConfigError: another task, a depth below 2, or an unknown name.

    Source: docs/theory.md §10, "More than two factors".
    """
    check_problem(NORM, "answers", inputs)
    check_count("depth", depth, 2)
    sizes = saddle_sizes(task)
    _, a, b = sizes
    if task.implied_relations > 1:
        raise ConfigError(
            "deep_point is known for one implication of a fact, got implied_relations="
            f"{task.implied_relations}: run the descent itself (ocr_interp.training.long_descent)"
        )
    optimum = frozen_optimum(sizes, feature_length(task, inputs), power=2 / depth)
    found = rank_one_form(task, "answers", inputs, optimum)
    return DeepPoint(
        task=task,
        outputs="answers",
        inputs=inputs,
        depth=depth,
        beta=found.beta,
        objective=optimum.objective,
        keeps_its_modes=depth > 2 or a >= b,
        found=found,
        optimum=optimum,
    )
