"""Singular values in degenerate blocks, norms and ranks, from factors and without forming the product.

W = left @ right has at most d_head non-zero singular values: those of R_left R_rightᵀ, a d_head × d_head
matrix, after a QR decomposition of both factors. Gram matrices would be cheaper and square the condition
number: in float32 they lose everything below 3e-4 of the largest singular value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_number
from ocr_interp.errors import ConfigError, ModelError

LARGEST_MATRIX = 2**26
"""Most entries for which a product is formed (half a gigabyte); larger circuits have only their factors."""


@dataclass(frozen=True)
class DegenerateBlock:
    """Singular directions that the tolerance cannot tell apart; only their span means anything.

    Attributes:
        index: 0 is the block of the largest singular values.
        values: its singular values, largest first, in the unit of the circuit (logits).
        input_basis: orthonormal basis of its span on the input side; any rotation of it is equivalent.
        output_basis: the same on the output side.
    """

    index: int
    values: Float[np.ndarray, " direction"] = field(repr=False)
    input_basis: Float[np.ndarray, "input direction"] = field(repr=False)
    output_basis: Float[np.ndarray, "output direction"] = field(repr=False)

    @property
    def value(self) -> float:
        """Mean singular value."""
        return float(self.values.mean())

    @property
    def multiplicity(self) -> int:
        """Dimension of the block."""
        return len(self.values)

    @property
    def input_projector(self) -> Float[np.ndarray, "input input"]:
        """Orthogonal projector onto the span on the input side: P @ W keeps the block alone."""
        return self.input_basis @ self.input_basis.T

    @property
    def output_projector(self) -> Float[np.ndarray, "output output"]:
        """The same on the output side: W @ P keeps the block alone."""
        return self.output_basis @ self.output_basis.T

    @property
    def component(self) -> Float[np.ndarray, "input output"]:
        """The block's part of W; the components of all blocks sum to W."""
        return (self.input_basis * self.values) @ self.output_basis.T


@dataclass(frozen=True)
class Spectrum:
    """The singular value decomposition of a circuit, grouped into degenerate blocks.

    Attributes:
        values: singular values above `null_tolerance` times the largest, largest first, in logits.
        blocks: the values and their directions, grouped.
        tolerance: a block holds the values within tolerance × (the largest of all) of the block's largest.
        null_tolerance: values below this share of the largest count as zero and are in no block.
    """

    values: Float[np.ndarray, " direction"] = field(repr=False)
    blocks: tuple[DegenerateBlock, ...] = field(repr=False)
    tolerance: float
    null_tolerance: float

    @property
    def multiplicities(self) -> tuple[int, ...]:
        """Dimensions of the blocks."""
        return tuple(block.multiplicity for block in self.blocks)

    @property
    def rank(self) -> int:
        """Number of singular values that do not count as zero."""
        return len(self.values)

    def block(self, index: int) -> DegenerateBlock:
        """A block by index; negative indices count from the end.

        Raises:
            ConfigError: there is no such block.
        """
        if not -len(self.blocks) <= index < len(self.blocks):
            raise ConfigError(
                f"block must be in 0..{len(self.blocks) - 1}, got {index}: multiplicities are "
                f"{self.multiplicities} at tolerance {self.tolerance:g}"
            )
        return self.blocks[index]

    @cached_property
    def norms(self) -> Norms:
        """Norms and ranks."""
        return norms_of(self.values)


@dataclass(frozen=True)
class Norms:
    """Norms and effective ranks of a matrix, all from its singular values s.

    Attributes:
        nuclear, frobenius, spectral: Σ s, √Σ s², max s, in logits.
        effective_rank: exp of the entropy of s / Σ s (Roy & Vetterli 2007), as in
            `ocr_interp.training.tracking`; 0 for a zero matrix.
        stable_rank: ‖W‖_F² / ‖W‖²; 0 for a zero matrix.
    """

    nuclear: float
    frobenius: float
    spectral: float
    effective_rank: float
    stable_rank: float

    def summary(self) -> str:
        """One line."""
        return (
            f"nuclear {self.nuclear:.5g}, Frobenius {self.frobenius:.5g}, spectral {self.spectral:.5g}, "
            f"effective rank {self.effective_rank:.2f}, stable rank {self.stable_rank:.2f}"
        )


def norms_of(values: Float[np.ndarray, " direction"]) -> Norms:
    """Norms and ranks from singular values, in any order."""
    s = np.asarray(values, dtype=np.float64)
    s = s[s > 0]
    if not len(s):
        return Norms(0.0, 0.0, 0.0, 0.0, 0.0)
    share, squared = s / s.sum(), float((s**2).sum())
    return Norms(
        nuclear=float(s.sum()),
        frobenius=float(np.sqrt(squared)),
        spectral=float(s.max()),
        effective_rank=float(np.exp(-(share * np.log(share)).sum())),
        stable_rank=squared / float(s.max()) ** 2,
    )


def formed(
    left: Float[np.ndarray, "input d_head"], right: Float[np.ndarray, "d_head output"], restrict: str
) -> Float[np.ndarray, "input output"]:
    """left @ right.

    Args:
        left, right: the factors.
        restrict: what a user can restrict, for the message, e.g. "inputs or outputs".

    Raises:
        ModelError: a product with more than LARGEST_MATRIX entries.
    """
    rows, columns = left.shape[0], right.shape[1]
    if rows * columns > LARGEST_MATRIX:
        raise ModelError(
            f"W must have at most {LARGEST_MATRIX:,} entries to be formed, got {rows:,} × {columns:,}: "
            f"restrict {restrict}, or use .left and .right"
        )
    return left @ right


def factored_svd(
    left: Float[np.ndarray, "input d_head"], right: Float[np.ndarray, "d_head output"]
) -> tuple[
    Float[np.ndarray, "input direction"],
    Float[np.ndarray, " direction"],
    Float[np.ndarray, "output direction"],
]:
    """U, s, V with left @ right = U diag(s) Vᵀ, without forming the product when d_head is small."""
    if left.shape[1] >= min(left.shape[0], right.shape[1]):
        U, s, Vt = np.linalg.svd(left @ right, full_matrices=False)
        return U, s, Vt.T
    Q_left, R_left = np.linalg.qr(left)
    Q_right, R_right = np.linalg.qr(right.T)
    U, s, Vt = np.linalg.svd(R_left @ R_right.T)
    return Q_left @ U, s, Q_right @ Vt.T


def spectrum_of(
    left: Float[np.ndarray, "input d_head"],
    right: Float[np.ndarray, "d_head output"],
    tolerance: float,
    null_tolerance: float = 1e-10,
) -> Spectrum:
    """The spectrum of left @ right in degenerate blocks.

    Raises:
        ConfigError: a negative tolerance.
    """
    check_number("tolerance", tolerance, at_least=0.0)
    check_number("null_tolerance", null_tolerance, at_least=0.0)
    U, s, V = factored_svd(left, right)
    largest = float(s[0]) if len(s) else 0.0
    s = s[(s > null_tolerance * largest) & (s > 0)]
    blocks, start = [], 0
    while start < len(s):
        stop = int(np.searchsorted(-s, -(s[start] - tolerance * largest), side="right"))
        stop = max(stop, start + 1)
        blocks.append(DegenerateBlock(len(blocks), s[start:stop], U[:, start:stop], V[:, start:stop]))
        start = stop
    return Spectrum(s, tuple(blocks), tolerance, null_tolerance)
