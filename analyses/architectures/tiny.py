"""Tiny random transformers models of any architecture, from its own configuration; nothing is fetched.

A configuration of any family has its sizes under a few names that all families share, so one table of tiny
sizes shrinks most of them; what is left is in FAMILIES, by the class of the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ocr_interp.errors import ModelError
from ocr_interp.llm.models.bridge import check_text_only

VOCAB = 32
"""Tokens of every tiny model: as many as the tests' tokenizer has words."""

SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size"), VOCAB),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim"), 24),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 6),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 6),
    "num_key_value_heads": 2,
    **dict.fromkeys(("head_dim", "d_kv", "attention_head_dim", "kv_channels"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff"), 32),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "intermediate_size_mlp"), 32),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("shared_intermediate_size", "moe_shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k"), 2),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), 32),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 4),
    "qk_head_dim": 8,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 1),
    "decoder_start_token_id": 1,
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 6),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), 8),
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state", "mamba_dt_rank"), 4),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 4),
    "hidden_size_per_layer_input": 4,
    "sliding_window": 16,
    "dropout": 0.0,
}
"""Tiny sizes by what configurations call them."""

_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
_COMPRESSED = {"num_key_value_heads": 6}

FAMILIES: dict[str, dict[str, Any]] = {
    "Bamba": {"attn_layer_indices": [1], "mamba_n_groups": 1, "mamba_d_state": 4},
    "CodeGen": {"n_head": 4, "rotary_dim": 4},
    "DeepseekV2": _COMPRESSED,
    "DeepseekV3": _COMPRESSED,
    "Emu3": {"vocabulary_map": {"<image>": 5}},
    "FalconH1": {"mamba_d_ssm": 24, "mamba_d_head": 4, "mamba_n_groups": 1, "mamba_expand": 1},
    "Florence2Vision": {"embed_dim": (8, 8, 8, 8), "num_heads": (2,) * 4, "num_groups": (2,) * 4},
    "GPTJ": {"rotary_dim": 4},
    "GPTNeo": {"attention_types": [[["global", "local"], 1]]},
    "Gemma4UnifiedVision": {"mm_embed_dim": 24, "num_soft_tokens": 4, "model_patch_size": 4},
    "Glm4MoeLite": _COMPRESSED,
    "GlmMoeDsa": _COMPRESSED,
    "Glm4vVision": {"out_hidden_size": 24},
    "GraniteMoeHybrid": {"layer_types": ["mamba", "attention"], "mamba_n_groups": 1},
    "Hubert": {"conv_dim": (24,) * 7, "num_conv_pos_embedding_groups": 2, "num_conv_pos_embeddings": 4},
    "Jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "Lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "Lfm2Moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "Llama4Vision": {"projector_input_dim": 24, "projector_output_dim": 24, "vision_output_dim": 24},
    "Mamba2": {"num_heads": 6, "head_dim": 8, "n_groups": 1},
    "NemotronH": {"layers_block_type": ["mamba", "attention"], "n_groups": 1},
    "OlmoHybrid": _HYBRID,
    "Qwen2_5_VLText": {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 0]}},
    "Qwen3Next": _HYBRID,
    "Qwen3_5Text": _HYBRID,
    "Qwen3_5MoeText": _HYBRID,
    "RecurrentGemma": {"block_types": ["recurrent", "attention"], "lru_width": 24},
    "Youtu": _COMPRESSED,
    "Zamba2": {"layers_block_type": ["mamba", "hybrid"], "mamba_ngroups": 1, "num_mem_blocks": 1},
}
"""What a family needs beside or instead of SIZES, by its configuration's class without "Config"."""

SINGLE = ("XGLM",)
"""Families that compute with numbers of float32 inside, whatever the dtype of their weights."""

NOT_TRIED = (
    "booting a bridge of a model of images or sound runs `pip install torchvision` where that is missing "
    "(transformer-lens 3.9), which would change the packages of this environment"
)
"""Why models with parts for images or sound are left out: a table must not install anything."""

SAME_MODEL = {
    "Gemma1ForCausalLM": "GemmaForCausalLM",
    "JetMoEForCausalLM": "JetMoeForCausalLM",
    "MPTForCausalLM": "MptForCausalLM",
    "NeoForCausalLM": "GPTNeoForCausalLM",
    "NeoXForCausalLM": "GPTNeoXForCausalLM",
    "PhiMoEForCausalLM": "PhimoeForCausalLM",
    "T5WithLMHeadModel": "T5ForConditionalGeneration",
}
"""Architectures that transformers has under another name."""


def tiny_config(kind: type, **changes: Any) -> Any:
    """A configuration of a class with tiny sizes, and those of the models that it is made of."""
    given = kind()
    fields = set(given.to_dict())
    sizes = {name: size for name, size in SIZES.items() if name in fields}
    for name in getattr(kind, "sub_configs", None) or {}:
        part = getattr(given, name, None)
        if part is not None and not isinstance(part, Mapping):
            sizes[name] = tiny_config(type(part)).to_dict()
    family = FAMILIES.get(kind.__name__.removesuffix("Config"), {})
    return kind(**{**sizes, **family, **changes})


def tiny_architecture(name: str, seed: int = 0, **changes: Any) -> Any:
    """A random model of an architecture in float64 (SINGLE: float32), in eval mode, without gradients.

    Args:
        name: of the class in transformers, such as "LlamaForCausalLM", or one of SAME_MODEL.
        seed: of the weights.
        changes: fields of its configuration to change.

    Raises:
        LookupError: transformers has no class of this name, or a bridge of it would install a package.
    """
    import transformers

    kind = getattr(transformers, SAME_MODEL.get(name, name), None)
    if kind is None or getattr(kind, "config_class", None) is None:
        raise LookupError(f"transformers {transformers.__version__} has no {name}")
    try:
        check_text_only(kind.config_class, name)
    except ModelError:
        raise LookupError(NOT_TRIED) from None
    config = tiny_config(kind.config_class, **changes)
    config.architectures = [name]
    for each in (config, *(getattr(config, part, None) for part in config.sub_configs)):
        if each is not None:
            each._attn_implementation = "eager"  # as a bridge sets it
            each._experts_implementation = "eager"  # the grouped kernels have no float64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        family = kind.config_class.__name__.removesuffix("Config")
        return perturbed(kind(config).to(torch.float32 if family in SINGLE else torch.float64))


def perturbed(model: Any) -> Any:
    """Vectors (gains, biases) moved off their starts, matrices ten times as large; eval, no gradients.

    A fresh model has gains of one and biases of zero, which hide what is left out of them, and matrices so
    small that attention is uniform.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn(parameter.shape))
        else:
            parameter.mul_(10)
    return model.eval()
