"""Whether a model uses what a hook returns: native attention calls some of its hooks for show."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ocr_interp.hooked.passes import own_run
from ocr_interp.hooked.protocol import HookedModel

_known: WeakKeyDictionary[Any, set[tuple[str, str]]] = WeakKeyDictionary()


def uses_hook(model: HookedModel, name: str) -> bool:
    """Whether anything that the model computes depends on what a hook returns.

    NaN is put in place at the hook, in one forward pass on two tokens: it gets through every sum and product,
    by a weight of zero too, so that an edit that has no effect on the numbers is no unused hook. Asked once
    per model, hook and implementation of attention; hooks that are there already are not called.
    """
    inner = getattr(getattr(model, "original_model", None), "config", None)
    key = (name, str(getattr(inner, "_attn_implementation", None)))
    known = _known.setdefault(model, set())
    if key not in known and _is_used(model, name):
        known.add(key)
    return key in known


def _is_used(model: HookedModel, name: str) -> bool:
    found = _logits(model, name)
    if bool(found.isnan().any()) or not torch.equal(found, _logits(model, None)):
        return True
    if not name.endswith("hook_attn_scores"):
        return False
    # HookedTransformers turn NaN scores into a pattern of zeros, which a W_O of zeros would hide.
    pattern = name.replace("hook_attn_scores", "hook_pattern")
    return pattern in model.hook_dict and _is_used(model, pattern)


def _logits(model: Any, name: str | None) -> Tensor:
    """Logits of two tokens, with NaN at a hook."""
    tokens = torch.arange(min(2, int(model.W_E.shape[0])), device=model.W_E.device)[None]

    def replace(value: Tensor, hook: Any) -> Tensor:
        return torch.full_like(value, torch.nan) if value.is_floating_point() else value

    with torch.no_grad(), own_run(model), _without_hooks(model):
        if name is not None:
            model.hook_dict[name].add_hook(replace)
        return model(tokens)


@contextmanager
def _without_hooks(model: HookedModel) -> Iterator[None]:
    """Takes the hooks of all hook points away while the block runs, and puts them back as they were."""
    points = {id(each): each for each in model.hook_dict.values()}.values()
    were = [(each, each.fwd_hooks, each._forward_hooks) for each in points]
    try:
        for each, _, _ in were:
            each.fwd_hooks, each._forward_hooks = [], OrderedDict()
        yield
    finally:
        for each, hooks, handles in were:
            each.fwd_hooks, each._forward_hooks = hooks, handles
