"""Adapters inside a model that can be switched off, as those of peft can: W_0 + ΔW with them, W_0 without.

They are found by what they offer (`enable_adapters` and whether they are disabled), so that every method of
peft, and a layer of one's own with these members, counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ocr_interp.errors import ModelError


def switched_layers(model: object) -> list[Any]:
    """All modules whose adapters can be switched off, those that a bridge does not list included."""
    roots = (model, getattr(model, "original_model", None))
    modules = [each for root in roots if isinstance(root, torch.nn.Module) for each in root.modules()]
    return [each for each in dict.fromkeys(modules) if is_switched(each)]


def is_switched(module: object) -> bool:
    """Whether a module has adapters that can be switched off.

    transformers' models have methods of both names, so `disable_adapters` must be a truth value.
    """
    offered = getattr(module, "enable_adapters", None)
    return callable(offered) and isinstance(getattr(module, "disable_adapters", None), bool)


def switched_off(module: object) -> bool:
    """Whether a module has adapters and all of them are switched off."""
    found = switched_layers(module)
    return bool(found) and all(each.disable_adapters for each in found)


def any_switched_off(model: object) -> bool:
    """Whether any adapters of a model are switched off, so that what it runs is not W_0 + ΔW."""
    return any(each.disable_adapters for each in switched_layers(model))


def check_switchable(model: object, of: str) -> None:
    """Requires adapters that are on and stand beside the weights, so that both sides can be read.

    Raises:
        ModelError: none, disabled ones where their update is asked for, or ones merged into the weights.
    """
    found = switched_layers(model)
    if not found:
        raise ModelError(
            f'of="{of}" needs adapters that can be switched off (a PeftModel, or a bridge of its base), got '
            f'{type(model).__name__} without any: pass of="merged", the weights as they are'
        )
    if of == "update" and any(each.disable_adapters for each in found):
        raise ModelError(
            'of="update" needs adapters that are on, got disabled ones: leave disable_adapter() first, or '
            'pass of="base"'
        )
    if any(getattr(each, "merged_adapters", ()) for each in found):
        raise ModelError(
            f'of="{of}" needs adapters beside the weights, got ones merged into them (merge_adapter): call '
            "unmerge_adapter() first, or pass the PeftModel, of which a copy is unmerged"
        )


def trained_biases(model: Any) -> tuple[str, ...]:
    """What is to be said of a base whose biases were trained with the adapters: no switch turns those off."""
    configs = getattr(getattr(model, "original_model", model), "peft_config", None)
    kinds = {getattr(each, "bias", "none") for each in (configs or {}).values()} - {"none", None}
    return tuple(
        f"bias={kind!r} trained the biases of the base too: the base is read with them, as the model without "
        "adapters has them"
        for kind in sorted(map(str, kinds))
    )


@contextmanager
def without_adapters(model: object) -> Iterator[None]:
    """Every adapter of a model switched off while the block runs; then on again, as they were.

    Which parameters are trained (requires_grad) is put back too, since peft changes it with the switch.
    """
    layers = [each for each in switched_layers(model) if not each.disable_adapters]
    trained = [(p, p.requires_grad) for each in layers for p in each.parameters()]
    try:
        for each in layers:
            each.enable_adapters(False)
        yield
    finally:
        for each in layers:
            each.enable_adapters(True)
        for parameter, was in trained:
            parameter.requires_grad_(was)
