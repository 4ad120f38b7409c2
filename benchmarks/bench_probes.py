"""What the probes of a model cost beside plain forward passes of TransformerLens, side by side in one run.

    python benchmarks/bench_probes.py [--quick]

A HookedTransformer and a TransformerBridge of the size of GPT-2 small (12 layers, 12 heads, d_model 768,
50,257 tokens), random weights, float32. One forward pass is `model(tokens)` on one prompt of 32 tokens
without any hook of ours. The first question about a layer (`probe_head`, then `OVCircuit.from_model` between
20 tokens and 20) is asked of a model that was never probed; the later ones are about its other heads. What
the bare products W_E W_V W_O W_U cost is there too. Rounds alternate, so that all see the same machine; the
smallest time of each counts. Imports and the making of models are not counted. Results go to
benchmarks/results/probes.json.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import tyro

from ocr_interp import OVCircuit
from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.hooked import probes
from ocr_interp.hooked.norms import read_norm, working_dtype

TOKENS = 32
SET = range(100, 120)
PASS, WEIGHTS = "one forward pass", "the products of weights alone"
FIRST, LATER = "probe, first question of a layer", "probe, later questions"
READ, READ_LATER = "from_model, first of a layer", "from_model, later"
ATTRIBUTE = "attribute, later"
TARGET = 3.0
"""The first question about a layer should take at most so many forward passes."""


def hooked(layers: int) -> Any:
    """A HookedTransformer with random weights."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    cfg = HookedTransformerConfig(
        n_layers=layers,
        n_heads=12,
        d_model=768,
        d_head=64,
        d_mlp=3072,
        d_vocab=50257,
        n_ctx=1024,
        act_fn="gelu_new",
        normalization_type="LN",
        seed=0,
        device="cpu",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        return HookedTransformer(cfg).eval()


def bridged(layers: int) -> Any:
    """A TransformerBridge of a GPT-2 with random weights; a PeftModel's copies are booted the same way."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from ocr_interp.hooked.adapted.copies import bridge_of

    torch.manual_seed(0)
    config = GPT2Config(n_layer=layers)
    config.architectures = ["GPT2LMHeadModel"]
    return bridge_of(GPT2LMHeadModel(config).eval(), "gpt2-random")


def products(model: Any, layer: int, head: int) -> torch.Tensor:
    """W_E W_V W_O W_U between the token sets in double precision, with the gains of the norms: no probe."""
    block, wide = model.blocks[layer], working_dtype(model.W_E.device)
    ids = list(SET)
    ln1, last = (read_norm(each, model.cfg, wide) for each in (block.ln1, model.ln_final))
    W_V, W_O = block.attn.W_V[head].to(wide), block.attn.W_O[head].to(wide)
    left = ln1.reads(model.W_E[ids].to(wide)) @ W_V
    return left @ (last.reads(W_O) @ model.W_U[:, ids].to(wide))


def measure(model: Any, rounds: int, layer: int) -> dict[str, float]:
    """CPU-seconds of each way."""
    tokens = torch.arange(1000, 1000 + TOKENS)[None]
    prompt = tokens[0].tolist()
    read = {"inputs": SET, "outputs": SET, "layer": layer}
    best: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        start = time.process_time()
        work()
        best[name] = min(best.get(name, float("inf")), time.process_time() - start)

    def forget() -> None:
        probes._CACHE.pop(model, None)

    with torch.no_grad():
        model(tokens)
        for k in range(rounds):
            timed(PASS, lambda: model(tokens))
            timed(WEIGHTS, lambda: products(model, layer, 0))
            forget()
            timed(FIRST, lambda: probes.probe_head(model, layer, 0))
            timed(LATER, lambda k=k: probes.probe_head(model, layer, 1 + k % 11))
            forget()
            timed(READ, lambda: OVCircuit.from_model(model, head=0, **read))
            timed(READ_LATER, lambda k=k: OVCircuit.from_model(model, head=1 + k % 11, **read))
            timed(ATTRIBUTE, lambda: attribute_model(model, prompt, 5, 6, layer=layer, head=0))
    return best


def main(quick: bool = False) -> None:
    torch.set_num_threads(1)
    layers, rounds = (4, 2) if quick else (12, 5)
    results: dict[str, dict[str, float]] = {}
    for name, make in (("HookedTransformer", hooked), ("TransformerBridge", bridged)):
        best = measure(make(layers), rounds, layers // 2)
        results[name] = best
        print(f"\n{name} with {layers} layers, one thread:")
        for way, spent in best.items():
            print(f"  {way:36}{1e3 * spent:9.1f} ms CPU{spent / best[PASS]:8.2f} passes")
        met = "met" if best[FIRST] <= TARGET * best[PASS] else "NOT met"
        print(f"  first question at most {TARGET:g} forward passes: {met}")
    if not quick:
        target = Path(__file__).parent / "results" / "probes.json"
        target.parent.mkdir(exist_ok=True)
        written = {"forward pass, tokens": TOKENS, "seconds CPU": results}
        target.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
