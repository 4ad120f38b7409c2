"""The small program of the saddle: a pair block of rank one, and the relation direction that goes with it.

Among matrices that commute with permuting the pairs and whose pair block has rank one, the one of smallest
nuclear norm at margin 1. With the training implication and the held-out fact at coefficient 1, the block is
fixed by the training fact's coefficient τ, and the held-out implication's is β = 1/τ:

    pair block [[√a τ, √a], [√b, √b / τ]],   norm √(a τ² + b) √(1 + τ⁻²).

With K implications of a fact they have one coefficient, as has an implication of √K times the length: the
norm is √(a τ² + b) √(1 + K τ⁻²), smallest at τ⁴ = K b / a. What tells the implications of two relations
apart is a part of its own, of norm (K − 1) √n, which gives an implication 1 − 1/K of its margin over the
fact.

Facts against implications are separated by differences of constant rows: ρ1, ρ2 of the relations, ζ, ζ_h of
training and held-out subjects, and ε of what every example holds. For fixed τ their smallest norm is a
non-negative least squares problem, whose multipliers are the dual weights; τ (and, with trained attention,
the attention of each kind of row) is a smooth problem of one to five unknowns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize, nnls, root_scalar

from ocr_interp.errors import SolverError


@dataclass(frozen=True)
class RankOneOptimum:
    """The smallest norm with a pair block of rank one.

    Attributes:
        tau: coefficient of the training fact relative to the training implication; β is 1/tau.
        rows: differences facts − implications of the constant rows: −ζ, −ζ_h, ρ1, −ρ2, ε.
        multipliers: of "own fact above own implication" of training facts, of the reverse of training
            implications, of held-out facts; each summed over its examples and implications.
        attention: scores of training subjects, held-out subjects, r1, r2; all 1 if attention is frozen.
        objective: nuclear norm of W_OV (or Σ σ^power); with trained attention plus half the squared scores.
    """

    tau: float
    rows: Float[np.ndarray, " group"] = field(repr=False)
    multipliers: Float[np.ndarray, " constraint"] = field(repr=False)
    attention: Float[np.ndarray, " token_kind"] = field(repr=False)
    objective: float


def frozen_optimum(
    sizes: tuple[int, int, int], feature: float, implied: int = 1, power: float = 1.0
) -> RankOneOptimum:
    """The optimum with every attention score 1.

    Args:
        sizes: (n, m_train, m_test), all >= 1 and n >= 2.
        feature: length of what every example holds beside subject and relation.
        implied: number of implications of a fact.
        power: minimise Σ σ^power of the singular values instead of the nuclear norm, 0 < power <= 1; below 1
            for one implication of a fact.
    """
    _, a, b = sizes
    ones = np.ones(4)
    highest = 0.25 * np.log(implied * b / a)

    def slope(log_tau: float) -> float:
        return _at(sizes, feature, log_tau, np.log(ones), implied, power).slope[0]

    log_tau = 0.0
    if highest > 0 and slope(0.0) < 0:
        # At τ⁴ = K b/a the block's own norm is smallest, and the relation rows only grow with τ.
        log_tau = float(root_scalar(slope, bracket=(0.0, highest), xtol=1e-15, rtol=1e-14).root)
    found = _at(sizes, feature, log_tau, np.log(ones), implied, power)
    return RankOneOptimum(float(np.exp(log_tau)), found.rows, found.multipliers, ones, float(found.value))


def trained_optimum(sizes: tuple[int, int, int]) -> RankOneOptimum:
    """The optimum when the attention scores are trained from a small start as well.

    Minimises ½‖a‖² + ‖diag(1/a) W‖_*, the smallest ½(‖a‖² + ‖W_V‖² + ‖W_O‖²) with diag(a) W_V W_O = W.

    Raises:
        SolverError: the minimisation has not converged.
    """
    n, a, b = sizes

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        found = _at(sizes, 0.0, x[0], x[1:])
        scores = np.exp(2 * x[1:])
        counts = np.array([n * a, n * b, 1.0, 1.0])
        value = found.value + 0.5 * float(counts @ scores)
        return value / n, (found.slope + np.r_[0.0, counts * scores]) / n

    start = np.array([max(0.0, np.log(b / a) / 3.5), *np.log([0.9, 0.9, n ** (1 / 6), n ** (1 / 6)])])
    bounds = [(0.0, None), *[(-20.0, 20.0)] * 4]
    options = {"maxiter": 5_000, "ftol": 1e-16, "gtol": 1e-13}
    x = minimize(objective, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options).x
    x = _newton(objective, x)
    value, slope = objective(x)
    free = np.array([x[0] > 0, True, True, True, True])
    if np.abs(slope[free]).max() > 1e-9 * max(1.0, abs(value)):
        raise SolverError(
            f"the saddle with trained attention was not found at (n, m_train, m_test) = {sizes}: slope "
            f"{np.abs(slope[free]).max():.2g} of {value:.3g}, required 1e-9; use attention='frozen'"
        )
    found = _at(sizes, 0.0, x[0], x[1:])
    return RankOneOptimum(float(np.exp(x[0])), found.rows, found.multipliers, np.exp(x[1:]), float(value * n))


@dataclass(frozen=True)
class _Point:
    """Norm of W_OV, its slope in (log τ, log scores), rows and multipliers of the constraints."""

    value: float
    slope: np.ndarray
    rows: np.ndarray
    multipliers: np.ndarray


def _at(
    sizes: tuple[int, int, int],
    feature: float,
    log_tau: float,
    log_scores: np.ndarray,
    implied: int = 1,
    power: float = 1.0,
) -> _Point:
    """The smallest norm (or Σ σ^power) at given τ and scores; slopes by the envelope theorem."""
    n, a, b = sizes
    tau, q = np.exp(log_tau), 1 - 1 / n
    on_train, on_held, on_r1, on_r2 = np.exp(log_scores)
    train, held = a * (tau / on_train) ** 2, b / on_held**2
    left, right = np.sqrt(train + held), np.sqrt(1 + implied * tau**-2)
    pair = left * right
    # Unknowns, whose length is the norm: ρ1/a_1, √K ρ2/a_2, √(na) ζ/a_t, √(nb) ζ_h/a_h, ε over the feature.
    zeta, zeta_h = on_train / np.sqrt(n * a), on_held / np.sqrt(n * b)
    A = np.array(
        [
            [on_r1, 0.0, -zeta, 0.0, feature],
            [0.0, on_r2 / np.sqrt(implied), zeta, 0.0, -feature],
            [on_r1, 0.0, 0.0, -zeta_h, feature],
        ]
    )
    required = np.array([1 - q * (tau - 1), 1 / implied + q * (tau - 1), 1 - q * (1 - 1 / tau)])
    x, multipliers = _shortest(A, required)
    length = float(np.linalg.norm(x))
    weight = np.sqrt(n * implied / (implied + 1))
    constant = weight * length
    # d(σ^power) = power σ^(power − 1) dσ, of the pair block's value (n − 1 times) and of the constants'.
    of_pair = (n - 1) * power * pair ** (power - 1)
    of_constant = power * constant ** (power - 1)
    multipliers = multipliers * (of_constant * weight / length)
    by_tau = np.array([-q * tau, q * tau, -q / tau])
    slope_tau = of_pair * (train / left * right - left * implied * tau**-2 / right) + float(
        multipliers @ by_tau
    )
    # A row's score multiplies what it may contribute: d(norm)/d(log score) = −(its part of the norm).
    part = of_constant * weight * x**2 / length
    by_score = -np.array(
        [
            of_pair * right * train / left + part[2],
            of_pair * right * held / left + part[3],
            part[0],
            part[1],
        ]
    )
    rho1, rho2 = x[0] * on_r1, x[1] * on_r2 / np.sqrt(implied)
    rows = np.array([-x[2] * zeta, -x[3] * zeta_h, rho1, -rho2, feature * x[4]])
    value = (n - 1) * pair**power + constant**power + (implied - 1) * np.sqrt(n) ** power
    return _Point(value, np.r_[slope_tau, by_score], rows, multipliers)


def _shortest(A: np.ndarray, required: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shortest x with A x >= required, and its multipliers λ >= 0, x = Aᵀ λ (Lawson and Hanson 1974)."""
    system = np.vstack([A.T, required])
    target = np.zeros(len(system))
    target[-1] = 1.0
    u, _ = nnls(system, target, maxiter=1_000)
    residual = target - system @ u
    active = np.flatnonzero(u > 0)
    # nnls finds the active constraints; their multipliers follow from a small linear system, to rounding.
    multipliers = np.zeros(len(required))
    if len(active):
        gram = A[active] @ A[active].T
        multipliers[active] = np.linalg.solve(gram, required[active])
    if (multipliers < 0).any():
        multipliers = u / residual[-1]
    return A.T @ multipliers, multipliers


def _newton(objective: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """A few Newton steps on the slope, with differences of the slope as the Hessian."""
    for _ in range(30):
        _, slope = objective(x)
        free = np.array([x[0] > 0 or slope[0] < 0, True, True, True, True])
        steps = 1e-6 * np.eye(len(x))
        hessian = np.array([(objective(x + s)[1] - objective(x - s)[1]) / 2e-6 for s in steps])
        hessian = (hessian + hessian.T) / 2
        move = np.zeros(len(x))
        move[free] = np.linalg.solve(hessian[np.ix_(free, free)], -slope[free])
        trial = x + move
        trial[0] = max(trial[0], 0.0)
        if (
            not np.isfinite(trial).all()
            or np.abs(objective(trial)[1][free]).max() >= np.abs(slope[free]).max()
        ):
            return x
        x = trial
    return x
