"""Initial weights. Draws are made in float64 on the CPU, so that devices and dtypes share them."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from ocr_interp.checks import check_count
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.devices import DTYPES, physical_memory
from ocr_interp.errors import ConfigError
from ocr_interp.maps.base import Draw, LinearMap
from ocr_interp.models.weights import SCORES, TokenWeights
from ocr_interp.task import FactRecallTask


def initial_weights(task: FactRecallTask, config: ModelConfig, seed: int) -> TokenWeights:
    """The weights at step 0, on the CPU, in the dtype of the configuration.

    Models that differ in `ov` alone start from the same attention and, with init="product", a factorized
    and a non-factorized one from the same OV circuit: W_OV(0) = W_V(0) W_O(0), rounded once to the dtype.

    Raises:
        ConfigError: a seed, d_head or start that does not go with the task.
    """
    check_count("seed", seed, 0)
    linear_map, d = config.placed_map(task), task.d_vocab
    d_head, size = linear_map.width(d), 0.1 * config.init_scale
    _refuse_too_large(linear_map, d)
    symmetric = partial(symmetric_factors, task, d_head, size)
    draw = Draw(d, d_head, config.init, config.init_scale, seed, symmetric)
    if config.init == "symmetric":
        scores = torch.ones(d, d, dtype=torch.float64)
    elif config.init == "constant":
        scores = torch.full((d, d), 1e-4 * config.init_scale, dtype=torch.float64)
    else:
        scores = draw.normal(SCORES, d, d)
    by_chance = config.init in ("product", "entries")
    if not config.train_attention or (by_chance and config.attention_init == "uniform"):
        scores = _uniform_scores(task, config.attention)
    return TokenWeights(linear_map, _started(linear_map, draw), scores).to(DTYPES[config.dtype])


def _refuse_too_large(linear_map: LinearMap, n_tokens: int) -> None:
    """Requires that the draws of the weights, made in float64, fit into this machine's memory.

    Without it a system that promises memory before it has it would end the process, with no word.
    """
    numbers = n_tokens**2 + sum(math.prod(shape) for shape in linear_map.shapes(n_tokens, n_tokens).values())
    memory = physical_memory()
    if 8 * numbers > memory:
        raise ConfigError(
            f"a model of {n_tokens:,} tokens has {numbers:,} weights, which do not fit into this machine's "
            f"{memory / 2**30:.0f} GiB: lower n_pairs, m_train, m_test or d_head"
        )


def _started(linear_map: LinearMap, draw: Draw) -> dict[str, Tensor]:
    """The parameters of the map at step 0.

    Raises:
        ConfigError: names or shapes other than those that the map promises.
    """
    start = linear_map.start(draw)
    found = {name: tuple(tensor.shape) for name, tensor in start.items()}
    wanted = linear_map.shapes(draw.n_tokens, draw.n_tokens)
    if found != wanted or {SCORES, "scores"} & set(found):
        raise ConfigError(
            f"{type(linear_map).__name__}.start must give the parameters of its shapes {wanted} (none called "
            f"scores or {SCORES}), got {found}"
        )
    product = tuple(linear_map.product(start).shape)
    if product != (draw.n_tokens, draw.n_tokens):
        raise ConfigError(
            f"{type(linear_map).__name__}.product must give one row and one column per token, "
            f"[{draw.n_tokens}, {draw.n_tokens}], got {list(product)}"
        )
    return start


def _uniform_scores(task: FactRecallTask, attention: str) -> Tensor:
    """Scores of uniform attention: 1 for linear attention, 0 before a softmax."""
    fill = 1.0 if attention == "linear" else 0.0
    return torch.full((task.d_vocab, task.d_vocab), fill, dtype=torch.float64)


def symmetric_factors(task: FactRecallTask, d_head: int, size: float) -> tuple[Tensor, Tensor]:
    """W_V and W_O of Theorem 3's start: symmetric under permuting pairs, no preference among implications.

    With e = size, i(s) the fact of subject s, and hidden dimensions 0..n-1 (pairs), n (r1), n+1 (r2):

    - W_V[s, k] = e if k = i(s);  W_V[r1, n] = W_V[r2, n+1] = e;  else 0
    - W_O[k, b_j] = e if j = k;  W_O[n, b] = W_O[n+1, c] = e for every b and c;  else 0
    - so W_OV[s, b_j] = e^2 if j = i(s), W_OV[s, c] = 0, W_OV[r1, b] = W_OV[r2, c] = e^2, else 0
    - scores of all tokens are 1

    Further implications have relations and answers of their own likewise, hidden dimensions n+2 and on.
    Permuting the pairs, in subjects, answers and hidden dimensions together, changes nothing. The theorem
    also needs that W_OV[s, c] is the same for every c: the non-factorized model starts without a preference
    among held-out implications. The factorized model starts from the same product, with factors that have one
    dimension per pair.

    Args:
        task: the task.
        d_head: width of the OV circuit.
        size: the entries e.

    Raises:
        ConfigError: d_head < n + the number of relations.

    Source: Theorem 3 of the paper; the entries are this project's choice.
    """
    n, d = task.n_facts, task.d_vocab
    width = n + task.n_relations
    if d_head < width:
        raise ConfigError(
            f"d_head must be >= n_pairs + {task.n_relations} = {width} for init='symmetric', got {d_head}"
        )
    W_V = torch.zeros(d, d_head, dtype=torch.float64)
    W_O = torch.zeros(d_head, d, dtype=torch.float64)
    answers, relation = torch.as_tensor(list(task.answer_tokens)), torch.as_tensor(task.answer_relation)
    W_V[torch.arange(task.n_subjects), torch.as_tensor(task.subject_fact)] = size
    W_V[list(task.relation_tokens), torch.arange(n, width)] = size
    W_O[torch.arange(n), answers[:n]] = size
    W_O[n + relation, answers] = size
    return W_V, W_O
