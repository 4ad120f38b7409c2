"""Random tiny models of many architectures, as transformers builds them, and bridges of copies of them."""

import contextlib
import copy
import io
import os
import random
import warnings
from collections.abc import Callable
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch

WORDS = ["<unk>", "<eos>", *(f"w{i}" for i in range(30))]
NO_EOS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def _shape(rng: random.Random) -> dict[str, Any]:
    """The sizes that every family has, with key-value heads in groups where the family knows them."""
    heads = rng.choice([2, 3, 4, 6])
    width = rng.choice([4, 8])
    return {
        "heads": heads,
        "head_dim": width,
        "kv": rng.choice([n for n in range(1, heads + 1) if heads % n == 0]),
        "hidden": heads * width,
        "mlp": rng.choice([16, 32]),
        "layers": rng.choice([1, 2, 2, 3]),
    }


def _llama(rng: random.Random, s: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": s["hidden"],
        "intermediate_size": s["mlp"],
        "num_hidden_layers": s["layers"],
        "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv"],
        "head_dim": s["head_dim"],
        "max_position_embeddings": 32,
        "tie_word_embeddings": rng.random() < 0.4,
        **NO_EOS,
    }


def _one_width(rng: random.Random, s: dict[str, Any]) -> dict[str, Any]:
    """Families that compute the width of heads themselves."""
    return {key: value for key, value in _llama(rng, s).items() if key != "head_dim"}


def _no_groups(rng: random.Random, s: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in _one_width(rng, s).items() if key != "num_key_value_heads"}


def _gpt2(rng: random.Random, s: dict[str, Any]) -> dict[str, Any]:
    return {
        "n_embd": s["hidden"],
        "n_head": s["heads"],
        "n_inner": s["mlp"],
        "n_layer": s["layers"],
        "n_positions": 32,
        "tie_word_embeddings": rng.random() < 0.6,
        **NO_EOS,
    }


def _moe(rng: random.Random, s: dict[str, Any]) -> dict[str, Any]:
    return {"num_experts_per_tok": 2, rng.choice(["num_local_experts"]): 4}


Fields = Callable[[random.Random, dict[str, Any]], dict[str, Any]]


def _with(base: Fields, more: Fields | None = None, **fixed: Any) -> Fields:
    return lambda rng, s: base(rng, s) | fixed | ({} if more is None else more(rng, s))


def _flag(name: str) -> Fields:
    return lambda rng, s: {name: rng.random() < 0.5}


FAMILIES: dict[str, tuple[str, Fields]] = {
    "Llama": ("LlamaForCausalLM", _with(_llama, _flag("attention_bias"))),
    "Mistral": ("MistralForCausalLM", _with(_llama, lambda r, s: {"sliding_window": r.choice([None, 2])})),
    "Qwen2": ("Qwen2ForCausalLM", _with(_one_width)),
    "Qwen3": ("Qwen3ForCausalLM", _with(_llama, _flag("attention_bias"))),
    "Gemma": ("GemmaForCausalLM", _with(_llama, _flag("attention_bias"))),
    "Gemma2": ("Gemma2ForCausalLM", _with(_llama, query_pre_attn_scalar=4)),
    "Gemma3Text": ("Gemma3ForCausalLM", _with(_llama, query_pre_attn_scalar=4)),
    "GPT2": ("GPT2LMHeadModel", _with(_gpt2, _flag("scale_attn_by_inverse_layer_idx"))),
    "GPTNeoX": (
        "GPTNeoXForCausalLM",
        _with(_no_groups, lambda r, s: _flag("use_parallel_residual")(r, s) | _flag("attention_bias")(r, s)),
    ),
    "GPTJ": ("GPTJForCausalLM", _with(_gpt2, lambda r, s: {"rotary_dim": r.choice([2, 4])})),
    "GPTNeo": (
        "GPTNeoForCausalLM",
        lambda r, s: {
            "hidden_size": s["hidden"],
            "num_layers": s["layers"],
            "num_heads": s["heads"],
            "intermediate_size": s["mlp"],
            "max_position_embeddings": 32,
            "attention_types": [[[r.choice(["global", "local"])], s["layers"]]],
            "window_size": 2,
            **NO_EOS,
        },
    ),
    "OPT": (
        "OPTForCausalLM",
        lambda r, s: {
            "hidden_size": s["hidden"],
            "ffn_dim": s["mlp"],
            "num_hidden_layers": s["layers"],
            "num_attention_heads": s["heads"],
            "max_position_embeddings": 32,
            "word_embed_proj_dim": s["hidden"],
            "enable_bias": r.random() < 0.7,
            **NO_EOS,
            "pad_token_id": 1,
        },
    ),
    "Bloom": (
        "BloomForCausalLM",
        lambda r, s: {"hidden_size": s["hidden"], "n_layer": s["layers"], "n_head": s["heads"], **NO_EOS},
    ),
    "Falcon": (
        "FalconForCausalLM",
        lambda r, s: {
            "hidden_size": s["hidden"],
            "num_hidden_layers": s["layers"],
            "num_attention_heads": s["heads"],
            "num_kv_heads": s["kv"],
            "new_decoder_architecture": r.random() < 0.4,
            "multi_query": r.random() < 0.5,
            "alibi": r.random() < 0.3,
            "parallel_attn": r.random() < 0.5,
            "bias": r.random() < 0.5,
            "max_position_embeddings": 32,
            **NO_EOS,
        },
    ),
    "Phi": ("PhiForCausalLM", _with(_one_width, _flag("qk_layernorm"))),
    "Phi3": ("Phi3ForCausalLM", _with(_one_width)),
    "StableLm": (
        "StableLmForCausalLM",
        _with(
            _one_width,
            lambda r, s: {
                key: r.random() < 0.5 for key in ("use_qkv_bias", "use_parallel_residual", "qk_layernorm")
            },
        ),
    ),
    "Olmo": ("OlmoForCausalLM", _with(_one_width, lambda r, s: {"clip_qkv": r.choice([None, None, 0.3])})),
    "Olmo2": ("Olmo2ForCausalLM", _with(_one_width)),
    "Olmo3": ("Olmo3ForCausalLM", _with(_one_width)),
    "Olmoe": (
        "OlmoeForCausalLM",
        _with(
            _one_width,
            lambda r, s: {"num_experts_per_tok": 2, "num_experts": 4, "clip_qkv": r.choice([None, 0.3])},
        ),
    ),
    "Mixtral": ("MixtralForCausalLM", _with(_llama, _moe)),
    "Granite": (
        "GraniteForCausalLM",
        _with(
            _one_width,
            lambda r, s: {
                key: r.choice([1.0, 1.0, 0.3, 2.0])
                for key in ("residual_multiplier", "logits_scaling", "embedding_multiplier")
            },
        ),
    ),
    "GraniteMoe": ("GraniteMoeForCausalLM", _with(_one_width, _moe)),
    "Cohere": (
        "CohereForCausalLM",
        _with(
            _one_width, lambda r, s: {"logit_scale": r.choice([1.0, 0.5]), "use_qk_norm": r.random() < 0.5}
        ),
    ),
    "Cohere2": ("Cohere2ForCausalLM", _with(_llama, lambda r, s: {"logit_scale": r.choice([1.0, 0.5])})),
    "Starcoder2": ("Starcoder2ForCausalLM", _with(_one_width, _flag("use_bias"))),
    "Mpt": (
        "MptForCausalLM",
        lambda r, s: {
            "d_model": s["hidden"],
            "n_heads": s["heads"],
            "n_layers": s["layers"],
            "max_seq_len": 32,
            "expansion_ratio": 2,
            "attn_config": {"attn_type": "multihead_attention", "clip_qkv": r.choice([None, 0.3])},
            **NO_EOS,
        },
    ),
    "XGLM": (
        "XGLMForCausalLM",
        lambda r, s: {
            "d_model": s["hidden"],
            "ffn_dim": s["mlp"],
            "num_layers": s["layers"],
            "attention_heads": s["heads"],
            "max_position_embeddings": 32,
            "scale_embedding": r.random() < 0.5,
            **NO_EOS,
            "pad_token_id": 1,
        },
    ),
    "CodeGen": (
        "CodeGenForCausalLM",
        _with(_gpt2, lambda r, s: {"rotary_dim": r.choice([2, 4]), "n_head": 4, "n_embd": 16}),
    ),
    "SmolLM3": ("SmolLM3ForCausalLM", _with(_one_width, no_rope_layer_interval=2)),
    "Exaone4": ("Exaone4ForCausalLM", _with(_llama)),
    "Glm": ("GlmForCausalLM", _with(_llama, _flag("attention_bias"))),
    "Glm4": ("Glm4ForCausalLM", _with(_llama, _flag("attention_bias"))),
    "NanoChat": ("NanoChatForCausalLM", _with(_llama)),
    "FalconH1": (
        "FalconH1ForCausalLM",
        _with(
            _llama,
            lambda r, s: {
                "attention_out_multiplier": r.choice([1.0, 3.0]),
                "lm_head_multiplier": r.choice([1.0, 0.5]),
                "embedding_multiplier": r.choice([1.0, 2.0]),
                "mamba_d_ssm": 24,
                "mamba_n_heads": 6,
                "mamba_d_head": 4,
                "mamba_n_groups": 1,
                "mamba_d_state": 4,
            },
        ),
    ),
    "GPTBigCode": ("GPTBigCodeForCausalLM", _with(_gpt2, _flag("multi_query"))),
    "Nemotron": ("NemotronForCausalLM", _with(_llama, _flag("attention_bias"))),
    "Arcee": ("ArceeForCausalLM", _with(_llama)),
    "SeedOss": (
        "SeedOssForCausalLM",
        _with(_llama, lambda r, s: {k: r.random() < 0.5 for k in ("attention_bias", "attention_out_bias")}),
    ),
    "Ernie4_5": ("Ernie4_5ForCausalLM", _with(_llama, _flag("use_bias"))),
    "HunYuanDenseV1": ("HunYuanDenseV1ForCausalLM", _with(_llama)),
    "Apertus": ("ApertusForCausalLM", _with(_one_width, _flag("attention_bias"))),
    "Qwen3Moe": (
        "Qwen3MoeForCausalLM",
        _with(_llama, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    ),
    "Qwen2Moe": (
        "Qwen2MoeForCausalLM",
        _with(
            _one_width,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        ),
    ),
    "GptOss": ("GptOssForCausalLM", _with(_llama, _moe)),
    "Ministral3": ("Ministral3ForCausalLM", _with(_llama)),
    "Jais2": ("Jais2ForCausalLM", _with(_llama)),
    "BitNet": ("BitNetForCausalLM", _with(_one_width)),
    "VaultGemma": ("VaultGemmaForCausalLM", _with(_llama, query_pre_attn_scalar=4)),
    "Afmoe": (
        "AfmoeForCausalLM",
        _with(_llama, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, num_dense_layers=1),
    ),
    "Phimoe": ("PhimoeForCausalLM", _with(_one_width, _moe)),
    "Ernie4_5_Moe": (
        "Ernie4_5_MoeForCausalLM",
        _with(_one_width, moe_num_experts=4, moe_k=2, moe_intermediate_size=16),
    ),
    "FlexOlmo": ("FlexOlmoForCausalLM", _with(_one_width, num_experts=4, num_experts_per_tok=2)),
    "Glm4Moe": (
        "Glm4MoeForCausalLM",
        _with(
            _llama,
            n_routed_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            first_k_dense_replace=1,
            n_group=1,
            topk_group=1,
        ),
    ),
    "OpenAIGPT": (
        "OpenAIGPTLMHeadModel",
        lambda r, s: {"n_embd": s["hidden"], "n_head": s["heads"], "n_layer": s["layers"], "n_positions": 32},
    ),
    "Laguna": ("LagunaForCausalLM", _with(_llama)),
    "JetMoe": ("JetMoeForCausalLM", _with(_llama)),
    "Lfm2": ("Lfm2ForCausalLM", _with(_one_width, full_attn_idxs=[1], num_hidden_layers=2)),
    "Qwen3Next": (
        "Qwen3NextForCausalLM",
        _with(
            _llama,
            num_hidden_layers=2,
            layer_types=["linear_attention", "full_attention"],
            linear_num_value_heads=2,
            linear_num_key_heads=2,
            linear_key_head_dim=4,
            linear_value_head_dim=4,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        ),
    ),
    "Bamba": (
        "BambaForCausalLM",
        _with(
            _one_width,
            attn_layer_indices=[1],
            num_hidden_layers=2,
            mamba_n_heads=4,
            mamba_d_head="auto",
            mamba_d_state=4,
            mamba_n_groups=1,
        ),
    ),
    "Jamba": (
        "JambaForCausalLM",
        _with(
            _one_width,
            attn_layer_period=2,
            attn_layer_offset=1,
            num_hidden_layers=2,
            mamba_d_state=4,
            mamba_dt_rank=4,
            num_experts=4,
            num_experts_per_tok=2,
            use_mamba_kernels=False,
        ),
    ),
    "RecurrentGemma": (
        "RecurrentGemmaForCausalLM",
        _with(
            _one_width,
            num_hidden_layers=3,
            lru_width=None,
            block_types=["recurrent", "recurrent", "attention"],
        ),
    ),
    "DeepseekV3": (
        "DeepseekV3ForCausalLM",
        _with(
            _no_groups,
            lambda r, s: {"num_key_value_heads": s["heads"]},
            first_k_dense_replace=3,
            kv_lora_rank=4,
            q_lora_rank=4,
            qk_rope_head_dim=4,
            qk_nope_head_dim=4,
            v_head_dim=4,
        ),
    ),
    "MiniMaxM2": ("MiniMaxM2ForCausalLM", _with(_llama, _moe)),
    "GraniteMoeHybrid": (
        "GraniteMoeHybridForCausalLM",
        _with(
            _one_width,
            num_local_experts=4,
            num_experts_per_tok=2,
            shared_intermediate_size=16,
            layers_block_type=["mamba", "attention"],
            num_hidden_layers=2,
            mamba_n_heads=4,
            mamba_d_head="auto",
            mamba_d_state=4,
            mamba_n_groups=1,
        ),
    ),
    "NemotronH": (
        "NemotronHForCausalLM",
        _with(
            _llama,
            hybrid_override_pattern="M*-",
            num_hidden_layers=3,
            mamba_num_heads=2,
            mamba_head_dim=4,
            ssm_state_size=4,
            n_groups=1,
        ),
    ),
}
"""Name of the configuration -> class of the model, and its random fields."""

ONLY_FLOAT32 = ("XGLM",)
"""Families that run in no other precision here (their masks overflow)."""


def random_model(kind: str, seed: int, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """A random model of a family in eval mode, with gains and biases that are not 1 and 0; and its fields."""
    import transformers

    rng = random.Random(f"{kind} {seed}")
    name, draw = FAMILIES[kind]
    fields = draw(rng, _shape(rng))
    attention = rng.choice(["eager", "eager", "eager", "sdpa"])
    with quiet():
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=len(WORDS), attn_implementation=attention, **fields
        )
        config.architectures = [name]
        config._experts_implementation = "eager"
        torch.manual_seed(seed)
        model = getattr(transformers, name)(config).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.requires_grad_(False)
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            if parameter.ndim == 1:
                parameter.add_(0.3 * noise)
            else:  # independent of the family's own initialisation
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
    return model.to(dtype), fields | {"attention": attention}


def tokenizer() -> Any:
    """One word a token, no beginning-of-text token, padding that no prompt holds."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
    )


def bridge_of(model: Any, dtype: torch.dtype) -> Any:
    """A TransformerBridge of a copy (the bridge rewrites what it is given)."""
    from transformer_lens.model_bridge import TransformerBridge

    with quiet():
        return TransformerBridge.boot_transformers(
            "tiny-random", hf_model=copy.deepcopy(model), tokenizer=tokenizer(), device="cpu", dtype=dtype
        )


@contextlib.contextmanager
def quiet():
    """Without what other packages print and warn of."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
