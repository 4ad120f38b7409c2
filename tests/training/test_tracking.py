"""What is measured in training: by hand, by a plain reimplementation, and by the closed form of W*."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.data import exhaustive, population
from ocr_interp.models.token_counts import TokenCountModel
from ocr_interp.models.weights import TokenWeights
from ocr_interp.task import SPLITS, FactRecallTask
from ocr_interp.training.limits import limit_columns
from ocr_interp.training.tracking import (
    CIRCUIT_COLUMNS,
    COLUMNS,
    SPLIT_COLUMNS,
    Tracker,
    circuit_norms,
    learned,
)

CPU = torch.device("cpu")


def measured(task, W, scores=None, attention="linear", **recipe):
    """The row of a non-factorized model with this W_OV (all tokens) and these scores (1 unless given)."""
    scores = torch.ones(task.n_inputs) if scores is None else scores
    W_QK = torch.zeros(task.d_vocab, task.d_vocab, dtype=torch.float64)
    W_QK[task.eos_token, : task.n_inputs] = scores.double()
    config = ModelConfig(ov="non_factorized", attention=attention, dtype="float64")
    model = TokenCountModel(task, config, TokenWeights.of_factors(W.double(), None, W_QK), CPU)
    recipe = TrainConfig(**{"data": "noise_free", **recipe})
    return Tracker(task, recipe, torch.float64, CPU).measure(model)


def answer_matrix(task, entries):
    """W_OV with entries by labels: {("s0", "b0"): 1.0}."""
    W = torch.zeros(task.d_vocab, task.d_vocab, dtype=torch.float64)
    for (token, answer), value in entries.items():
        W[task.token(token), task.token(answer)] = value
    return W


def plain_row(task, W, scores, batch, attention):
    """All columns again, example by example, from counts, targets and weights alone."""
    W, a = W.numpy(), scores.double().numpy()
    n, facts = task.n_inputs, task.n_facts
    found = {split: SimpleNamespace(weight=[], values=[], margins=[], all=[]) for split in SPLITS}
    rows = (batch.counts.numpy(), batch.target.numpy(), batch.split.numpy(), batch.weight.numpy())
    for counts, target, split, weight in zip(*rows, strict=True):
        share = counts * a if attention == "linear" else counts * np.exp(a) / (counts * np.exp(a)).sum()
        logits = share @ W[:n]
        own_set = range(n, n + facts) if target < n + facts else range(n + facts, task.d_vocab)
        in_set = logits[target] - max(logits[k] for k in own_set if k != target)
        in_all = logits[target] - max(logits[k] for k in range(n, task.d_vocab) if k != target)
        loss = math.log(sum(math.exp(x) for x in logits)) - logits[target]
        loss_in_set = math.log(sum(math.exp(logits[k]) for k in own_set)) - logits[target]
        one = found[SPLITS[split]]
        one.weight.append(weight)
        one.values.append([loss, loss_in_set, float(in_all > 0), float(in_set > 0)])
        one.margins.append(in_set)
        one.all.append(in_all)
    row = {}
    for split, one in found.items():
        means = np.average(one.values, axis=0, weights=one.weight)
        row |= {f"{split}/{c}": v for c, v in zip(SPLIT_COLUMNS, [*means, min(one.margins)], strict=True)}
    row["train_margin"] = min(min(found[split].all) for split in SPLITS[:3])
    row["held_out_margin"] = min(found["held_out_implication"].margins)
    token_weight = a if attention == "linear" else np.exp(a)
    circuit = (token_weight[:, None] * W[:n])[: task.n_subjects + 2, n:]
    S = np.linalg.svd(circuit, compute_uv=False)
    p = S / S.sum()
    norms = [S.sum(), np.linalg.norm(circuit), np.exp(-sum(x * math.log(x) for x in p if x > 0))]
    return row | dict(zip(("nuclear_norm", "frobenius_norm", "effective_rank"), norms, strict=True))


@pytest.mark.parametrize("attention", ["linear", "softmax"])
@pytest.mark.parametrize("data", ["noise_free", "exhaustive"])
@pytest.mark.parametrize("name", ["tiny", "mapped"])
def test_every_column_against_a_plain_reimplementation(tiny_task, mapped_task, name, data, attention):
    task, generator = tiny_task if name == "tiny" else mapped_task, torch.Generator().manual_seed(1)
    W = torch.randn(task.d_vocab, task.d_vocab, generator=generator, dtype=torch.float64)
    scores = torch.rand(task.n_inputs, generator=generator, dtype=torch.float64) + 0.5
    batch = (population if data == "noise_free" else exhaustive)(task, dtype=torch.float64)
    got, expected = (
        measured(task, W, scores, attention, data=data),
        plain_row(task, W, scores, batch, attention),
    )
    assert {"step", "train_loss", *got} == set(COLUMNS)
    assert got.keys() - set(limit_columns()) == expected.keys()
    for column, value in expected.items():
        assert got[column] == pytest.approx(value, abs=1e-12), column
    assert any(0 < got[f"{split}/accuracy_in_set"] < 1 for split in SPLITS)


@pytest.mark.parametrize("draws", [1, 3])
def test_noisy_evaluation_holds_every_triple_with_its_draws(tiny_task, draws):
    tracker = Tracker(tiny_task, TrainConfig(eval_draws=draws), torch.float64, CPU)
    examples, triples = tracker.examples, tiny_task.triples
    assert len(examples) == draws * len(triples)
    seen = sorted(zip(examples.subject.tolist(), examples.target.tolist(), strict=True))
    wanted = zip(triples.subject.tolist(), (triples.answer + tiny_task.n_inputs).tolist(), strict=True)
    assert seen == sorted(pair for pair in wanted for _ in range(draws))
    assert (examples.counts.sum(1) == tiny_task.seq_len).all()
    again = Tracker(tiny_task, TrainConfig(eval_draws=draws, seed=5), torch.float64, CPU).examples
    assert torch.equal(examples.counts, again.counts), "the same in every run, whatever its seed"


def test_by_hand():
    """Two pairs, one subject each side, one weight a right answer: everything can be written down."""
    task = FactRecallTask(2, 1, 1, n_noise=0, seq_len=3)  # s0 s1 | s2 s3; s0 and s2 trained
    entries = {("s0", "b0"): 2, ("s1", "b0"): 2, ("s2", "b1"): 2, ("s3", "b1"): 2}
    entries |= {("s0", "c0"): 2, ("s2", "c1"): 2, ("s3", "c0"): 1}
    entries |= {("r1", "b0"): 1, ("r1", "b1"): 1, ("r2", "c0"): 1, ("r2", "c1"): 1}
    row = measured(task, answer_matrix(task, entries))
    outside = task.d_vocab - 4  # logits of 0 for all that is no answer
    e = math.exp
    # s0 r1: b0 3, b1 1, c0 2, c1 0
    assert row["training_fact/loss"] == pytest.approx(math.log(e(3) + e(1) + e(2) + 1 + outside) - 3)
    assert row["training_fact/loss_in_set"] == pytest.approx(math.log(e(3) + e(1)) - 3)
    assert row["training_fact/accuracy"] == 1
    assert row["training_fact/margin"] == 2
    # s0 r2: b0 2, b1 0, c0 3, c1 1
    assert row["training_implication/loss_in_set"] == pytest.approx(math.log(e(3) + e(1)) - 3)
    assert row["training_implication/margin"] == 2
    # s1 r1: b0 3, b1 1, c 0 0; s3 r1: b0 1, b1 3, c0 1, c1 0
    assert row["held_out_fact/accuracy"] == 1
    # s1 r2: b0 2, c0 1, c1 1: the fact wins, and a tie in the set; s3 r2: b1 2, c0 2, c1 1: wrong
    assert row["held_out_implication/accuracy"] == 0
    assert row["held_out_implication/accuracy_in_set"] == 0
    assert row["held_out_implication/loss_in_set"] == pytest.approx(
        (math.log(2) + math.log(e(2) + e(1)) - 1) / 2
    )
    assert row["held_out_implication/margin"] == row["held_out_margin"] == -1
    assert row["train_margin"] == 1  # s0: own b 3 against own c 2


def test_ties_are_not_right():
    task = FactRecallTask(3, 1, 1, n_noise=0, seq_len=3)
    silent = measured(task, torch.zeros(task.d_vocab, task.d_vocab))
    for split in SPLITS:
        assert silent[f"{split}/loss"] == pytest.approx(math.log(task.d_vocab))
        assert silent[f"{split}/loss_in_set"] == pytest.approx(math.log(3))
        assert [silent[f"{split}/{c}"] for c in ("accuracy", "accuracy_in_set", "margin")] == [0, 0, 0]
    assert [silent[c] for c in CIRCUIT_COLUMNS] == [0, 0, 0, 0, 0]
    pairs = {(f"s{s}", f"{x}{s // 2}"): 1.0 for s in range(6) for x in "bc"}  # own fact ties own implication
    tied = measured(task, answer_matrix(task, pairs))
    for split in SPLITS:
        assert tied[f"{split}/accuracy"] == 0
        assert tied[f"{split}/accuracy_in_set"] == 1
        assert tied[f"{split}/margin"] == 1
    assert tied["train_margin"] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [3, 7, 10, 20])
def test_all_right_is_exactly_1_and_thus_learned(n, dtype):
    task = FactRecallTask(n, 1, 3)
    pairs = {(f"s{s}", f"{x}{s // 4}"): 9.0 for s in range(4 * n) for x in "bc"}
    pairs |= {("r1", f"b{k}"): 9.0 for k in range(n)} | {("r2", f"c{k}"): 9.0 for k in range(n)}
    W = answer_matrix(task, pairs).to(dtype)
    weights = TokenWeights.of_factors(W, None, torch.ones(task.d_vocab, task.d_vocab, dtype=dtype))
    config = ModelConfig(ov="non_factorized", dtype=str(dtype).removeprefix("torch."))
    for draws in (1, 4, 7):
        tracker = Tracker(task, TrainConfig(eval_draws=draws), dtype, CPU)
        row = tracker.measure(TokenCountModel(task, config, weights, CPU))
        for split in SPLITS:
            assert row[f"{split}/accuracy"] == row[f"{split}/accuracy_in_set"] == 1
        assert learned(row, 0.1)


def maximum_margin_weights(task, beta):
    """W* of theory.md §4, on a vocabulary with noise and EOS."""
    n, m_train, _ = task.balanced_sizes
    entries = {}
    for s in range(task.n_subjects):
        held_out = s % (task.n_subjects // n) >= m_train
        for k in range(n):
            value = float(k == task.subject_fact[s]) - 1 / n
            entries[f"s{s}", f"b{k}"], entries[f"s{s}", f"c{k}"] = value, (beta if held_out else 1) * value
    for k in range(n):
        entries["r1", f"b{k}"] = entries["r2", f"c{k}"] = 0.5
        entries["r2", f"b{k}"] = entries["r1", f"c{k}"] = -0.5
    return answer_matrix(task, entries)


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize(("n", "m_train", "m_test"), [(20, 1, 3), (4, 1, 2), (3, 2, 2)])
def test_norms_and_margins_of_the_closed_form(n, m_train, m_test, scale):
    """The attention may hold any scale: norms are those of diag(a) W_OV."""
    task, beta = FactRecallTask(n, m_train, m_test), math.sqrt(m_train / m_test)
    scores = torch.full((task.n_inputs,), scale)
    row = measured(task, maximum_margin_weights(task, beta) / scale, scores)
    assert row["train_margin"] == pytest.approx(1, abs=1e-12)
    assert row["held_out_margin"] == pytest.approx(beta, abs=1e-12)
    nuclear = (n - 1) * (math.sqrt(m_train) + math.sqrt(m_test)) + math.sqrt(n)
    assert row["nuclear_norm"] == pytest.approx(nuclear, rel=1e-12)
    frobenius = math.sqrt((n - 1) * (2 * m_train + m_test * (1 + beta**2)) + n)
    assert row["frobenius_norm"] == pytest.approx(frobenius, rel=1e-12)
    root = np.sqrt([[m_train, m_test], [m_train, beta**2 * m_test]])
    pair = np.linalg.svd(root, compute_uv=False)
    p = np.array([*np.repeat(pair, n - 1), math.sqrt(n)]) / nuclear
    assert row["effective_rank"] == pytest.approx(
        np.exp(-sum(x * math.log(x) for x in p if x > 1e-12)), rel=1e-9
    )


def test_norms_of_plain_matrices():
    assert circuit_norms(np.eye(5)) == pytest.approx(
        {"nuclear_norm": 5, "frobenius_norm": math.sqrt(5), "effective_rank": 5}
    )
    one = circuit_norms(np.outer([3.0, 4.0], [1.0, 0.0, 0.0]))
    assert one == pytest.approx({"nuclear_norm": 5, "frobenius_norm": 5, "effective_rank": 1})
    assert set(circuit_norms(np.zeros((2, 3))).values()) == {0}


@pytest.mark.parametrize(
    ("loss", "accuracy", "threshold", "expected"),
    [
        (0.05, 1.0, 0.1, True),
        (0.05, 0.99, 0.1, False),
        (0.1, 1.0, 0.1, False),
        (0.0, 1.0, 0.0, False),
        (math.nan, math.nan, 0.1, False),
    ],
)
def test_learned(loss, accuracy, threshold, expected):
    row = {"held_out_implication/loss": loss, "held_out_implication/accuracy": accuracy}
    assert learned(row, threshold) is expected
