"""How a model ranks the correct answer among the candidates: rank, top-1, log-probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.devices import resolve_device
from ocr_interp.errors import ModelError
from ocr_interp.llm.encoding import Encoded, asking_batch, encode
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.models.forward import LogitsOf, logits_of
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.task import SPLITS

METRICS = ("rank", "top1", "logprob")
"""Mean rank (0 is best), share of rank 0, mean log-probability among the candidates (nats)."""


@dataclass(frozen=True)
class Measurement:
    """How a model answers every test example of a fact set, in the set's order.

    Attributes:
        split: index into SPLITS.
        fact: index of the subject's fact; names with the same fact are one cluster.
        template: index of the test wording.
        rank: number of candidates whose first token has a larger logit than the answer's; ties count half.
        logprob: log-softmax over the candidates' logits, nats.
    """

    split: Int[np.ndarray, " example"]
    fact: Int[np.ndarray, " example"]
    template: Int[np.ndarray, " example"]
    rank: Float[np.ndarray, " example"]
    logprob: Float[np.ndarray, " example"]

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

    def to_dict(self) -> dict[str, list[Any]]:
        """Plain lists, for JSON; log-probabilities are rounded to four decimals."""
        return {
            "split": self.split.tolist(),
            "fact": self.fact.tolist(),
            "template": self.template.tolist(),
            "rank": self.rank.tolist(),
            "logprob": np.round(self.logprob, 4).tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[Any]]) -> Measurement:
        """The measurement from the values of `to_dict`."""
        whole = {name: np.array(values[name], dtype=np.int64) for name in ("split", "fact", "template")}
        real = {name: np.array(values[name], dtype=np.float64) for name in ("rank", "logprob")}
        return cls(**whole, **real)


def ranks(
    logits: Float[Tensor, "example candidate"], target: Int[Tensor, " example"]
) -> Float[Tensor, " example"]:
    """Rank of the target: the number of candidates above it, plus half of those equal to it."""
    own = logits.gather(1, target.unsqueeze(1))
    return (logits > own).sum(1).float() + ((logits == own).sum(1).float() - 1) / 2


class Questions:
    """The test examples of a fact set as tokens, for repeated measurements."""

    def __init__(self, facts: FactSet, tokenizer: Any, pad: int, batch_size: int = 40) -> None:
        self.facts, self.pad, self.batch_size = facts, pad, batch_size
        self.encoded: tuple[Encoded, ...] = encode(tokenizer, facts.test_examples)
        # Prompts of similar length share a batch, to keep padding small.
        self.order = sorted(range(len(self.encoded)), key=lambda k: len(self.encoded[k].prompt))

    def ask(self, answers: LogitsOf, device: torch.device | str) -> Measurement:
        """Measures all examples; `answers` gives a model's logits at the answers, as `logits_of(lm)` does.

        Raises:
            ModelError: logits that are NaN or infinite.
        """
        rank = np.empty(len(self.order))
        logprob = np.empty(len(self.order))
        with torch.no_grad():
            for start in range(0, len(self.order), self.batch_size):
                chosen = self.order[start : start + self.batch_size]
                logits, target = self._candidate_logits(answers, chosen, device)
                rank[chosen] = ranks(logits, target).cpu().numpy()
                logprob[chosen] = (
                    logits.log_softmax(1).gather(1, target.unsqueeze(1)).squeeze(1).cpu().numpy()
                )
        examples = self.facts.test_examples
        return Measurement(
            split=np.array([e.split for e in examples]),
            fact=np.array([e.fact for e in examples]),
            template=np.array([e.template for e in examples]),
            rank=rank,
            logprob=logprob,
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
            raise ModelError(
                "the model's logits of the candidates are not finite: its weights are damaged, or were "
                "trained at too high a rate; take sound weights, or train again with a lower lr"
            )
        picked = picked.masked_fill(blank, -torch.inf)
        return picked, torch.tensor([e.target for e in examples], device=device)


def measure(lm: LanguageModel, facts: FactSet, *, device: str = "auto", batch_size: int = 40) -> Measurement:
    """Measures a language model on all test examples of a fact set.

    Args:
        lm: the model; it is moved to the device and put in evaluation mode.
        facts: the fact set.
        device: "auto" (cuda, then mps, then cpu) or the name of a device.
        batch_size: prompts per forward pass.
    """
    where = resolve_device(device)
    lm.model.to(where).eval()
    return Questions(facts, lm.tokenizer, lm.pad, batch_size).ask(logits_of(lm), where)
