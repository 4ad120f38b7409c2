"""The small program of the saddle with softmax attention, or with more factors: a pair block of rank one.

As in `ocr_interp.theory.saddle.program`, for balanced tasks, with two things more. Every kind of prompt may
give its tokens weights of its own: those of a softmax, which sum to 1 and cost no norm. And the sum of
singular values may be one of their powers: with L factors it is the power 2/L.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from ocr_interp.errors import SolverError

Attention = Mapping[tuple[str, int], tuple[float, float, float]]
"""(told or untold, relation) -> weights of subject, relation and EOS in such a prompt."""

PROMPTS = tuple((status, relation) for status in ("told", "untold") for relation in (1, 2))
LINEAR: Attention = dict.fromkeys(PROMPTS, (1.0, 1.0, 0.0))
_TRAINED = PROMPTS[:3]


@dataclass(frozen=True)
class RankOnePoint:
    """The smallest norm with a pair block of rank one.

    Attributes:
        beta: logit of the untold implication, against the others', over that of the told one.
        objective: sum of the powers of the singular values, to the power that makes it a norm of W.
        attention: weights of the tokens in each kind of prompt.
    """

    beta: float
    objective: float
    attention: Attention


def rank_one_point(
    sizes: tuple[int, int, int], attention: Attention = LINEAR, power: float = 1.0
) -> RankOnePoint:
    """The point for given attention; `power` 1 is the nuclear norm, 2/3 that of three factors."""
    start = np.r_[_first_rows(sizes, attention)]
    return _smallest(sizes, lambda scores: attention, start, power)


def softmax_attention(scores: np.ndarray) -> Attention:
    """Attention from the scores of told subjects, untold subjects, r1, r2 and EOS."""
    found = {}
    for status, relation in PROMPTS:
        three = np.array([scores[0 if status == "told" else 1], scores[1 + relation], scores[4]])
        weights = np.exp(three - three.max())
        found[status, relation] = tuple(weights / weights.sum())
    return found


def free_softmax_point(sizes: tuple[int, int, int]) -> RankOnePoint:
    """The point with the scores free too (within ±12 of EOS): where softmax attention would end."""

    def attention(scores: np.ndarray) -> Attention:
        return softmax_attention(np.r_[scores, 0.0])

    rng, best = np.random.default_rng(0), None
    for _ in range(12):
        scores = 0.3 * rng.standard_normal(4)
        start = np.r_[_first_rows(sizes, attention(scores)), scores]
        try:
            found = _smallest(sizes, attention, start, 1.0)
        except SolverError:
            continue
        best = found if best is None or found.objective < best.objective else best
    if best is None:
        raise SolverError(f"no point of rank one was found at (n, m_train, m_test) = {sizes}")
    return best


def _first_rows(sizes: tuple[int, int, int], attention: Attention) -> list[float]:
    _, a, b = sizes
    subject, relation, _ = attention["told", 1]
    tau = max(1.0, (b / a) ** 0.25)
    return [1 / subject, 1 / subject / tau, tau, 0.0, 0.0, 1 / relation, 1 / relation, 0.0]


def _smallest(
    sizes: tuple[int, int, int],
    attention: Callable[[np.ndarray], Attention],
    start: np.ndarray,
    power: float,
) -> RankOnePoint:
    """Sequential quadratic programming; unknowns as below, then scores.

    Pair parts of the rows: told u (g, 1), untold u' (g, 1), facts and implications. Differences facts −
    implications of the constant parts: −ζ told, −ζ' untold, ρ1, −ρ2 and ε of EOS.
    """
    n, a, b = sizes
    q = 1 - 1 / n

    def slack(x: np.ndarray) -> np.ndarray:
        told, untold, g, zeta, zeta_untold, rho1, rho2, eps = x[:8]
        weights, found = attention(x[8:]), []
        for status, relation in _TRAINED:
            subject, of_relation, eos = weights[status, relation]
            u, z = (told, zeta) if status == "told" else (untold, zeta_untold)
            if relation == 1:
                own = q * subject * u * (g - 1) - subject * z + of_relation * rho1 + eos * eps
                found += [subject * u * g - 1, own - 1]
            else:
                own = q * subject * u * (1 - g) + subject * z + of_relation * rho2 - eos * eps
                found += [subject * u - 1, own - 1]
        return np.array(found)

    def norm(x: np.ndarray) -> float:
        told, untold, g, zeta, zeta_untold, rho1, rho2, eps = x[:8]
        pair = np.sqrt(a * told**2 + b * untold**2) * np.sqrt(1 + g**2)
        rows = rho1**2 + rho2**2 + n * a * zeta**2 + n * b * zeta_untold**2 + eps**2
        return float((n - 1) * pair**power + (n / 2 * rows) ** (power / 2))

    bounds = [(1e-3, None)] * 3 + [(None, None)] * 5 + [(-12.0, 12.0)] * (len(start) - 8)
    found = minimize(
        norm,
        start,
        constraints={"type": "ineq", "fun": slack},
        bounds=bounds,
        method="SLSQP",
        options={"maxiter": 2_000, "ftol": 1e-13},
    )
    if slack(found.x).min() < -1e-6 or not np.isfinite(found.x).all():
        raise SolverError(
            f"the point of rank one was not found at (n, m_train, m_test) = {sizes}: smallest margin "
            f"{1 + slack(found.x).min():.4g}, required 1; try another attention"
        )
    weights = attention(found.x[8:])
    beta = weights["untold", 2][0] * found.x[1] / (weights["told", 2][0] * found.x[0])
    return RankOnePoint(float(beta), norm(found.x) ** (1 / power), weights)
