"""Where training starts. Draws are made in float64 on the CPU, so that devices and dtypes share them."""

from __future__ import annotations

import torch

from ocr_interp.checks import check_count
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.devices import DTYPES, seeded_generator
from ocr_interp.errors import ConfigError
from ocr_interp.models.weights import TokenWeights
from ocr_interp.task import FactRecallTask

_W_V, _W_O, _W_QK, _W_OV = range(4)  # streams of randomness: one a matrix, so that models share them


def initial_weights(task: FactRecallTask, config: ModelConfig, seed: int) -> TokenWeights:
    """The weights at step 0, on the CPU, in the dtype of the configuration.

    Models that differ in `ov` alone start from the same attention and, with init="product", from the
    same OV circuit: W_OV(0) = W_V(0) W_O(0), rounded once to the dtype.

    Raises:
        ConfigError: a seed, d_head or start that does not go with the task.
    """
    check_count("seed", seed, 0)
    d_head = config.resolved_d_head(task.d_vocab)
    if config.init == "symmetric":
        weights = symmetric_weights(task, config.ov, d_head, 0.1 * config.init_scale)
    elif config.init == "constant":
        size = 1e-4 * config.init_scale
        full = torch.full((task.d_vocab, task.d_vocab), size, dtype=torch.float64)
        weights = TokenWeights(W_V=full, W_O=None, W_QK=full.clone())
    else:
        weights = _normal_weights(task, config, d_head, seed)
    by_chance = config.init in ("product", "entries")
    if not config.train_attention or (by_chance and config.attention_init == "uniform"):
        weights = TokenWeights(weights.W_V, weights.W_O, _uniform_scores(task, config.attention))
    return weights.to(DTYPES[config.dtype])


def _normal_weights(task: FactRecallTask, config: ModelConfig, d_head: int, seed: int) -> TokenWeights:
    d, std = task.d_vocab, config.init_scale * task.d_vocab**-0.5

    def normal(stream: int, *shape: int) -> torch.Tensor:
        generator = seeded_generator("cpu", seed, stream)
        return std * torch.randn(*shape, generator=generator, dtype=torch.float64)

    W_QK = normal(_W_QK, d, d)
    if config.ov == "factorized":
        return TokenWeights(normal(_W_V, d, d_head), normal(_W_O, d_head, d), W_QK)
    if config.init == "entries":
        return TokenWeights(normal(_W_OV, d, d), None, W_QK)
    return TokenWeights(normal(_W_V, d, d_head) @ normal(_W_O, d_head, d), None, W_QK)


def _uniform_scores(task: FactRecallTask, attention: str) -> torch.Tensor:
    """Scores of uniform attention: 1 for linear attention, 0 before a softmax."""
    fill = 1.0 if attention == "linear" else 0.0
    return torch.full((task.d_vocab, task.d_vocab), fill, dtype=torch.float64)


def symmetric_weights(task: FactRecallTask, ov: str, d_head: int, size: float) -> TokenWeights:
    """The start of Theorem 3: symmetric under permuting pairs, silent on held-out implications.

    With e = size, i(s) the fact of subject s, and hidden dimensions 0..n-1 (pairs), n (r1), n+1 (r2):

    - W_V[s, k] = e if k = i(s);  W_V[r1, n] = W_V[r2, n+1] = e;  else 0
    - W_O[k, b_j] = e if j = k;  W_O[n, b] = W_O[n+1, c] = e for every b and c;  else 0
    - so W_OV[s, b_j] = e^2 if j = i(s), W_OV[s, c] = 0, W_OV[r1, b] = W_OV[r2, c] = e^2, else 0
    - scores of all tokens 1

    Permuting the pairs, in subjects, answers and hidden dimensions together, changes nothing. What the
    theorem needs besides: W_OV[s, c] is the same for every c, so that the non-factorized model starts
    without an opinion about held-out implications. The factorized model starts from the same product
    with factors that hold one dimension a pair, which it can use.

    Raises:
        ConfigError: d_head < n + 2 in a factorized model.

    Source: Theorem 3 of the paper; the entries are this project's choice.
    """
    n, d = task.n_facts, task.d_vocab
    if d_head < n + 2:
        raise ConfigError(f"d_head must be >= n_pairs + 2 = {n + 2} for init='symmetric', got {d_head}")
    W_V = torch.zeros(d, d_head, dtype=torch.float64)
    W_O = torch.zeros(d_head, d, dtype=torch.float64)
    r1, r2 = task.relation_tokens
    b = torch.as_tensor(list(task.answer_tokens))[:n]
    c = torch.as_tensor(list(task.answer_tokens))[n:]
    W_V[torch.arange(task.n_subjects), torch.as_tensor(task.subject_fact)] = size
    W_V[r1, n] = W_V[r2, n + 1] = size
    W_O[torch.arange(n), b] = size
    W_O[n, b] = size
    W_O[n + 1, c] = size
    scores = torch.ones(d, d, dtype=torch.float64)
    if ov == "factorized":
        return TokenWeights(W_V, W_O, scores)
    return TokenWeights(W_V @ W_O, None, scores)
