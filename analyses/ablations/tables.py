"""What the ablation analyses share: metrics of a matrix, tables by split, computed solutions as models."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import torch

from analyses.house.claims import Claim
from analyses.paper.runs import PAPER
from ocr_interp import ModelConfig, RunConfig, TrainConfig
from ocr_interp.ablation.metrics import split_metrics
from ocr_interp.models.weights import TokenWeights
from ocr_interp.task import SPLITS
from ocr_interp.training.continuation import compute_limit
from ocr_interp.training.run import Snapshot

METRICS = ("margin", "other_answer_difference", "logit_difference", "accuracy")
SHOWN = {
    "margin": "against the other answers of its set",
    "other_answer_difference": "against the subject's other answer",
}
HELD_OUT_IMPLICATION = SPLITS[3]


def limit_as_model(ov: Literal["factorized", "non_factorized"]) -> Snapshot:
    """The computed max-margin solution as a model with frozen uniform attention."""
    found = compute_limit(PAPER, ov, tolerance=3e-4)
    d, n, rows = PAPER.d_vocab, PAPER.n_inputs, len(found.W)
    ones = torch.ones(d, d, dtype=torch.float64)
    if ov == "non_factorized":
        W_OV = np.zeros((d, d))
        W_OV[:rows, n:] = found.W
        model = ModelConfig(ov=ov, train_attention=False, dtype="float64")
        weights = TokenWeights.of_factors(torch.tensor(W_OV), None, ones)
    else:
        width = found.parameters["W_V"].shape[1]
        W_V, W_O = np.zeros((d, width)), np.zeros((width, d))
        W_V[:rows], W_O[:, n:] = found.parameters["W_V"], found.parameters["W_O"]
        model = ModelConfig(ov=ov, d_head=width, train_attention=False, dtype="float64")
        weights = TokenWeights.of_factors(torch.tensor(W_V), torch.tensor(W_O), ones)
    return Snapshot(RunConfig(PAPER, model, TrainConfig.gradient_descent()), 0, weights)


def of_matrix(W: np.ndarray) -> dict[str, dict[str, float]]:
    """Metrics of a circuit, noise-free and with attention 1."""
    triples = PAPER.triples
    logits = torch.zeros(len(triples), PAPER.d_vocab, dtype=torch.float64)
    rows = W[triples.subject] + W[PAPER.n_subjects + triples.relation]
    logits[:, PAPER.n_inputs :] = torch.as_tensor(rows)
    return split_metrics(PAPER, logits, np.arange(len(triples)), METRICS)


def unit_of(table: pd.DataFrame) -> float:
    """The smallest training margin of the unablated model, the unit of all margins."""
    told = (table["spec"] == "none") & (table["split"] != HELD_OUT_IMPLICATION)
    return float(table.loc[told, list(SHOWN)].to_numpy().min())


def by_spec(found: pd.DataFrame) -> dict:
    """{spec: {split: {metric: mean over seeds}}}."""
    return {
        spec: {split: {m: mean_of(found, spec, split, m) for m in METRICS} for split in SPLITS}
        for spec in dict.fromkeys(found["spec"])
    }


def mean_of(table: pd.DataFrame, spec: str, split: str, metric: str) -> float:
    """Mean over seeds of one metric."""
    chosen = (table["spec"] == spec) & (table["split"] == split)
    return float(table.loc[chosen, metric].to_numpy().mean())


def kept_and_taken(table: pd.DataFrame, spec: str) -> tuple[float, float]:
    """Smallest accuracy over the told splits, and the accuracy on held-out implications."""
    kept = min(mean_of(table, spec, split, "accuracy") for split in SPLITS[:3])
    return kept, mean_of(table, spec, HELD_OUT_IMPLICATION, "accuracy")


def derived(
    picture: str, id_: str, statement: str, expected: str, measured: dict, tolerance: float, holds: bool
) -> Claim:
    """A claim that a picture of the ablation study shows."""
    source = "derived (docs/theory.md)"
    return Claim(id_, statement, source, expected, measured, tolerance, bool(holds), picture)
