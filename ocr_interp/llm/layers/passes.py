"""What a mixture must know of a pass: the experts of its sequences, and which tokens each token may read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ocr_interp.devices import sent
from ocr_interp.errors import ConfigError, ModelError, shown

_MASKED = -1e4
"""An entry of an additive mask that is smaller hides a token: dtypes' least values, -inf, -1e9."""

_TOKEN_ROUTER = "or take router='token', which reads each token alone"


def checked_labels(labels: Any, n_experts: int, device: torch.device) -> Int[Tensor, " batch"]:
    """The expert of each sequence, on a device.

    Args:
        labels: whole numbers, as a tensor or a sequence; on the CPU they are looked at without waiting for
            the device.
        n_experts: how many experts there are.
        device: where the mixture is.

    Raises:
        ConfigError: anything else than one expert for each sequence.
    """
    required = (
        f"labels must be the expert of each sequence, whole numbers from 0 to {n_experts - 1}, such as "
        f"torch.tensor([0{', 1' if n_experts > 1 else ''}]), got"
    )
    advice = "name experts by their number, or pass None, which asks the routers"
    found = labels
    if not isinstance(labels, Tensor):
        try:
            found = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise ConfigError(f"{required} {shown(labels)}: {advice}") from None
    if found.dtype.is_floating_point or found.dtype.is_complex or found.dtype == torch.bool:
        raise ConfigError(f"{required} values of {found.dtype}: {advice}")
    if found.dim() != 1 or not len(found):
        raise ConfigError(f"{required} the shape {tuple(found.shape)}: {advice}")
    odd = found[(found < 0) | (found >= n_experts)].tolist()
    if odd:
        raise ConfigError(f"{required} {shown(odd[0])}: {advice}")
    found = found.long()
    return sent(found, device) if found.device.type == "cpu" else found.to(device)


@dataclass(frozen=True)
class TokensRead:
    """Which tokens of a pass each token may read, for a router by the mean of them.

    Attributes:
        size: (sequences, tokens) of the pass.
        mask: [batch, pos] which tokens are no padding; [batch, pos, pos] which tokens each one reads; None
            where each reads all up to it.
    """

    size: tuple[int, int]
    mask: Bool[Tensor, "batch pos"] | Bool[Tensor, "batch pos pos"] | None

    def mean(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        """The mean of what each token may read; 0 where that is nothing, as at padding before a text.

        Raises:
            ModelError: a linear map that is not given the tokens of the pass.
        """
        if x.dim() != 3 or tuple(x.shape[:2]) != self.size:
            raise ModelError(
                f"routing by sequence needs inputs [batch, pos, width] of the {self.size[0]} x "
                f"{self.size[1]} tokens of the pass, got {tuple(x.shape)}: leave the linear map out by "
                f"train_parts, {_TOKEN_ROUTER}"
            )
        if self.mask is None:
            count = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
            return x.cumsum(1) / count[:, None]
        mask = self.mask.to(x.device)
        if mask.dim() == 2:
            # What attention makes of padding may be NaN, so that it is replaced and not weighed with 0.
            read = x.masked_fill(~mask.unsqueeze(-1), 0)
            return read.cumsum(1) / mask.cumsum(1).clamp(min=1).to(x.dtype).unsqueeze(-1)
        read = x.masked_fill(~mask.any(1).unsqueeze(-1), 0)
        return mask.to(x.dtype) @ read / mask.sum(-1, keepdim=True).clamp(min=1).to(x.dtype)


def tokens_read(given: Mapping[str, Any], size: tuple[int, int] | None) -> TokensRead:
    """What each token may read, from the arguments of a model's pass.

    Args:
        given: the arguments, by their names.
        size: (sequences, tokens) of the pass; None where they cannot be seen.

    Raises:
        ModelError: a mask of a kind or size that says nothing of these tokens; positions that jump without a
            mask.
    """
    if size is None:
        raise ModelError(
            "router='sequence' needs to see the tokens of a pass, input_ids or inputs_embeds, got neither: "
            f"pass one of them by its name, {_TOKEN_ROUTER}"
        )
    mask, positions, (rows, columns) = given.get("attention_mask"), given.get("position_ids"), size
    if mask is None:
        if isinstance(positions, Tensor) and bool((positions.diff(dim=-1) != 1).any()):
            raise ModelError(
                "router='sequence' needs to know which tokens are padding or of another text: position_ids "
                "must go up by 1 where there is no attention_mask, got ones that jump: pass attention_mask "
                f"[{rows}, {columns}] too, {_TOKEN_ROUTER}"
            )
        return TokensRead(size, None)
    found = _as_bool(mask)
    if (
        found is None
        or found.shape[1:] not in ((columns,), (columns, columns))
        or len(found) not in (1, rows)
    ):
        is_tensor = isinstance(mask, Tensor)
        what = f"{list(mask.shape)} of {mask.dtype}" if is_tensor else f"a {type(mask).__name__}"
        raise ModelError(
            "router='sequence' needs to know which tokens each one reads: attention_mask must be "
            f"[{rows}, {columns}] with 0 for padding, or [{rows}, 1, {columns}, {columns}] of True and False "
            f"or of 0 and -inf, got {what}: pass such a mask, none where there is no padding, {_TOKEN_ROUTER}"
        )
    return TokensRead(size, found.expand(rows, *found.shape[1:]))


def _as_bool(mask: Any) -> Tensor | None:
    """Where a mask lets read, one for all heads; None for what no model of transformers takes as a mask."""
    if not isinstance(mask, Tensor):
        return None
    if mask.dim() == 2:
        return mask != 0
    if mask.dim() != 4 or mask.shape[1] != 1:
        return None
    if mask.dtype == torch.bool:
        return mask[:, 0]
    if not mask.is_floating_point() or bool(((mask != 0) & (mask > _MASKED)).any()):
        return None
    return mask[:, 0] == 0


def by_name(model: nn.Module, args: tuple[Any, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a model's forward pass by their names, those that were given by place too."""
    try:
        return {**inspect.signature(model.forward).bind_partial(*args).arguments, **given}
    except (TypeError, ValueError):  # too many, which the pass itself will say
        return dict(given)


def has_tokens(cache: Any, mark: str) -> bool:
    """Whether a cache that a pass is given holds tokens already.

    Args:
        cache: the cache; None holds none.
        mark: an attribute that passes of this package leave in it.
    """
    length = getattr(cache, "get_seq_length", None)
    return hasattr(cache, mark) or (length is not None and int(length()) > 0)


def repeats_without_gradients(model: nn.Module) -> bool:
    """Whether blocks run without gradients first, and again in the backward pass (gradient checkpointing)."""
    calls = (
        getattr(module, "_gradient_checkpointing_func", None)
        for module in model.modules()
        if getattr(module, "gradient_checkpointing", False)
    )
    return any(
        call is not None and getattr(call, "keywords", {}).get("use_reentrant", True) for call in calls
    )


def in_backward_pass() -> bool:
    """Whether autograd is going back now: blocks of gradient checkpointing are repeated then."""
    return torch._C._current_graph_task_id() != -1
