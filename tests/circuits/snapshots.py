"""Snapshots with weights that a test writes down."""

import numpy as np
import torch

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.models.weights import TokenWeights
from ocr_interp.training.run import Snapshot


def snapshot(task, W_V, W_O=None, scores=None, attention="linear", step=7):
    """A float64 model with these weights by token; scores are what every query gives to the inputs."""
    ov = "non_factorized" if W_O is None else "factorized"
    d_head = None if W_O is None else np.shape(W_O)[0]
    model = ModelConfig(ov=ov, d_head=d_head, attention=attention, dtype="float64")
    W_QK = torch.zeros(task.d_vocab, task.d_vocab, dtype=torch.float64)
    W_QK[:, : task.n_inputs] = torch.as_tensor(np.ones(task.n_inputs) if scores is None else np.array(scores))
    W_V = torch.as_tensor(np.array(W_V, dtype=float))
    W_O = None if W_O is None else torch.as_tensor(np.array(W_O, dtype=float))
    return Snapshot(RunConfig(task, model, TrainConfig()), step, TokenWeights.of_factors(W_V, W_O, W_QK))


def predicted(task, W, scores=None, factorized=True, attention="linear"):
    """A model whose diag(a) W_OV is W [subjects r1 r2, answers], scores 1 unless given."""
    whole = np.zeros((task.d_vocab, task.d_vocab))
    whole[: len(W), task.n_inputs :] = W
    if scores is not None:
        a = np.array(scores) if attention == "linear" else np.exp(scores)
        whole[: task.n_inputs] /= a[:, None]
    if not factorized:
        return snapshot(task, whole, None, scores, attention)
    U, s, Vt = np.linalg.svd(whole)
    return snapshot(task, U * np.sqrt(s), np.sqrt(s)[:, None] * Vt, scores, attention)


def random_snapshot(task, seed=0, d_head=5, attention="linear", factorized=True):
    """A model with normal weights."""
    generator = np.random.default_rng(seed)
    d = task.d_vocab
    W_V = generator.standard_normal((d, d_head if factorized else d))
    W_O = generator.standard_normal((d_head, d)) if factorized else None
    return snapshot(task, W_V, W_O, generator.standard_normal(task.n_inputs), attention)
