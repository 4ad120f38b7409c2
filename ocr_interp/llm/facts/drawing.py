"""FactConfig -> FactSet: draws pairs, names and training subjects, and applies the control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.fact_set import FactSet, Templates
from ocr_interp.llm.facts.names import made_names
from ocr_interp.llm.facts.pools import FactPool, pool
from ocr_interp.llm.facts.reading import read_popqa, read_triples

DEFAULT_PAIRS, DEFAULT_NAMES = 5, 20
_PAIRS, _NAMES, _TRAINED, _CONTROL = range(4)  # streams of one seed


def make_facts(config: FactConfig) -> FactSet:
    """The fact set of a configuration; the same configuration gives the same one.

    Raises:
        ConfigError, UnknownNameError: a configuration or file that is not allowed; for a file with its line.
    """
    if config.data == "file":
        facts = _from_file(config)
    else:
        facts = _drawn(config, read_popqa(config) if config.data == "popqa" else pool(config.data))
    return with_control(facts, config.control, _stream(config, _CONTROL))


def _stream(config: FactConfig, which: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, which])


def _drawn(config: FactConfig, source: FactPool) -> FactSet:
    n_pairs = DEFAULT_PAIRS if config.n_pairs is None else config.n_pairs
    n_names = DEFAULT_NAMES if config.n_names is None else config.n_names
    if n_pairs > source.n_pairs:
        raise ConfigError(f"n_pairs must be <= {source.n_pairs} for {source.name}, got {n_pairs}")
    facts, implications = _pairs(source, n_pairs, _stream(config, _PAIRS))
    subject_fact = tuple(int(fact) for fact in np.repeat(np.arange(n_pairs), n_names))
    return FactSet(
        name=source.name,
        causal=source.pairing == "causal",
        subjects=_subjects(source, n_pairs * n_names, _stream(config, _NAMES)),
        facts=facts,
        implications=implications,
        subject_fact=subject_fact,
        subject_implication=subject_fact,
        fact_templates=_templates(config, "fact", source.fact_templates),
        implication_templates=_templates(config, "implication", source.implication_templates),
        **_told(facts, subject_fact, config),
    )


def _pairs(
    source: FactPool, n_pairs: int, rng: np.random.Generator
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Facts and, in their order, the implication of each."""
    chosen = rng.choice(len(source.facts), size=n_pairs, replace=False)
    if source.pairing == "spurious":
        partners = rng.choice(len(source.implications), size=n_pairs, replace=False)
    elif source.pairing == "causal":
        partners = chosen
    else:
        partners = chosen
        while (partners == chosen).any():
            partners = rng.permutation(chosen)
    return tuple(source.facts[k] for k in chosen), tuple(source.implications[k] for k in partners)


def _subjects(source: FactPool, count: int, rng: np.random.Generator) -> tuple[str, ...]:
    if source.names is None:
        return made_names(count, rng)
    if count > len(source.names):
        raise ConfigError(
            f"n_pairs x n_names must be <= {len(source.names)}, the names of {source.name}, got {count}"
        )
    return tuple(source.names[k] for k in rng.choice(len(source.names), size=count, replace=False))


def _from_file(config: FactConfig) -> FactSet:
    """The user's own subjects, facts and implications, all of them."""
    for field in ("n_pairs", "n_names"):
        if getattr(config, field) is not None:
            raise ConfigError(f"{field} must be None for data='file', whose rows are all taken")
    for relation in ("fact", "implication"):
        if not getattr(config, f"{relation}_templates"):
            raise ConfigError(
                f"{relation}_templates must be given for data='file': the wording of the {relation} with "
                '{subject} in it, e.g. "{subject} lives in"'
            )
    assert config.file is not None
    rows = read_triples(config.file)
    facts = tuple(dict.fromkeys(row.fact for row in rows))
    implications = tuple(dict.fromkeys(row.implication for row in rows))
    subject_fact = tuple(facts.index(row.fact) for row in rows)
    return FactSet(
        name=config.file.stem,
        causal=None,
        subjects=tuple(row.subject for row in rows),
        facts=facts,
        implications=implications,
        subject_fact=subject_fact,
        subject_implication=tuple(implications.index(row.implication) for row in rows),
        fact_templates=_templates(config, "fact", ()),
        implication_templates=_templates(config, "implication", ()),
        **_told(facts, subject_fact, config),
    )


def _templates(config: FactConfig, relation: str, wordings: tuple[str, ...]) -> Templates:
    """The chosen wordings of a relation."""
    wordings = getattr(config, f"{relation}_templates") or wordings
    chosen = {}
    for use in ("train", "test"):
        indices = getattr(config, f"{use}_templates")
        for index in indices:
            if not 0 <= index < len(wordings):
                raise ConfigError(
                    f"{use}_templates must lie in 0..{len(wordings) - 1}, the {relation}'s wordings, "
                    f"got {index}"
                )
        chosen[use] = tuple(wordings[index] for index in indices)
    return Templates(**chosen)


def _told(
    facts: Sequence[str], subject_fact: Sequence[int], config: FactConfig
) -> dict[str, tuple[bool, ...]]:
    """Who is a training subject: of every fact's subjects the share, drawn at random."""
    groups, rng = np.array(subject_fact), _stream(config, _TRAINED)
    trained = np.zeros(len(groups), dtype=bool)
    for fact in np.unique(groups):
        members = np.flatnonzero(groups == fact)
        count = math.floor(config.share * len(members) + 0.5)
        if config.share > 0 and not count:
            raise ConfigError(
                f"share must leave every fact a training name, got {config.share} of the {len(members)} of "
                f"{facts[fact]!r}, which rounds to 0: raise it or add names, or pass 0 for the facts alone"
            )
        trained[rng.choice(members, size=count, replace=False)] = True
    flags = tuple(bool(value) for value in trained)
    return {"trained": flags, "fact_told": (True,) * len(groups), "implication_told": flags}


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
