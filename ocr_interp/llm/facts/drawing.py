"""FactConfig -> FactSet: asks the configuration's source of facts, and applies the control."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ocr_interp.llm.facts.catalogue import fact_sets
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.facts.sets.base import CONTROL, stream


def make_facts(config: FactConfig) -> FactSet:
    """The fact set of a configuration; the same configuration gives the same one.

    Raises:
        ConfigError, UnknownNameError: a configuration or file that is not allowed; for a file with its line.
    """
    facts = fact_sets[config.data].draw(config)
    return with_control(facts, config.control, stream(config, CONTROL))


def with_control(facts: FactSet, control: str, rng: np.random.Generator) -> FactSet:
    """The same subjects and answers under a control; see `FactConfig.control`.

    Under "random_implications" the implications of a fact's training subjects go round all implications in
    a random order, those of its held-out subjects in another, drawn apart: as even as can be. Whatever is
    learned of the told ones says nothing of the others, so that the expected held-out rank is chance.
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
