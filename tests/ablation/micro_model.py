"""A one-layer model whose logits are computed by hand, for every test of an intervention."""

import sys
from pathlib import Path

import numpy as np
import torch

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.models.weights import TokenWeights
from ocr_interp.task import FactRecallTask
from ocr_interp.training.run import Snapshot

sys.path.append(str(Path(__file__).parents[1] / "circuits"))  # hooked_models

TASK = FactRecallTask(2, 1, 1, n_noise=1, seq_len=4)
# s0 s1 s2 s3 r1 r2 noise EOS b0 b1 c0 c1: W_OV[token, answer] by hand, and a score for every key.
ROWS = np.array(
    [
        [4, 0, 3, 0],
        [4, 1, 2, 0],
        [0, 5, 0, 4],
        [1, 6, 0, 2],
        [3, 3, 0, 0],
        [0, 0, 3, 4],
        [1, 0, 0, 2],
        [0, 1, 1, 0],
    ]
)
SCORES = np.array([1, 2, 1, 2, 3, 1, 0.5, 2])
BATCH = torch.tensor([[0, 4, 6, 7], [3, 6, 5, 7], [1, 5, 6, 7]])  # EOS is token 7
CONFIG = ModelConfig(ov="non_factorized", dtype="float64", train_attention=False)


def weights():
    W = torch.zeros(12, 12, dtype=torch.float64)
    W[:8, 8:] = torch.tensor(ROWS, dtype=torch.float64)
    scores = torch.zeros(12, 12, dtype=torch.float64)
    scores[7, :8] = torch.tensor(SCORES)
    return TokenWeights.of_factors(W, None, scores)


def snapshot():
    """The model as a run."""
    return Snapshot(RunConfig(TASK, CONFIG, TrainConfig()), 0, weights())


def by_hand(rows=ROWS, tokens=BATCH, scores=SCORES):
    """Answer logits at EOS: sum over tokens of score times row."""
    return np.array([sum(scores[t] * rows[t] for t in sequence) for sequence in tokens.tolist()])


def answers(model, tokens=BATCH):
    """Answer logits at EOS of the model."""
    return model(tokens)[:, -1, 8:].detach().numpy()
