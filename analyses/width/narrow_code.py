"""What a narrow OV circuit could do: a code of width 2 with every answer right, told or not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ocr_interp import FactRecallTask, certify
from ocr_interp.theory import Certificate


@dataclass(frozen=True)
class PlanarCode:
    """Factors of width 2, and what they prove.

    Attributes:
        W_V: subjects, r1, r2 by the two dimensions.
        W_O: the two dimensions by answers.
        certificate: margins of W_V W_O and bounds of its norm.
    """

    W_V: Float[np.ndarray, "input 2"]
    W_O: Float[np.ndarray, "2 answer"]
    certificate: Certificate


def planar_code(task: FactRecallTask) -> PlanarCode:
    """Width 2 is enough for any balanced task: subjects on a line, relations beside it, answers on a circle.

    With angles θ_i = π (i + 1/2) / n, the subjects of pair i stand at (cot θ_i, 0), r1 at (0, 1), r2 at
    (0, -1). So subject + r1 points to the angle θ_i and subject + r2 to -θ_i: 2n different directions, and
    the answers are the unit vectors in them. No other unit vector has as large a product. Held-out
    subjects stand where the others of their pair stand. The smallest margin is about 1 - cos(π / n).

    Width 1 is not enough for two pairs: of the products of a number with the answers' numbers, only the
    largest or the smallest answer is ever on top, so at most 2 of the 2n answers are ever given.
    """
    n = task.n_facts
    angle = np.pi * (np.arange(n) + 0.5) / n
    place = 1 / np.tan(angle)[task.subject_fact]
    W_V = np.concatenate([np.stack([place, np.zeros_like(place)], axis=1), [[0.0, 1.0], [0.0, -1.0]]])
    facts, implications = np.stack([np.cos(angle), np.sin(angle)]), np.stack([np.cos(angle), -np.sin(angle)])
    W_O = np.concatenate([facts, implications[:, task.fact_implication]], axis=1)
    return PlanarCode(W_V, W_O, certify(W_V @ W_O, task, "nuclear"))
