"""The measurements at a logged step: losses, accuracies and margins by split, norms of the circuit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from threadpoolctl import ThreadpoolController
from torch import Tensor

from ocr_interp.configuration.training import TrainConfig
from ocr_interp.data import Batch, check_draws, exhaustive, noisy_examples, population
from ocr_interp.models.token_counts import TokenCountModel, cross_entropy
from ocr_interp.models.weights import effective_circuit
from ocr_interp.task import IMPLICATION, SPLITS, TRAINED_SPLITS, FactRecallTask
from ocr_interp.theory.norms import Norm
from ocr_interp.training.limits import TRACKED_NORMS, LimitTracker, limit_columns

SPLIT_COLUMNS = ("loss", "loss_in_set", "accuracy", "accuracy_in_set", "margin")
"""Measured for every split, as "<split>/<column>":

- loss: cross-entropy over the whole vocabulary, nats, mean over the split;
- loss_in_set: the same with the softmax over the right answer set alone (facts or implications);
- accuracy: share of examples whose right answer beats all other answers; a tie does not count;
- accuracy_in_set: the same among the answers of the right set;
- margin: smallest logit difference between the right answer and another of its set.

With several implications of a fact the right set is the implications of the asked relation, and the splits of
implications are also measured relation by relation, as "<split>/<relation>/<column>".
"""

CIRCUIT_COLUMNS = ("train_margin", "held_out_margin", "nuclear_norm", "frobenius_norm", "effective_rank")
"""Measured once per row:

- train_margin: smallest logit difference between the right answer and any other answer, over the
  trained splits; divide norms by it to compare them;
- held_out_margin: the same for held-out implications against the other implications of their relation;
- nuclear_norm, frobenius_norm: norms of diag(a) W_OV, subjects and relations by answers (docs/theory.md §9:
  the norm of W_OV alone means nothing, because the attention a absorbs scale);
- effective_rank: exp of the entropy of its normalised singular values (Roy & Vetterli 2007).
"""


IMPLICATION_SPLITS = SPLITS[1::2]
"""The splits of implications."""


def history_columns(
    norms: Sequence[str | Norm] = TRACKED_NORMS, relations: Sequence[str] = ()
) -> tuple[str, ...]:
    """Columns of a history. train_loss is the mean batch loss since the row before (NaN at step 0).

    Args:
        norms: the tracked norms or their names (`limits.tracked_norms`).
        relations: labels of the implication relations, if a fact has several (`implication_relations`).
    """
    by_split = (f"{split}/{column}" for split in SPLITS for column in SPLIT_COLUMNS)
    parts = (f"{split}/{relation}" for split in IMPLICATION_SPLITS for relation in relations)
    by_relation = (f"{part}/{column}" for part in parts for column in SPLIT_COLUMNS)
    betas = (f"beta/{relation}" for relation in relations)
    own = ("step", "train_loss", *CIRCUIT_COLUMNS, *limit_columns(norms), *by_split)
    return (*own, *betas, *by_relation)


def implication_relations(task: FactRecallTask) -> tuple[str, ...]:
    """Labels of the relations that a history tells apart: none if a fact has one implication."""
    labels = [task.labels[token] for token in task.relation_tokens[IMPLICATION:]]
    return tuple(labels) if len(labels) > 1 else ()


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
        self.task, self.relations = task, implication_relations(task)
        self.columns = history_columns(norms, self.relations)
        self.examples = _evaluation_examples(task, config, dtype, device)
        inputs = "eos" if config.data == "noise_free" else "noise_eos"
        self.limits = LimitTracker(task, inputs, certificates, norms)
        self._blas = ThreadpoolController()
        self._present = [k for k in range(len(SPLITS)) if bool((self.examples.split == k).any())]
        of_answer = torch.as_tensor(task.answer_relation, device=device)
        self._relation = of_answer[self.examples.target - task.n_inputs]

    def measure(self, model: TokenCountModel) -> dict[str, float]:
        """All columns but step and train_loss, in the order of `history_columns`."""
        row = dict.fromkeys(self.columns[2:], math.nan)
        logits = model.batch_logits(self.examples)
        answers = _AnswerLogits(self.task, logits, self.examples)
        columns = {
            "loss": cross_entropy(logits, self.examples.target).loss,
            "loss_in_set": answers.loss_in_set(),
        }
        for name, chosen in self._parts().items():
            row |= {f"{name}/{c}": value for c, value in self._measured(chosen, columns, answers).items()}
        trained = self.examples.split < len(TRAINED_SPLITS)
        row["train_margin"] = float(answers.margin_all[trained].min())
        row["held_out_margin"] = row["held_out_implication/margin"]
        full = effective_circuit(model.config.attention, model.scores, model.W_OV)
        W = full.cpu().numpy().astype(np.float64)
        # Decompositions this small are slower with more threads, much slower if cores are shared.
        with self._blas.limit(limits=1, user_api="blas"):
            row |= circuit_norms(W[: self.task.noise_tokens.start, self.task.n_inputs :])
            row |= self.limits.measure(W, model.config.attention)
            for relation in self.relations:
                row[f"beta/{relation}"] = self.limits.beta(W, relation)
        return {name: row[name] for name in self.columns if name in row}

    def _parts(self) -> dict[str, Bool[Tensor, " batch"]]:
        """The examples of every split that the task has and, if it has several, of every relation."""
        found = {SPLITS[k]: self.examples.split == k for k in self._present}
        for split in IMPLICATION_SPLITS:
            for k, relation in enumerate(self.relations, IMPLICATION):
                if split in found and bool((chosen := found[split] & (self._relation == k)).any()):
                    found[f"{split}/{relation}"] = chosen
        return found

    def _measured(
        self, chosen: Bool[Tensor, " batch"], columns: Mapping[str, Tensor], answers: _AnswerLogits
    ) -> dict[str, float]:
        """SPLIT_COLUMNS of some examples."""
        right = {"accuracy": answers.margin_all > 0, "accuracy_in_set": answers.margin_in_set > 0}
        weight = self.examples.weight[chosen] / self.examples.weight[chosen].sum()
        found = {c: float((values[chosen] * weight).sum()) for c, values in columns.items()}
        share = weight.cpu().double()
        share = share / share.sum()
        for c, hit in right.items():  # exactly 1 if all are right, whatever the rounding
            hits = hit[chosen].cpu()
            found[c] = 1.0 if bool(hits.all()) else float((hits * share).sum())
        return found | {"margin": float(answers.margin_in_set[chosen].min())}

    def finite(self, row: Mapping[str, float]) -> bool:
        """Whether the losses of all splits that the task has are finite."""
        return all(math.isfinite(row[f"{SPLITS[k]}/loss"]) for k in self._present)


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
    """Margins of examples among all answers and among the answers of the right set.

    The right set are the answers of the asked relation: facts, or the implications of one relation.
    """

    def __init__(self, task: FactRecallTask, logits: Float[Tensor, "batch output"], examples: Batch) -> None:
        answers = logits[:, task.n_inputs :]
        self.target = examples.target - task.n_inputs
        relation = torch.as_tensor(task.answer_relation, device=logits.device)
        other_set = relation != relation[self.target].unsqueeze(1)
        own = answers.gather(1, self.target.unsqueeze(1))
        wrong = answers.scatter(1, self.target.unsqueeze(1), -torch.inf)
        self._in_set = answers.masked_fill(other_set, -torch.inf)
        self.margin_all = (own - wrong.amax(1, keepdim=True)).squeeze(1)
        wrong_in_set = wrong.masked_fill(other_set, -torch.inf)
        self.margin_in_set = (own - wrong_in_set.amax(1, keepdim=True)).squeeze(1)

    def loss_in_set(self) -> Float[Tensor, " batch"]:
        return cross_entropy(self._in_set, self.target).loss
