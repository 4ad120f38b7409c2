"""Subspace: a projection that removes directions from an activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.ablation.binding import Moved, digest
from ocr_interp.ablation.controls import EQUAL_NORM, RANDOM, Draw
from ocr_interp.ablation.edits.base import Edit, Intervention
from ocr_interp.ablation.where.base import Place, Replacement, Where
from ocr_interp.ablation.where.path import Path
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.hooked.norms import wide


@dataclass(frozen=True, eq=False)
class Subspace(Edit):
    """Removes a subspace from an activation x: x ← x − g (x R) Lᵀ.

    Without `readout` the subspace lies in the space of the activation: R = L = basis, the orthogonal
    projection. With `readout` it lies in the space that this matrix maps to, such as the logits of some
    answers: R = readout @ basis and L = pinv(readout)ᵀ @ basis. Then x readout loses the subspace, and the
    part of x that the readout does not see does not change.

    Its controls are a uniformly random subspace of equal rank in the same space ("random"), and the same
    subspace scaled to remove an equal norm from the batch ("random, equal norm"; its factor g may be above
    1).

    Attributes:
        basis: orthonormal columns that span the removed subspace.
        readout: matrix from the activation to the space of the basis; None is the identity.
        equal_to: another basis in the same space: g is then the norm that it would remove from the batch,
            divided by the norm that `basis` removes, so that both remove the same norm. None is g = 1.
        circuit: the circuit that the subspace was read from; a model with other weights is then refused.

    Raises:
        StaleCircuitError: when applied, the model's weights are not those of `circuit`.
        ModelError: columns that are not orthonormal, shapes that do not fit, or a path.
    """

    basis: Float[Tensor, "space direction"] = field(repr=False)
    readout: Float[Tensor, "activation space"] | None = field(default=None, repr=False)
    equal_to: Float[Tensor, "space equal_direction"] | None = field(default=None, repr=False)
    circuit: OVCircuit | None = field(default=None, repr=False)

    former_names: ClassVar = {"Subspace": "SubspaceAblation"}

    def __post_init__(self) -> None:
        for name in ("basis", "equal_to"):
            basis = getattr(self, name)
            if basis is None:
                continue
            error = float((basis.mT @ basis - torch.eye(basis.shape[1]).to(basis)).abs().amax())
            if not basis.shape[1] or not error < 1e-5:
                raise ModelError(
                    f"{name} must have orthonormal columns, at least one, got {tuple(basis.shape)}, off "
                    f"by {error:.2g}: take torch.linalg.qr(basis).Q, or a block's output_basis"
                )
        if self.readout is not None and self.readout.shape[1] != self.basis.shape[0]:
            raise ModelError(
                f"readout must be [activation, {self.basis.shape[0]}], got {tuple(self.readout.shape)}"
            )

    def check(self, where: Where) -> None:
        if isinstance(where, Path):
            raise ModelError(
                f"a subspace is removed from an activation, got the path {where.describe()}: use "
                "output_subspace(circuit, basis), or Subspace(basis).at(Site.at(...))"
            )

    def describe(self) -> str:
        said = f"rank {self.basis.shape[1]} {digest(self.basis, self.readout)}"
        return said if self.equal_to is None else f"{said} as much as {digest(self.equal_to)}"

    def controls(self, where: Where, draw: Draw) -> dict[str, Intervention]:
        drawn = torch.as_tensor(draw.rng.standard_normal(tuple(self.basis.shape))).to(self.basis)
        basis = torch.linalg.qr(drawn).Q
        equal = self.basis if self.equal_to is None else self.equal_to
        return {
            RANDOM: replace(self, basis=basis, equal_to=None).at(where),
            EQUAL_NORM: replace(self, basis=basis, equal_to=equal).at(where),
        }

    def prepare(self, place: Place) -> Replacement:
        if self.circuit is not None:
            self.circuit.check_fresh(place.model)
        maps = Moved(*self._maps(self.basis))
        other = None if self.equal_to is None else Moved(*self._maps(self.equal_to))
        size = self.basis.shape[0] if self.readout is None else self.readout.shape[0]

        def taken(x: Tensor, by: Moved) -> Tensor:
            read, write = by.like(x)
            return (x @ read) @ write.mT

        def replacement(value: Tensor, mask: Tensor) -> Tensor:
            if value.shape[-1] != size:
                raise ModelError(
                    f"the subspace must lie in {value.shape[-1]} dimensions at {place.name}, got "
                    f"{size}: choose the hook that the basis was taken from"
                )
            x = wide(value)
            removed = taken(x, maps)
            if other is None:
                return x - removed
            wanted_norm, norm = ((each * mask).norm() for each in (taken(x, other), removed))
            return x - removed * torch.where(wanted_norm > 0, wanted_norm / norm, 0)

        return replacement

    def _maps(self, basis: Tensor) -> tuple[Tensor, Tensor]:
        if self.readout is None:
            return basis, basis
        readout, basis = wide(self.readout), wide(basis)
        return readout @ basis, torch.linalg.pinv(readout).mT @ basis

    @classmethod
    def from_text(cls, options: Mapping[str, str], prompts: Int[Tensor, "batch pos"]) -> Edit:
        raise ConfigError(
            "a subspace cannot be written on the command line: use --block for a block of singular values, "
            "or Subspace(basis).at(site) in Python"
        )


EDIT = Subspace
