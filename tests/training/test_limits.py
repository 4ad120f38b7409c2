"""The logged distance to the limits: by a plain reimplementation, and at the limits themselves."""

import math

import numpy as np
import pytest

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, solve, train
from ocr_interp.training.limits import LimitTracker, limit_columns

DUAL = {"nuclear": 2, "frobenius": "fro"}
PRIMAL = {"nuclear": "nuc", "frobenius": "fro"}


def plain_gap(W, task, norm):
    """P / D - 1 from the model's own residuals, constraint by constraint (theory.md §6)."""
    margins, total, pull = [], 0.0, np.zeros_like(W)
    told = task.training_triples
    for s, r, answer in zip(told.subject, told.relation, told.answer, strict=True):
        x = np.zeros(task.n_inputs)
        x[[s, task.n_subjects + r, task.eos_token]] = 1
        logits, correct = x @ W, task.n_inputs + answer
        p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        for wrong in range(task.d_vocab):
            if wrong != correct:
                margins.append(logits[correct] - logits[wrong])
                total += p[wrong]
                pull[:, correct] += p[wrong] * x
                pull[:, wrong] -= p[wrong] * x
    return np.linalg.norm(W, PRIMAL[norm]) / min(margins) / (total / np.linalg.norm(pull, DUAL[norm])) - 1


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["nuclear", "frobenius"])
def test_gap_is_that_of_the_models_own_residuals(norm):
    task = FactRecallTask(3, 1, 2, n_noise=0, seq_len=3)
    recipe = TrainConfig.gradient_descent(lr=1.0, steps=400, log_every=400)
    model = ModelConfig(train_attention=False, init_scale=0.2, dtype="float64")
    run = train(task, model, recipe, progress=False)
    last = run.history.iloc[-1]
    assert last["train_margin"] > 0
    assert last[f"gap_{norm}"] == pytest.approx(plain_gap(run.effective_W, task, norm), rel=1e-9)
    assert last[f"gap_{norm}"] > 0


@pytest.mark.parametrize("norm", ["nuclear", "frobenius"])
def test_at_a_predicted_solution(norm):
    task = FactRecallTask(4, 1, 3)
    predicted = solve(task, norm, outputs="vocabulary", inputs="eos")
    row = LimitTracker(task, "eos").measure(1e3 * predicted.W, "softmax")
    assert row["beta"] == pytest.approx(predicted.beta, abs=1e-12)
    assert row[f"cosine_{norm}"] == pytest.approx(1)
    other = {"nuclear": "frobenius", "frobenius": "nuclear"}[norm]
    assert row[f"cosine_{other}"] < 0.99
    assert row[f"excess_{norm}"] == pytest.approx(0, abs=1e-12)
    assert row[f"excess_{other}"] > 0.01
    for each in (norm, other):
        assert row[f"gap_{each}"] >= row[f"excess_{each}"] - 1e-12, "a lower bound of the optimum"


def test_what_cannot_be_measured_is_nan():
    task = FactRecallTask(3, 1, 1)
    zero = np.zeros((task.n_inputs, task.d_vocab))
    assert all(math.isnan(value) for value in LimitTracker(task, "eos").measure(zero, "linear").values())
    zero[0, 0] = np.inf
    assert all(math.isnan(value) for value in LimitTracker(task, "eos").measure(zero, "linear").values())
    unequal = FactRecallTask.from_mapping([0, 0, 1, 1, 1], [0, 1], [True, False, True, False, False])
    W = np.random.default_rng(0).standard_normal((unequal.n_inputs, unequal.d_vocab))
    row = LimitTracker(unequal, "eos").measure(W, "linear")
    assert set(row) == set(limit_columns())
    assert math.isnan(row["cosine_nuclear"])
    assert math.isnan(row["excess_nuclear"])
    assert math.isfinite(row["beta"])
