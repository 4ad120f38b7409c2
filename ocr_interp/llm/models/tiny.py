"""Tiny random models of the paper's five families, with a tokenizer trained on the facts' texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ocr_interp.errors import unknown_name
from ocr_interp.llm.models.loading import LanguageModel

FAMILIES = {
    "gemma2": "google/gemma-2-9b",
    "olmo": "allenai/OLMo-7B-hf",
    "qwen2": "Qwen/Qwen2-7B",
    "mistral": "mistralai/Mistral-7B-v0.3",
    "llama": "meta-llama/Meta-Llama-3-8B",
}
"""Family -> name on the hub of the paper's model."""

_CLASSES = {"gemma2": "Gemma2", "olmo": "Olmo", "qwen2": "Qwen2", "mistral": "Mistral", "llama": "Llama"}

_END = "<|endoftext|>"  # Qwen2's tokenizer adds it if it is missing


def tiny_tokenizer(texts: Iterable[str], vocab_size: int = 2_000) -> Any:
    """A byte-level tokenizer whose merges come from the texts; it has neither a BOS nor a padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[_END],
        show_progress=False,
    )
    tokenizer.train_from_iterator(list(texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END)


def tiny_model(family: str, tokenizer: Any, seed: int = 0, **changes: Any) -> LanguageModel:
    """A random model of a family: two layers, four heads of width 8 (two key-value heads), float32.

    Args:
        family: one of `FAMILIES`.
        tokenizer: the tokenizer; gives the size of the vocabulary.
        seed: seed of the weights.
        changes: fields of the transformers configuration to change.

    Raises:
        UnknownNameError: another family; the message lists them.
    """
    import transformers

    if family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **({"head_dim": 8} if family == "gemma2" else {}),
        **changes,
    }
    name = _CLASSES[family]
    config = getattr(transformers, f"{name}Config")(**sizes)
    config.architectures = [f"{name}ForCausalLM"]  # TransformerBridge reads the family from here
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{name}ForCausalLM")(config)
    return LanguageModel(f"tiny {family}", model.eval(), tokenizer)
