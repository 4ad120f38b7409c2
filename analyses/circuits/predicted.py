"""Max-margin solution and saddle as OVCircuits between the tokens of a trained one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analyses.theory.limit_runs import NORMS, OvKind
from ocr_interp import OVCircuit, solve
from ocr_interp.theory import saddle_solution


def predicted_circuit(like: OVCircuit, ov: OvKind) -> OVCircuit:
    """The max-margin solution in the rows of subjects and relations; those of noise and EOS are zero."""
    assert like.task is not None
    return _between(like, solve(like.task, NORMS[ov]).W, f"closed form, {NORMS[ov]} norm")


def saddle_circuit(like: OVCircuit) -> OVCircuit:
    """The saddle, where gradient descent takes the factorized model from a small start; frozen attention."""
    assert like.task is not None
    return _between(like, saddle_solution(like.task).W, "the saddle")


def _between(like: OVCircuit, W: np.ndarray, name: str) -> OVCircuit:
    left = np.zeros((len(like.inputs), W.shape[1]))
    left[: len(W)] = W
    provenance = replace(
        like.provenance,
        model=name,
        step=None,
        seed=None,
        fingerprint=f"of {name}",
        folded=(),
        flags=(),
    )
    return replace(like, left=left, right=np.eye(W.shape[1]), provenance=provenance)
