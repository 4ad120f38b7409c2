"""Language models as TransformerBridges, which the library's circuit tools read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ocr_interp.llm.encoding import TokenBatch
from ocr_interp.llm.models.loading import LanguageModel


def as_bridge(lm: LanguageModel, device: torch.device) -> Any:
    """A TransformerBridge of a model, which it rewrites: the library's circuit tools read it."""
    from transformer_lens.model_bridge import TransformerBridge

    # A tokenizer that does not say that it puts a BOS in front would be looked for on the hub. The bridge
    # is given ids only, so that it may say so; a copy, since the bridge changes it.
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.init_kwargs = {"name_or_path": lm.name, **tokenizer.init_kwargs, "add_bos_token": True}
    return TransformerBridge.boot_transformers(
        lm.name, hf_model=lm.model, tokenizer=tokenizer, device=str(device), dtype=lm.model.dtype
    )


def bridge_logits(bridge: Any) -> Callable[[TokenBatch], Tensor]:
    """Logits of a bridge where an answer stands."""
    return lambda batch: bridge(batch.tokens, return_type="logits")[batch.row, batch.position]
