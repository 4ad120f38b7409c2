"""Counter-examples: some untold subjects are told other answers for the unwanted relations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ocr_interp.checks import check_choice, check_count
from ocr_interp.errors import ConfigError
from ocr_interp.mitigation.aim import Aim, joined
from ocr_interp.mitigation.methods.base import Mitigation
from ocr_interp.triples import Triples


@dataclass(frozen=True)
class CounterExamples(Mitigation):
    """Random other answers for `subjects` untold subjects of every fact.

    Attributes:
        subjects: how many of each fact; one must be left to measure.
        of: "unwanted", or "wanted" as a control.
    """

    name: ClassVar[str] = "counter_examples"
    label: ClassVar[str] = "counter-examples"
    knows: ClassVar[str] = "examples"

    subjects: int = 1
    of: str = "unwanted"

    def __post_init__(self) -> None:
        check_count("subjects", self.subjects, 1)
        check_choice("of", self.of, ("unwanted", "wanted"))

    def told(self, aim: Aim, seed: int) -> Triples:
        """The training set and the counter-examples.

        Raises:
            ConfigError: as many subjects as there are, or more, or a relation with one answer.
        """
        relations = aim.unwanted_relations if self.of == "unwanted" else aim.wanted_relations
        chosen = aim.some_untold(relations, self.subjects, seed)
        left = aim.without(chosen)
        for relation in relations:
            if not (left.relation == relation).any():
                raise ConfigError(
                    f"subjects must leave an untold subject to measure, got {self.subjects} of each fact, "
                    "which are all: lower subjects, or raise m_test"
                )
        rng = np.random.default_rng([seed, 2])
        answer = np.empty_like(chosen.answer)
        for at, (right, relation) in enumerate(zip(chosen.answer, chosen.relation, strict=True)):
            others = np.flatnonzero(aim.task.answer_relation == relation)
            answer[at] = rng.choice(others[others != right])
        return joined(aim.told, Triples(chosen.subject, chosen.relation, answer, chosen.split))

    def controls(self, aim: Aim) -> Mapping[str, Mitigation]:
        """As many for the wanted relations."""
        return {"counter-examples of the wanted": replace(self, of="wanted")}


MITIGATION = CounterExamples
