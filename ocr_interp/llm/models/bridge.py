"""Language models as TransformerBridges, for the library's circuit tools."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocr_interp.errors import ModelError, OcrInterpError
from ocr_interp.llm.encoding import TokenBatch
from ocr_interp.llm.models.loading import LanguageModel

_NOT_TEXT = ("vision", "audio", "image", "speech", "vq")


def as_bridge(lm: LanguageModel, device: torch.device) -> Any:
    """A TransformerBridge of a model, for the library's circuit tools; the model is moved and changed.

    Raises:
        ModelError: a model with parts for images or sound, or one that transformer-lens cannot bridge.
    """
    check_text_only(lm.model.config, lm.name)
    from transformer_lens.model_bridge import TransformerBridge

    name = type(lm.model).__name__
    # Without add_bos_token the bridge would look for the tokenizer on the hub. The bridge only gets ids, so
    # the value does not matter; a copy, since the bridge changes it.
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.init_kwargs = {"name_or_path": lm.name, **tokenizer.init_kwargs, "add_bos_token": True}
    config = lm.model.config
    config.architectures = config.architectures or [name]
    for each in {id(c): c for c in (config, config.get_text_config())}.values():
        each._attn_implementation = "eager"  # fused attention has no pattern to look at
    folder = Path(lm.name).expanduser()
    # A folder that is called as one of transformer-lens' short names ("pythia") would get that model's name.
    source = str(folder.resolve()) if folder.is_dir() else lm.name
    if next(lm.model.parameters()).device != device:
        lm.model.to(device)  # the bridge leaves a given model where it is
    try:
        bridge = TransformerBridge.boot_transformers(
            source,
            hf_model=lm.model,
            tokenizer=tokenizer,
            device=str(device),
            dtype=lm.model.dtype,
        )
        bridge.cfg.model_name = lm.name
        return bridge
    except OcrInterpError:
        raise
    except Exception as error:  # of any kind: adapters of transformer-lens fail in many ways
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"transformer-lens has no bridge that fits a {name}: {reason}") from error


def check_text_only(config: Any, name: str) -> None:
    """Requires a configuration without parts for images or sound.

    For such a model transformer-lens 3.9 runs `pip install torchvision` by itself where that is missing.

    Raises:
        ModelError: it has such parts.
    """
    parts = [part for part in getattr(config, "sub_configs", None) or {} if any(w in part for w in _NOT_TEXT)]
    if parts:
        raise ModelError(
            f"{name} must be a model of text alone, got one with {', '.join(parts)}: transformer-lens would "
            "install packages to bridge it; take the text model of the family"
        )


def viewed(lm: LanguageModel, device: torch.device) -> LanguageModel:
    """A copy of a model in eval mode that may be bridged; on the same device it shares all weights."""
    tensors = chain(lm.model.parameters(), lm.model.buffers())
    shared: dict[int, Any] = {
        id(t): nn.Parameter(t.detach(), requires_grad=False) if isinstance(t, nn.Parameter) else t.detach()
        for t in tensors
    }
    copied = copy.deepcopy(lm.model, shared)
    return LanguageModel(lm.name, copied.to(device).eval(), lm.tokenizer)


def bridge_logits(bridge: Any) -> Callable[[TokenBatch], Tensor]:
    """The function that gives a bridge's logits at the answers of a batch."""
    return lambda batch: bridge(batch.tokens, return_type="logits")[batch.row, batch.position]
