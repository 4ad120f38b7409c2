"""What a table of logits says: whose answer is first, ranks, calibrated ranks, and the pairing contrast."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.errors import ConfigError, shown

MOST_PAIRS = 9
"""Most pairs whose assignments are all tried: 9! = 362,880."""

NO_ANSWER = -1
"""Index of an answer that there is not."""


@dataclass(frozen=True)
class FirstAnswers:
    """Whose answer has the largest logit: shares of prompts, which sum to 1 with those that are NaN left out.

    Attributes:
        told: the answer of the pairing that is told (in a control: that the prompt is marked by).
        pretrained: the answer that the fact has in the real world, where that is another one; NaN where no
            prompt has such an answer (no fact set but the counterfactual ones).
        other: any other answer.
        tied: several candidates share the largest logit.
        chance: told, pretrained and other for an answer drawn at random: 0.2, 0.2, 0.6 for five candidates.
    """

    told: float
    pretrained: float
    other: float
    tied: float
    chance: tuple[float, float, float]

    def shares(self) -> dict[str, float]:
        """By name, in the order of the columns of a history."""
        return {name: getattr(self, name) for name in FIRST}


FIRST = ("told", "pretrained", "other", "tied")


@dataclass(frozen=True)
class PairingContrast:
    """How far the answers of a pairing stand out, and how often another assignment would do as well.

    Attributes:
        nats: of the double-centred matrix of mean logits, [fact, answer], the mean of the pairing's entries
            minus that of all others: what belonging to the pair adds to a logit. What the model says to
            everybody, and how large all logits of a fact's names are, cancels.
        p: share of all assignments of answers to facts whose contrast is at least this one, itself included;
            the smallest possible is 1 / n_assignments.
        n_assignments: number of assignments, n! for n pairs.
        centred: the double-centred matrix, nats.
    """

    nats: float
    p: float
    n_assignments: int
    centred: Float[np.ndarray, "fact answer"]


@dataclass(frozen=True)
class Answers:
    """The logits of one split at one measurement.

    Attributes:
        logits: of every candidate, nats (log-probabilities where more than the first token is scored).
        target: index of the right answer.
        world: index of the answer that holds in the real world; NO_ANSWER if there is none.
        fact: index of the subject's fact.
        template: index of the wording.
        unseen: logits for names of which nothing was told, same relation and measurement.
        unseen_template: their wordings.
    """

    logits: Float[np.ndarray, "example candidate"]
    target: Int[np.ndarray, " example"]
    world: Int[np.ndarray, " example"]
    fact: Int[np.ndarray, " example"]
    template: Int[np.ndarray, " example"]
    unseen: Float[np.ndarray, "unseen candidate"]
    unseen_template: Int[np.ndarray, " unseen"]

    @property
    def rank(self) -> Float[np.ndarray, " example"]:
        """Number of candidates above the right answer, plus half of those level with it."""
        own = np.take_along_axis(self.logits, self.target[:, None], 1)
        return (self.logits > own).sum(1) + ((self.logits == own).sum(1) - 1) / 2

    @property
    def mean_rank(self) -> float:
        """Mean of `rank`, 0 is best; NaN without prompts."""
        return _mean(self.rank)

    @property
    def top1(self) -> float:
        """Share of prompts whose right answer is above all others; NaN without prompts."""
        return _mean(self.rank == 0)

    def first_answers(self) -> FirstAnswers:
        """Whose answer is first; all NaN without prompts."""
        n, n_candidates = self.logits.shape
        if not n:
            nan = float("nan")
            return FirstAnswers(nan, nan, nan, nan, chance=(nan, nan, nan))
        best = self.logits.max(1, keepdims=True)
        tied = (self.logits == best).sum(1) > 1
        first = self.logits.argmax(1)
        has_rival = (self.world != NO_ANSWER) & (self.world != self.target)
        told = ~tied & (first == self.target)
        pretrained = ~tied & has_rival & (first == self.world)
        at_random = (1 / n_candidates, has_rival.mean() / n_candidates)
        return FirstAnswers(
            told=_mean(told),
            pretrained=_mean(pretrained) if has_rival.any() else float("nan"),
            other=_mean(~tied & ~told & ~pretrained),
            tied=_mean(tied),
            chance=(float(at_random[0]), float(at_random[1]), float(1 - sum(at_random))),
        )

    def calibrated(self) -> Answers:
        """The same answers with every candidate's mean logit over the unseen names subtracted.

        What the model says to everybody in a wording cancels; what is left is about this name.

        Raises:
            ConfigError: no unseen name was asked in a wording.
        """
        logits = self.logits.copy()
        for template in np.unique(self.template):
            same = self.unseen_template == template
            if not same.any():
                raise ConfigError(
                    "calibrated answers need names of which nothing was told, and none was asked: measure "
                    "with FactConfig(n_unseen=60) (--n-unseen 60)"
                )
            logits[self.template == template] -= self.unseen[same].mean(0)
        return replace(self, logits=logits)

    def pairing(self, answers: Sequence[int] | None = None) -> PairingContrast:
        """The contrast of a pairing of facts and answers, with the exact permutation test over assignments.

        Args:
            answers: the answer of every fact, an index into the candidates; None takes the right ones. For
                what is known before training pass those of the real world (`FactSet.entails`).

        Raises:
            ConfigError: facts without prompts or with several right answers, answers that are not all
                candidates once each, or more than MOST_PAIRS pairs.
        """
        n = self.logits.shape[1]
        facts = np.unique(self.fact)
        if answers is None:
            of_fact = [np.unique(self.target[self.fact == fact]) for fact in facts]
            if any(len(found) > 1 for found in of_fact):
                raise ConfigError(
                    "names of one fact have different answers, so that there is no pairing of facts and "
                    "answers to contrast: pass answers=, one candidate a fact"
                )
            answers = [int(found[0]) for found in of_fact]
        paired = list(answers)
        if sorted(paired) != list(range(n)) or len(facts) != n:
            raise ConfigError(
                f"a pairing must give each of {n} answers to one of as many facts, got {shown(paired)} for "
                f"{len(facts)} facts"
            )
        if n > MOST_PAIRS:
            raise ConfigError(f"pairs must be <= {MOST_PAIRS}, since all assignments are tried, got {n}")
        means = np.stack([self.logits[self.fact == fact].mean(0) for fact in facts])
        centred = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
        order = np.array(list(itertools.permutations(range(n))))
        sums = centred[np.arange(n), order].sum(1)
        own = float(centred[np.arange(n), paired].sum())
        level = 1e-9 * max(float(np.abs(centred).max()), 1e-300)  # sums that differ by rounding are level
        # All entries sum to 0, so that the others have the mean -own / (n² - n).
        nats = own / n + own / (n * n - n)
        return PairingContrast(nats, float((sums >= own - level).mean()), len(order), centred)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
