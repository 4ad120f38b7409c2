"""Small models with random weights, built offline: HookedTransformers, and bridges of transformers models."""

import copy
import os
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

WORDS = ["<unk>", "<eos>", *(f"w{i}" for i in range(30))]


def hooked_transformer(norm=None, n_layers=1, attn_only=True, kv_heads=None, dtype=torch.float64, seed=0):
    """A HookedTransformer with random weights and biases, norm gains included."""
    cfg = HookedTransformerConfig(
        n_layers=n_layers,
        n_heads=4,
        n_key_value_heads=kv_heads,
        d_model=12,
        d_head=3,
        d_mlp=None if attn_only else 16,
        act_fn=None if attn_only else "gelu",
        d_vocab=len(WORDS),
        n_ctx=16,
        attn_only=attn_only,
        normalization_type=norm,
        final_rms=norm is not None and norm.startswith("RMS"),
        dtype=dtype,
        device="cpu",
        seed=seed,
    )
    with warnings.catch_warnings():
        # 3.9 announces that the class goes away in 4.0; the dependency is capped below 4.
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        model = HookedTransformer(cfg)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        gain = name.endswith(".w")
        noise = torch.randn(parameter.shape, generator=generator, dtype=dtype)
        parameter.copy_(gain + 0.4 * noise)
    return model.eval()


def tokenizer():
    """A tokenizer in memory: one word a token, no beginning-of-text token, which would ask the hub."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
    )


def hugging_face_model(kind="Llama", seed=0, **fields):
    """A random transformers model in float64 with gains that are not 1."""
    import transformers

    fields = {"head_dim": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 1, **fields}
    if kind in ("GPTNeoX", "Bloom", "OPT", "Phi"):  # computed there, or not there
        del fields["head_dim"]
    if kind in ("GPTNeoX", "Bloom", "OPT"):
        del fields["num_key_value_heads"]
    if kind == "OPT":
        fields |= {"ffn_dim": 32, "word_embed_proj_dim": 24, "pad_token_id": 1}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(WORDS),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=6,
        max_position_embeddings=32,
        **fields,
    )
    config.architectures = [f"{kind}ForCausalLM"]
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).double().eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        if "norm" in name or name.endswith("bias"):
            parameter.add_(0.3 * torch.randn(parameter.shape))
        else:
            parameter.mul_(10)
    return model


def bridge(model, dtype=torch.float64):
    """A TransformerBridge of a copy (the bridge rewrites what it is given)."""
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(
        "tiny-random", hf_model=copy.deepcopy(model), tokenizer=tokenizer(), device="cpu", dtype=dtype
    )


def family(kind, seed=0, architecture=None, **fields):
    """A random transformers model of any family in float64, as the cases of users' models are made."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(vocab_size=len(WORDS), **fields)
    name = architecture or f"{kind}ForCausalLM"
    config.architectures = [name]
    torch.manual_seed(seed)
    model = getattr(transformers, name)(config).double().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn(parameter.shape))
        else:
            parameter.mul_(10)
    return model


GPT2_FIELDS = {
    "n_embd": 24,
    "n_head": 6,
    "n_inner": 32,
    "n_layer": 2,
    "n_positions": 32,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
MAMBA_FIELDS = {"hidden_size": 24, "num_hidden_layers": 2, "state_size": 4}


def gpt2(seed=0):
    return family("GPT2", seed, "GPT2LMHeadModel", **GPT2_FIELDS)
