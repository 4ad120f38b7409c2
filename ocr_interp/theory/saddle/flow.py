"""Gradient flow of the factorized model on cross-entropy, at any time, for pair-symmetric factors.

Noise-free, frozen uniform attention, the loss over the answers. The factors commute with permuting pairs at
all times, so the flow is an ordinary differential equation of a few numbers (20 for two components). It is
solved in u with du = (mean residual) dt, in which the factors grow exponentially: t = exp(1e100) is u of a
few thousand. Margins differ by what residuals tell apart, 1 / margin relatively, which is stiff; beyond
`sharpness` logits they are told apart as if margins were that large, an error of about 1 / sharpness in W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp

from ocr_interp.checks import check_number
from ocr_interp.errors import ConfigError, SolverError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.closed.closed_form import closed_form
from ocr_interp.theory.saddle.start import SymmetricFactors

_EXAMPLES = ((0, 0), (0, 1), (1, 0))
"""Status and kind of the examples: training facts, training implications, held-out facts."""


@dataclass(frozen=True)
class FlowPath:
    """What the flow passes through, one value per point; all of the direction of W, so of no scale.

    Attributes:
        task: the task.
        log_time: natural logarithm of t, the integral of the step sizes of gradient descent on the mean loss.
        log10_margin: log10 of the smallest training margin, in logits; NaN while a margin is <= 0.
        loss: mean cross-entropy over the answers, in nats; 0 where it underflows (see log_loss).
        log_loss: its natural logarithm.
        beta: coefficient of the held-out implication block relative to the training one.
        second_mode: second singular value of the pair block over the first: 0 at the saddle.
        excess: nuclear norm at margin 1 over the smallest, less 1; NaN while a margin is <= 0.
        gap: certified gap of the residuals: norm at margin 1 over their dual bound, less 1; NaN likewise.
        factors: the factors at the end, at unit length.
        log_size: natural logarithm of the length of all factors at the end.
    """

    task: FactRecallTask
    log_time: Float[np.ndarray, " point"] = field(repr=False)
    log10_margin: Float[np.ndarray, " point"] = field(repr=False)
    log_loss: Float[np.ndarray, " point"] = field(repr=False)
    beta: Float[np.ndarray, " point"] = field(repr=False)
    second_mode: Float[np.ndarray, " point"] = field(repr=False)
    excess: Float[np.ndarray, " point"] = field(repr=False)
    gap: Float[np.ndarray, " point"] = field(repr=False)
    factors: SymmetricFactors = field(repr=False)
    log_size: float

    @property
    def loss(self) -> Float[np.ndarray, " point"]:
        """Mean cross-entropy in nats; 0 where it underflows."""
        return np.exp(self.log_loss)

    def at_log10_margin(self, values: Sequence[float]) -> dict[str, Float[np.ndarray, " value"]]:
        """The columns at given log10 of the margin, interpolated; NaN outside of the path."""
        x, wanted = self.log10_margin, np.asarray(values, dtype=float)
        late = np.flatnonzero(np.isfinite(x))
        names = ("log_time", "log_loss", "beta", "second_mode", "excess", "gap")
        return {
            name: np.interp(wanted, x[late], getattr(self, name)[late], left=np.nan, right=np.nan)
            for name in names
        }


def symmetric_flow(
    task: FactRecallTask,
    start: SymmetricFactors,
    *,
    log10_margin: float = 100.0,
    log10_time: float = math.inf,
    sharpness: float = 1e5,
    tolerance: float = 1e-7,
) -> FlowPath:
    """Follows gradient flow from symmetric factors until a margin or a time is reached.

    Args:
        task: balanced, with m_train and m_test >= 1.
        start: the factors at t = 0.
        log10_margin: log10 of the smallest training margin, in logits, at which to stop.
        log10_time: log10 of t at which to stop.
        sharpness: margins above it are told apart as if they were this large, in logits.
        tolerance: relative error of a step of the solver.

    Raises:
        ConfigError: a task that is not balanced, or an argument that is not allowed.
        SolverError: the differential equation could not be followed.

    Source: docs/theory.md, "Where gradient descent goes".
    """
    check_number("log10_margin", log10_margin)
    check_number("sharpness", sharpness, above=10.0)
    check_number("tolerance", tolerance, above=0.0)
    if task.implied_relations > 1:
        raise ConfigError(
            f"symmetric_flow follows one implication of a fact, got implied_relations="
            f"{task.implied_relations}: run the descent itself (ocr_interp.training.long_descent)"
        )
    flow = _Flow(saddle_sizes(task), start, sharpness)
    vector = start.as_vector()
    length = float(np.linalg.norm(vector))
    if not length > 0:
        raise ConfigError("start must not be zero throughout: gradient flow never leaves the origin")

    def reached(u: float, y: np.ndarray) -> float:
        unit = flow.margins(y[:-1]).min()
        far = (math.log(unit) + 2 * y[-1]) / math.log(10) if unit > 0 else -400.0
        late = -flow.state(y).log_residual / math.log(10) if math.isfinite(log10_time) else -math.inf
        return max(far - log10_margin, late - log10_time)

    reached.__dict__["terminal"] = True  # where solve_ivp looks for it
    found = solve_ivp(
        flow.slope,
        (0.0, 1e7),
        np.r_[vector / length, math.log(length)],
        method="Radau",
        rtol=tolerance,
        atol=1e-4 * tolerance,
        jac=flow.jacobian,
        events=reached,
    )
    if found.status != 1:
        raise SolverError(f"the flow was not followed to the end: {found.message}; lower sharpness")
    points = np.arange(found.y.shape[1])
    best = closed_form(task, "nuclear").objective
    columns = np.array([flow.measure(found.y[:, k], best) for k in points])
    end = found.y[:, -1].copy()
    norm = float(np.linalg.norm(end[:-1]))
    return FlowPath(
        task=task,
        log_time=_log_times(found.t, columns[:, 0]),
        log10_margin=columns[:, 1],
        log_loss=columns[:, 2],
        beta=columns[:, 3],
        second_mode=columns[:, 4],
        excess=columns[:, 5],
        gap=columns[:, 6],
        factors=start.with_vector(end[:-1] / norm),
        log_size=float(end[-1] + math.log(norm)),
    )


def saddle_sizes(task: FactRecallTask) -> tuple[int, int, int]:
    """(n, m_train, m_test) of a balanced task with told and untold implications.

    Raises:
        ConfigError: another task.
    """
    sizes = task.balanced_sizes
    if sizes is None:
        raise ConfigError(
            "the saddle needs a balanced task (one-to-one pairs with equal m_train and m_test), got an "
            "unbalanced one: run the descent itself (ocr_interp.training.long_descent)"
        )
    if min(sizes[1:]) < 1 or sizes[0] < 2:
        raise ConfigError(
            f"the saddle needs n_pairs >= 2, m_train >= 1 and m_test >= 1, got {sizes}: without told or "
            "untold implications the pair block has rank one anyway, and solve() gives it"
        )
    return sizes


@dataclass(frozen=True)
class _State:
    """Margins of the unit factors, the factor on them, residuals by example, weights (sum 1), and logs."""

    unit: np.ndarray
    scale: float
    share: np.ndarray
    weights: np.ndarray
    log_residual: float
    log_loss: float


class _Flow:
    """The vector field on unit factors and the logarithm of their length, with its Jacobian."""

    def __init__(self, sizes: tuple[int, int, int], start: SymmetricFactors, sharpness: float) -> None:
        self.sizes, self.start, self.sharpness = sizes, start, sharpness
        n, a, b = sizes
        self.margin_map = _margin_map(sizes)
        self.log_kinds = np.tile(np.log([n - 1.0, 1.0, n - 1.0]), 3)
        examples = np.repeat(np.array([n * a, n * a, n * b], dtype=float), 3)
        self.log_examples = np.log(examples / (n * (2 * a + b)))
        self.copies = np.r_[np.full(4, 1 / (n - 1)), np.ones(8)]
        self.shapes = [
            m.shape
            for m in (start.pair_values, start.pair_outputs, start.constant_values, start.constant_outputs)
        ]
        ends = np.cumsum([0, *(math.prod(shape) for shape in self.shapes)]).tolist()
        self.cut = [slice(first, end) for first, end in pairwise(ends)]

    def parts(self, unit: np.ndarray) -> list[np.ndarray]:
        return [unit[part].reshape(shape) for part, shape in zip(self.cut, self.shapes, strict=True)]

    def blocks(self, unit: np.ndarray) -> np.ndarray:
        pair_values, pair_outputs, constant_values, constant_outputs = self.parts(unit)
        blocks = pair_values @ pair_outputs, constant_values @ constant_outputs
        return np.concatenate([block.ravel() for block in blocks])

    def margins(self, unit: np.ndarray) -> np.ndarray:
        return self.margin_map @ self.blocks(unit)

    def state(self, y: np.ndarray) -> _State:
        unit = self.margins(y[:-1])
        smallest, squared = float(unit.min()), 2 * float(y[-1])
        scale = math.exp(min(squared, 600.0))
        capped = smallest > 0 and math.log(smallest) + squared > math.log(self.sharpness)
        if capped:
            scale = self.sharpness / smallest
        z = (self.log_kinds - scale * unit).reshape(3, 3)
        wrong = np.logaddexp.reduce(z, axis=1)
        total = np.logaddexp(0.0, wrong)[:, None]
        log_weights = (z - total).ravel() + self.log_examples
        top = float(log_weights.max())
        weights = np.exp(log_weights - top)
        log_residual = top + math.log(weights.sum())
        # The loss of an example is log(1 + exp(wrong)), exp(wrong) where that is small.
        log_losses = np.where(wrong < -30, wrong, np.log(np.logaddexp(0.0, np.maximum(wrong, -30))))
        log_loss = float(np.logaddexp.reduce(log_losses + self.log_examples[::3]))
        # The residuals themselves are smaller by what the margins are larger.
        beyond = smallest * (math.exp(min(squared, 600.0)) - scale) if capped else 0.0
        share, weights = np.exp(z - total), weights / weights.sum()
        return _State(unit, scale, share, weights, log_residual - beyond, log_loss - beyond)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """The negative gradient of the loss with respect to each copy of the blocks, over its residual."""
        return (self.margin_map.T @ weights) * self.copies

    def field(self, unit: np.ndarray, G: np.ndarray) -> np.ndarray:
        pair_values, pair_outputs, constant_values, constant_outputs = self.parts(unit)
        pair, constant = G[:4].reshape(2, 2), G[4:].reshape(4, 2)
        found = (
            pair @ pair_outputs.T,
            pair_values.T @ pair,
            constant @ constant_outputs.T,
            constant_values.T @ constant,
        )
        return np.concatenate([part.ravel() for part in found])

    def slope(self, u: float, y: np.ndarray) -> np.ndarray:
        unit = y[:-1]
        move = self.field(unit, self.gradient(self.state(y).weights))
        growth = float(move @ unit)
        return np.concatenate([move - growth * unit, [growth]])

    def jacobian(self, u: float, y: np.ndarray) -> np.ndarray:
        """Jacobian of `slope`, without its small dependence on the length."""
        unit, state = y[:-1], self.state(y)
        pair_values, pair_outputs, constant_values, constant_outputs = self.parts(unit)
        two, four = np.eye(2), np.eye(4)
        cut, size = self.cut, len(unit)
        to_blocks = np.zeros((12, size))
        to_blocks[:4, cut[0]], to_blocks[:4, cut[1]] = np.kron(two, pair_outputs.T), np.kron(pair_values, two)
        to_blocks[4:, cut[2]] = np.kron(four, constant_outputs.T)
        to_blocks[4:, cut[3]] = np.kron(constant_values, two)
        by_margin = -np.eye(9)
        for example in range(3):
            rows = slice(3 * example, 3 * example + 3)
            by_margin[rows, rows] += state.share[example]
        log_weights = by_margin @ (state.scale * (self.margin_map @ to_blocks))
        weights = state.weights[:, None] * (log_weights - state.weights @ log_weights)
        by_gradient = (self.margin_map.T @ weights) * self.copies[:, None]
        G = self.gradient(state.weights)
        pair, constant = G[:4].reshape(2, 2), G[4:].reshape(4, 2)
        direct = np.zeros((size, size))
        for matrix, left, right in ((pair, 0, 1), (constant, 2, 3)):
            eye = np.eye(self.shapes[right][0])
            rows, columns = cut[left].stop - cut[left].start, cut[right].stop - cut[right].start
            direct[cut[left], cut[right]] = np.einsum("sj,cl->sclj", matrix, eye).reshape(rows, columns)
            direct[cut[right], cut[left]] = np.einsum("sj,cl->cjsl", matrix, eye).reshape(columns, rows)
        moves = direct + to_blocks.T @ by_gradient
        move = self.field(unit, G)
        growth, by_unit = float(move @ unit), moves.T @ unit + move
        jacobian = np.zeros((size + 1, size + 1))
        jacobian[:size, :size] = moves - np.outer(unit, by_unit) - growth * np.eye(size)
        jacobian[size, :size] = by_unit
        return jacobian

    def measure(self, y: np.ndarray, best: float) -> tuple[float, ...]:
        """log residual, log10 margin, log loss, β, second mode, excess and gap."""
        n, a, b = self.sizes
        state, blocks = self.state(y), self.blocks(y[:-1])
        pair, constant = blocks[:4].reshape(2, 2), blocks[4:].reshape(4, 2)
        modes = np.linalg.svd(pair, compute_uv=False)
        relation = np.linalg.svd(constant, compute_uv=False)
        norm = (n - 1) * float(modes.sum()) + float(relation.sum())
        smallest = float(state.unit.min())
        beta = float(pair[1, 1] / pair[0, 1] * math.sqrt(a / b)) if pair[0, 1] else math.nan
        second = float(modes[1] / modes[0]) if modes[0] > 0 else math.nan
        log_loss = state.log_loss
        if smallest <= 0:
            return state.log_residual, math.nan, log_loss, beta, second, math.nan, math.nan
        G = self.gradient(state.weights)
        dual = max(np.linalg.norm(G[:4].reshape(2, 2), 2), np.linalg.norm(G[4:].reshape(4, 2), 2))
        margin = (math.log(smallest) + 2 * float(y[-1])) / math.log(10)
        at_margin_one = norm / smallest
        gap = at_margin_one * float(dual) - 1
        return state.log_residual, margin, log_loss, beta, second, at_margin_one / best - 1, gap


def _margin_map(sizes: tuple[int, int, int]) -> Float[np.ndarray, "margin block_entry"]:
    """Margins of the examples against wrong outputs of the same kind, the own other kind, and the rest."""
    n, a, b = sizes
    q, status_size = 1 - 1 / n, np.sqrt([float(a), float(b)])
    group_size = np.sqrt(n * np.array([n * a, n * b, 1.0, 1.0]))
    found = np.zeros((9, 12))
    for example, (status, kind) in enumerate(_EXAMPLES):
        correct, other = 2 * status + kind, 2 * status + 1 - kind
        found[3 * example, correct] = 1 / status_size[status]
        for row, wrong in ((3 * example + 1, q), (3 * example + 2, -1 / n)):
            found[row, correct] += q / status_size[status]
            found[row, other] -= wrong / status_size[status]
            for group in (status, 2 + kind):
                found[row, 4 + 2 * group + kind] += 1 / group_size[group]
                found[row, 5 + 2 * group - kind] -= 1 / group_size[group]
    return found


def _log_times(u: np.ndarray, log_residual: np.ndarray) -> np.ndarray:
    """log ∫ exp(−log residual) du, with the exponent linear between the points; −inf at the first."""
    rate = -log_residual
    rise = np.diff(rate)
    # ∫ over a step of exp(r0 + (r1 − r0) x) = exp(r1) (1 − exp(−rise)) / rise
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        factor = np.where(np.abs(rise) > 1e-9, -np.expm1(-rise) / rise, 1.0)
        pieces = rate[1:] + np.log(factor) + np.log(np.diff(u))
    return np.r_[-np.inf, np.logaddexp.accumulate(pieces)]
