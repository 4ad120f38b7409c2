"""Interventions on parts of a circuit, in one call: a subspace of outputs, a singular block, an OV block."""

from __future__ import annotations

from typing import Any

import torch

from ocr_interp.ablation.edits.base import Intervention
from ocr_interp.ablation.edits.subspace import Subspace
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site, tokens_of_kind
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ConfigError, unknown_name
from ocr_interp.hooked.protocol import LAYER_HOOKS
from ocr_interp.hooked.tokens.task_tokens import OUTPUT_KINDS
from ocr_interp.linalg.spectrum import DegenerateBlock
from ocr_interp.task import FactRecallTask


def output_subspace(
    circuit: OVCircuit, basis: Any, *, positions: tuple[int, ...] | None = None, check_fresh: bool = True
) -> Intervention:
    """Removes a subspace of the outputs of an OV circuit from what its head writes: W ← W (I − B Bᵀ).

    In a fact-recall model the edit is at hook_attn_out and does not change the logits of other tokens. In any
    other model it is at the head's hook_z: z ← z − z P with P = right B Bᵀ pinv(right), which is exact if B
    lies in the row space of W; the logits of other tokens change with z, and the subspace is removed from
    the head's bias too.

    Args:
        circuit: W = left @ right; its provenance names layer and head.
        basis: orthonormal columns [output, direction], e.g. a block's output_basis.
        positions: query positions; None is all.
        check_fresh: whether `ablated` refuses a model whose weights differ from those that the circuit was
            read from; False allows the subspace of one model to be removed from another.

    Raises:
        StaleCircuitError: when applied, a model with other weights.
    """
    kept = torch.as_tensor(basis, dtype=torch.float64)
    source = circuit if check_fresh else None
    layer, head = circuit.provenance.layer, circuit.provenance.head
    if circuit.task is None:
        site = Site(LAYER_HOOKS["z"].format(layer=layer), heads=(head,), positions=positions)
        return Subspace(kept, torch.as_tensor(circuit.right), circuit=source).at(site)
    d_vocab = circuit.task.d_vocab
    readout = torch.zeros(2 * d_vocab, len(circuit.outputs), dtype=torch.float64)
    readout[d_vocab + torch.tensor(circuit.outputs.ids), torch.arange(len(circuit.outputs))] = 1
    site = Site(LAYER_HOOKS["attn_out"].format(layer=layer), positions=positions)
    return Subspace(kept, readout, circuit=source).at(site)


def singular_block(
    circuit: OVCircuit,
    block: DegenerateBlock | int,
    tolerance: float | None = None,
    *,
    check_fresh: bool = True,
) -> Intervention:
    """Removes a degenerate block of singular values from a circuit: W ← W − block.component.

    Args:
        circuit: any OV circuit; for a fact-recall Run usually
            OVCircuit.from_run(run).effective.subjects_and_relations.
        block: a block of circuit.spectrum(tolerance), or its index there.
        tolerance: needed with an index, as in `OVCircuit.spectrum`. Trained weights need e.g. 0.05; with a
            smaller one every block is a single direction, which has no meaning by itself.
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


def ov_block(task: FactRecallTask, inputs: str, outputs: str | None = None) -> Intervention:
    """Cuts one block of the OV circuit in token space, e.g. "held-out subjects" to "implications".

    For fact-recall models, which have one layer with one head. For other models write
    Zero().at(Path(inputs, layer=..., head=...)).

    Args:
        task: the task of the model.
        inputs: the kind of the attended tokens, as in `tokens_of_kind`.
        outputs: "facts" or "implications"; None is everything.

    Raises:
        UnknownNameError: another kind; the message lists close matches.
    """
    if outputs not in (None, *OUTPUT_KINDS[:2]):
        raise unknown_name("kind of answer", outputs, OUTPUT_KINDS[:2])
    onto = None if outputs is None else tokens_of_kind(task, outputs)
    return Zero().at(Path(tokens_of_kind(task, inputs), onto, layer=0, head=0))
