"""A PeftModel as hooked models: bridges of copies of it, with its adapters merged and without them.

The copies are made when they are first asked for and again when anything of the PeftModel has changed. They
are kept as long as it lives and need the memory of a model each.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.switches import (
    any_switched_off,
    check_switchable,
    is_switched,
    without_adapters,
)
from ocr_interp.hooked.alone import state_of
from ocr_interp.hooked.protocol import AdaptedModel, HookedModel, check_model
from ocr_interp.hooked.tokens.labels import NAMES, names_of

_COPIES: WeakKeyDictionary[Any, tuple[Any, dict[str, Any]]] = WeakKeyDictionary()


def as_hooked(model: object, side: str = "merged") -> HookedModel:
    """A hooked model as it is; of a PeftModel the bridge of a copy.

    Args:
        model: a HookedTransformer, a TransformerBridge or a PeftModel, which is left as it is.
        side: of a PeftModel, "merged" (what it uses: W_0 alone while its adapters are disabled) or "base".

    Raises:
        ModelError: another model, or a PeftModel whose adapters are no change of weights, or whose base has
            been bridged already.
    """
    if not isinstance(model, AdaptedModel) or isinstance(model, HookedModel):
        return check_model(model)
    _check_weights_only(model)
    if side == "merged" and any_switched_off(model):
        side = "base"
    state = state_of(model)
    kept = _COPIES.get(model)
    copies = kept[1] if kept is not None and kept[0] == state else {}
    if side not in copies:
        copies[side] = bridge_of(_unwrapped(model, side), _name(model))
    _COPIES[model] = (state, copies)
    NAMES[copies[side]] = names_of(model)
    return copies[side]


@contextmanager
def with_side(model: Any, of: str) -> Iterator[HookedModel]:
    """The hooked model of one side, "merged" or "base", while the block runs.

    Raises:
        ModelError: as `as_hooked`; of="base" of a bridge whose adapters cannot be switched off.
    """
    if isinstance(model, AdaptedModel) and not isinstance(model, HookedModel):
        yield as_hooked(model, of)
        return
    hooked = check_model(model)
    if of == "merged":
        yield hooked
        return
    check_switchable(hooked, of)
    with without_adapters(hooked):
        yield hooked


def _check_weights_only(model: Any) -> None:
    """Requires a method that changes weights, on a model that no bridge has rewritten."""
    kind = type(getattr(model, "active_peft_config", None)).__name__.removesuffix("Config")
    if not hasattr(model, "merge_and_unload"):
        raise ModelError(
            f"a PeftModel must have adapters that change weights, got {kind or type(model).__name__}, which "
            "adds prompts or modules: pass a bridge of its base, TransformerBridge.boot_transformers(name, "
            "hf_model=copy.deepcopy(model.get_base_model()), tokenizer=tokenizer), for its weights"
        )
    if any(hasattr(each, "original_component") for each in model.get_base_model().modules()):
        raise ModelError(
            "a PeftModel must hold a model of transformers, got one that a bridge was booted on and rewrote: "
            "pass that bridge, or boot it on copy.deepcopy(model.get_base_model())"
        )


def _unwrapped(model: Any, side: str) -> Any:
    """A copy of the model inside, with its adapters merged or left out, in single precision or better."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, on adapters that are merged already and on tied weights
        try:
            own = copy.deepcopy(model)
            coarse = any(p.is_floating_point() and p.dtype.itemsize < 4 for p in own.parameters())
            if coarse and not getattr(own.get_base_model(), "is_quantized", False):
                own = own.float()  # in half precision a merge would round most of a small update away
            if side == "base":
                if any(getattr(each, "merged_adapters", ()) for each in own.modules()):
                    own.unmerge_adapter()
                _restore_modules(own)
                return own.unload()
            return own.merge_and_unload()
        except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise ModelError(
                f"a PeftModel must have adapters that can be merged, got {type(error).__name__} from peft: "
                f"{error}: merge them yourself, or pass a bridge of model.get_base_model()"
            ) from error


def _restore_modules(model: Any) -> None:
    """Puts modules back that were trained whole (modules_to_save); `unload` would keep the trained ones."""
    whole = [name for name, each in model.named_modules() if hasattr(each, "modules_to_save")]
    for name in whole:
        wrapper = model.get_submodule(name)
        if is_switched(wrapper):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, wrapper.original_module)


def _name(model: Any) -> str:
    config = model.get_base_model().config
    return str(getattr(config, "_name_or_path", "") or type(model.get_base_model()).__name__)


def bridge_of(model: Any, name: str) -> Any:
    """A bridge without a tokenizer: labels are those attached to the PeftModel, or "token 17"."""
    from tokenizers import Tokenizer, models
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    first = next(model.parameters())
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")  # fused attention has no pattern that could be checked
    # Without a tokenizer the bridge would look for one on the hub; this one is taken away again.
    inside = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    stand_in = PreTrainedTokenizerFast(tokenizer_object=inside, unk_token="a", eos_token="a", bos_token="a")
    stand_in.init_kwargs = {**stand_in.init_kwargs, "name_or_path": name, "add_bos_token": True}
    try:
        bridge = TransformerBridge.boot_transformers(
            name, hf_model=model.eval(), tokenizer=stand_in, device=str(first.device), dtype=first.dtype
        )
    except (
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        NotImplementedError,
        AssertionError,
    ) as error:
        raise ModelError(
            f"the model inside a PeftModel must be one that transformer_lens can bridge, got "
            f"{type(error).__name__} for {type(model).__name__}: {error}"
        ) from error
    bridge._tokenizer = None
    return bridge.requires_grad_(False) if isinstance(bridge, torch.nn.Module) else bridge
