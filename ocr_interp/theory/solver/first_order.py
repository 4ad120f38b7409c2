"""A splitting method for the reduced max-margin problem, stopped by its own certificate.

minimise f(X) subject to Z = E X, every example's logits Z on the right side of their margins. ADMM with
one consensus variable Y: X = Y and Z = E Y. Both proximal steps are exact (singular values; margins),
the normal equations I + α EᵀE are diagonal but for two or three rows, and every multiplier of Z is a set
of dual weights μ >= 0 by construction. 100 facts and 60 implications take about a thousand steps to 1e-3.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from ocr_interp.theory.norms import Norm, UnitarilyInvariantNorm, as_invariant_norm
from ocr_interp.theory.reduction.bounds import Accuracy, ReducedSolution, reduced_dual_bound, smallest_margin
from ocr_interp.theory.reduction.certificate import value_relations
from ocr_interp.theory.reduction.margins import ExampleMap, blocks_norm, example_map
from ocr_interp.theory.reduction.symmetry import Blocks, ReducedProblem
from ocr_interp.theory.solver.accuracy import AccuracyEstimate
from ocr_interp.theory.solver.proximal import MarginProjection, NormalEquations, shrink
from ocr_interp.theory.solver.repair import MarginRepair

_RELAXATION = 1.7
_ALPHA = 0.3
"""Weight of Z = E X beside X = Y. Of 0.1, 0.3, 1 and 3 the best on the two large benchmark tasks together."""
_CHECK_EVERY = 25


class _Best:
    """Keeps the best bounds and the points that prove them."""

    def __init__(self, examples: ExampleMap, norm: UnitarilyInvariantNorm) -> None:
        reduced = examples.reduced
        self.examples, self.norm = examples, norm
        self.blocks = Blocks(np.zeros(reduced.constant_shape), np.zeros(reduced.pair_shape))
        self.weights = np.zeros(examples.multiplicity.shape)
        self.primal, self.dual = np.inf, 0.0

    @property
    def gap(self) -> float:
        """primal / dual − 1; inf before there are both bounds."""
        return self.primal / self.dual - 1 if self.dual > 0 else np.inf

    def offer(self, points: Iterable[Blocks], weights: Iterable[Float[np.ndarray, "example value"]]) -> None:
        """Takes the best of some points and dual weights."""
        for blocks in points:
            margin = smallest_margin(self.examples, blocks)
            if margin > 0:
                primal = blocks_norm(self.examples.reduced, blocks, self.norm) / margin
                if primal < self.primal:
                    self.primal, self.blocks = primal, blocks * (1 / margin)
        for each in weights:
            dual = reduced_dual_bound(self.examples, each, self.norm)
            if dual > self.dual:
                self.dual, self.weights = dual, each

    def solution(self, iterations: int, accuracy: Accuracy) -> ReducedSolution:
        return ReducedSolution(
            self.blocks,
            self.weights,
            self.primal,
            self.dual,
            iterations,
            accuracy,
        )


class _Average:
    """Running means of points and dual weights, started again whenever their number has doubled the step."""

    def __init__(self) -> None:
        self._start, self._count = 0, 0
        self._sums: tuple[Blocks, Float[np.ndarray, "example value"]] | None = None

    def add(self, blocks: Blocks, weights: Float[np.ndarray, "example value"]) -> None:
        sums = self._sums
        self._sums = (blocks, weights) if sums is None else (sums[0] + blocks, sums[1] + weights)
        self._count += 1

    def means(self) -> tuple[Blocks, Float[np.ndarray, "example value"]]:
        assert self._sums is not None
        return self._sums[0] * (1 / self._count), self._sums[1] / self._count

    def forget(self, iteration: int) -> None:
        if iteration >= 2 * self._start:
            self._start, self._count, self._sums = iteration, 0, None


def solve_first_order(
    reduced: ReducedProblem,
    norm: str | Norm,
    tolerance: float,
    max_seconds: float = 300.0,
    max_iterations: int = 200_000,
    margin_tolerance: float | None = None,
    polish_seconds: float = 2.0,
) -> ReducedSolution:
    """Runs the splitting method until primal / dual − 1 <= tolerance, or time or iterations are spent.

    Args:
        reduced: the problem.
        norm: unitarily invariant.
        tolerance: relative gap to reach.
        max_seconds, max_iterations: limits at which to stop without it; the caller decides what to do then.
        margin_tolerance: goes on until the estimated error of held-out margins is at most this (logits), for
            as long again as the gap has taken, but `polish_seconds` at least. None: stops at the gap.
        polish_seconds: see margin_tolerance.

    Raises:
        ConfigError: a norm that is not unitarily invariant.

    Source: docs/theory.md, "The splitting method"; over-relaxed ADMM with residual balancing (Boyd et al.
        2011, sections 3.4.1 and 3.4.3).
    """
    start = time.perf_counter()
    deadline = start + max_seconds
    examples, invariant = example_map(reduced), as_invariant_norm(norm)
    best, state, average = _Best(examples, invariant), _State(examples, invariant), _Average()
    repair, accuracy = MarginRepair(examples, value_relations(examples)), AccuracyEstimate(reduced)
    next_balance, reached = _CHECK_EVERY, False
    iteration = 0
    for iteration in range(1, max_iterations + 1):
        state.step()
        average.add(state.x, state.dual_weights())
        if iteration % _CHECK_EVERY:
            continue
        mean, mean_weights = average.means()
        best.offer((state.x, repair(state.y), repair(mean)), (state.dual_weights(), mean_weights))
        average.forget(iteration)
        if best.gap < np.inf:
            accuracy.add(best.gap, best.blocks)
        if best.gap <= tolerance:
            now = time.perf_counter()
            if not reached:
                reached, deadline = True, min(deadline, now + max(now - start, polish_seconds))
            if margin_tolerance is None or accuracy.estimate().margin <= margin_tolerance:
                break
        if time.perf_counter() > deadline:
            break
        if iteration >= next_balance:
            # At growing intervals, so that the method converges as with a fixed penalty.
            state.balance()
            next_balance = max(iteration + _CHECK_EVERY, int(1.2 * iteration))
    return best.solution(iteration, accuracy.estimate())


class _State:
    """The iterates. `point` is what the proximal steps are applied to; a step is one fixed-point map of it.

    x = prox(point), and the scaled multiplier is x − point; the consensus y is what the normal equations
    give for 2 x − point, and the next point is point + relaxation · (y − x). Likewise for the logits.
    """

    def __init__(self, examples: ExampleMap, norm: UnitarilyInvariantNorm) -> None:
        reduced = examples.reduced
        self._examples, self._norm, self._reduced = examples, norm, reduced
        self._normal = NormalEquations(examples, _ALPHA)
        self._project = MarginProjection(examples.multiplicity, examples.correct)
        self._point = Blocks(np.zeros(reduced.constant_shape), np.zeros(reduced.pair_shape))
        self._logit_point = examples.logits(self._point)
        self.x, self._z = self._point, self._logit_point
        self._before, self._moved = (self.x, self._z), np.zeros(examples.multiplicity.shape)
        self.y, self._ey = self.x, self._z
        self._penalty = 1.0
        self._proximal_step()

    def _proximal_step(self) -> None:
        self._before = (self.x, self._z)
        self.x = shrink(self._reduced, self._point, self._norm, 1 / self._penalty)
        values = self._examples.values(self._logit_point)
        projected = self._project(values)
        self._z, self._moved = self._examples.from_values(projected), values - projected

    def step(self) -> None:
        """One over-relaxed ADMM step."""
        examples = self._examples
        x, z = self.x * 2.0 - self._point, self._z * 2.0 - self._logit_point
        self.y = self._normal.solve(x + examples.adjoint(z) * _ALPHA)
        self._ey = examples.logits(self.y)
        self._point = self._point + (self.y - self.x) * _RELAXATION
        self._logit_point = self._logit_point + (self._ey - self._z) * _RELAXATION
        self._proximal_step()

    def dual_weights(self) -> Float[np.ndarray, "example value"]:
        """How far the projection moved every wrong logit down: the multipliers, up to a common factor."""
        return np.where(self._examples.multiplicity > 0, np.maximum(self._moved, 0.0), 0.0)

    def balance(self) -> None:
        """Sets the penalty so that relative primal and dual residuals are of similar size."""
        x_before, z_before = self._before
        u, v = self.x - self._point, self._z - self._logit_point
        primal = self._length(self.x - self.y, self._z - self._ey) / self._length(self.y, self._ey)
        dual = self._length(self.x - x_before, self._z - z_before) / self._length(u, v)
        factor = float(np.clip(np.sqrt(primal / dual), 0.2, 5.0)) if primal > 0 and dual > 0 else 1.0
        if not 0.6 < factor < 1.7:
            self._penalty *= factor
            # Multipliers stay what they are; in units of the penalty they shrink.
            self._point, self._logit_point = self.x - u * (1 / factor), self._z - v * (1 / factor)
            self._proximal_step()

    def _length(self, blocks: Blocks, logits: Blocks) -> float:
        """Norm of the pair in the metric of the full problem."""
        squared = np.sum(blocks.constant**2) + _ALPHA * np.sum(logits.constant**2)
        if self._reduced.has_pairs:
            count = self._reduced.pair_multiplicity
            squared += np.sum(count[:, None, None] * blocks.pair**2)
            of_example = count[self._reduced.row_type[self._examples.rows]][:, None, None]
            squared += _ALPHA * np.sum(of_example * logits.pair**2)
        return float(np.sqrt(squared))
