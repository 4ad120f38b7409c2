"""FactConfig -> FactSet: draws from its source, applies the control; names of which nothing is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.catalogue import fact_sets
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.fact_set import Example, FactSet, check_names
from ocr_interp.llm.facts.names import FIRST_NAMES, LAST_NAMES
from ocr_interp.llm.facts.relations import read_relations
from ocr_interp.llm.facts.sets.base import CONTROL, stream
from ocr_interp.llm.facts.sets.base import UNSEEN as UNSEEN_STREAM
from ocr_interp.llm.facts.spelling import AnswerFinder, alike, words
from ocr_interp.task import FACT, IMPLICATION

UNSEEN = -1
"""Split, target and fact of a prompt about an unseen name."""


def make_facts(config: FactConfig) -> FactSet:
    """The fact set of a configuration; equal configurations give equal fact sets.

    Raises:
        ConfigError, UnknownNameError: a configuration or file that is not allowed; for a file the message
            gives the line.
    """
    facts = fact_sets[config.data].draw(config)
    return with_control(facts, config.control, stream(config, CONTROL))


def told_rule(config: FactConfig, facts: FactSet) -> str:
    """How many implications are told and which rule chose them, in words.

    Without a column told the theory takes every row with an implication as told (`FactRecallTask.from_rows`).

    Args:
        config: the configuration; where its file is gone, only the number is known.
        facts: what `make_facts` gave.
    """
    count = f"told: {sum(facts.implication_told)} of {facts.n_subjects} implications"
    share = f"{config.told_share:g} of each fact's names (--share)"
    if config.control in ("facts_only", "strangers"):
        return f"{count}, by the control {config.control!r}"
    if config.data != "file" or config.file is None:
        return f"{count}, {share}"
    if not config.file.exists():
        return f"{count}, as the run holds them"
    if read_relations(config.file, config.language).says_told:
        return f"{count}, by the column told of {config.file.name}"
    return (
        f"{count}, {share}, as {config.file.name} has no column told; `ocr-interp solve` and `train` take "
        "every row with an implication as told"
    )


def with_control(facts: FactSet, control: str, rng: np.random.Generator) -> FactSet:
    """The same subjects and answers under a control; see `FactConfig.control`.

    Under "random_implications" the training subjects of each fact get all implications in turn, in a random
    order, and its held-out subjects likewise in an independent order, so the counts are as even as possible.
    The told implications carry no information about the held-out ones: the expected held-out rank is chance.

    Under "strangers" the training subjects are the strangers: their facts are not told, and their
    implications are all answers in turn, in a random order over all of them. The facts of held-out subjects
    are told, and what these entail is asked.
    """
    nobody = (False,) * facts.n_subjects
    if control == "facts_only":
        return replace(facts, implication_told=nobody)
    if control == "implications_only":
        return replace(facts, fact_told=nobody)
    if control == "none":
        return facts
    trained = np.array(facts.trained)
    if control == "strangers":
        strangers = np.flatnonzero(trained)
        implication = np.array(facts.subject_implication)
        order = rng.permutation(len(facts.implications))
        implication[rng.permutation(strangers)] = order[np.arange(len(strangers)) % len(order)]
        told = tuple(one and not at for one, at in zip(facts.fact_told, facts.trained, strict=True))
        return replace(facts, fact_told=told, subject_implication=tuple(int(k) for k in implication))
    implication, groups = np.zeros(facts.n_subjects, dtype=int), np.array(facts.subject_fact)
    for fact in range(len(facts.facts)):
        for told in (True, False):
            order = rng.permutation(len(facts.implications))
            members = rng.permutation(np.flatnonzero((groups == fact) & (trained == told)))
            implication[members] = order[np.arange(len(members)) % len(order)]
    return replace(facts, subject_implication=tuple(int(k) for k in implication))


def unseen_names(facts: FactSet, count: int, seed: int) -> tuple[str, ...]:
    """Made-up names that are no subjects and of which nothing is told, in random order.

    Those that share neither a first nor a last name with a subject come first, then those that share one of
    them: a model may take a name for another with the same first name.

    Raises:
        ConfigError: there are not that many.
    """
    taken = {word for subject in facts.subjects for word in words(subject)}
    finder = AnswerFinder((*facts.facts, *facts.implications))
    first, last = (
        [name for name in names if finder.first_in(name) is None] for names in (FIRST_NAMES, LAST_NAMES)
    )
    every = [(one, other) for one in first for other in last]
    shared = np.array([sum(name.casefold() in taken for name in pair) for pair in every])
    order = np.random.default_rng([seed, UNSEEN_STREAM]).permutation(len(every))
    order = order[np.argsort(shared[order], kind="stable")]
    free = [k for k in order if shared[k] < 2]
    if count > len(free):
        raise ConfigError(
            f"n_unseen must be <= {len(free)}, the made-up names that are no subjects of {facts.name}, got "
            f"{count}"
        )
    return tuple(" ".join(every[k]) for k in free[:count])


def unseen_examples(facts: FactSet, names: Sequence[str]) -> tuple[Example, ...]:
    """Both relations of unseen names in every test wording.

    Raises:
        ConfigError: a name that is a subject or stands twice, or one that names an answer.
    """
    groups = alike((*facts.subjects, *names))
    if groups:
        raise ConfigError(
            f"unseen names must be no subjects and all different, got {groups[0][0]!r} twice: name others"
        )
    check_names(names, (*facts.facts, *facts.implications))
    relations = (
        (FACT, facts.fact_templates, facts.facts),
        (IMPLICATION, facts.implication_templates, facts.implications),
    )
    return tuple(
        Example(
            prompt=template.format(subject=name),
            candidates=candidates,
            target=0,  # of no meaning: nobody knows
            subject=facts.n_subjects + number,
            fact=UNSEEN,
            relation=relation,
            split=UNSEEN,
            template=index,
            told=False,
        )
        for relation, templates, candidates in relations
        for index, template in enumerate(templates.test)
        for number, name in enumerate(names)
    )
