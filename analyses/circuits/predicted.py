"""The predicted max-margin solution as an OVCircuit between the tokens of a trained one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analyses.theory.limit_runs import NORMS, OvKind
from ocr_interp import OVCircuit, solve


def predicted_circuit(like: OVCircuit, ov: OvKind) -> OVCircuit:
    """W of the closed form in the rows of subjects and relations; the rows of noise and EOS are zero."""
    assert like.task is not None
    W = solve(like.task, NORMS[ov]).W
    left = np.zeros((len(like.inputs), W.shape[1]))
    left[: len(W)] = W
    provenance = replace(
        like.provenance,
        model=f"closed form, {NORMS[ov]} norm",
        step=None,
        seed=None,
        fingerprint="of the closed form",
        folded=(),
        flags=(),
    )
    return replace(like, left=left, right=np.eye(W.shape[1]), provenance=provenance)
