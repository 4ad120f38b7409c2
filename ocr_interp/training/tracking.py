"""The measurements at a logged step: losses, accuracies and margins by split, norms of the circuit."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from threadpoolctl import ThreadpoolController
from torch import Tensor

from ocr_interp.configuration.training import TrainConfig
from ocr_interp.data import Batch, check_draws, exhaustive, noisy_examples, population
from ocr_interp.maps.routed import Routed
from ocr_interp.maps.routing import COLLAPSED, RouterCollapsedWarning
from ocr_interp.models.routed_stacks import routed
from ocr_interp.models.token_counts import TokenCountModel, cross_entropy
from ocr_interp.models.weights import effective_circuit
from ocr_interp.task import SPLITS, TRAINED_SPLITS, FactRecallTask
from ocr_interp.theory.certificate import held_out_beta
from ocr_interp.theory.norms import Norm
from ocr_interp.training.limits import TRACKED_NORMS, LimitTracker, limit_columns

SPLIT_COLUMNS = ("loss", "loss_in_set", "accuracy", "accuracy_in_set", "margin")
"""Measured for every split, as "<split>/<column>":

- loss: cross-entropy over the whole vocabulary, nats, mean over the split;
- loss_in_set: the same with the softmax over the right answer set alone (facts or implications);
- accuracy: share of examples whose right answer beats all other answers; a tie does not count;
- accuracy_in_set: the same among the answers of the right set;
- margin: smallest logit difference between the right answer and another of its set.
"""

CIRCUIT_COLUMNS = ("train_margin", "held_out_margin", "nuclear_norm", "frobenius_norm", "effective_rank")
"""Measured once per row:

- train_margin: smallest logit difference between the right answer and any other answer, over the
  trained splits; divide norms by it to compare them;
- held_out_margin: the same for held-out implications against the other implications;
- nuclear_norm, frobenius_norm: norms of diag(a) W_OV, subjects and relations by answers (docs/theory.md §9:
  the norm of W_OV alone means nothing, because the attention a absorbs scale);
- effective_rank: exp of the entropy of its normalised singular values (Roy & Vetterli 2007).
"""


def history_columns(norms: Sequence[str | Norm] = TRACKED_NORMS) -> tuple[str, ...]:
    """Columns of a history. train_loss is the mean batch loss since the row before (NaN at step 0).

    Args:
        norms: the tracked norms or their names (`limits.tracked_norms`).
    """
    by_split = (f"{split}/{column}" for split in SPLITS for column in SPLIT_COLUMNS)
    return ("step", "train_loss", *CIRCUIT_COLUMNS, *limit_columns(norms), *by_split)


COLUMNS = history_columns()
"""Columns of the history of a parameterisation that adds no norm to TRACKED_NORMS."""

_EVALUATION_SEED = 2**31
"""Seed of the evaluation noise, the same in every run; larger than any usual training seed."""


class Tracker:
    """Measures a model in training on fixed examples of all four splits.

    Args:
        task: the task; a split without triples is NaN throughout.
        config: decides whether the examples have noise; "noisy" data has `eval_draws` of each triple.
        dtype, device: of the examples.
        certificates: whether to prove lower bounds of the norms; without them the gaps are NaN.
        norms: the tracked norms or their names (`limits.tracked_norms`).
    """

    def __init__(
        self,
        task: FactRecallTask,
        config: TrainConfig,
        dtype: torch.dtype,
        device: torch.device,
        certificates: bool = True,
        norms: Sequence[str | Norm] = TRACKED_NORMS,
    ) -> None:
        self.task, self.columns = task, history_columns(norms)
        self.examples = _evaluation_examples(task, config, dtype, device)
        inputs = "eos" if config.data == "noise_free" else "noise_eos"
        self.limits = LimitTracker(task, inputs, certificates, norms)
        self._blas = ThreadpoolController()
        self._present = [k for k in range(len(SPLITS)) if bool((self.examples.split == k).any())]

    def measure(self, model: TokenCountModel) -> dict[str, float]:
        """All columns but step and train_loss, in the order of `history_columns`."""
        row = {f"{split}/{column}": math.nan for split in SPLITS for column in SPLIT_COLUMNS}
        logits = model.batch_logits(self.examples)
        answers = _AnswerLogits(self.task, logits, self.examples)
        columns = {
            "loss": cross_entropy(logits, self.examples.target).loss,
            "loss_in_set": answers.loss_in_set(),
        }
        right = {"accuracy": answers.margin_all > 0, "accuracy_in_set": answers.margin_in_set > 0}
        for k in self._present:
            chosen, name = self.examples.split == k, SPLITS[k]
            weight = self.examples.weight[chosen] / self.examples.weight[chosen].sum()
            row |= {f"{name}/{c}": float((values[chosen] * weight).sum()) for c, values in columns.items()}
            share = weight.cpu().double()
            share = share / share.sum()
            for c, hit in right.items():  # exactly 1 if all are right, whatever the rounding
                hits = hit[chosen].cpu()
                row[f"{name}/{c}"] = 1.0 if bool(hits.all()) else float((hits * share).sum())
            row[f"{name}/margin"] = float(answers.margin_in_set[chosen].min())
        trained = self.examples.split < len(TRAINED_SPLITS)
        row["train_margin"] = float(answers.margin_all[trained].min())
        row["held_out_margin"] = row["held_out_implication/margin"]
        full = effective_circuit(model.config.attention, model.scores, model.W_OV)
        W = full.cpu().numpy().astype(np.float64)
        rows = self.task.relation_tokens[-1] + 1
        # Decompositions this small are slower with more threads, much slower if cores are shared.
        with self._blas.limit(limits=1, user_api="blas"):
            row |= circuit_norms(W[..., :rows, self.task.n_inputs :].reshape(-1, self.task.n_answers))
            if model.linear_map.n_routes is None:
                row |= self.limits.measure(W, model.config.attention)
            else:
                row |= dict.fromkeys(self.limits.columns, math.nan) | {
                    "beta": self._beta_of_prompts(model, W)
                }
        row = {name: row[name] for name in self.columns if name in row}
        return row | (self._router_columns(model) if isinstance(model.linear_map, Routed) else {})

    def _beta_of_prompts(
        self, model: TokenCountModel, experts: Float[np.ndarray, "expert input output"]
    ) -> float:
        """β of the rows that each subject has in the mixtures of its own prompts, without noise."""
        task, triples = self.task, self.task.triples
        counts = population(task, dtype=model.scores.dtype, device=model.scores.device).counts
        mixture = routed(model.linear_map).routing(model.ov, counts).mixture.cpu().numpy().astype(np.float64)
        rows = np.einsum("te,eto->to", mixture, experts[:, triples.subject])
        W = np.zeros_like(experts[0])
        for relation in range(1, len(task.relation_tokens)):
            of = triples.relation == relation
            columns = task.n_inputs + np.unique(triples.answer[of])
            W[np.ix_(triples.subject[of], columns)] = rows[np.ix_(of, columns)]
        return held_out_beta(W, task).projection if W.any() and np.isfinite(W).all() else math.nan

    def _router_columns(self, model: TokenCountModel) -> dict[str, float]:
        """Loads of the experts on the trained splits, and the terms of a router's loss."""
        linear_map, examples = routed(model.linear_map), self.examples
        trained = examples.split < len(TRAINED_SPLITS)
        weight = examples.weight[trained] / examples.weight[trained].sum()
        load = linear_map.load(model.ov, examples.counts[trained], weight)
        row: dict[str, float] = {}
        for expert in range(linear_map.size):
            row[f"expert{expert}/score"] = float(load.score[expert])
            row[f"expert{expert}/share"] = float(load.share[expert])
        known = linear_map.has_router
        row["router/entropy"] = float(load.entropy) if known else math.nan
        balance = load.balance_loss(linear_map.balance, linear_map.entropy)
        row["router/balance_loss"] = float(balance) if known else math.nan
        held = bool(model.anchor) and not linear_map.hard
        moved = linear_map.anchored(model.ov, model.anchor) if held else None
        row["router/anchor_loss"] = math.nan if moved is None else linear_map.anchor * float(moved)
        return row

    def finite(self, row: Mapping[str, float]) -> bool:
        """Whether the losses of all splits that the task has are finite."""
        return all(math.isfinite(row[f"{SPLITS[k]}/loss"]) for k in self._present)


def warn_of_collapse(row: Mapping[str, float], earlier: Sequence[Mapping[str, float]]) -> None:
    """Warns of a learned router that leaves an expert all but unused, at the first row where it does."""
    lost = _collapsed(row)
    if lost and not any(_collapsed(each) for each in earlier):
        shares = ", ".join(f"{row[name]:.3g}" for name in row if re.fullmatch(r"expert\d+/score", name))
        warnings.warn(
            f"the router has collapsed at step {row['step']:,.0f}: mean scores of the experts {shares}, "
            f"where each should get at least {COLLAPSED:g} of an even share: raise balance or entropy, the "
            "temperature, or soft_from_step (ov_options)",
            RouterCollapsedWarning,
            stacklevel=2,
        )


def _collapsed(row: Mapping[str, float]) -> bool:
    scores = [value for name, value in row.items() if re.fullmatch(r"expert\d+/score", name)]
    return math.isfinite(row.get("router/entropy", math.nan)) and min(scores) < COLLAPSED / len(scores)


def circuit_norms(W: Float[np.ndarray, "input answer"]) -> dict[str, float]:
    """Nuclear norm, Frobenius norm and effective rank of a matrix."""
    if not np.isfinite(W).all():
        return dict.fromkeys(("nuclear_norm", "frobenius_norm", "effective_rank"), math.nan)
    S = np.linalg.svd(W, compute_uv=False)
    top = max(S.max(), np.finfo(float).tiny)  # squares of large entries would overflow
    share = S[S > 0] / max(S.sum(), np.finfo(float).tiny)
    return {
        "nuclear_norm": float(S.sum()),
        "frobenius_norm": float(top * np.sqrt(((S / top) ** 2).sum())),
        "effective_rank": float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0,
    }


def learned(row: Mapping[str, float], threshold: float) -> bool:
    """Whether held-out implications have a loss (nats) below the threshold and accuracy 1.

    False if the task has none.
    """
    return row["held_out_implication/loss"] < threshold and row["held_out_implication/accuracy"] == 1.0


def _evaluation_examples(task, config: TrainConfig, dtype: torch.dtype, device: torch.device) -> Batch:
    options = {"dtype": dtype, "device": device}
    if config.data == "noise_free":
        return population(task, **options)
    if config.data == "exhaustive":
        return exhaustive(task, **options)
    check_draws(task, task.triples, config.eval_draws)
    repeated = task.triples.select(np.repeat(np.arange(len(task.triples)), config.eval_draws))
    return noisy_examples(task, repeated, _EVALUATION_SEED, **options)[1]


class _AnswerLogits:
    """Margins of examples among all answers and among the answers of the right set."""

    def __init__(self, task: FactRecallTask, logits: Float[Tensor, "batch output"], examples: Batch) -> None:
        answers = logits[:, task.n_inputs :]
        self.target = examples.target - task.n_inputs
        is_fact = torch.arange(task.n_answers, device=logits.device) < task.n_facts
        other_set = is_fact != (self.target < task.n_facts).unsqueeze(1)
        own = answers.gather(1, self.target.unsqueeze(1))
        wrong = answers.scatter(1, self.target.unsqueeze(1), -torch.inf)
        self._in_set = answers.masked_fill(other_set, -torch.inf)
        self.margin_all = (own - wrong.amax(1, keepdim=True)).squeeze(1)
        wrong_in_set = wrong.masked_fill(other_set, -torch.inf)
        self.margin_in_set = (own - wrong_in_set.amax(1, keepdim=True)).squeeze(1)

    def loss_in_set(self) -> Float[Tensor, " batch"]:
        return cross_entropy(self._in_set, self.target).loss
