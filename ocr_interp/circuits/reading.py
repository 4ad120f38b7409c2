"""OV circuits as they are read: of a fact-recall run by token, of a head with or without its adapters.

For a run no transformer_lens is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError, unknown_name
from ocr_interp.hooked.adapted.copies import with_side
from ocr_interp.hooked.adapted.switches import any_switched_off, check_switchable, trained_biases
from ocr_interp.hooked.heads import HeadFactors, check_architecture, read_head, used_weights
from ocr_interp.hooked.passes import own_run
from ocr_interp.hooked.protocol import AdaptedModel, HookedModel, check_layer
from ocr_interp.hooked.provenance import Provenance, check_finite, fingerprint_of
from ocr_interp.models.trained import TrainedModel
from ocr_interp.models.weights import TokenWeights, weights_of_state_dict
from ocr_interp.task import FactRecallTask


def read_run(
    run: TrainedModel, outputs: Sequence[int], of: str = "merged"
) -> tuple[HeadFactors, Float[Tensor, " input"]]:
    """The factors of a run's circuit from all inputs to some outputs, and the scores of EOS for the inputs.

    Raises:
        WeightsError: NaN or infinite weights.
        UnknownNameError: another value of `of`.
        ConfigError: a side of a parameterisation without a base.
    """
    _check_side(of)
    task, config, weights = run.task, run.config, run.weights
    used = weights.used(task, list(outputs), of)
    said = weights.linear_map.name.replace("_", "-")
    name = f"fact-recall {config.model.ov}"
    check_finite(used, f"{name} at step {run.step}")
    left = used["W_V"].double()
    options = {"dtype": left.dtype, "device": left.device}
    selector = torch.eye(task.d_vocab, **options)[:, list(outputs)]
    left_is = {"merged": "W_OV", "base": "W_0", "update": "the update"}[of]
    provenance = Provenance(
        model=name,
        step=run.step,
        seed=config.train.seed,
        fingerprint=fingerprint_of(used),
        layer=0,
        head=0,
        kv_head=0,
        dtype=config.model.dtype,
        folded=("nothing: one-hot embeddings, no norms, no biases",),
        flags=() if "W_O" in used else (f"{said}: left is {left_is}, right selects outputs",),
        of=of,
    )
    right = used["W_O"].double() if "W_O" in used else selector
    bias = torch.zeros(len(outputs), **options)
    return HeadFactors(left, right, bias, provenance), used["scores"].double()


SIDES = ("merged", "base", "update")
"""What is read of a model with adapters."""


def read_side(
    model: HookedModel | AdaptedModel,
    layer: int,
    head: int,
    inputs: Sequence[int],
    outputs: Sequence[int],
    of: str = "merged",
) -> HeadFactors:
    """The factors of a head between two token sets, computed in float64 on the device of the model.

    Nothing of the model is changed and no tensor of it is kept: the factors are new tensors.

    Args:
        model: a hooked model or a PeftModel.
        layer, head: which head.
        inputs, outputs: token ids.
        of: of a model with adapters, "merged", "base" or "update" = merged - base.

    Raises:
        ModelError: an unknown layer or head, an architecture with norms after attention, a model that was
            seen to do something else than its weights say (`probe_head`), or one without adapters where
            `of` asks for a side.
        WeightsError: NaN or infinite weights among those that are read.
        UnknownNameError: another value of `of`.
    """
    _check_side(of)
    if of == "update":
        _check_side_by_side(model)
        where = (layer, head, inputs, outputs)
        stamp = fingerprint_of(weights_of(model, *where, of))
        return _difference(read_side(model, *where, "merged"), read_side(model, *where, "base"), stamp)
    with with_side(model, of) as hooked, own_run(hooked):
        found = read_head(hooked, layer, head, inputs, outputs)
    said = trained_biases(model) if of == "base" else ()
    if of == "merged" and any_switched_off(model):
        said = ("the model's adapters are switched off: these are the weights of its base",)
    provenance = replace(found.provenance, of=of, flags=(*said, *found.provenance.flags))
    return replace(found, provenance=provenance)


def weights_of(
    model: HookedModel | AdaptedModel,
    layer: int,
    head: int,
    inputs: Sequence[int],
    outputs: Sequence[int],
    of: str = "merged",
) -> dict[str, Tensor]:
    """Every weight that a circuit depends on (see `used_weights`), for an update those of both sides."""
    if of == "update":
        sides = ("merged", "base")
        found = {side: weights_of(model, layer, head, inputs, outputs, side) for side in sides}
        return {f"{side}.{name}": tensor for side in sides for name, tensor in found[side].items()}
    with with_side(model, of) as hooked, own_run(hooked):
        check_architecture(hooked, check_layer(hooked, layer))
        return used_weights(hooked, layer, head, inputs, outputs)[0]


def _check_side(of: str) -> None:
    if of not in SIDES:
        raise unknown_name("of", of, SIDES)


def _check_side_by_side(model: HookedModel | AdaptedModel) -> None:
    """Requires adapters that are on, and of a bridge beside the weights.

    Raises:
        ModelError: there are none, or they are off or merged.
    """
    if isinstance(model, HookedModel) or any_switched_off(model):
        check_switchable(model, "update")


def _difference(merged: HeadFactors, base: HeadFactors, fingerprint: str) -> HeadFactors:
    """merged - base as factors: (left' - left) right' + left (right' - right), so that nothing cancels."""
    left, right = merged.left - base.left, merged.right - base.right
    parts = [(left, merged.right)] if bool(left.any()) or not bool(right.any()) else []
    parts += [(base.left, right)] if bool(right.any()) else []
    flags = dict.fromkeys((*merged.provenance.flags, *base.provenance.flags))
    if not bool(left.any()) and not bool(right.any()):
        flags["the adapters change nothing of this circuit: they act elsewhere"] = None
    said = "merged - base: W and `bias` are what the adapters add to those of the base"
    provenance = replace(
        merged.provenance,
        of="update",
        fingerprint=fingerprint,
        folded=(*merged.provenance.folded, said),
        flags=tuple(flags),
    )
    return HeadFactors(
        torch.cat([first for first, _ in parts], dim=1),
        torch.cat([second for _, second in parts], dim=0),
        merged.bias - base.bias,
        provenance,
    )


def weights_of_model(
    task: FactRecallTask, model: HookedModel, has_factors: bool, head: int = 0
) -> TokenWeights:
    """The weights by token of a fact-recall HookedTransformer (see `weights_of_state_dict`).

    Raises:
        ModelError: a model that was not built for a fact-recall task, or for one of another size.
    """
    source: Any = model
    state = {name: tensor.detach() for name, tensor in source.state_dict().items()}
    shape = tuple(state["blocks.0.attn.W_V"].shape) if "blocks.0.attn.W_V" in state else None
    if shape is None or shape[1] != 2 * task.d_vocab:
        raise ModelError(
            f"the model must be the HookedTransformer of a run of this task (blocks.0.attn.W_V with "
            f"d_model = {2 * task.d_vocab}), got {type(model).__name__} with W_V {shape}: pass run.model"
        )
    return weights_of_state_dict(task, state, has_factors, head)
