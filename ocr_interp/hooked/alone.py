"""A model run by itself: in eval mode, without gradients and without hooks of users; and its state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ocr_interp.errors import ModelError, OcrInterpError
from ocr_interp.hooked.passes import modules_of, own_run
from ocr_interp.hooked.protocol import HookedModel

_SHOWN = 16
"""Ids of a prompt that a message shows."""


def probe_ids(model: HookedModel) -> list[int]:
    """Six tokens, two of them twice, none of them special; fewer where the context or vocabulary is short."""
    config = getattr(getattr(model, "original_model", None), "config", None)
    special: set[Any] = set()
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "image_token_id"):
        value = getattr(config, name, None)
        special |= set(value) if isinstance(value, list | tuple) else {value}
    size = int(model.W_E.shape[0])
    spread = [int(size * part) for part in (0.17, 0.37, 0.59, 0.83)]
    allowed = [i for i in range(min(size, 64)) if i not in special] or [0]
    a, b, c, d = (i if i not in special else allowed[k % len(allowed)] for k, i in enumerate(spread))
    return [a, b, c, a, b, d][: max(1, int(getattr(model.cfg, "n_ctx", 6) or 6))]


def run_alone(
    model: HookedModel,
    tokens: Tensor,
    wanted: Sequence[str],
    edits: Mapping[str, Callable[[Any, Mapping[str, Tensor]], Any]],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and activations of the model by itself, activations before they are edited."""
    seen: dict[str, Tensor] = {}

    def hook_of(name: str) -> Callable[[Any, Any], Any]:
        def run(value: Any, hook: Any) -> Any:
            if name in wanted and isinstance(value, Tensor):
                seen[name] = value.detach()
            return edits[name](value, seen) if name in edits else None

        return run

    known = model.hook_dict  # which a bridge makes anew at every call
    names = [name for name in dict.fromkeys([*wanted, *edits]) if name in known]
    with torch.no_grad(), by_itself(model), failures_told(tokens, model):
        logits = model.run_with_hooks(tokens, fwd_hooks=[(name, hook_of(name)) for name in names])
    logits = getattr(logits, "logits", logits)
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        raise ModelError(
            f"the model must give logits [batch, position, token], got {type(logits).__name__}: only "
            "decoder-only language models have OV circuits between tokens"
        )
    return logits.detach(), seen


@contextlib.contextmanager
def failures_told(tokens: Tensor, model: HookedModel) -> Iterator[None]:
    """Errors of a model's own forward pass as one that says on what it failed, and of prompts that are longer
    than the model's context that they are.

    Raises:
        ModelError: the model does not run.
    """
    try:
        yield
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        length = tokens.shape[1]
        _tell_length(model, length, "prompts", error)
        ids = ", ".join(map(str, tokens[0, :_SHOWN].tolist())) + (", …" if length > _SHOWN else "")
        raise ModelError(
            f"the model must run on token ids, got {type(error).__name__} on [{ids}]: {error}"
        ) from error


@contextlib.contextmanager
def length_told(model: HookedModel, length: Callable[[], int], what: str = "prompts") -> Iterator[None]:
    """An error of a forward pass on prompts that are longer than the model's context as one that says so.

    Of models that go on beyond it (rotary embeddings in a bridge, ALiBi) nothing is refused, and all other
    errors stay as they are.

    Args:
        model: the model that is run inside the block.
        length: gives the tokens of the longest prompt, once the model has failed.
        what: what the prompts are, for the message.

    Raises:
        ModelError: the model fails on prompts longer than its context.
    """
    try:
        yield
    except OcrInterpError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        _tell_length(model, length(), what, error)
        raise


def _tell_length(model: HookedModel, length: int, what: str, error: Exception) -> None:
    context = getattr(model.cfg, "n_ctx", None)
    if isinstance(context, int) and 0 < context < length:
        raise ModelError(
            f"{what} must have at most {context:,} tokens, the model's context, got {length:,}: shorten them"
        ) from error


@contextlib.contextmanager
def by_itself(model: HookedModel) -> Iterator[None]:
    """The model in eval mode and without hooks of users; both are restored."""
    points = {id(point): point for point in model.hook_dict.values()}.values()
    taken = [(point, dict(point._forward_hooks), point.fwd_hooks) for point in points if point.fwd_hooks]
    for point, _, handles in taken:
        for handle in handles:
            point._forward_hooks.pop(handle.hook.id, None)
        point.fwd_hooks = []
    try:
        with own_run(model):
            yield
    finally:
        for point, hooks, handles in taken:
            point._forward_hooks.clear()
            point._forward_hooks.update(hooks)
            point.fwd_hooks = handles


def state_of(model: object) -> tuple[Any, ...]:
    """A cheap fingerprint of weights (places, versions, a few entries of each) and of settings."""
    if not isinstance(model, torch.nn.Module):
        return (object(),)  # nothing is known of it: ask every time
    weights = state_of_tensors([*model.parameters(), *model.buffers()])
    settings = []
    for module in modules_of(model):
        kept = vars(module)
        hooks = () if "fwd_hooks" in kept else tuple(module._forward_hooks)
        settings.append((id(module), id(kept.get("forward")), _settings(kept), hooks))
    inner = getattr(getattr(model, "original_model", None), "config", None)
    for config in (getattr(model, "cfg", None), inner):
        fields = vars(config) if hasattr(config, "__dict__") else {}
        settings.append(tuple((k, v) for k, v in fields.items() if isinstance(v, int | float | str)))
    return (*weights, tuple(settings))


_SWITCHES = ("_disable_adapters", "_active_adapter")
"""How peft's layers keep whether and which of their adapters act."""
_PLAIN = (int, float, str)


def _settings(kept: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Attributes of a module that are a number or text, or a few of them, such as an adapter's scaling."""
    found = []
    for name, value in kept.items():
        # Other names with an underscore are what a forward pass remembers.
        if (name[0] == "_" and name not in _SWITCHES) or name == "training":
            continue
        if isinstance(value, _PLAIN):
            found.append((name, value))
        elif isinstance(value, (dict, list, tuple)) and len(value) <= 32:
            parts = tuple(value.items()) if isinstance(value, dict) else tuple(value)
            flat = [x for part in parts for x in (part if isinstance(value, dict) else (part,))]
            if all(isinstance(each, _PLAIN) for each in flat):
                found.append((name, parts))
    return tuple(found)


def state_of_tensors(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Places, versions and a few entries of tensors: changes with them, also where a version does not."""
    places, samples = [], []
    for tensor in tensors:
        try:
            version = tensor._version
        except RuntimeError:  # inference tensors keep none
            version = -1
        places.append((tensor.data_ptr(), version, tuple(tensor.shape), tensor.dtype))
        if tensor.numel() and tensor.device.type != "meta":
            samples.append(_some(tensor.detach()).double().to(tensors[0].device))
    content = torch.cat(samples).cpu().numpy().tobytes() if samples else b""
    return (tuple(places), content)


def _some(tensor: Tensor) -> Tensor:
    """At most nine entries, spread over a tensor; none of it is copied first."""
    step = max(1, tensor.numel() // 8)
    if tensor.is_contiguous():
        return tensor.reshape(-1)[::step][:9]
    at = torch.arange(0, tensor.numel(), step, device=tensor.device)[:9]
    return tensor[torch.unravel_index(at, tensor.shape)]
