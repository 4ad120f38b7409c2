"""What an intervention does: frozen specs of zero, mean, resample and subspace ablation, and patches.

A spec says where (a `Site`) and what; `ablated` applies it. Paths are in `ocr_interp.ablation.paths`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ocr_interp.ablation.sites import Site
from ocr_interp.ablation.spec import AtSite, Bound, Moved, digest, reference_run, wide
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ConfigError, InterventionNeverFiredError, ModelError
from ocr_interp.hooked.passes import TokenReader
from ocr_interp.hooked.protocol import LAYER_HOOKS, HookedModel
from ocr_interp.linalg.spectrum import DegenerateBlock


@dataclass(frozen=True)
class ZeroAblation(AtSite):
    """Sets the chosen entries to zero.

    At hook_pattern the other entries stay as they are (a softmax pattern then sums to less than 1). A zero
    at hook_attn_scores takes a token away in a model with linear attention; under a softmax it is a score
    like any other.
    """

    def _prepare(self, model: HookedModel, wanted: frozenset[int] | None) -> Callable[..., Tensor]:
        return lambda value, mask: torch.zeros_like(value)


@dataclass(frozen=True, eq=False)
class MeanAblation(AtSite):
    """Sets the chosen entries to their mean over a reference batch.

    The reference is run once when the block is entered, through the model as it is then. The mean is
    over sequences, and over those positions of the reference that the site chooses (its positions,
    its tokens), so that noise tokens become a mean noise token.

    Attributes:
        reference: token ids of the reference batch.
        by_position: a mean for every position by itself instead; needs sequences of equal length.

    Raises:
        ModelError: at an attention pattern (use ResampleAblation).
        InterventionNeverFiredError: when the block is entered, no such token in the reference.
    """

    reference: Int[Tensor, "reference pos"] = field(repr=False)
    by_position: bool = False

    def __post_init__(self) -> None:
        if self.site.is_pattern:
            raise ModelError(
                f"a mean needs an activation [batch, pos, ...], got {self.site.hook}: a mean pattern is of "
                "no prompt; use ResampleAblation or ZeroAblation there"
            )

    def describe(self) -> str:
        """One phrase, the same for the same spec."""
        how = " by position" if self.by_position else ""
        return f"{super().describe()} reference {digest(self.reference)}{how}"

    def _prepare(self, model: HookedModel, wanted: frozenset[int] | None) -> Callable[..., Tensor]:
        with torch.no_grad(), reference_run():
            tokens = self.reference.to(model.W_E.device)
            _, cache = model.run_with_cache(tokens, names_filter=self.site.hook)
        value = wide(cache[self.site.hook])
        rows = replace(self.site, heads=None).mask(value, self.reference, wanted)
        over: tuple[int, ...] = (0,) if self.by_position else (0, 1)
        count = rows.to(value.dtype).sum(over, keepdim=True)
        if not bool((count > 0).any()):
            raise InterventionNeverFiredError(
                f"reference must hold a chosen token or position of {self.site.describe()}, got none"
            )
        mean = torch.where(rows, value, 0).sum(over, keepdim=True) / count

        def replacement(value: Tensor, mask: Tensor) -> Tensor:
            if self.by_position and value.shape[1] != mean.shape[1]:
                raise ModelError(
                    f"a mean by position needs sequences of {mean.shape[1]} tokens as the reference, got "
                    f"{value.shape[1]}: pass by_position=False"
                )
            return mean.expand_as(value)

        return replacement


@dataclass(frozen=True)
class ResampleAblation(AtSite):
    """Sets the chosen entries to those of another sequence of the batch, at the same position.

    Donors are a random permutation with a single cycle (Sattolo), so no sequence is its own donor. The
    first forward pass inside `ablated` draws the first permutation of the seed, and so on.

    Attributes:
        seed: of the permutations, or a torch.Generator on the CPU, whose state then moves on.

    Raises:
        ModelError: in the forward pass, a batch of one sequence.
    """

    seed: int | torch.Generator = 0

    def describe(self) -> str:
        """One phrase, the same for the same spec."""
        return f"{super().describe()} seed {self.seed if isinstance(self.seed, int) else 'generator'}"

    def _prepare(self, model: HookedModel, wanted: frozenset[int] | None) -> Callable[..., Tensor]:
        generator = self.seed
        if not isinstance(generator, torch.Generator):
            generator = torch.Generator().manual_seed(generator)

        def replacement(value: Tensor, mask: Tensor) -> Tensor:
            if len(value) < 2:
                raise ModelError("resampling needs a batch of >= 2 sequences, got 1: pass more prompts")
            return value[donors(len(value), generator).to(value.device)]

        return replacement


def donors(count: int, generator: torch.Generator) -> Int[Tensor, " batch"]:
    """A random permutation with one cycle: nobody stays in place (Sattolo's algorithm)."""
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = int(torch.randint(last, (1,), generator=generator))
        order[last], order[other] = order[other], order[last]
    return torch.tensor(order)


@dataclass(frozen=True, eq=False)
class Patch(AtSite):
    """Sets the chosen entries to given ones, usually of another prompt's cache.

    Attributes:
        source: values of the whole activation at the hook; one sequence, or one for each of the batch.

    Raises:
        ModelError: a source with NaN; in the forward pass, one of another shape.
    """

    source: Float[Tensor, "..."] = field(repr=False)

    def __post_init__(self) -> None:
        missing = int(self.source.isnan().sum())
        if missing:
            raise ModelError(f"source must hold numbers, got {missing} NaN of {self.source.numel()} entries")

    def describe(self) -> str:
        """One phrase, the same for the same spec."""
        return f"{super().describe()} source {digest(self.source)}"

    def _prepare(self, model: HookedModel, wanted: frozenset[int] | None) -> Callable[..., Tensor]:
        moved = Moved(self.source)

        def replacement(value: Tensor, mask: Tensor) -> Tensor:
            if self.source.shape[1:] != value.shape[1:] or self.source.shape[0] not in (1, len(value)):
                raise ModelError(
                    f"source must be {tuple(value.shape)} (or one sequence of it) at {self.site.hook}, got "
                    f"{tuple(self.source.shape)}: cache it from prompts of the same length"
                )
            return moved.like(value)[0].expand_as(value)

        return replacement


@dataclass(frozen=True, eq=False)
class SubspaceAblation(AtSite):
    """Removes a subspace from an activation x: x ← x − g (x R) Lᵀ.

    Without `readout` the subspace lies in the activation: R = L = basis, the orthogonal projection. With
    it, the subspace lies in a space that the activation is read into, such as the logits of some answers:
    R = readout @ basis and L = pinv(readout)ᵀ @ basis, so that what is read afterwards is (x readout)
    without the subspace, and what cannot be read stays.

    Attributes:
        basis: orthonormal columns that span what is removed.
        readout: from the activation to the space of the basis; None is the identity.
        equal_to: another basis in the same space: g is then the norm that it would remove from the batch
            over what this one removes, so that both remove equally much. None is g = 1.
        circuit: where the subspace was read from; a model with other weights is then refused.

    Raises:
        StaleCircuitError: when applied, weights that are not those of `circuit`.
        ModelError: columns that are not orthonormal, or shapes that do not fit.
    """

    basis: Float[Tensor, "space direction"] = field(repr=False)
    readout: Float[Tensor, "activation space"] | None = field(default=None, repr=False)
    equal_to: Float[Tensor, "space equal_direction"] | None = field(default=None, repr=False)
    circuit: OVCircuit | None = field(default=None, repr=False)

    def bind(self, model: HookedModel, reader: TokenReader, labels: Sequence[str] | None) -> Bound:
        """Checks circuit, site and tokens and gives the hook."""
        if self.circuit is not None:
            self.circuit.check_fresh(model)
        return super().bind(model, reader, labels)

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

    def describe(self) -> str:
        """One phrase, the same for the same spec."""
        said = f"{super().describe()} rank {self.basis.shape[1]} {digest(self.basis, self.readout)}"
        return said if self.equal_to is None else f"{said} as much as {digest(self.equal_to)}"

    def _prepare(self, model: HookedModel, wanted: frozenset[int] | None) -> Callable[..., Tensor]:
        maps = Moved(*self._maps(self.basis))
        other = None if self.equal_to is None else Moved(*self._maps(self.equal_to))
        size = self.basis.shape[0] if self.readout is None else self.readout.shape[0]

        def taken(x: Tensor, by: Moved) -> Tensor:
            read, write = by.like(x)
            return (x @ read) @ write.mT

        def replacement(value: Tensor, mask: Bool[Tensor, "..."]) -> Tensor:
            if value.shape[-1] != size:
                raise ModelError(
                    f"the subspace must lie in {value.shape[-1]} dimensions at {self.site.hook}, got "
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


def output_subspace(
    circuit: OVCircuit, basis: Any, *, positions: tuple[int, ...] | None = None, check_fresh: bool = True
) -> SubspaceAblation:
    """Removes a subspace of the outputs of an OV circuit from what its head writes: W ← W (I − B Bᵀ).

    In a fact-recall model the edit is at hook_attn_out and leaves the logits of other tokens as they are.
    In any other model it is at the head's hook_z: z ← z − z P with P = right B Bᵀ pinv(right), which is
    exact for every row of W where B lies in its row space; the logits of other tokens move as z does, and
    the head's bias loses its part too.

    Args:
        circuit: W = left @ right; its provenance names layer and head.
        basis: orthonormal columns [output, direction], e.g. a block's output_basis.
        positions: query positions; None is all.
        check_fresh: whether `ablated` refuses a model whose weights are not those that the circuit was read
            from; False transfers the subspace to another model.

    Raises:
        StaleCircuitError: when applied, a model with other weights.
    """
    kept = torch.as_tensor(basis, dtype=torch.float64)
    source = circuit if check_fresh else None
    layer, head = circuit.provenance.layer, circuit.provenance.head
    if circuit.task is None:
        site = Site(LAYER_HOOKS["z"].format(layer=layer), heads=(head,), positions=positions)
        return SubspaceAblation(site, kept, torch.as_tensor(circuit.right), circuit=source)
    d_vocab = circuit.task.d_vocab
    readout = torch.zeros(2 * d_vocab, len(circuit.outputs), dtype=torch.float64)
    readout[d_vocab + torch.tensor(circuit.outputs.ids), torch.arange(len(circuit.outputs))] = 1
    site = Site(LAYER_HOOKS["attn_out"].format(layer=layer), positions=positions)
    return SubspaceAblation(site, kept, readout, circuit=source)


def singular_block(
    circuit: OVCircuit,
    block: DegenerateBlock | int,
    tolerance: float | None = None,
    *,
    check_fresh: bool = True,
) -> SubspaceAblation:
    """Removes a degenerate block of singular values from a circuit: W ← W − block.component.

    Args:
        circuit: any OV circuit; for a fact-recall Run usually
            OVCircuit.from_run(run).effective.subjects_and_relations.
        block: a block of circuit.spectrum(tolerance), or its index there.
        tolerance: of an index, as in `OVCircuit.spectrum`: trained weights need e.g. 0.05, or every block
            is a single direction, which means nothing by itself.
        check_fresh: as in `output_subspace`.

    Raises:
        ConfigError: an index without a tolerance.
        StaleCircuitError: when applied, a model with other weights.
    """
    if isinstance(block, int):
        if tolerance is None:
            raise ConfigError(
                f"a block by index must come with a tolerance, got block {block} alone: pass tolerance=0.05 "
                "for trained weights, or a block of circuit.spectrum(tolerance)"
            )
        block = circuit.spectrum(tolerance).block(block)
    return output_subspace(circuit, block.output_basis, check_fresh=check_fresh)
