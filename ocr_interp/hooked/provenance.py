"""Where a number comes from: the model, its step and seed, and a fingerprint of the weights read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ocr_interp.errors import WeightsError
from ocr_interp.storage.digests import digest_of_tensors


@dataclass(frozen=True)
class Provenance:
    """What a circuit was read from and what was done to it on the way.

    Attributes:
        model: the model's name; for a Run its kind, e.g. "fact-recall factorized".
        step: updates that the weights had seen; None where that is unknown.
        seed: of the run; None where that is unknown.
        fingerprint: first 16 hexadecimal digits of the SHA-256 of the weights that were read.
        layer, head: which attention head.
        kv_head: which key-value head it reads from; the same as `head` unless they are grouped.
        dtype: of the model's weights. Circuits themselves are computed in float64.
        folded: what was multiplied into the factors, or left out of them, one sentence each.
        flags: what the circuit leaves out of the model's own computation, one sentence each.
        checks: what the model was seen to do as its weights say, one phrase with its relative error each.
        of: of a model with adapters, "merged" (what the model uses), "base" (without them) or "update" (the
            difference).
    """

    model: str
    step: int | None
    seed: int | None
    fingerprint: str
    layer: int
    head: int
    kv_head: int
    dtype: str
    folded: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    of: str = "merged"

    def summary(self) -> str:
        """One line: model, head, step, seed, fingerprint."""
        when = "" if self.step is None else f", step {self.step:,}"
        seed = "" if self.seed is None else f", seed {self.seed}"
        side = {"base": ", without its adapters", "update": ", what its adapters add"}.get(self.of, "")
        where = f"{self.model}, layer {self.layer}, head {self.head}{side}"
        return f"{where}{when}{seed}, weights {self.fingerprint}"


def fingerprint_of(weights: Mapping[str, Tensor]) -> str:
    """A fingerprint of named tensors: names, shapes, dtypes and bits; the device does not matter."""

    def header(name: str, tensor: Tensor) -> str:  # as in the fingerprints of published figures
        return f"{name} {tuple(tensor.shape)} {tensor.dtype}\n"

    return digest_of_tensors(weights, 16, header=header)


def check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Requires finite weights.

    Raises:
        WeightsError: names the tensor and how many of its entries are NaN or infinite.
    """
    for name, tensor in weights.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise WeightsError(
                f"{name} of {where} must be finite, got {bad} NaN or infinite entries of {tensor.numel()}: "
                "load an earlier snapshot, e.g. run.at(step)"
            )
