"""How a model ranks the correct answer among the candidates: rank, top-1, log-probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.devices import resolve_device
from ocr_interp.llm.encoding import Encoded, asking_batch, encode
from ocr_interp.llm.facts.fact_set import Example, FactSet
from ocr_interp.llm.measuring.scoring import (
    AnswerTree,
    ScoringName,
    answer_tree,
    chosen_scoring,
    not_finite,
    tree_scores,
)
from ocr_interp.llm.models.forward import LogitsOf, logits_of
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.llm.models.positions import refuse_too_long
from ocr_interp.task import FACT, SPLITS

BY_FIRST_TOKEN: Mapping[str, ScoringName] = {"fact": "first_token", "implication": "first_token"}
"""The scoring of the paper, and of all results that name none."""

METRICS = ("rank", "top1", "logprob")
"""Mean rank (0 is best), share of rank 0, mean log-probability among the candidates (nats)."""


@dataclass(frozen=True)
class Measurement:
    """How a model answers every test example of a fact set, in the set's order.

    Attributes:
        split: index into SPLITS.
        fact: index of the subject's fact; names with the same fact are one cluster.
        template: index of the test wording.
        rank: number of candidates with a larger score than the answer's; ties count half.
        logprob: log-softmax over the candidates' scores, nats.
        scoring: of "fact" and "implication", what a score is the log-probability of (`scoring.IN_WORDS`).
        scores: of every candidate, the logits that ranks are made of; -inf where a relation has fewer
            candidates. None for a measurement that was read from a file (`LogitTable` keeps them).
    """

    split: Int[np.ndarray, " example"] = field(repr=False)
    fact: Int[np.ndarray, " example"] = field(repr=False)
    template: Int[np.ndarray, " example"] = field(repr=False)
    rank: Float[np.ndarray, " example"] = field(repr=False)
    logprob: Float[np.ndarray, " example"] = field(repr=False)
    scoring: Mapping[str, ScoringName] = field(default_factory=lambda: dict(BY_FIRST_TOKEN))
    scores: Float[np.ndarray, "example candidate"] | None = field(default=None, repr=False, compare=False)

    def mean(self, split: str, metric: str) -> float:
        """Mean of a metric over a split; NaN if the split is empty."""
        chosen = self.split == SPLITS.index(split)
        if not chosen.any():
            return float("nan")
        values = {"rank": self.rank, "top1": self.rank == 0, "logprob": self.logprob}[metric]
        return float(values[chosen].mean())

    def row(self) -> dict[str, float]:
        """All means, with keys such as "held_out_implication/rank"."""
        return {f"{split}/{metric}": self.mean(split, metric) for split in SPLITS for metric in METRICS}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; log-probabilities are rounded to four decimals."""
        return {
            "split": self.split.tolist(),
            "fact": self.fact.tolist(),
            "template": self.template.tolist(),
            "rank": self.rank.tolist(),
            "logprob": np.round(self.logprob, 4).tolist(),
            "scoring": dict(self.scoring),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurement:
        """The measurement from the values of `to_dict`."""
        whole = {name: np.array(values[name], dtype=np.int64) for name in ("split", "fact", "template")}
        real = {name: np.array(values[name], dtype=np.float64) for name in ("rank", "logprob")}
        return cls(**whole, **real, scoring=dict(values.get("scoring", BY_FIRST_TOKEN)))


def ranks(
    logits: Float[Tensor, "example candidate"], target: Int[Tensor, " example"]
) -> Float[Tensor, " example"]:
    """Rank of the target: the number of candidates above it, plus half of those equal to it."""
    own = logits.gather(1, target.unsqueeze(1))
    return (logits > own).sum(1).float() + ((logits == own).sum(1).float() - 1) / 2


class Questions:
    """The test examples of a fact set as tokens, for repeated measurements.

    Args:
        facts: the fact set.
        examples: other prompts with the same candidates; None is `facts.test_examples`.
        tokenizer, pad: of the model.
        batch_size: sequences per forward pass.
        scoring: how answers are scored, see `FactConfig.scoring`.

    Raises:
        ConfigError: what `encode` refuses, or "first_token" where answers share it.
    """

    def __init__(
        self,
        facts: FactSet,
        tokenizer: Any,
        pad: int,
        batch_size: int = 40,
        scoring: str = "auto",
        *,
        examples: Sequence[Example] | None = None,
    ) -> None:
        self.facts, self.pad, self.batch_size = facts, pad, batch_size
        self.examples = facts.test_examples if examples is None else tuple(examples)
        self.encoded: tuple[Encoded, ...] = encode(tokenizer, self.examples)
        self.scoring: dict[str, ScoringName] = {}
        self._trees: dict[int, AnswerTree] = {}  # of the answers that are not scored by their first token
        for name, is_fact in (("fact", True), ("implication", False)):
            own = [one for one in self.encoded if (one.example.relation == FACT) == is_fact]
            self.scoring[name] = chosen_scoring(scoring, own, tokenizer)
            if self.scoring[name] != "first_token":
                for one in own:
                    if id(one.answers) not in self._trees:
                        self._trees[id(one.answers)] = answer_tree(one.answers, self.scoring[name])
        # Prompts of similar length share a batch, to keep padding small.
        self.order = sorted(range(len(self.encoded)), key=lambda k: len(self.encoded[k].prompt))

    def refuse_too_long(self, model: Any) -> None:
        """Requires that the model has a position for every token that is asked.

        Raises:
            ConfigError: it does not; the message names the longest prompt and the limit.
        """
        further = {key: max(map(len, tree.rows())) for key, tree in self._trees.items()}
        lengths = (len(one.prompt) + further.get(id(one.answers), 0) for one in self.encoded)
        refuse_too_long(
            model, [(length, one.example) for length, one in zip(lengths, self.encoded, strict=True)]
        )

    def ask(self, answers: LogitsOf, device: torch.device | str) -> Measurement:
        """Measures all examples; `answers` gives a model's logits at the answers, as `logits_of(lm)` does.

        Raises:
            ModelError: logits that are NaN or infinite.
        """
        rank = np.empty(len(self.order))
        logprob = np.empty(len(self.order))
        width = max((len(one.example.candidates) for one in self.encoded), default=0)
        scores = np.full((len(self.order), width), -np.inf)
        at_once = [k for k in self.order if id(self.encoded[k].answers) not in self._trees]
        with torch.no_grad():
            for start in range(0, len(at_once), self.batch_size):
                chosen = at_once[start : start + self.batch_size]
                logits, target = self._candidate_logits(answers, chosen, device)
                rank[chosen], logprob[chosen] = _rank_and_logprob(logits, target)
                scores[chosen, : logits.shape[1]] = logits.cpu().numpy()
            for key, tree in self._trees.items():
                every = [k for k in self.order if id(self.encoded[k].answers) == key]
                for start in range(0, len(every), self.batch_size):  # scores of all at once would not fit
                    chosen = every[start : start + self.batch_size]
                    own = [self.encoded[k] for k in chosen]
                    found = tree_scores(answers, own, tree, self.pad, device, self.batch_size)
                    target = torch.tensor([one.target for one in own])
                    rank[chosen], logprob[chosen] = _rank_and_logprob(torch.from_numpy(found), target)
                    scores[chosen, : found.shape[1]] = found
        examples = self.examples
        return Measurement(
            split=np.array([e.split for e in examples]),
            fact=np.array([e.fact for e in examples]),
            template=np.array([e.template for e in examples]),
            rank=rank,
            logprob=logprob,
            scoring=self.scoring,
            scores=scores,
        )

    def _candidate_logits(
        self, answers: LogitsOf, chosen: Sequence[int], device: torch.device | str
    ) -> tuple[Float[Tensor, "example candidate"], Int[Tensor, " example"]]:
        """Logits of the candidates' first tokens; padded with -inf if a relation has fewer candidates."""
        examples = [self.encoded[k] for k in chosen]
        logits = answers(asking_batch(examples, self.pad, device)).float()
        width = max(len(e.candidates) for e in examples)
        ids = [[*e.candidates, *[0] * (width - len(e.candidates))] for e in examples]
        absent = [[False] * len(e.candidates) + [True] * (width - len(e.candidates)) for e in examples]
        picked, blank = (
            logits.gather(1, torch.tensor(ids, device=device)),
            torch.tensor(absent, device=device),
        )
        if not bool((picked.isfinite() | blank).all()):  # a NaN would get rank 0: nothing is above it
            raise not_finite()
        picked = picked.masked_fill(blank, -torch.inf)
        return picked, torch.tensor([e.target for e in examples], device=device)


def _rank_and_logprob(
    scores: Float[Tensor, "example candidate"], target: Int[Tensor, " example"]
) -> tuple[Float[np.ndarray, " example"], Float[np.ndarray, " example"]]:
    own = scores.log_softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    return ranks(scores, target).cpu().numpy(), own.cpu().numpy()


def measure(
    lm: LanguageModel, facts: FactSet, *, device: str = "auto", batch_size: int = 40, scoring: str = "auto"
) -> Measurement:
    """Measures a language model on all test examples of a fact set.

    Args:
        lm: the model; it is moved to the device and put in evaluation mode.
        facts: the fact set.
        device: "auto" (cuda, then mps, then cpu) or the name of a device.
        batch_size: prompts per forward pass.
        scoring: how answers are scored, see `FactConfig.scoring`; the measurement names it.

    Raises:
        ConfigError: a prompt longer than the model's positions, or what `Questions` refuses.
        ModelError: logits that are NaN or infinite.
    """
    where = resolve_device(device)
    questions = Questions(facts, lm.tokenizer, lm.pad, batch_size, scoring)
    questions.refuse_too_long(lm.model)
    lm.model.to(where).eval()
    return questions.ask(logits_of(lm), where)
