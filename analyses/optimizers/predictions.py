"""What each geometry predicts for β: the smallest norm, and the range of β of matrices near it.

Helper of `optimizers.study`.

Averaging over the symmetries of a balanced task stays feasible and raises none of the
norms below (all are convex and do not change when rows or columns are permuted), so symmetric matrices
decide: W[s, o] = x (1{own} - 1/n) + c with x, c by status and kind (docs/theory.md §2). β = x of held-out
implications over x of training ones, a ratio of linear functions, so its range over {W: norm at margin 1 at
most (1 + slack) times the smallest} is a convex program as well: divide W by the denominator.

Norms: the three Schatten norms of W; "entry", the largest |entry| (sign descent and Adam on W_OV itself); and
"gamma_2" (the max norm): the smallest product of the longest row of W_V and column of W_O. With wide enough
factors the largest entry of the factors is bounded below by it and, up to Grothendieck's constant (< 1.79),
above: what sign descent and Adam on the factors would minimise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

NORMS = ("nuclear", "frobenius", "spectral", "entry", "gamma_2")
FACT, IMPLICATION = 0, 1
TRAINING, HELD_OUT = 0, 1

_ACCURACY = {"tol_gap_abs": 1e-7, "tol_gap_rel": 1e-7, "tol_feas": 1e-7}

Sizes = tuple[int, int, int]
"""(n_pairs, m_train, m_test)."""


@dataclass(frozen=True)
class BetaRange:
    """β over the matrices whose norm at margin 1 is at most (1 + slack) times the smallest one.

    Attributes:
        objective: the smallest norm at margin 1.
        low, high: of β; inf where nothing bounds it.
    """

    objective: float
    low: float
    high: float


def muon_fixed_point(sizes: Sizes) -> float:
    """β of steps along the orthogonal polar factor, when the coefficients that lag make the gradient.

    A gradient with entries f, h, i (training facts, held-out facts, training implications) has the pair block
    [[√a f, √a i], [√b h, 0]], of negative determinant, so its polar factor is a reflection. For a <= b facts
    lag behind (i -> 0): rows (√a, √b), (√b, -√a), so β = -a/b. For a > b the training row lags (h -> 0): rows
    (√a, √a), (√a, -√a) over √2a, so β = -√(a/b): another spectral minimiser than the one with x = 1.
    """
    _, a, b = sizes
    return -a / b if a <= b else -float(np.sqrt(a / b))


def muon_first_step(sizes: Sizes) -> float:
    """β after one step along the orthogonal polar factor from W = 0, where f = h = i: -a / (b + √(ab))."""
    _, a, b = sizes
    return -a / (b + float(np.sqrt(a * b)))


@lru_cache(maxsize=256)
def smallest_norm(sizes: Sizes, norm: str) -> float:
    """The smallest norm at margin 1; agrees with `solve` for the three Schatten norms."""
    import cvxpy as cp

    x, c = cp.Variable((2, 2)), cp.Variable((4, 2))
    bound, constraints = _norm_at_most(sizes, norm, x, c)
    program = cp.Problem(cp.Minimize(bound), [*constraints, _margins(sizes, x, c) >= 1])
    program.solve(solver="CLARABEL", **_ACCURACY)
    return float(bound.value)


@lru_cache(maxsize=256)
def beta_range(sizes: Sizes, norm: str, slack: float = 1e-5) -> BetaRange:
    """The range of β at a slack.

    Args:
        sizes: sizes of a balanced task without noise, attention frozen and uniform; m_train, m_test >= 1.
        norm: one of NORMS.
        slack: allowed relative excess of the norm.
    """
    import cvxpy as cp

    objective = smallest_norm(sizes, norm)
    x, c, margin = cp.Variable((2, 2)), cp.Variable((4, 2)), cp.Variable()
    bound, constraints = _norm_at_most(sizes, norm, x, c)
    constraints += [_margins(sizes, x, c) >= margin, bound / objective <= (1 + slack) * margin]
    constraints.append(x[TRAINING, IMPLICATION] == 1)
    ends = []
    for sense in (cp.Minimize, cp.Maximize):
        program = cp.Problem(sense(x[HELD_OUT, IMPLICATION]), constraints)
        program.solve(solver="CLARABEL", **_ACCURACY)
        ends.append(float(program.value))  # type: ignore[arg-type]
    return BetaRange(objective, *ends)


def _margins(sizes: Sizes, x: Any, c: Any) -> Any:
    """All distinct margins of told triples: (status, relation) against each kind of wrong answer."""
    import cvxpy as cp

    n, found = sizes[0], []
    for status, relation in ((TRAINING, FACT), (TRAINING, IMPLICATION), (HELD_OUT, FACT)):
        other = 1 - relation
        own = x[status, relation] * (1 - 1 / n) + c[status, relation] + c[2 + relation, relation]
        base = c[status, other] + c[2 + relation, other]
        found.append(x[status, relation])
        found += [own - base - x[status, other] * (1 - 1 / n), own - base + x[status, other] / n]
    return cp.hstack(found)


def _norm_at_most(sizes: Sizes, norm: str, x: Any, c: Any) -> tuple[Any, list[Any]]:
    """An expression that bounds the norm of the symmetric W from above, tightly, and what ties it to W."""
    import cvxpy as cp

    n, a, b = sizes
    pair = np.sqrt([[a], [b]]) * np.ones((1, 2))
    constant = np.sqrt([[n * a], [n * b], [1.0], [1.0]]) * np.sqrt(n) * np.ones((1, 2))
    blocks = cp.multiply(pair, x), cp.multiply(constant, c)
    if norm == "nuclear":
        return (n - 1) * cp.normNuc(blocks[0]) + cp.normNuc(blocks[1]), []
    if norm == "frobenius":
        parts = [np.sqrt(n - 1) * cp.vec(blocks[0], order="C"), cp.vec(blocks[1], order="C")]
        return cp.norm(cp.hstack(parts)), []
    if norm == "spectral":
        return cp.maximum(cp.sigma_max(blocks[0]), cp.sigma_max(blocks[1])), []
    if norm == "entry":
        entries = [x * (1 - 1 / n) + c[:2], -x / n + c[:2], c[2:]]
        return cp.max(cp.hstack([cp.abs(cp.vec(e, order="C")) for e in entries])), []
    return _gamma_2(n, x, c)


def _gamma_2(n: int, x: Any, c: Any) -> tuple[Any, list[Any]]:
    """min t with [[P, W], [W', Q]] positive semidefinite and diagonals <= t, in the blocks of the symmetry.

    Equal rows count once, so the norm does not depend on m_train and m_test.
    """
    import cvxpy as cp

    t = cp.Variable()
    pair, constant = cp.Variable((4, 4), PSD=True), cp.Variable((6, 6), PSD=True)
    scaled = cp.multiply(np.sqrt([[n * n], [n * n], [n], [n]]) * np.ones((1, 2)), c)
    ties = [pair[:2, 2:] == x, constant[:4, 4:] == scaled]
    for k in range(2):
        ties.append(pair[k, k] * (1 - 1 / n) + constant[k, k] / n <= t)
        ties.append(constant[2 + k, 2 + k] <= t)
        ties.append(pair[2 + k, 2 + k] * (1 - 1 / n) + constant[4 + k, 4 + k] / n <= t)
    return t, ties
