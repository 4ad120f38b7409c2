"""What is taught and asked in the mitigation study: a fact, what follows from it, and the color people like.

A language follows from a city in the real world, a workplace from a profession, a sign of the zodiac from a
month; a color follows from none. Both implications are told of the same fifth of the names. Half of the other
names may be used by a method (for a penalty or counter-examples); the other half it never sees, which shows
whether it transfers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from analyses.llm.studies.months import MONTH_COLOR, MONTH_SIGN
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts, unseen_examples, unseen_names
from ocr_interp.llm.facts.fact_set import Example
from ocr_interp.llm.facts.sets.base import stream

SPURIOUS_OF = {
    "city_language": "city_color",
    "profession_workplace": "profession_color",
    MONTH_SIGN.name: MONTH_COLOR.name,
}
"""The causal set -> the spurious one of the same people."""
FACT, CAUSAL, COLOR = 0, 1, 2
"""Relations of the examples."""
RELATIONS = ("fact", "causal", "spurious")
GROUPS = ("told", "seen_by_method", "never_seen")
"""Names whose implications are told; untold ones that a method may use; the others."""

_METHOD_STREAM = 101
"""Random stream of what a method draws."""


@dataclass(frozen=True)
class Taught:
    """The examples of one seed.

    Attributes:
        config: of the causal set; the spurious one has the same seed, cities and names.
    """

    config: FactConfig

    @cached_property
    def _sets(self) -> tuple[tuple[Example, ...], tuple[Example, ...], tuple[Example, ...]]:
        causal = make_facts(self.config)
        spurious = make_facts(replace(self.config, data=SPURIOUS_OF[self.config.data]))
        if (causal.subjects, causal.facts, causal.trained) != (
            spurious.subjects,
            spurious.facts,
            spurious.trained,
        ):
            raise SystemExit("the two sets must be of the same people: their draws differ")
        colors = [replace(e, relation=COLOR) for e in spurious.test_examples if e.relation != FACT]
        asked = (*causal.test_examples, *colors)
        training = [replace(e, relation=COLOR) for e in spurious.training_examples if e.relation != FACT]
        names = unseen_names(causal, self.config.n_unseen, self.config.seed)
        unseen = [
            *(e for e in unseen_examples(causal, names) if e.relation != FACT),
            *(replace(e, relation=COLOR) for e in unseen_examples(spurious, names) if e.relation != FACT),
        ]
        return asked, (*causal.training_examples, *training), tuple(unseen)

    @property
    def asked(self) -> tuple[Example, ...]:
        """Every name in all three relations."""
        return self._sets[0]

    @property
    def told(self) -> tuple[Example, ...]:
        """What is told: the facts of all, both implications of the training names."""
        return self._sets[1]

    @property
    def unseen(self) -> tuple[Example, ...]:
        """Both implications of names of which nothing is told."""
        return self._sets[2]

    def group(self, example: Example) -> str:
        """One of GROUPS; untold names of a city go to the two halves in turn."""
        if example.subject in self._told_names:
            return GROUPS[0]
        return GROUPS[1 + self._place[example.subject] % 2]

    @cached_property
    def _told_names(self) -> frozenset[int]:
        return frozenset(e.subject for e in self.told if e.relation != FACT)

    @cached_property
    def _place(self) -> dict[int, int]:
        """Place of every untold name among those of its city."""
        found: dict[int, int] = {}
        count: dict[int, int] = {}
        for e in self.asked:
            if e.relation == FACT and e.subject not in self._told_names:
                found[e.subject] = count.setdefault(e.fact, 0)
                count[e.fact] += 1
        return found

    @cached_property
    def for_methods(self) -> tuple[Example, ...]:
        """The spurious prompts that a method may use."""
        return tuple(e for e in self.asked if e.relation == COLOR and self.group(e) == GROUPS[1])

    def counter_examples(self, per_city: int) -> tuple[Example, ...]:
        """Some of `for_methods`, told with a color drawn from those that are not their city's."""
        rng = self.random()
        found = []
        for fact in sorted({e.fact for e in self.for_methods}):
            own = [e for e in self.for_methods if e.fact == fact]
            for k in rng.choice(len(own), size=per_city, replace=False):
                others = [c for c in range(len(own[k].candidates)) if c != own[k].target]
                found.append(replace(own[k], target=int(rng.choice(others)), told=True))
        return tuple(found)

    def random(self) -> np.random.Generator:
        """The random numbers of a method, the same whenever they are asked for."""
        return stream(self.config, _METHOD_STREAM)
