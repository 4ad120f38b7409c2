"""Composition scores and direct attributions of a whole model beside plain TransformerLens, in one run.

    python benchmarks/bench_whole_model.py [--quick]

A HookedTransformer of the shape of SmolLM2-135M (30 layers, 9 heads, d_model 576, MLPs of 1,536; a vocabulary
of 8,192), random weights, float32, one thread.

- **composition**: Q-, K- and V-scores of every pair of heads. Ours also folds norms, probes all layers, and
  has the deviation from random matrices of the same spectra. Plain: `composition_scores` of TransformerLens
  on FactoredMatrix, layer by layer (`all_composition_scores` itself needs more than 20 GB here); it is timed
  on some pairs of layers and scaled up, and these pairs' scores are compared.
- **direct attributions**: every part of 100 prompts of 32 tokens. Plain: run_with_cache, which keeps all
  activations, and `cache.get_full_resid_decomposition` with `cache.logit_attrs` at the last position.

Process time of the better of the rounds; results in benchmarks/results/whole_model.json.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from ocr_interp.circuits import composition, direct_attribution

TOKENS, PROMPTS, VOCABULARY = 32, 100, 8192
TARGET = 3.0
"""Ours should be at least so many times faster."""


def make(layers: int) -> Any:
    """A HookedTransformer with random weights, without norms' gains: both sides then mean the same scores."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    cfg = HookedTransformerConfig(
        n_layers=layers,
        n_heads=9,
        d_model=576,
        d_head=64,
        d_mlp=1536,
        d_vocab=VOCABULARY,
        n_ctx=64,
        act_fn="silu",
        normalization_type="RMSPre",
        seed=0,
        device="cpu",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        return HookedTransformer(cfg).eval()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU-seconds and the result."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def plain_composition(model: Any, pairs: list[tuple[int, int]]) -> dict[tuple[str, int, int], np.ndarray]:
    """Scores of TransformerLens for some pairs of layers."""
    from transformer_lens import FactoredMatrix
    from transformer_lens.utilities.matrix import composition_scores

    found = {}
    W_Q, W_K, W_V, W_O = model.W_Q, model.W_K, model.W_V, model.W_O
    for early, late in pairs:
        left = FactoredMatrix(W_V[early], W_O[early])
        for by, right in (
            ("Q", FactoredMatrix(W_Q[late], W_K[late].mT)),
            ("K", FactoredMatrix(W_K[late], W_Q[late].mT)),
            ("V", FactoredMatrix(W_V[late], W_O[late])),
        ):
            found[by, early, late] = composition_scores(left, right).numpy()
    return found


def plain_attribution(model: Any, tokens: torch.Tensor, answers: Any, against: Any, batch: int) -> np.ndarray:
    """Attributions of TransformerLens [prompt, part] by the cache's own functions."""
    rows = []
    for start in range(0, len(tokens), batch):
        part = slice(start, start + batch)
        _, cache = model.run_with_cache(tokens[part])
        stack = cache.get_full_resid_decomposition(expand_neurons=False, apply_ln=False, pos_slice=-1)
        rows.append(cache.logit_attrs(stack, answers[part], incorrect_tokens=against[part], pos_slice=-1).T)
    return torch.cat(rows).numpy()


def measure_composition(model: Any, some: int, rounds: int) -> dict[str, float]:
    """All scores of ours, some of the plain way scaled to all."""
    layers = int(model.cfg.n_layers)
    pairs = [(a, b) for b in range(layers) for a in range(b)]
    chosen = pairs[:: max(1, len(pairs) // some)]
    runs = [
        (timed(lambda: composition(model, mlps=False)), timed(lambda: plain_composition(model, chosen)))
        for _ in range(rounds)
    ]
    (_, found), (_, theirs) = runs[0]
    ours, plain = (min(run[k][0] for run in runs) for k in (0, 1))
    worst = max(
        float(np.abs(found.heads(by)[early, :, late] - scores).max())
        for (by, early, late), scores in theirs.items()
    )
    return {
        "ours": ours,
        "plain": plain * len(pairs) / len(chosen),
        "scores": len(pairs) * 81 * 3,
        "largest difference": worst,
    }


def measure_attribution(model: Any, prompts: int, rounds: int) -> dict[str, float]:
    """Every part of every prompt."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (prompts, TOKENS), generator=generator)
    answers, against = torch.randint(VOCABULARY - 1, (2, prompts), generator=generator)
    against += answers == against
    direct_attribution(model, tokens[:1], answers[:1], against[:1])  # what is asked once for each model
    runs = [
        (
            timed(lambda: direct_attribution(model, tokens, answers, against, batch_size=25)),
            timed(lambda: plain_attribution(model, tokens, answers, against, 25)),
            timed(lambda: [model(tokens[k : k + 25]) for k in range(0, prompts, 25)]),
        )
        for _ in range(rounds)
    ]
    (_, found), (_, theirs), _ = runs[0]
    ours, plain, passes = (min(run[k][0] for run in runs) for k in (0, 1, 2))
    heads = found.heads.reshape(prompts, -1)
    worst = float(np.abs(heads - theirs[:, : heads.shape[1]]).max())
    return {
        "ours": ours,
        "plain": plain,
        "forward passes alone": passes,
        "parts": len(found.parts) * prompts,
        "largest difference": worst,
    }


def main(quick: bool = False, rounds: int = 2) -> None:
    torch.set_num_threads(1)
    layers, some, prompts, rounds = (4, 3, 25, 1) if quick else (30, 12, PROMPTS, rounds)
    model, results = make(layers), {}
    with torch.no_grad():
        results["composition"] = told("composition", measure_composition(model, some, rounds))
        own = told("direct attribution", measure_attribution(model, prompts, rounds))
    results["direct attribution"] = own
    bare = own["forward passes alone"]
    print(f"forward passes alone {bare:.2f} s, which both include")
    if not quick:
        target = Path(__file__).parent / "results" / "whole_model.json"
        written = {"layers": layers, "heads": 9, "d_model": 576, "seconds CPU": results}
        target.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def told(name: str, found: dict[str, float]) -> dict[str, float]:
    """The same with the ratio, printed as soon as it is known."""
    ratio = found["plain"] / found["ours"]
    met = "met" if ratio >= TARGET else "NOT met"
    print(
        f"{name:20} ours {found['ours']:8.2f} s CPU, TransformerLens {found['plain']:8.2f} s, "
        f"{ratio:6.1f} times (at least {TARGET:g}: {met}); "
        f"largest difference {found['largest difference']:.1e}",
        flush=True,
    )
    return {**found, "ratio": ratio}


if __name__ == "__main__":
    tyro.cli(main)
