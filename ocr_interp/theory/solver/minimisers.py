"""Where a task has several minimisers: how far their held-out margins are apart.

By complementarity every minimiser of the nuclear norm is U M Vᵀ with M symmetric and positive semidefinite,
over the singular vectors of value 1 of Σ μ A, and has margin 1 wherever μ > 0. If those equations leave
directions N free, W + N is another minimiser until M stops being positive semidefinite or another margin
falls to 1. Tasks of five and more facts with groups of different sizes have such directions. docs/theory.md,
"Error bars".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ocr_interp.errors import SolverError
from ocr_interp.theory.norms import UnitarilyInvariantNorm
from ocr_interp.theory.reduction.bounds import smallest_margin
from ocr_interp.theory.reduction.margins import ExampleMap, blocks_norm, singular_values
from ocr_interp.theory.reduction.symmetry import Blocks

_FREE = 1e-8
"""Singular values of the equations below this share of the largest are 0: directions that they leave free."""

_TIGHT = 1e-7
"""Dual weights above this share of the largest are positive."""

_WITNESS = 1e-6
"""Relative norm and margin by which a matrix may miss to count as another minimiser."""


@dataclass(frozen=True)
class Family:
    """Directions along which a solution can be moved without a change of its norm or its tight margins.

    Attributes:
        directions: at least one, orthonormal, as blocks.
        parts: for every part of the blocks (the constant one, each pair block) that has singular vectors of
            value 1: M at the solution, and what each direction adds to it.
    """

    directions: list[Blocks]
    parts: list[tuple[Float[np.ndarray, "value value"], list[Float[np.ndarray, "value value"]]]]


def free_directions(
    basis: list[Blocks],
    margins: Float[np.ndarray, "direction example value"],
    weights: Float[np.ndarray, "example value"],
) -> list[Blocks]:
    """Orthonormal combinations of a basis that change no margin of a positive weight.

    Args:
        basis: of the tangent space, orthonormal.
        margins: of each of them.
        weights: total dual weight of every constraint.
    """
    tight = margins[:, weights > _TIGHT * weights.max()]
    U, s, _ = np.linalg.svd(tight, full_matrices=True)
    rank = int((s > _FREE * s[0]).sum())
    return [_combined(basis, column) for column in U[:, rank:].T]


def _combined(basis: list[Blocks], coefficients: Float[np.ndarray, " direction"]) -> Blocks:
    total = basis[0] * float(coefficients[0])
    for blocks, factor in zip(basis[1:], coefficients[1:].tolist(), strict=True):
        total = total + blocks * factor
    return total


def family(
    directions: list[Blocks],
    W: Blocks,
    vectors: list[tuple[int | None, np.ndarray, np.ndarray]],
) -> Family:
    """The family of a solution.

    Args:
        directions: from `free_directions`.
        W: the solution.
        vectors: part of the blocks (None: the constant one), U and V of value 1.
    """
    parts = []
    for k, U, V in vectors:
        own = [_part(N, k) for N in directions]
        square = [U.T @ N @ V for N in own]
        M = U.T @ _part(W, k) @ V
        parts.append(((M + M.T) / 2, [(N + N.T) / 2 for N in square]))
    return Family(directions, parts)


def _part(blocks: Blocks, k: int | None) -> np.ndarray:
    return blocks.constant if k is None else blocks.pair[k]


def margin_ranges(
    found: Family,
    training: ExampleMap,
    norm: UnitarilyInvariantNorm,
    W: Blocks,
    held_out: Float[np.ndarray, "example value"],
    changes: Float[np.ndarray, "direction example value"],
) -> tuple[Float[np.ndarray, "example end"], float]:
    """Smallest and largest held-out margin of every example over the family, and how far singular values
    move.

    Args:
        found: the family.
        training: the constraints.
        norm: the nuclear norm.
        W: the solution, margin 1.
        held_out: margins of the held-out examples against each value that counts; inf elsewhere.
        changes: what each direction adds to them.

    Raises:
        SolverError: the small program failed, or what it found is no minimiser after all.
    """
    import cvxpy as cp

    n = len(found.directions)
    c, g, level = cp.Variable(n), cp.Parameter(n), cp.Variable()
    constraints: list[Any] = []
    for M, changed in found.parts:
        constraints.append(sum((c[i] * N for i, N in enumerate(changed)), cp.Constant(M)) >> 0)
    margins = training.margins(training.values(training.logits(W)))
    steps = np.stack([_margins_of(training, N) for N in found.directions], axis=-1)
    bounded = np.isfinite(margins) & (np.abs(steps).max(axis=-1) > 1e-9)
    constraints.append(margins[bounded] + steps[bounded] @ c >= 1 - 1e-9)
    lowest = cp.Problem(cp.Minimize(g @ c), constraints)
    ranges, moved = np.zeros((len(held_out), 2)), 0.0
    before = singular_values(training.reduced, W)[0]
    for e, own in enumerate(held_out):
        counts = np.flatnonzero(np.isfinite(own))
        if not len(counts):
            ranges[e] = np.nan
            continue
        ends = []
        for v in counts:
            g.value = changes[:, e, v]
            ends.append(own[v] + _solve(lowest))
        top = cp.Problem(
            cp.Maximize(level), [*constraints, own[counts] + changes[:, e, counts].T @ c >= level]
        )
        ranges[e] = min(ends), _solve(top)
        extreme = _combined([W, *found.directions], np.append(1.0, np.asarray(c.value)))
        excess = blocks_norm(training.reduced, extreme, norm) / blocks_norm(training.reduced, W, norm) - 1
        if max(excess, 1 - smallest_margin(training, extreme)) > _WITNESS:
            raise SolverError(
                f"a matrix at the end of the family has {excess:.1e} more norm: it is no minimiser"
            )
        after = singular_values(training.reduced, extreme)[0]
        moved = max(moved, float(np.abs(after - before).max()))
    return ranges, moved


def _margins_of(examples: ExampleMap, blocks: Blocks) -> Float[np.ndarray, "example value"]:
    values = examples.values(examples.logits(blocks))
    return values[np.arange(len(values)), examples.correct][:, None] - values


def _solve(program: Any) -> float:
    import cvxpy as cp

    try:
        program.solve(solver="CLARABEL")
    except cp.SolverError as error:
        raise SolverError(f"the range of margins over all minimisers was not found: {error}") from None
    if program.value is None or not np.isfinite(program.value):
        raise SolverError(f"the range of margins over all minimisers was not found: {program.status}")
    return float(program.value)
