"""A random circuit of the same kind and size: what norms, ranks and shares of energy look like by chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ocr_interp.checks import check_count
from ocr_interp.circuits.matrix import Circuit
from ocr_interp.hooked.provenance import fingerprint_of


def random_circuit(circuit: Circuit, seed: int) -> Circuit:
    """Normal factors of the circuit's shapes, scaled to its Frobenius norm; see `OVCircuit.random_like`."""
    check_count("seed", seed, 0)
    generator = np.random.default_rng(seed)
    left = generator.standard_normal(circuit.left.shape)
    # Without factors, right only selects outputs, so W itself is drawn.
    right = generator.standard_normal(circuit.right.shape) if circuit.has_factors else circuit.right.copy()
    drawn = dataclasses.replace(circuit, left=left, right=right)
    left = left * (circuit.frobenius_norm / drawn.frobenius_norm)
    like = circuit.provenance
    said = f"random baseline: normal factors, scaled to the Frobenius norm of weights {like.fingerprint}"
    provenance = dataclasses.replace(
        like,
        model=f"random weights like {like.model}",
        step=None,
        seed=seed,
        fingerprint=fingerprint_of({"left": torch.from_numpy(left), "right": torch.from_numpy(right)}),
        dtype="float64",
        folded=(),
        flags=(*like.flags, said),
    )
    return dataclasses.replace(
        circuit, left=left, right=right, bias=np.zeros_like(circuit.bias), provenance=provenance, whole=None
    )
