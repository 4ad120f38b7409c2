"""Principal angles between predicted degenerate blocks and the measured directions that fit them best."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from ocr_interp.linalg.spectrum import Spectrum


@dataclass(frozen=True)
class BlockAngles:
    """Principal angles between a predicted degenerate block and the measured directions matched to it.

    Attributes:
        predicted_value: singular value of the block.
        multiplicity: its dimension.
        measured_values: singular values of the matched directions over `scale` of the comparison, so that
            they can be read beside predicted_value; largest first.
        input_angles, output_angles: degrees, smallest first; 0 = same subspace, 90 = orthogonal.
    """

    predicted_value: float
    multiplicity: int
    measured_values: Float[np.ndarray, " matched"] = field(repr=False)
    input_angles: Float[np.ndarray, " direction"] = field(repr=False)
    output_angles: Float[np.ndarray, " direction"] = field(repr=False)


def block_angles(predicted: Spectrum, measured: Spectrum, scale: float) -> tuple[BlockAngles, ...]:
    """Principal angles of every predicted block with the measured directions that fit it best.

    Args:
        predicted: in degenerate blocks.
        measured: one direction per block (tolerance 0).
        scale: measured values are divided by it.

    Measured directions are assigned to predicted ones, each to at most one block, so that the sum of ‖P u‖² +
    ‖Q v‖² (P, Q the block's projectors) is largest. With fewer measured directions than predicted ones the
    last angles of a block are 90 degrees.
    """
    U = np.hstack([block.input_basis for block in measured.blocks])
    V = np.hstack([block.output_basis for block in measured.blocks])
    overlap = np.vstack(
        [
            np.tile(
                ((b.input_basis.T @ U) ** 2).sum(0) + ((b.output_basis.T @ V) ** 2).sum(0),
                (b.multiplicity, 1),
            )
            for b in predicted.blocks
        ]
    )
    slots, directions = linear_sum_assignment(overlap, maximize=True)
    block_of_slot = np.repeat(np.arange(len(predicted.blocks)), predicted.multiplicities)
    found = []
    for block in predicted.blocks:
        chosen = np.sort(directions[block_of_slot[slots] == block.index])
        found.append(
            BlockAngles(
                predicted_value=block.value,
                multiplicity=block.multiplicity,
                measured_values=measured.values[chosen] / scale,
                input_angles=_angles(block.input_basis, U[:, chosen]),
                output_angles=_angles(block.output_basis, V[:, chosen]),
            )
        )
    return tuple(found)


def _angles(
    left: Float[np.ndarray, "token direction"], right: Float[np.ndarray, "token chosen"]
) -> Float[np.ndarray, " direction"]:
    """Principal angles in degrees; from sines where they are small, since acos loses half the digits."""
    cosines = np.linalg.svd(left.T @ right, compute_uv=False) if right.shape[1] else np.zeros(0)
    rest = right - left @ (left.T @ right)
    sines = np.sort(np.linalg.svd(rest, compute_uv=False))[: len(cosines)] if right.shape[1] else np.zeros(0)
    angles = np.degrees(np.arctan2(sines, np.clip(cosines, 0.0, 1.0)))
    return np.concatenate([angles, np.full(left.shape[1] - len(angles), 90.0)])
