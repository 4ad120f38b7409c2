"""Starts: what two models share, and the symmetry that Theorem 3 asks for."""

import numpy as np
import pytest
import torch

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.errors import ConfigError
from ocr_interp.models.starts import initial_weights
from ocr_interp.task import FactRecallTask

PAPER = FactRecallTask()


def start(task, ov="factorized", seed=0, **fields):
    return initial_weights(task, ModelConfig(ov=ov, **{"dtype": "float64", **fields}), seed)


def test_product_start_is_the_same_circuit_with_the_same_attention(tiny_task):
    factors, whole = start(tiny_task, seed=4), start(tiny_task, "non_factorized", seed=4)
    assert whole.W_O is None
    assert torch.equal(whole.W_V, factors.W_V @ factors.W_O)
    assert torch.equal(whole.W_QK, factors.W_QK)
    assert torch.equal(whole.W_OV, factors.W_OV)


def test_product_start_is_rounded_once_to_float32(tiny_task):
    whole = start(tiny_task, "non_factorized", dtype="float32")
    assert torch.equal(whole.W_V, start(tiny_task, "non_factorized").W_V.float())


@pytest.mark.parametrize("ov", ["factorized", "non_factorized"])
@pytest.mark.parametrize("init", ["product", "entries", "symmetric"])
def test_dtypes_share_their_draws(tiny_task, ov, init):
    single, double = (start(tiny_task, ov, init=init, dtype=dtype) for dtype in ("float32", "float64"))
    for name, tensor in double.tensors().items():
        assert tensor.dtype == torch.float64
        assert torch.equal(single.tensors()[name], tensor.float()), name


def test_entries_start_has_entries_of_the_same_size():
    """Standard deviation 128^-1/2 in every matrix; 16,384 draws pin it to 4 sigma = 2.2 %."""
    std, tolerance = PAPER.d_vocab**-0.5, 4 / np.sqrt(2 * PAPER.d_vocab**2)
    for ov in ("factorized", "non_factorized"):
        for scale in (1.0, 0.1):
            weights = start(PAPER, ov, init="entries", init_scale=scale)
            for tensor in weights.tensors().values():
                assert float(tensor.std()) == pytest.approx(scale * std, rel=tolerance)
                assert abs(float(tensor.mean())) < 4 * scale * std / PAPER.d_vocab
    factors, whole = start(PAPER, init="entries"), start(PAPER, "non_factorized", init="entries")
    assert torch.equal(factors.W_QK, whole.W_QK)
    assert not torch.equal(factors.W_V, whole.W_V)
    product = start(PAPER, init="product")
    assert torch.equal(product.W_V, factors.W_V)
    assert torch.equal(product.W_O, factors.W_O)


def test_seeds_and_matrices_are_unrelated():
    one, other = start(PAPER, seed=0), start(PAPER, seed=1)
    flat = [t.flatten() for weights in (one, other) for t in weights.tensors().values()]
    correlation = torch.corrcoef(torch.stack(flat)) - torch.eye(len(flat))
    assert float(correlation.abs().max()) < 5 / PAPER.d_vocab  # 5 sigma
    assert torch.equal(start(PAPER, seed=1).W_V, other.W_V)


def test_narrow_factors():
    weights = start(PAPER, d_head=3)
    assert weights.W_V.shape == (128, 3)
    assert weights.W_O.shape == (3, 128)
    with pytest.raises(ConfigError, match="d_head must be None or d_vocab = 128"):
        start(PAPER, "non_factorized", d_head=3)


def test_constant_start_is_the_released_scripts():
    weights = start(PAPER, "non_factorized", init="constant", init_scale=2.0)
    assert weights.W_O is None
    assert weights.W_V.unique().tolist() == [2e-4]
    assert weights.W_QK.unique().tolist() == [2e-4]


@pytest.mark.parametrize("init", ["product", "entries", "symmetric"])
@pytest.mark.parametrize(("attention", "score"), [("linear", 1.0), ("softmax", 0.0)])
def test_frozen_and_uniform_attention(tiny_task, init, attention, score):
    frozen = start(tiny_task, init=init, attention=attention, train_attention=False)
    assert frozen.W_QK.unique().tolist() == [score]
    free = start(tiny_task, init=init, attention=attention)
    assert torch.equal(free.W_V, frozen.W_V)
    if init != "symmetric":
        uniform = start(tiny_task, init=init, attention=attention, attention_init="uniform")
        assert torch.equal(uniform.W_QK, frozen.W_QK)
        assert len(free.W_QK.unique()) > 1


# --- Theorem 3 -------------------------------------------------------------------------------------------


def permuted_tokens(task, order):
    """Where each token goes when pair i becomes pair order[i]: subjects, facts and implications move."""
    n, m = task.n_pairs, task.n_subjects // task.n_pairs
    tokens = np.arange(task.d_vocab)
    for pair, target in enumerate(order):
        tokens[pair * m : (pair + 1) * m] = np.arange(target * m, (target + 1) * m)
        tokens[task.n_inputs + pair] = task.n_inputs + target
        tokens[task.n_inputs + n + pair] = task.n_inputs + n + target
    return tokens


@pytest.mark.parametrize("ov", ["factorized", "non_factorized"])
@pytest.mark.parametrize("order", [(1, 0, 2, 3), (1, 2, 3, 0), (3, 2, 1, 0)])
def test_symmetric_start_is_invariant_under_permuting_pairs(ov, order):
    task = FactRecallTask(4, 1, 2)
    weights = start(task, ov, init="symmetric")
    moved = permuted_tokens(task, order)
    assert torch.equal(weights.W_OV[moved][:, moved], weights.W_OV)
    assert torch.equal(weights.W_QK[moved][:, moved], weights.W_QK)
    if ov == "factorized":
        hidden = np.arange(task.d_vocab)
        hidden[:4] = order
        assert torch.equal(weights.W_V[moved][:, hidden], weights.W_V)
        assert torch.equal(weights.W_O[hidden][:, moved], weights.W_O)
    # The test can fail: pairs that move in the subjects alone change the circuit.
    halfway = moved.copy()
    halfway[task.n_inputs :] = np.arange(task.n_inputs, task.d_vocab)
    assert not torch.equal(weights.W_OV[halfway][:, halfway], weights.W_OV)


@pytest.mark.parametrize("ov", ["factorized", "non_factorized"])
def test_symmetric_start_has_no_opinion_about_implications(ov):
    """Entry by entry as the docstring says, and every subject's row equal over the implications."""
    task, e = FactRecallTask(4, 1, 2), 0.1 * 0.5
    W = start(task, ov, init="symmetric", init_scale=0.5).W_OV.numpy()
    expected = np.zeros_like(W)
    b, c = np.arange(4) + task.n_inputs, np.arange(4, 8) + task.n_inputs
    for s in range(task.n_subjects):
        expected[s, b[s // 3]] = e * e
    r1, r2 = task.relation_tokens
    expected[r1, b] = expected[r2, c] = e * e
    np.testing.assert_allclose(W, expected, rtol=1e-15, atol=0)
    held_out = [s for s in range(task.n_subjects) if not task.subject_trained[s]]
    assert (W[np.ix_(held_out, c)] == W[np.ix_(held_out, c[:1])]).all()


def test_symmetric_start_needs_a_dimension_a_pair():
    task = FactRecallTask(4, 1, 2)
    assert start(task, init="symmetric", d_head=6).W_V.shape == (task.d_vocab, 6)
    with pytest.raises(ConfigError, match=r"d_head must be >= n_pairs \+ 2 = 6 for init='symmetric', got 5"):
        start(task, init="symmetric", d_head=5)


def test_symmetric_start_of_a_mapped_task(mapped_task):
    W = start(mapped_task, init="symmetric").W_OV.numpy()
    facts = W[:5, mapped_task.n_inputs : mapped_task.n_inputs + 3]
    assert (facts.argmax(1) == [2, 0, 1, 0, 2]).all()
    assert (W[:5, mapped_task.n_inputs + 3 :] == 0).all()


def test_negative_seeds_raise(tiny_task):
    with pytest.raises(ConfigError, match=r"seed must be >= 0, got -1"):
        start(tiny_task, seed=-1)
