"""The trained models of this study, kept in runs/mlp."""

from __future__ import annotations

from pathlib import Path

import torch

from analyses.mlp.criteria import ADAM_RATE, D_HEAD, D_MLP, D_MODEL, LOSS, RELATIVE_STEP, SEEDS, SIZES
from analyses.mlp.models import ARCHITECTURES, Data, Weights, data, forward, start
from analyses.mlp.training import Trained, train

QUESTIONS = data()


def models(runs: Path, name: str, rule: str, size: float, *, told: bool = True) -> Trained:
    """One run per seed, trained from this size of start; `told` False: on facts alone."""
    widths = f"{'-'.join(map(str, SIZES))}_{D_MODEL}-{D_HEAD}-{D_MLP}"
    how = f"{rule}_{ADAM_RATE if rule == 'adamw' else RELATIVE_STEP}_{LOSS}_{size}_{len(SEEDS)}"
    kind = name.replace(" ", "-").replace(",", "")
    file = runs / "mlp" / f"{kind}_{widths}_{how}{'' if told else '_facts'}.pt"
    if file.exists():
        kept = torch.load(file, weights_only=True)
        return Trained(kept["weights"], kept["loss"], kept["steps"])
    torch.set_num_threads(1)
    architecture = ARCHITECTURES[name]
    found = train(architecture, fresh(name, size), data(told), rule)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weights": found.weights, "loss": found.loss, "steps": found.steps}, file)
    return found


def fresh(name: str, size: float) -> Weights:
    """Starts of all seeds."""
    return start(ARCHITECTURES[name], [size] * len(SEEDS), list(SEEDS))


def implication_logits(name: str, weights: Weights, of: Data = QUESTIONS) -> torch.Tensor:
    """Logits of all questions on implications."""
    return forward(ARCHITECTURES[name], weights, of.asked).logits(weights)
