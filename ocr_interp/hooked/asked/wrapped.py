"""Whether a bridge gives the logits of the transformers model inside it; some families' bridges do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ocr_interp.errors import ModelError
from ocr_interp.hooked.alone import by_itself, probe_ids, run_alone
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.hooked.steps import Step

WHAT = "logits of the bridge = those of the transformers model inside it"
_INSIDE = "_original_component"

_known: WeakKeyDictionary[Any, dict[Any, Step | None]] = WeakKeyDictionary()


def require_wrapped(model: HookedModel, purpose: str) -> None:
    """Requires that a bridge was not seen to compute something else than the model that it was made from.

    Raises:
        ModelError: it does, and so do all numbers that come from running it.
    """
    step = wrapped_step(model)
    if step is not None and step.differs:
        raise ModelError(
            f"{purpose} needs {WHAT}, got a difference of {step.error:.2g} of their size: the bridge of "
            "transformer-lens runs another model than yours (OVCircuit.from_model, which reads weights "
            "alone, still works)"
        )


def wrapped_step(model: HookedModel) -> Step | None:
    """The logits of a short prompt by the bridge beside those of the model inside it; None for no bridge.

    Asked once per model, precision and implementation of attention. Where weights were changed in the
    bridge alone (compatibility mode, training), the model inside says nothing of them: not checked.
    """
    inner = getattr(model, "original_model", None)
    if not isinstance(inner, nn.Module):
        return None
    config = getattr(inner, "config", None)
    processed = bool(getattr(model, "_weights_processed", False))
    key = model.W_U.dtype, str(getattr(config, "_attn_implementation", None)), processed
    known = _known.setdefault(model, {})
    if key not in known:
        known[key] = _compared(model, processed)
    return known[key]


def _compared(model: Any, processed: bool) -> Step:
    ids = torch.tensor([probe_ids(model)], device=model.W_E.device)
    ours = run_alone(model, ids, (), {})[0].double()
    tolerance = max(1e-3, 32 * float(torch.finfo(model.W_U.dtype).eps))
    if processed:
        return Step(WHAT, None, tolerance, note="the bridge's weights were processed")
    try:
        with torch.no_grad(), by_itself(model), unwrapped(model) as inner:
            theirs = inner(ids, use_cache=False).logits.double()
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        return Step(WHAT, None, tolerance, note=f"the model inside fails by itself: {error!r:.100}")
    size = max(float(ours.norm()), float(theirs.norm()), 1e-300)
    error = float((ours - theirs).norm()) / size if ours.shape == theirs.shape else float("inf")
    if error > tolerance and _has_changed_copies(model):
        return Step(WHAT, None, tolerance, note="split copies of joint projections were changed since")
    return Step(WHAT, error, tolerance)


@contextmanager
def unwrapped(model: Any) -> Iterator[nn.Module]:
    """The transformers model inside a bridge without the bridge's parts, while the block runs.

    A bridge puts a part of its own in the place of each module of the model and keeps the module inside it.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    seen: set[int] = set()

    def restore(module: nn.Module) -> None:
        if id(module) in seen:
            return
        seen.add(id(module))
        for name, child in list(module._modules.items()):
            if child is None or name == _INSIDE:
                continue
            inside = child._modules.get(_INSIDE)
            if inside is not None:
                replaced.append((module, name, child))
                module._modules[name] = child = inside
            restore(child)

    try:
        restore(model.original_model)
        yield model.original_model
    finally:
        for module, name, child in reversed(replaced):
            module._modules[name] = child


def _has_changed_copies(model: Any) -> bool:
    """Whether a layer's copies of the parts of a joint projection are no longer what that projection has."""
    for block in getattr(model, "blocks", ()):
        attention = getattr(block, "attn", None)
        parts = [getattr(attention, name, None) for name in ("qkv", "q", "k", "v")]
        weights = [getattr(getattr(part, "original_component", None), "weight", None) for part in parts]
        sizes = [float(w.detach().double().pow(2).sum()) for w in weights if isinstance(w, Tensor)]
        if len(sizes) == len(parts):
            joint, *split = sizes
            if abs(sum(split) - joint) > 1e-6 * joint:
                return True
    return False
