"""FactConfig -> FactSet: draws from the configuration's source of facts, and applies the control."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ocr_interp.llm.facts.catalogue import fact_sets
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.facts.sets.base import CONTROL, stream


def make_facts(config: FactConfig) -> FactSet:
    """The fact set of a configuration; equal configurations give equal fact sets.

    Raises:
        ConfigError, UnknownNameError: a configuration or file that is not allowed; for a file the message
            gives the line.
    """
    facts = fact_sets[config.data].draw(config)
    return with_control(facts, config.control, stream(config, CONTROL))


def with_control(facts: FactSet, control: str, rng: np.random.Generator) -> FactSet:
    """The same subjects and answers under a control; see `FactConfig.control`.

    Under "random_implications" the training subjects of each fact get all implications in turn, in a random
    order, and its held-out subjects likewise in an independent order, so the counts are as even as possible.
    The told implications carry no information about the held-out ones: the expected held-out rank is chance.
    """
    nobody = (False,) * facts.n_subjects
    if control == "facts_only":
        return replace(facts, implication_told=nobody)
    if control == "implications_only":
        return replace(facts, fact_told=nobody)
    if control != "random_implications":
        return facts
    implication = np.zeros(facts.n_subjects, dtype=int)
    groups, trained = np.array(facts.subject_fact), np.array(facts.trained)
    for fact in range(len(facts.facts)):
        for told in (True, False):
            order = rng.permutation(len(facts.implications))
            members = rng.permutation(np.flatnonzero((groups == fact) & (trained == told)))
            implication[members] = order[np.arange(len(members)) % len(order)]
    return replace(facts, subject_implication=tuple(int(k) for k in implication))
