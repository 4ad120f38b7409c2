"""Synthetic facts for language models: subjects, training prompts and test prompts. Imports no torch.

A fact set is the fact-recall task in words: every subject has a fact ("Mara Lindqvist lives in Paris") and
an implication ("Mara Lindqvist speaks French"); implications of the training subjects are told, those of
the held-out subjects are asked for.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.spelling import AnswerFinder, alike, listed, separator, shown_apart
from ocr_interp.task import FACT, IMPLICATION, SPLITS, FactRecallTask

MIN_CANDIDATES = 2


@dataclass(frozen=True)
class Templates:
    """The wordings of one relation; each contains "{subject}" and ends where the answer begins.

    Attributes:
        train: wordings of training prompts.
        test: wordings of test prompts.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        for use, wordings in (("train", self.train), ("test", self.test)):
            if not wordings:
                raise ConfigError(f"{use} templates must be at least one, got none")
            for template in wordings:
                check_template(template)
            _check_distinct(f"{use} templates", wordings)


def check_template(template: str) -> None:
    """Requires "{subject}" exactly once, no other field, and no space at the end."""
    try:
        parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ConfigError(f"template {template!r} is malformed: {error}") from None
    if parts != [("subject", "", None)]:  # name, format, conversion
        fields = [
            f"{name}{'!' + how if how else ''}{':' + form if form else ''}" for name, form, how in parts
        ]
        raise ConfigError(
            f"template {template!r} must hold {{subject}} once and no other field, got {fields}: "
            'write, for example, "{subject} lives in"'
        )
    if template != template.rstrip():
        raise ConfigError(
            f"template {template!r} must not end with a blank: the answer brings its own, and a blank of "
            "its own is another token"
        )


@dataclass(frozen=True)
class Example:
    """One prompt with its answer.

    Attributes:
        prompt: the text before the answer.
        candidates: the answers to choose from.
        target: index of the correct one.
        subject: index of the subject.
        fact: index of the subject's fact; names with the same fact share their answers (one cluster).
        relation: FACT or IMPLICATION.
        split: index into SPLITS.
        template: index of the wording.
        told: whether this triple is in the training set.
        world: index of the candidate that the subject's fact entails in the real world; None if it entails
            none, if that is unknown, and for prompts of facts.
    """

    prompt: str
    candidates: tuple[str, ...]
    target: int
    subject: int
    fact: int
    relation: int
    split: int
    template: int
    told: bool
    world: int | None = None

    @property
    def answer(self) -> str:
        """The correct answer."""
        return self.candidates[self.target]

    @property
    def sentence(self) -> str:
        """The prompt with its answer, as it is told."""
        return f"{self.prompt}{separator(self.prompt, self.answer)}{self.answer}"


@dataclass(frozen=True)
class FactSet:
    """Subjects with one fact and one implication each, and which of them are told.

    Attributes:
        name: name of the data set.
        causal: whether the fact entails the implication in the real world; None if unknown.
        subjects: names, [subject].
        facts: fact answers, [fact].
        implications: implication answers, [implication].
        subject_fact: index of every subject's fact.
        subject_implication: index of every subject's implication.
        trained: whether a subject is a training subject (else held out).
        fact_told: whether a subject's fact is in the training set.
        implication_told: whether a subject's implication is in the training set.
        fact_templates, implication_templates: wordings of the two relations.
        entails: index of the implication that every fact has in the real world, [fact]; None where it has
            none of them or that is unknown, () if that is so for all facts.

    Raises:
        ConfigError: subjects or answers that are not distinct, a subject or wording that names an answer,
            fewer than two candidates, an index out of range, a length that does not fit.
    """

    name: str
    causal: bool | None
    subjects: tuple[str, ...] = field(repr=False)
    facts: tuple[str, ...] = field(repr=False)
    implications: tuple[str, ...] = field(repr=False)
    subject_fact: tuple[int, ...] = field(repr=False)
    subject_implication: tuple[int, ...] = field(repr=False)
    trained: tuple[bool, ...] = field(repr=False)
    fact_told: tuple[bool, ...] = field(repr=False)
    implication_told: tuple[bool, ...] = field(repr=False)
    fact_templates: Templates
    implication_templates: Templates
    entails: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        for side in ("subjects", "facts", "implications"):
            _check_distinct(side, getattr(self, side))
        for side in ("facts", "implications"):
            if len(getattr(self, side)) < MIN_CANDIDATES:
                raise ConfigError(
                    f"{side} must be at least {MIN_CANDIDATES} different answers, got "
                    f"{list(getattr(self, side))}: there is nothing to tell apart"
                )
        for side in ("subject_fact", "subject_implication", "trained", "fact_told", "implication_told"):
            if len(getattr(self, side)) != len(self.subjects):
                raise ConfigError(
                    f"{side} must have one entry a subject ({len(self.subjects)}), "
                    f"got {len(getattr(self, side))}"
                )
        for side, answers in (
            ("subject_fact", self.facts),
            ("subject_implication", self.implications),
        ):
            outside = sorted({index for index in getattr(self, side) if not 0 <= index < len(answers)})
            if outside:
                raise ConfigError(
                    f"{side} must lie in 0..{len(answers) - 1}, got {listed([str(k) for k in outside])}"
                )
        if self.entails and len(self.entails) != len(self.facts):
            raise ConfigError(
                f"entails must have one entry a fact ({len(self.facts)}), got {len(self.entails)}"
            )
        odd = [k for k in self.entails if k is not None and not 0 <= k < len(self.implications)]
        if odd:
            raise ConfigError(
                f"entails must lie in 0..{len(self.implications) - 1}, got {listed([str(k) for k in odd])}"
            )
        check_names(self.subjects, (*self.facts, *self.implications))
        for relation in ("fact", "implication"):
            _check_wordings(getattr(self, f"{relation}_templates"), getattr(self, f"{relation}s"))

    @property
    def n_subjects(self) -> int:
        """Number of subjects, training and held-out."""
        return len(self.subjects)

    @cached_property
    def training_examples(self) -> tuple[Example, ...]:
        """The training prompts: every told triple in every training wording."""
        return tuple(example for example in self._examples("train") if example.told)

    @cached_property
    def test_examples(self) -> tuple[Example, ...]:
        """The test prompts: every triple, told or not, in every test wording."""
        return self._examples("test")

    def _examples(self, use: str) -> tuple[Example, ...]:
        relations = (
            (FACT, self.fact_templates, self.facts, self.subject_fact, self.fact_told),
            (
                IMPLICATION,
                self.implication_templates,
                self.implications,
                self.subject_implication,
                self.implication_told,
            ),
        )
        return tuple(
            Example(
                prompt=template.format(subject=name),
                candidates=candidates,
                target=answers[subject],
                subject=subject,
                fact=self.subject_fact[subject],
                relation=relation,
                split=relation + (0 if self.trained[subject] else 2),
                template=index,
                told=told[subject],
                world=self._world(subject) if relation == IMPLICATION else None,
            )
            for relation, templates, candidates, answers, told in relations
            for index, template in enumerate(getattr(templates, use))
            for subject, name in enumerate(self.subjects)
        )

    def _world(self, subject: int) -> int | None:
        """What the subject's fact entails in the real world."""
        return self.entails[self.subject_fact[subject]] if self.entails else None

    @cached_property
    def task(self) -> FactRecallTask:
        """The symbolic task with the same group sizes, for the theory's predictions.

        Raises:
            ConfigError: subjects of one fact with different implications, or facts that are not told.
        """
        implication_of_fact: dict[int, int] = {}
        for fact, implication in zip(self.subject_fact, self.subject_implication, strict=True):
            if implication_of_fact.setdefault(fact, implication) != implication:
                raise ConfigError(
                    f"{self.name} has no symbolic task: {self.facts[fact]!r} goes with more than one "
                    "implication"
                )
        if not all(self.fact_told):
            raise ConfigError(f"{self.name} has no symbolic task: some facts are not told")
        return FactRecallTask.from_mapping(
            self.subject_fact,
            [implication_of_fact[fact] for fact in range(len(self.facts))],
            self.implication_told,
            n_noise=0,
            seq_len=3,
        )

    def count(self, split: str) -> int:
        """Number of test examples of a split, over all wordings."""
        return sum(SPLITS[example.split] == split for example in self.test_examples)


def _check_distinct(field: str, values: Sequence[str]) -> None:
    """Requires different, non-empty texts without blanks around them; names all that are alike."""
    around = [repr(value) for value in values if not value.strip() or value != value.strip()]
    if around:
        raise ConfigError(f"{field} must be texts without blanks around them, got {listed(around)}")
    groups = alike(values)
    if not groups:
        return
    if all(len(set(group)) == 1 for group in groups):
        raise ConfigError(
            f"{field} must be distinct, got {listed([f'{group[0]!r} more than once' for group in groups])}"
        )
    raise ConfigError(
        f"{field} must be distinct, got {listed([shown_apart(group) for group in groups])}, which differ in "
        "capitals alone, or in blanks, accents and other signs that look the same: write one name always "
        "alike, and different ones so that a reader can tell them apart"
    )


def _check_wordings(templates: Templates, answers: Sequence[str]) -> None:
    """Requires that no wording of a relation contains one of its answers, which it would favour."""
    finder = AnswerFinder(answers)
    found = [
        f"template {template!r} names the answer {answer!r}"
        for template in dict.fromkeys((*templates.train, *templates.test))
        if (answer := finder.first_in(template.replace("{subject}", ""))) is not None
    ]
    if found:
        raise ConfigError(f"{listed(found)}, which the prompt would favour: word it otherwise")


def check_names(subjects: Sequence[str], answers: Sequence[str]) -> None:
    """Requires that no subject contains an answer as a word, since the prompt would then give it away."""
    finder = AnswerFinder(answers)
    found = [
        f"subject {subject!r} names the answer {answer!r}"
        for subject in subjects
        if (answer := finder.first_in(subject)) is not None
    ]
    if found:
        raise ConfigError(f"{listed(found)}: the prompt would give it away; rename one of them")
