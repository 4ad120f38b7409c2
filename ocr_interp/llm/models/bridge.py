"""Language models as TransformerBridges, for the library's circuit tools."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ocr_interp.llm.encoding import TokenBatch
from ocr_interp.llm.models.loading import LanguageModel


def as_bridge(lm: LanguageModel, device: torch.device) -> Any:
    """A TransformerBridge of a model, for the library's circuit tools; it changes the model in place."""
    from transformer_lens.model_bridge import TransformerBridge

    # Without add_bos_token the bridge would look for the tokenizer on the hub. The bridge only gets ids, so
    # the value does not matter; a copy, since the bridge changes it.
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.init_kwargs = {"name_or_path": lm.name, **tokenizer.init_kwargs, "add_bos_token": True}
    return TransformerBridge.boot_transformers(
        lm.name, hf_model=lm.model, tokenizer=tokenizer, device=str(device), dtype=lm.model.dtype
    )


def bridge_logits(bridge: Any) -> Callable[[TokenBatch], Tensor]:
    """The function that gives a bridge's logits at the answers of a batch."""
    return lambda batch: bridge(batch.tokens, return_type="logits")[batch.row, batch.position]
