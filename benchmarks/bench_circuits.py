"""Spectra of all OV circuits of a model, in CPU-seconds of one thread, side by side in one run.

    python benchmarks/bench_circuits.py [--quick]

Shapes of a 30-layer, 9-head model with d_model 576 and d_head 64, float32, normal entries scaled so that
each head's singular values spread over about six decades; once with a value head for every head and once
with three, as in a grouped model. Four ways: ours (QR of the factors, then d_head × d_head),
FactoredMatrix.svd, a dense SVD of the products, and Gram matrices of the factors, which are fast and
inaccurate. Rounds alternate, so that all see the same machine; the smallest time of each counts. The dense
way is timed on some layers per round and scaled up, since it takes minutes. Errors are those of singular
values against float64, relative to the largest of the head. Imports are not counted. Results go to
benchmarks/results/circuits.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import tyro
from jaxtyping import Float
from torch import Tensor
from transformer_lens import FactoredMatrix

from ocr_interp.circuits.weights.spectra import ov_spectra

LAYERS, HEADS, KV_HEADS, D_MODEL, D_HEAD = 30, 9, 3, 576, 64
OURS, FACTORED, DENSE, GRAM = "QR (ours)", "FactoredMatrix.svd", "dense SVD", "Gram matrices"


def weights(layers: int, kv_heads: int) -> tuple[Tensor, Tensor]:
    """W_V [layer, kv_head, d_model, d_head] and W_O [layer, head, d_head, d_model], seeded.

    A rotation of the hidden dimensions, which does not change the products, spreads every scale over all
    columns, as in trained weights; without it the scaling by columns would hide the error of Gram matrices.
    """
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -3, D_HEAD)
    rotation = torch.linalg.qr(torch.randn(D_HEAD, D_HEAD, generator=generator)).Q
    W_V = torch.randn(layers, kv_heads, D_MODEL, D_HEAD, generator=generator) * spread @ rotation
    W_O = torch.randn(layers, HEADS, D_HEAD, D_MODEL, generator=generator) * spread[:, None]
    return W_V, rotation.mT @ W_O


def expanded(W_V: Tensor) -> Tensor:
    """W_V with one entry per head, as FactoredMatrix needs it."""
    return W_V.repeat_interleave(HEADS // W_V.shape[1], 1)


def gram_spectra(W_V: Tensor, W_O: Tensor) -> Float[Tensor, "layer head d_head"]:
    """Roots of the eigenvalues of (W_Vᵀ W_V)^½ W_O W_Oᵀ (W_Vᵀ W_V)^½: squares the condition number."""
    values, vectors = torch.linalg.eigh(expanded(W_V).mT @ expanded(W_V))
    root = (vectors * values.clamp(min=0).sqrt().unsqueeze(-2)) @ vectors.mT
    return torch.linalg.eigvalsh(root @ (W_O @ W_O.mT) @ root).clamp(min=0).sqrt().flip(-1)


def factored_spectra(W_V: Tensor, W_O: Tensor) -> Tensor:
    """The method of TransformerLens."""
    return FactoredMatrix(expanded(W_V), W_O).svd()[1]


def dense_spectra(W_V: Tensor, W_O: Tensor) -> Tensor:
    """A d_model × d_model decomposition for every head."""
    return torch.linalg.svdvals(expanded(W_V) @ W_O)[..., :D_HEAD]


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    OURS: ov_spectra,
    FACTORED: factored_spectra,
    DENSE: dense_spectra,
    GRAM: gram_spectra,
}


def measure(layers: int, kv_heads: int, rounds: int, dense_layers: int) -> dict[str, dict[str, float]]:
    """CPU-seconds, ratio to ours and relative error of every way."""
    W_V, W_O = weights(layers, kv_heads)
    some = slice(0, dense_layers)
    exact = dense_spectra(W_V[some].double(), W_O[some].double())
    best = dict.fromkeys(WAYS, float("inf"))
    error: dict[str, float] = {}
    for _ in range(rounds):
        for name, way in WAYS.items():
            part = some if name == DENSE else slice(None)
            start = time.process_time()
            found = way(W_V[part], W_O[part])
            spent = (time.process_time() - start) * (layers / dense_layers if name == DENSE else 1)
            best[name] = min(best[name], spent)
            error[name] = float(((found[some].double() - exact).abs() / exact[..., :1]).max())
    return {
        name: {
            "seconds CPU": best[name],
            "times ours": best[name] / best[OURS],
            "largest error": error[name],
        }
        for name in WAYS
    }


def main(quick: bool = False) -> None:
    torch.set_num_threads(1)
    layers, rounds, dense_layers = (6, 2, 1) if quick else (LAYERS, 5, 3)
    results: dict[str, object] = {}
    for kv_heads in (HEADS, KV_HEADS):
        heads = f"{layers} layers x {HEADS} heads, {kv_heads} value heads"
        title = f"{heads}, d_model {D_MODEL}, d_head {D_HEAD}"
        measured = measure(layers, kv_heads, rounds, dense_layers)
        results[title] = measured
        print(f"\nSpectra of {title}, float32:")
        for name, row in measured.items():
            print(
                f"  {name:20}{row['seconds CPU']:9.3f} s CPU{row['times ours']:9.2f} x ours"
                f"   largest error {row['largest error']:.1e} of the largest singular value"
            )
        rival = min(measured[FACTORED]["times ours"], measured[DENSE]["times ours"])
        met = rival >= 3 and measured[OURS]["largest error"] <= 1e-5
        verdict = "met" if met else "NOT met"
        print(f"  the faster rival takes {rival:.2f} times as long; 3 times and 1e-5: {verdict}")
    if not quick:
        target = Path(__file__).parent / "results" / "circuits.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
