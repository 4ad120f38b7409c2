"""A user's own subjects, facts and implications from a file of any known format, or from two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.facts.formats.base import Statement
from ocr_interp.llm.facts.relations import (
    FileRelations,
    TripleRow,
    joined,
    read_relations,
    wordings_of,
)
from ocr_interp.llm.facts.sets.base import FactSource, Request, chosen_templates, told

_OWN = {"fact": "fact", "implication": "implication"}
"""The relations of a file with one row a subject, subject, fact, implication."""


def read_triples(path: Path) -> tuple[TripleRow, ...]:
    """Reads subjects with fact and implication from a file of one format, one row a subject.

    Raises:
        ConfigError: see `relations.read_relations` and `relations.joined`.
    """
    found = read_relations(path)
    if not _OWN.keys() <= found.relations.keys():
        raise ConfigError(f"{path} has no fact and implication a subject, it has {found.contents()}")
    return joined(found.relations["fact"], found.relations["implication"], found.format.allows_repeats)


@dataclass(frozen=True, kw_only=True)
class FileFacts(FactSource):
    """All subjects of `FactConfig.file`, in the wordings of the configuration or the file's own."""

    needs_file: ClassVar[bool] = True
    has_languages: ClassVar[bool] = True
    joins_files: ClassVar[bool] = True

    def draw(self, config: Request) -> FactSet:
        """All subjects that have a fact and an implication; named after the file."""
        for field in ("n_pairs", "n_names"):
            if getattr(config, field) is not None:
                raise ConfigError(f"{field} must be None for data='file', whose rows are all taken")
        path = config.required_file
        one = read_relations(path, config.language)
        two = one
        if config.implications_file is not None:
            two = read_relations(config.implications_file, config.language)
        facts = _relation(one, "fact", config)
        implications = _relation(two, "implication", config)
        for field, own in (("fact", facts), ("implication", implications)):
            if not (getattr(config, f"{field}_templates") or wordings_of(own)):
                raise ConfigError(
                    f"{field}_templates (--{field}-templates) must be given for data='file', since the "
                    f"file has no wording: that of the {field} with {{subject}} in it, e.g. "
                    + ('"{subject} lives in"' if field == "fact" else '"{subject} speaks"')
                )
        repeats = one is not two or one.format.allows_repeats
        rows = joined(facts, implications, repeats)
        _check_told(one, two, implications, config)
        fact_of = {answer: k for k, answer in enumerate(dict.fromkeys(row.fact for row in rows))}
        implied = {answer: k for k, answer in enumerate(dict.fromkeys(row.implication for row in rows))}
        subject_fact = tuple(fact_of[row.fact] for row in rows)
        return FactSet(
            name=path.stem,
            causal=self.causal,
            subjects=tuple(row.subject for row in rows),
            facts=tuple(fact_of),
            implications=tuple(implied),
            subject_fact=subject_fact,
            subject_implication=tuple(implied[row.implication] for row in rows),
            fact_templates=chosen_templates(config, "fact", wordings_of(facts)),
            implication_templates=chosen_templates(config, "implication", wordings_of(implications)),
            **_told(rows, tuple(fact_of), subject_fact, config),
        )


def _check_told(
    one: FileRelations, two: FileRelations, implications: Sequence[Statement], config: Request
) -> None:
    """Requires that a column told is obeyed: it is of these implications, and nothing else chooses.

    Raises:
        ConfigError: a share beside it, a second file, or another relation as the implications.
    """
    marking = [found.path for found in (one, two) if found.says_told]
    if not marking:
        return
    if config.share is not None:
        raise ConfigError(
            f"the column told of {marking[0]} says which implications are told, and so does share "
            f"({config.share}): leave --share out, or remove the column"
        )
    if config.implications_file is not None or any(s.told is None for s in implications):
        raise ConfigError(
            f"the column told of {marking[0]} is of the implications in that file, and others are asked for: "
            "write one file with the columns subject, fact, implication, told, or remove the column told and "
            "choose with share"
        )


def _told(
    rows: Sequence[TripleRow], facts: Sequence[str], subject_fact: Sequence[int], config: Request
) -> dict[str, tuple[bool, ...]]:
    """The fields of a FactSet that mark told triples: the file's column told, else a share of every fact."""
    flags = tuple(row.told for row in rows if row.told is not None)
    if not flags:
        return told(facts, subject_fact, config)
    return {"trained": flags, "fact_told": (True,) * len(rows), "implication_told": flags}


def _relation(found: FileRelations, which: str, config: Request) -> tuple[Statement, ...]:
    """The relation of a file that is asked for: the one that is named, its own, or the only one.

    Raises:
        ConfigError: several, or a single one where two are needed; the message says what the file has.
    """
    field = f"{which}_property"
    asked = getattr(config, field)
    if asked and asked != getattr(type(config), field):  # the default is a property of PopQA
        return found.named(field, asked)
    is_alone = config.implications_file is None
    own = _OWN[which] if _OWN[which] in found.relations else asked
    if own in found.relations:
        return found.relations[own]
    option = f"--{field.replace('_', '-')}"
    if len(found.relations) > 1:
        raise ConfigError(
            f"{found.path} holds {len(found.relations)} relations: {found.contents()}; say with {field} "
            f"({option}) which of them is the {which}"
        )
    if is_alone:
        raise ConfigError(
            f"{found.path} holds one relation, {found.contents()}, as {found.format.says}: a fact and an "
            "implication of the same subjects are needed; name a second file with implications_file "
            "(--implications-file), which is joined to it by subject, or write one file with the columns "
            "subject, fact, implication"
        )
    return next(iter(found.relations.values()))


FACTS = FileFacts(name="file", title="Facts of a file", colour="#949494", pairing=None)
