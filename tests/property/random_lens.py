"""Random HookedTransformers, and the same computation in plain torch, written from the configuration."""

import math
import random
import warnings
from typing import Any

import torch
from plain_models import Ask, Seen
from torch import Tensor
from torch.nn import functional as F


def random_lens(seed: int, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """A HookedTransformer of a random configuration with random weights, gains and biases."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    rng = random.Random(f"lens {seed}")
    heads, d_head = rng.choice([2, 4]), rng.choice([4, 6])
    layers = rng.choice([1, 2, 3])
    attn_only = rng.random() < 0.3
    positions = rng.choice(["standard", "rotary", "shortformer", "alibi"])
    local = rng.random() < 0.2
    fields = {
        "n_layers": layers,
        "n_heads": heads,
        "n_key_value_heads": rng.choice([None, None, 1, 2]),
        "d_head": d_head,
        "d_model": rng.choice([12, 16]),
        "n_ctx": 8,
        "d_vocab": 32,
        "d_vocab_out": rng.choice([32, 32, 20, 40]),
        "attn_only": attn_only,
        "d_mlp": None if attn_only else 24,
        "act_fn": None if attn_only else rng.choice(["relu", "silu", "gelu"]),
        "gated_mlp": not attn_only and rng.random() < 0.4,
        "normalization_type": rng.choice([None, "LN", "LNPre", "RMS", "RMSPre"]),
        "parallel_attn_mlp": not attn_only and rng.random() < 0.4,
        "positional_embedding_type": positions,
        "rotary_dim": 4 if positions == "rotary" else None,
        "rotary_adjacent_pairs": rng.random() < 0.5,
        "use_attn_scale": rng.random() < 0.7,
        "scale_attn_by_inverse_layer_idx": rng.random() < 0.2,
        "attn_scores_soft_cap": rng.choice([-1.0, -1.0, 2.0]),
        "output_logits_soft_cap": rng.choice([-1.0, -1.0, -1.0, 5.0]),
        "use_local_attn": local,
        "window_size": 2 if local else None,
        "attn_types": ["local"] * layers if local else None,
        "attention_dir": rng.choice(["causal", "causal", "bidirectional"]) if not local else "causal",
        "post_embedding_ln": rng.random() < 0.1,
        "use_attn_result": rng.random() < 0.2,
        "use_split_qkv_input": rng.random() < 0.2,
    }
    fields["final_rms"] = str(fields["normalization_type"]).startswith("RMS")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg = HookedTransformerConfig(**fields, dtype=dtype, device="cpu", seed=seed)
        model = HookedTransformer(cfg)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_(name.endswith(".w") + 0.4 * noise)
    return model.eval(), fields


class PlainLens:
    """The computation of a HookedTransformer's configuration on its parameters, in any precision."""

    def __init__(self, model: Any, fields: dict[str, Any], dtype: torch.dtype = torch.float64) -> None:
        self.f, self.dtype = fields, dtype
        self.p = {name: each.detach().to(dtype) for name, each in model.named_parameters()}
        self.layers, self.heads = range(fields["n_layers"]), fields["n_heads"]

    def norm(self, x: Tensor) -> Tensor:
        """The final norm."""
        return self._norm("ln_final", x)

    def head(self, x: Tensor) -> Tensor:
        """The unembedding with its bias."""
        return x @ self.p["unembed.W_U"] + self.p["unembed.b_U"]

    def _norm(self, name: str, x: Tensor, kind: str | None = None) -> Tensor:
        kind = kind or self.f["normalization_type"]
        if kind is None:
            return x
        if kind.startswith("LN"):
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        if kind.endswith("Pre"):
            return x
        return x * self.p[f"{name}.w"] + (self.p[f"{name}.b"] if kind == "LN" else 0)

    def run(self, tokens: Tensor, ask: Ask) -> Seen:
        """One forward pass."""
        seen, f = Seen(), self.f
        x = self.p["embed.W_E"][tokens]
        places = self.p["pos_embed.W_pos"][: tokens.shape[1]].expand_as(x) if self._learned else 0 * x
        places = places if ask.positions else 0 * places
        if f["post_embedding_ln"]:
            x = self._norm("embed.ln", x, "LN")
        x = x + places if f["positional_embedding_type"] == "standard" else x
        seen.first_in = x
        for layer in self.layers:
            if ask.start is not None and layer == ask.layer:
                x = ask.start
            read = self._norm(f"blocks.{layer}.ln1", x)
            apart = places if f["positional_embedding_type"] == "shortformer" else 0 * places
            written = self._attention(layer, read + apart, read, ask, seen)
            middle = x if f["parallel_attn_mlp"] else x + written
            added = written if f["parallel_attn_mlp"] else 0
            if not f["attn_only"]:
                out = self._mlp(layer, self._norm(f"blocks.{layer}.ln2", middle))
                if layer == ask.layer:
                    seen.held[0] = out
                    out = out if ask.hold is None else ask.hold[0]
                middle = middle + out
            x = middle + added
            if layer == ask.layer:
                seen.out = x
        seen.final_in = x
        logits, cap = self.head(self.norm(x)), f["output_logits_soft_cap"]
        seen.logits = cap * torch.tanh(logits / cap) if cap > 0 else logits
        return seen

    @property
    def _learned(self) -> bool:
        return self.f["positional_embedding_type"] in ("standard", "shortformer")

    def _attention(self, layer: int, asked: Tensor, read: Tensor, ask: Ask, seen: Seen) -> Tensor:
        f, here = self.f, f"blocks.{layer}.attn."
        q, k, v = (self._projected(here, name, at) for name, at in (("Q", asked), ("K", asked), ("V", read)))
        if f["positional_embedding_type"] == "rotary":
            q, k = self._rotated(q), self._rotated(k)
        scale = math.sqrt(f["d_head"]) if f["use_attn_scale"] else 1.0
        scale *= layer + 1 if f["scale_attn_by_inverse_layer_idx"] else 1
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / scale
        cap = f["attn_scores_soft_cap"]
        scores = cap * torch.tanh(scores / cap) if cap > 0 else scores
        count = scores.shape[-1]
        away = torch.arange(count)[:, None] - torch.arange(count)[None]
        if f["positional_embedding_type"] == "alibi":
            slopes = 2 ** (-8 / self.heads * torch.arange(1, self.heads + 1, dtype=torch.float64))
            scores = scores - (slopes[:, None, None] * away.clamp(min=0)).to(self.dtype)
        hidden = torch.zeros(count, count, dtype=torch.bool)
        if f["attention_dir"] == "causal":
            hidden = away < 0
        if f["use_local_attn"]:
            hidden = hidden | (away >= f["window_size"])
        pattern = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        is_asked = layer == ask.layer
        if is_asked and ask.keep is not None:
            v = v * ask.keep[:, :, None, None]
        z = torch.einsum("bhqk,bkhd->bqhd", pattern, v)
        if is_asked:
            seen.z = seen.written = z
            seen.value = v
            edit = ask.edit or ask.edit_written
            z = z if edit is None else edit(z.clone())
        return torch.einsum("bqhd,hdm->bqm", z, self.p[here + "W_O"]) + self.p[here + "b_O"]

    def _projected(self, here: str, name: str, x: Tensor) -> Tensor:
        grouped = "_" if self.f["n_key_value_heads"] and name != "Q" else ""
        W, b = self.p[f"{here}{grouped}W_{name}"], self.p[f"{here}{grouped}b_{name}"]
        found = torch.einsum("bpm,hmd->bphd", x, W) + b
        return found.repeat_interleave(self.heads // found.shape[2], 2)

    def _rotated(self, x: Tensor) -> Tensor:
        size = self.f["rotary_dim"]
        angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] / 10000 ** (
            torch.arange(size // 2, dtype=torch.float64) / (size / 2)
        )
        turned, rest = x[..., :size], x[..., size:]
        adjacent = self.f["rotary_adjacent_pairs"]
        a, b = (turned[..., ::2], turned[..., 1::2]) if adjacent else turned.split(size // 2, -1)
        cos, sin = (each[None, :, None].to(self.dtype) for each in (angle.cos(), angle.sin()))
        first, second = a * cos - b * sin, b * cos + a * sin
        pairs = torch.stack([first, second], -1).flatten(-2) if adjacent else torch.cat([first, second], -1)
        return torch.cat([pairs, rest], -1)

    def _mlp(self, layer: int, x: Tensor) -> Tensor:
        here, act = f"blocks.{layer}.mlp.", getattr(F, self.f["act_fn"])
        if self.f["gated_mlp"]:
            inner = act(x @ self.p[here + "W_gate"]) * (x @ self.p[here + "W_in"]) + self.p[here + "b_in"]
        else:
            inner = act(x @ self.p[here + "W_in"] + self.p[here + "b_in"])
        return inner @ self.p[here + "W_out"] + self.p[here + "b_out"]
