"""Edge attribution of a model as large as SmolLM2 (135M), beside a plain implementation with TransformerLens.

    python benchmarks/bench_discovery.py [--quick]

A HookedTransformer with SmolLM2's sizes (30 layers, 9 heads, 3 key-value heads, d_model 576, gated MLP of
1536, rotary positions, RMS norms, 49,152 tokens; 70,651 edges), random weights, float32, one thread; 8
prompts of 12 tokens. The plain way is that of edge attribution's own libraries: split inputs of queries, keys
and values, results of single heads, inputs of MLPs, and at each of them a hook in the backward pass that
multiplies the gradient with the differences of all earlier writers; once with gradients of all weights, as a
model is loaded, and once with those of W_E alone, which the backward pass needs to start. All are EAP (the
gradient at the prompt). Rounds alternate; the smallest time of each counts. Making the model is not counted;
the check of the model's stream, made once for each state of its weights, is listed by itself. Results go to
benchmarks/results/discovery.json.
"""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from ocr_interp.discovery import Contrast, attribute_edges, faithfulness_of
from ocr_interp.stream import checks

PROMPTS, TOKENS = 8, 12
FLAGS = ("use_split_qkv_input", "use_attn_result", "use_hook_mlp_in")
OURS, PLAIN = "attribute_edges", "plain TransformerLens"
FROZEN = "plain, gradients of W_E alone"
CHECK, CIRCUIT = "check and fingerprint, once", "one circuit by real ablation"
TARGET = 3.0


def model_of(layers: int, vocabulary: int) -> Any:
    """A HookedTransformer with random weights."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    cfg = HookedTransformerConfig(
        n_layers=layers,
        n_heads=9,
        n_key_value_heads=3,
        d_model=576,
        d_head=64,
        d_mlp=1536,
        act_fn="silu",
        gated_mlp=True,
        d_vocab=vocabulary,
        n_ctx=128,
        normalization_type="RMS",
        final_rms=True,
        positional_embedding_type="rotary",
        rotary_dim=64,
        seed=0,
        device="cpu",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        return HookedTransformer(cfg).eval()


def plain(model: Any, contrast: Contrast, frozen: bool = False) -> np.ndarray:
    """Edge attribution patching with the hooks of TransformerLens, [writer, reader] in our order."""
    cfg = model.cfg
    heads, groups = cfg.n_heads, cfg.n_key_value_heads
    writers = 1 + cfg.n_layers * (heads + 1)
    width = heads + 2 * groups + 1
    change = torch.zeros(PROMPTS, TOKENS, writers, cfg.d_model)
    scores = torch.zeros(writers, cfg.n_layers * width + 1)

    def write(place: slice, sign: int) -> Any:
        def hook(value: torch.Tensor, hook: Any) -> None:
            found = value.detach() if value.ndim == 4 else value.detach().unsqueeze(2)
            change[:, :, place] += sign * found

        return hook

    def writing(sign: int) -> list[tuple[str, Any]]:
        found = [("blocks.0.hook_resid_pre", write(slice(0, 1), sign))]
        for layer in range(cfg.n_layers):
            first = 1 + layer * (heads + 1)
            found.append((f"blocks.{layer}.attn.hook_result", write(slice(first, first + heads), sign)))
            found.append(
                (f"blocks.{layer}.hook_mlp_out", write(slice(first + heads, first + heads + 1), sign))
            )
        return found

    def read(before: int, place: slice) -> Any:
        def hook(gradient: torch.Tensor, hook: Any) -> None:
            gradient = gradient if gradient.ndim == 4 else gradient.unsqueeze(2)
            scores[:before, place] += torch.einsum("bpwd,bprd->wr", change[:, :, :before], gradient)

        return hook

    def reading() -> list[tuple[str, Any]]:
        found = []
        for layer in range(cfg.n_layers):
            before, start = 1 + layer * (heads + 1), layer * width
            for part, count in (("q", heads), ("k", groups), ("v", groups)):
                found.append((f"blocks.{layer}.hook_{part}_input", read(before, slice(start, start + count))))
                start += count
            found.append((f"blocks.{layer}.hook_mlp_in", read(before + heads, slice(start, start + 1))))
        last = cfg.n_layers * width
        found.append((f"blocks.{cfg.n_layers - 1}.hook_resid_post", read(writers, slice(last, last + 1))))
        return found

    for flag in FLAGS:
        setattr(cfg, flag, True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or name == "embed.W_E")
    try:
        with torch.no_grad(), model.hooks(fwd_hooks=writing(-1)):
            model(contrast.donors)
        with model.hooks(fwd_hooks=writing(1), bwd_hooks=reading()):
            contrast.values(model(contrast.prompts)).mean().backward()
    finally:
        for flag in FLAGS:
            setattr(cfg, flag, False)
        model.zero_grad()
        model.requires_grad_(True)
    return scores.double().numpy()


def main(quick: bool = False) -> None:
    torch.set_num_threads(1)
    layers, vocabulary, rounds = (4, 1000, 2) if quick else (30, 49152, 3)
    model = model_of(layers, vocabulary)
    generator = torch.Generator().manual_seed(0)
    prompts, donors = torch.randint(0, vocabulary, (2, PROMPTS, TOKENS), generator=generator)
    contrast = Contrast.of(model, prompts, donors, 5, 6)
    best: dict[str, float] = {}
    found: dict[str, Any] = {}

    def timed(name: str, work: Any) -> None:
        start = time.process_time()
        found[name] = work()
        best[name] = min(best.get(name, float("inf")), time.process_time() - start)

    timed(CHECK, lambda: (checks.stream_of(model), checks.fingerprint(model)))
    for _ in range(rounds):
        timed(OURS, lambda: attribute_edges(model, contrast, steps=None))
        timed(PLAIN, lambda: plain(model, contrast))
        timed(FROZEN, lambda: plain(model, contrast, frozen=True))
    scores = found[OURS]
    timed(CIRCUIT, lambda: faithfulness_of(model, [scores.circuit(scores.nodes.n_edges // 10)], contrast))
    allowed = scores.nodes.allowed
    theirs = np.where(allowed, found[PLAIN], 0.0)
    error = float(np.abs(scores.scores - theirs).max() / np.abs(theirs).max())
    print(
        f"{layers} layers, {scores.nodes.n_edges:,} edges, {PROMPTS} prompts of {TOKENS} tokens, one thread:"
    )
    for name, spent in best.items():
        print(f"  {name:32}{spent:9.2f} s CPU")
    ratio, of_frozen = best[PLAIN] / best[OURS], best[FROZEN] / best[OURS]
    print(f"  {ratio:.2f} times as fast as plain ({of_frozen:.2f} with weights frozen)")
    print(f"  largest difference {error:.1e} of the largest score")
    print(f"  at least {TARGET:g} times: {'met' if ratio >= TARGET else 'NOT met'}")
    if not quick:
        target = Path(__file__).parent / "results" / "discovery.json"
        written = {
            "seconds CPU": best,
            "times as fast": ratio,
            "times, frozen": of_frozen,
            "largest relative difference": error,
        }
        target.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
