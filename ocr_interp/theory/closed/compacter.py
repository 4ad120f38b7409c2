"""The stationary point of Compacter's layer that has one term, for balanced tasks with A over pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ocr_interp.errors import ConfigError
from ocr_interp.task import FactRecallTask


@dataclass(frozen=True)
class CompacterPoint:
    """One term A ⊗ s tᵀ, A over pairs and s tᵀ over (member, type), and D_V D_M D_O of rank one.

    Attributes:
        beta: held-out coefficient, 1/τ.
        cost: ½‖θ‖² at margin 1: 3/2 (size of the grid)^(2/3) + 3/2 (size of the relations)^(2/3).
        told_fact: coefficient τ of told subjects' facts; told implications and untold facts have 1.
        diagonal: diagonal entry of A, whose other entries are lower by 1.
        relations: difference of facts and implications under r1, and of implications and facts under r2.
    """

    beta: float
    cost: float
    told_fact: float
    diagonal: float
    relations: tuple[float, float]


def aligned_compacter(task: FactRecallTask) -> CompacterPoint:
    """The point of smallest cost with one term.

    Args:
        task: balanced, with told and untold subjects in every pair and one implied relation.

    Raises:
        ConfigError: another task.

    Source: docs/theory.md, "Kronecker products"; brute force (`theory.stationary_points`) ends there.
    """
    from scipy.optimize import minimize

    sizes = task.balanced_sizes
    if sizes is None or min(sizes) < 1 or task.n_answers != 2 * task.n_facts:
        raise ConfigError(
            "Compacter's stationary point is known for balanced tasks with m_train, m_test >= 1 and one "
            f"implication of a fact, got {'unequal groups' if sizes is None else sizes} and "
            f"implied_relations={task.implied_relations}: find others with theory.stationary_points"
        )
    n, a, b = sizes

    def parts(v: np.ndarray) -> tuple[float, float, float]:
        """Size of the grid, and the relations' differences."""
        tau, diagonal = v
        of_A = np.sqrt(n * diagonal**2 + n * (n - 1) * (diagonal - 1) ** 2)
        grid = of_A * np.sqrt((a * tau**2 + b) * (1 + tau**-2))
        return grid, 1 - diagonal * (1 - 1 / tau), 1 + diagonal * (tau - 1)

    def cost(v: np.ndarray) -> float:
        grid, first, second = parts(v)
        return 1.5 * (grid ** (2 / 3) + (np.sqrt(n / 2) * np.hypot(first, second)) ** (2 / 3))

    bounds = [(1.0, max(1.0, (b / a) ** 0.25)), (1e-3, 1.0)]
    found = min(
        (
            minimize(cost, (share * bounds[0][1] + 1 - share, 1 - 1 / n), bounds=bounds, tol=1e-14)
            for share in (0.1, 0.5, 0.9)
        ),
        key=lambda result: result.fun,
    )
    _, first, second = parts(found.x)
    tau, diagonal = (float(value) for value in found.x)
    return CompacterPoint(1 / tau, float(found.fun), tau, diagonal, (float(first), float(second)))
