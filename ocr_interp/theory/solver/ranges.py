"""Proved ranges of margins and singular values over everything that is as good as a found solution.

Every W of norm at most τ with margins of 1 or more has, for any dual weights μ >= 0 and any matrix B,

    ⟨B, W⟩ >= Σ μ_k − τ ‖Σ μ_k A_k − B‖_dual,

since Σ μ_k <= Σ μ_k ⟨A_k, W⟩. With τ an upper bound of the optimal norm the optimum itself is among these W.
So μ = t μ* + ν, with μ* the weights of the certificate, bounds a margin ⟨B, W⟩ from below, and −B from above.
The best ν makes Σ ν_k A_k equal to B where the solution lives (singular vectors of value 1 of Σ μ*_k A_k):
only the second order of 1/t is lost, a range is about the root of the gap. docs/theory.md, "Error bars".
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ocr_interp.errors import SolverError
from ocr_interp.theory.norms import UnitarilyInvariantNorm
from ocr_interp.theory.reduction.bounds import Accuracy, ReducedSolution, dual_blocks
from ocr_interp.theory.reduction.certificate import among_implications
from ocr_interp.theory.reduction.margins import ExampleMap, example_map
from ocr_interp.theory.reduction.symmetry import Blocks, ReducedProblem
from ocr_interp.theory.solver.minimisers import Family, family, free_directions, margin_ranges

_EXACT = 1e-8
"""Largest gap at which other minimisers are looked for: which singular values are 1 must be clear."""

_ONE = 1e-5
"""How far below 1 a singular value of Σ μ A may then be to count as 1."""

_TOP = (1e-6, 1e-4, 1e-2)
"""How far below 1 a singular value of Σ μ A may be to count as 1; the best of these is taken."""

_ROUNDING = 1e-13
"""Relative rounding error of bounds, which large t would multiply."""

_STEPS = np.geomspace(1.0, 1e6, 5)
"""First values of t, in units of the smallest that keeps μ >= 0."""


def proved_ranges(
    reduced: ReducedProblem, solution: ReducedSolution, norm: UnitarilyInvariantNorm
) -> Accuracy:
    """Proved error bars for a small problem: cost and memory grow with the fourth power of its blocks' sides.

    The bar of a singular value is that of what W does along its singular vectors: the value to first order.

    Args:
        reduced: the problem.
        solution: with smallest training margin 1.
        norm: that of the solution.
    """
    training, held_out = example_map(reduced), example_map(reduced, held_out=True)
    finder = _Finder(training, solution, norm)
    margins = held_out.margins(held_out.values(held_out.logits(solution.blocks)))
    among = np.where(among_implications(held_out), margins, np.inf)
    example, value = np.nonzero(np.isfinite(margins))
    of_margin = [
        _margin_matrix(held_out, e, v) for e, v in zip(example.tolist(), value.tolist(), strict=True)
    ]
    low, high = np.full(margins.shape, np.inf), np.full(margins.shape, np.inf)
    low[example, value], high[example, value] = finder.bounds(of_margin)
    ends = []
    for counted in (among, margins):
        kept = np.isfinite(counted)
        ends.append(np.stack([np.where(kept, each, np.inf).min(axis=1) for each in (low, high)], axis=1))
    matrices, values = _singular_matrices(reduced, solution.blocks)
    lower, upper = finder.bounds(matrices)
    of_value = float(np.maximum(upper - values, values - lower).max(initial=0.0))
    of_ends = [_distance(end, m) for end, m in zip(ends, (among, margins), strict=True)]
    accuracy = Accuracy(max(of_ends), of_value, True, ranges=_known(ends[0]))
    if not norm.minimisers_share_modes or solution.gap > _EXACT:
        return accuracy
    return _over_minimisers(finder, accuracy, solution.blocks, held_out, (among, margins))


def _distance(ends: Float[np.ndarray, "group end"], margins: Float[np.ndarray, "group value"]) -> float:
    """Largest distance of an end from the smallest margin of its group."""
    own = margins.min(axis=1, initial=np.inf)
    known = np.isfinite(own)
    return float(np.abs(ends[known] - own[known, None]).max(initial=0.0))


def _known(ends: Float[np.ndarray, "group end"]) -> Float[np.ndarray, "group end"]:
    return np.where(np.isfinite(ends), ends, np.nan)


def _over_minimisers(
    finder: _Finder,
    accuracy: Accuracy,
    W: Blocks,
    held_out: ExampleMap,
    counted: tuple[Float[np.ndarray, "group value"], Float[np.ndarray, "group value"]],
) -> Accuracy:
    """The distances to other minimisers of the nuclear norm in place of the bar, if there are any."""
    found = finder.family(W)
    if found is None:
        return replace(accuracy, unique=True)
    changes = np.stack([held_out.margins(held_out.values(held_out.logits(N))) for N in found.directions])
    ends, moved = [], 0.0
    try:
        for margins in counted:
            ranges, apart = margin_ranges(found, finder.examples, finder.norm, W, margins, changes)
            ends.append(ranges)
            moved = max(moved, apart)
    except SolverError:
        return accuracy
    margin = max(_distance(end, m) for end, m in zip(ends, counted, strict=True))
    return Accuracy(margin, moved, False, unique=False, ranges=ends[0])


class _Finder:
    """Bounds of ⟨B, W⟩ for matrices B, from one solution."""

    def __init__(self, examples: ExampleMap, solution: ReducedSolution, norm: UnitarilyInvariantNorm) -> None:
        self.examples, self.norm, self._reduced = examples, norm, examples.reduced
        self._tau = solution.primal * (1 + _ROUNDING)
        G = dual_blocks(examples, solution.weights)
        values, count = _values(self._reduced, G.constant[None], G.pair[None])
        length = norm.dual_of_spectrum(values[0], count)
        self._mu, self._G = solution.weights / length, G * (1 / length)
        self._count = examples.multiplicity * examples.scale[:, None] ** 2
        self._total = float((self._count * self._mu).sum())
        self._slack = self._tau - self._total
        bases = {len(basis): basis for basis in (_tangent_basis(self._reduced, self._G, top) for top in _TOP)}
        self._bases = [basis for basis in bases.values() if basis]

    def bounds(self, matrices: list[Blocks]) -> tuple[np.ndarray, np.ndarray]:
        """Proved lower and upper bounds of every ⟨B, W⟩."""
        lower, upper = np.full(len(matrices), -np.inf), np.full(len(matrices), np.inf)
        if not matrices:
            return lower, upper
        nothing = np.zeros(self._mu.shape)
        for index, B in enumerate(matrices):
            lower[index] = self._best(nothing, 0.0, B * -1.0)
            upper[index] = -self._best(nothing, 0.0, B)
        for basis in self._bases:
            h = np.stack([self._margins(E) for E in basis])  # [basis, example, value]
            weighted = h * (self._count * self._mu)
            gram = np.einsum("aev,bev->ab", weighted, h)
            inverse = np.linalg.pinv(gram, rcond=1e-12, hermitian=True)
            for index, B in enumerate(matrices):
                y = np.einsum("a,aev->ev", inverse @ [_inner(self._reduced, B, E) for E in basis], h)
                y = np.where(self._mu > 0, y, 0.0)
                rest = dual_blocks(self.examples, self._mu * y) - B
                total = float((self._count * self._mu * y).sum())
                lower[index] = max(lower[index], self._best(y, total, rest))
                upper[index] = min(upper[index], -self._best(-y, -total, rest * -1.0))
        return lower, upper

    def family(self, W: Blocks) -> Family | None:
        """Other minimisers of the nuclear norm, if there are any."""
        basis = _tangent_basis(self._reduced, self._G, _ONE)
        margins = np.stack([self._margins(E) for E in basis])
        directions = free_directions(basis, margins, self._count * self._mu)
        return family(directions, W, _top_vectors(self._reduced, self._G, _ONE)) if directions else None

    def _best(self, y: np.ndarray, total: float, rest: Blocks) -> float:
        """The best bound over t: A − δ t − C / t for large t, with δ the gap and A, C fitted."""
        least = max(float(-y.min()), 1e-3)
        t = least * _STEPS
        bound = self._bound(t, total, rest)
        for _ in range(2):
            at = int(np.clip(np.argmax(bound), 1, len(t) - 1))
            lost = bound + self._slack * t  # A − C / t
            curvature = (lost[at] - lost[at - 1]) / (1 / t[at - 1] - 1 / t[at])
            best = np.sqrt(max(curvature, 0.0) / self._slack)
            near = np.clip(best * np.array([0.6, 1.0, 1.7]), least, 1e3 * t.max())
            t, first = np.unique(np.append(t, near), return_index=True)
            bound = np.append(bound, self._bound(near, total, rest))[first]
        return float(bound.max())

    def _bound(self, t: Float[np.ndarray, " t"], total: float, rest: Blocks) -> Float[np.ndarray, " t"]:
        constant = t[:, None, None] * self._G.constant + rest.constant
        pair = t[:, None, None, None] * self._G.pair + rest.pair
        values, count = _values(self._reduced, constant, pair)
        length = np.array([self.norm.dual_of_spectrum(each, count) for each in values])
        return t * self._total + total - self._tau * length

    def _margins(self, blocks: Blocks) -> Float[np.ndarray, "example value"]:
        margins = self.examples.margins(self.examples.values(self.examples.logits(blocks)))
        return np.where(np.isfinite(margins), margins, 0.0)


def _values(
    reduced: ReducedProblem, constant: np.ndarray, pair: np.ndarray
) -> tuple[Float[np.ndarray, "matrix value"], Float[np.ndarray, " value"]]:
    """Singular values of a stack of matrices in blocks, and how often each occurs."""
    values = np.linalg.svd(constant, compute_uv=False)
    count = np.ones(values.shape[1])
    if not reduced.has_pairs:
        return values, count
    of_pair = np.linalg.svd(pair, compute_uv=False)
    count = np.concatenate([count, np.repeat(reduced.pair_multiplicity, of_pair.shape[2])])
    return np.concatenate([values, of_pair.reshape(len(values), -1)], axis=1), count


def _inner(reduced: ReducedProblem, A: Blocks, B: Blocks) -> float:
    """⟨A, B⟩ of the full matrices."""
    pairs = np.sum(A.pair * B.pair, axis=(1, 2)) @ reduced.pair_multiplicity if reduced.has_pairs else 0.0
    return float(np.sum(A.constant * B.constant) + pairs)


def _zero(reduced: ReducedProblem) -> Blocks:
    return Blocks(np.zeros(reduced.constant_shape), np.zeros(reduced.pair_shape))


def _tangent_basis(reduced: ReducedProblem, G: Blocks, top: float) -> list[Blocks]:
    """Orthonormal basis of U M Vᵀ, M symmetric, over the singular vectors of G from 1 - top on."""
    basis = []
    for k, U, V in _top_vectors(reduced, G, top):
        count = 1.0 if k is None else reduced.pair_multiplicity[k]
        for a in range(V.shape[1]):
            for b in range(a + 1):
                E = np.outer(U[:, a], V[:, b]) + (np.outer(U[:, b], V[:, a]) if a != b else 0.0)
                blocks = _zero(reduced)
                target = blocks.constant if k is None else blocks.pair[k]
                target += E / np.sqrt(count * (2.0 if a != b else 1.0))
                basis.append(blocks)
    return basis


def _top_vectors(
    reduced: ReducedProblem, G: Blocks, top: float
) -> list[tuple[int | None, np.ndarray, np.ndarray]]:
    """(part, U, V) of the singular values of G from 1 - top on; part None is the constant block."""
    found = []
    parts: list[tuple[int | None, np.ndarray]] = [(None, G.constant)]
    parts += [(k, G.pair[k]) for k in np.flatnonzero(reduced.pair_multiplicity > 0).tolist()]
    for k, block in parts:
        U, s, Vt = np.linalg.svd(block, full_matrices=False)
        if (s >= 1 - top).any():
            found.append((k, U[:, s >= 1 - top], Vt[s >= 1 - top].T))
    return found


def _margin_matrix(examples: ExampleMap, example: int, value: int) -> Blocks:
    """The mean of A over a held-out group's examples and the outputs that a value stands for."""
    reduced, n = examples.reduced, examples.reduced.n_groups
    push = np.zeros(examples.multiplicity.shape)
    push[example, value] = -1.0
    push[example, examples.correct[example]] += examples.multiplicity[example, value]
    logits = examples.from_values(push)
    blocks = _zero(reduced)
    row = logits.constant[example]
    blocks.constant[examples.rows[example]] += row
    blocks.constant[n + examples.relations[example]] += examples.scale[example] * row
    if reduced.feature:
        blocks.constant[-1] += reduced.feature * examples.scale[example] * row
    if reduced.has_pairs:
        group = examples.rows[example]
        blocks.pair[reduced.row_type[group], reduced.row_offset[group]] += logits.pair[example, 0]
    return blocks * (1 / (examples.scale[example] ** 2 * examples.multiplicity[example, value]))


def _singular_matrices(reduced: ReducedProblem, W: Blocks) -> tuple[list[Blocks], np.ndarray]:
    """u vᵀ for every singular value of W's blocks, as matrices B with ⟨B, W⟩ that value; and the values."""
    matrices, values = [], []
    parts = [(None, W.constant, 1.0)]
    parts += [(k, W.pair[k], count) for k, count in enumerate(reduced.pair_multiplicity) if count > 0]
    for k, block, count in parts:
        U, s, Vt = np.linalg.svd(block, full_matrices=False)
        for a, value in enumerate(s):
            blocks = _zero(reduced)
            target = blocks.constant if k is None else blocks.pair[k]
            target += np.outer(U[:, a], Vt[a]) / count
            matrices.append(blocks)
            values.append(value)
    return matrices, np.array(values)
