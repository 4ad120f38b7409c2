"""Whether a bridge computes what the model that it wraps computes.

A bridge puts components of its own into a transformers model and keeps those that they replace. Both are run
on a short prompt: some bridges leave something out (an adapter of a joint projection) or do it in another way
(rotary embeddings in pairs), and all numbers of their activations are then of another model.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.alone import by_itself, probe_ids, run_alone, state_of
from ocr_interp.hooked.norms import working_dtype
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.hooked.steps import Step

WHAT = "the bridge's logits = those of the model that it wraps"


@dataclass(frozen=True)
class Wrapped:
    """What a bridge was seen to do beside the model that it wraps.

    Attributes:
        logits: of a short prompt.
        weights: logits of single tokens, where each attends to itself alone: whatever patterns are, these
            tally where values, W_O and the rest are the model's. Asked where `logits` differ.
    """

    logits: Step
    weights: Step | None


_CACHE: weakref.WeakKeyDictionary[Any, tuple[Any, Wrapped | None]] = weakref.WeakKeyDictionary()


def compare_with_wrapped(model: HookedModel) -> Wrapped | None:
    """The comparison, made once for each state of weights and settings.

    None for a model that is no bridge, and for a bridge in compatibility mode, whose weights are changed.
    """
    inner = getattr(model, "original_model", None)
    changed = getattr(model, "compatibility_mode", False) or getattr(model, "_weights_processed", False)
    if not isinstance(inner, torch.nn.Module) or changed:
        return None
    kept = _CACHE.get(model)
    if kept is None or kept[0] != state_of(model):
        ids = probe_ids(model)
        logits = _compared(model, inner, [ids])
        if logits.differs and _has_changed_copies(model):
            note = "the bridge's copies of joint projections were changed since, so that it is the model"
            logits = replace(logits, error=None, note=note)
        weights = _compared(model, inner, [[token] for token in ids]) if logits.differs else None
        # After the passes: transformers attaches hooks of its own in the first one.
        kept = _CACHE[model] = (state_of(model), Wrapped(logits, weights))
    return kept[1]


def require_wrapped(model: HookedModel, purpose: str, *, weights_alone: bool = False) -> None:
    """Requires that a bridge was not seen to compute something else than its model.

    Args:
        model: any hooked model.
        purpose: what needs it, for the message.
        weights_alone: whether patterns may be others.

    Raises:
        ModelError: it was; says by how much.
    """
    found = compare_with_wrapped(model)
    step = None if found is None else (found.weights if weights_alone else found.logits)
    if found is None or step is None or not step.differs:
        return
    readable = found.weights is not None and not found.weights.differs
    what = "activations and patterns" if readable else "its weights and activations"
    raise ModelError(
        f"{purpose} needs {step.what}, got a difference of {step.error:.2g} of their size: transformer-lens "
        f"bridges this architecture, or what was added to it, as another computation, so {what} are not the "
        "model's; merge adapters, or use another version of transformer-lens"
        + (" (W_V and W_O are the model's: OVCircuit.from_model reads them)" if readable else "")
    )


def _compared(model: HookedModel, inner: torch.nn.Module, ids: list[list[int]]) -> Step:
    tokens = torch.tensor(ids, device=model.W_E.device)
    ours = run_alone(model, tokens, (), {})[0]
    eps = float(torch.finfo(ours.dtype).eps)
    # The two round in another order in places, and rounding adds up over layers like a random walk.
    tolerance = max(1e-4, 2 * eps * max(2.0, float(model.cfg.n_layers) ** 0.5))
    try:
        with torch.no_grad(), by_itself(model), components_out(inner):
            theirs = inner(tokens)
    except Exception as error:  # whatever a model of someone else raises: it just does not run so
        said = str(error).partition("\n")[0]
        note = f"that model does not run by itself ({type(error).__name__}: {said})"
        return Step(WHAT, None, tolerance, note=note)
    theirs = getattr(theirs, "logits", theirs)
    if not isinstance(theirs, Tensor) or theirs.shape != ours.shape:
        return Step(WHAT, None, tolerance, note="it gives no logits of this shape")
    dtype = working_dtype(ours.device)
    ours, theirs = ours.to(dtype), theirs.to(ours.device, dtype)
    finite = ours.isfinite() & theirs.isfinite()
    if not bool(finite.any()):
        return Step(WHAT, None, tolerance, note="the model gives no finite numbers")
    ours, theirs = (each.where(finite, 0).flatten(0, 1) for each in (ours, theirs))
    if eps < 1e-4:
        return Step(WHAT, float((ours - theirs).norm()) / float(ours.norm().clamp(min=1e-300)), tolerance)
    # Where rounding is coarse it sends single tokens to other experts: most positions decide.
    size = torch.maximum(ours.norm(dim=-1), theirs.norm(dim=-1)).clamp(min=1e-30)
    errors = ((ours - theirs).norm(dim=-1) / size).sort().values
    return Step(WHAT, float(errors[len(errors) // 2]), tolerance)


@contextmanager
def components_out(model: torch.nn.Module) -> Iterator[None]:
    """The modules that a bridge's components replaced, back in their places while the block runs."""
    undo: list[tuple[torch.nn.Module, str, torch.nn.Module]] = []
    waiting, known = [model], {id(model)}
    try:
        while waiting:
            parent = waiting.pop()
            for name, child in list(parent._modules.items()):
                original = child
                while original is not None and original._modules.get("_original_component") is not None:
                    original = original._modules["_original_component"]
                if original is None or child is None:
                    continue
                if original is not child:
                    undo.append((parent, name, child))
                    parent._modules[name] = original
                if id(original) not in known:
                    known.add(id(original))
                    waiting.append(original)
        yield
    finally:
        for parent, name, child in reversed(undo):
            parent._modules[name] = child


def _has_changed_copies(model: Any) -> bool:
    """Whether the parts of a joint projection that a bridge runs are no longer the ones it was split into.

    Then someone trained or edited the bridge itself. Which output belongs to what differs by family, so sums
    of squares are compared.
    """
    for block in getattr(model, "blocks", ()):
        attention = getattr(block, "attn", None)
        parts = [getattr(attention, name, None) for name in ("qkv", "q", "k", "v")]
        weights = [getattr(getattr(part, "original_component", None), "weight", None) for part in parts]
        sizes = [float(w.detach().double().pow(2).sum()) for w in weights if isinstance(w, Tensor)]
        if len(sizes) == len(parts) and abs(sum(sizes[1:]) - sizes[0]) > 1e-6 * sizes[0]:
            return True
    return False
