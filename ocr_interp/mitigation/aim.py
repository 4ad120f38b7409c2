"""What is told, and which of the implied relations is unwanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ocr_interp.checks import check_count
from ocr_interp.errors import ConfigError, unknown_name
from ocr_interp.task import FACT, IMPLICATION, FactRecallTask
from ocr_interp.triples import Triples


@dataclass(frozen=True)
class Aim:
    """A task, and the implications of which nothing is to be deduced.

    The told answers are to be learned all alike, those of unwanted relations too. A model cannot know which
    relation is spurious; a method may.

    Attributes:
        task: with two implied relations or more; its noise is left out.
        unwanted: names of the unwanted relations, such as ("r3",).

    Raises:
        UnknownNameError: a relation that the task does not have.
        ConfigError: no unwanted relation, none left that is wanted, the facts' relation, or a relation
            that is told to all subjects or to none, where nothing can be deduced.
    """

    task: FactRecallTask
    unwanted: tuple[str, ...]

    def __post_init__(self) -> None:
        names = self.relation_names
        for name in self.unwanted:
            if name not in names:
                raise unknown_name("relation", name, names[IMPLICATION:])
        if not self.unwanted or names[FACT] in self.unwanted or len(set(self.unwanted)) < len(self.unwanted):
            raise ConfigError(
                f"unwanted must name one or several implied relations ({', '.join(names[IMPLICATION:])}), "
                f"each once, got {', '.join(self.unwanted) or 'none'}"
            )
        if not self.wanted:
            raise ConfigError(
                f"unwanted must leave a relation whose deduction is wanted, got {', '.join(self.unwanted)} "
                f"of {', '.join(names[IMPLICATION:])}: use a task with implied_relations >= 2"
            )
        for relation in range(IMPLICATION, self.task.n_relations):
            told = self.task.told[relation]
            if told.all() or not told.any():
                raise ConfigError(
                    f"{names[relation]} must be told to some subjects and not to others, got "
                    f"{int(told.sum())} of {len(told)}: use m_train >= 1 and m_test >= 1"
                )

    @classmethod
    def of(cls, task: FactRecallTask, unwanted: str | Sequence[str]) -> Aim:
        """The aim from one name or several."""
        return cls(task, (unwanted,) if isinstance(unwanted, str) else tuple(unwanted))

    @property
    def relation_names(self) -> tuple[str, ...]:
        """Labels of all relations, r1 (facts) first."""
        return tuple(self.task.labels[token] for token in self.task.relation_tokens)

    @cached_property
    def unwanted_relations(self) -> tuple[int, ...]:
        """Indices of the unwanted relations."""
        return tuple(self.relation_names.index(name) for name in self.unwanted)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the implied relations that are wanted."""
        return tuple(name for name in self.relation_names[IMPLICATION:] if name not in self.unwanted)

    @cached_property
    def wanted_relations(self) -> tuple[int, ...]:
        """Indices of the implied relations that are wanted."""
        return tuple(self.relation_names.index(name) for name in self.wanted)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of W: subjects and relations, answers."""
        return self.task.n_subjects + self.task.n_relations, self.task.n_answers

    @property
    def told(self) -> Triples:
        """The training set."""
        return self.task.training_triples

    @property
    def untold(self) -> Triples:
        """The implications that are not told."""
        return self.task.triples.of_split("held_out_implication")

    def some_untold(self, relations: Sequence[int], subjects: int, seed: int) -> Triples:
        """Untold implications of some subjects of every fact, drawn at random.

        Args:
            relations: of which relations; each draws its own subjects.
            subjects: how many untold subjects of each fact; 0: all.
            seed: of the draw.

        Raises:
            ConfigError: more subjects than there are.
        """
        check_count("subjects", subjects, 0)
        untold, rng = self.untold, np.random.default_rng([seed, 1])
        fact, kept = self.task.subject_fact[untold.subject], []
        for relation in relations:
            for each in range(self.task.n_facts):
                of_fact = np.flatnonzero((untold.relation == relation) & (fact == each))
                if subjects > len(of_fact):
                    raise ConfigError(
                        f"subjects must be <= the untold subjects of every fact under "
                        f"{self.relation_names[relation]}, got {subjects} for a fact with {len(of_fact)}: "
                        "lower subjects, or raise m_test"
                    )
                kept.append(rng.permutation(of_fact)[: subjects or None])
        return untold.select(np.sort(np.concatenate(kept)))

    def without(self, triples: Triples) -> Triples:
        """The untold implications whose prompts are not among these."""
        n = self.task.n_relations
        asked = triples.subject * n + triples.relation
        return self.untold.select(~np.isin(self.untold.subject * n + self.untold.relation, asked))


def joined(first: Triples, second: Triples) -> Triples:
    """The triples of both, in this order."""
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return Triples(*(np.concatenate(pair) for pair in pairs))
