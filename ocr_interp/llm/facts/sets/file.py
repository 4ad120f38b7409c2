"""A user's own subjects, facts and implications from a CSV or JSON file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.fact_set import FactSet, answer_in
from ocr_interp.llm.facts.reading import read_records, text_cell
from ocr_interp.llm.facts.sets.base import FactSource, Request, chosen_templates, told

COLUMNS = ("subject", "fact", "implication")


@dataclass(frozen=True)
class TripleRow:
    """A row of a file: its place, e.g. "facts.csv, line 7", and its values."""

    place: str
    subject: str
    fact: str
    implication: str


def read_triples(path: Path) -> tuple[TripleRow, ...]:
    """Reads subjects with fact and implication from a CSV (header subject,fact,implication) or JSON file.

    JSON is a list of objects with these three keys. Other columns or keys are allowed and ignored.

    Raises:
        ConfigError: a file that cannot be read, a missing column, an empty or repeated entry, a subject that
            contains an answer; the message gives the line, or the item in JSON.
    """
    records = list(read_records(path, COLUMNS))
    if not records:
        raise ConfigError(f"{path} holds no facts: at least one row with {', '.join(COLUMNS)} is required")
    rows, seen = [], {}
    for place, values in records:
        row = TripleRow(place, *(text_cell(place, column, values.get(column)) for column in COLUMNS))
        if row.subject in seen:
            raise ConfigError(
                f"{place}: subject {row.subject!r} stands in {seen[row.subject]} already: one fact and one "
                "implication a subject"
            )
        seen[row.subject] = place
        rows.append(row)
    answers = list(dict.fromkeys([row.fact for row in rows] + [row.implication for row in rows]))
    spelled: dict[tuple[str, str], tuple[str, str]] = {}
    for row in rows:
        for column in ("fact", "implication"):
            answer = getattr(row, column)
            first, place = spelled.setdefault((column, answer.casefold()), (answer, row.place))
            if first != answer:
                raise ConfigError(
                    f"{row.place}: {column} {answer!r} differs from {first!r} in {place} in capitals alone: "
                    "write both alike"
                )
    for row in rows:
        answer = answer_in(row.subject, answers)
        if answer is not None:
            raise ConfigError(
                f"{row.place}: subject {row.subject!r} names the answer {answer!r}, which the prompt would "
                "give away: rename one of them"
            )
    return tuple(rows)


@dataclass(frozen=True, kw_only=True)
class FileFacts(FactSource):
    """All rows of `FactConfig.file`, in the wordings of the configuration; named after the file."""

    needs_file: ClassVar[bool] = True

    def draw(self, config: Request) -> FactSet:
        """All subjects, facts and implications of the file."""
        for field in ("n_pairs", "n_names"):
            if getattr(config, field) is not None:
                raise ConfigError(f"{field} must be None for data='file', whose rows are all taken")
        for relation in ("fact", "implication"):
            if not getattr(config, f"{relation}_templates"):
                raise ConfigError(
                    f"{relation}_templates must be given for data='file': the wording of the {relation} with "
                    '{subject} in it, e.g. "{subject} lives in"'
                )
        path = config.required_file
        rows = read_triples(path)
        facts = tuple(dict.fromkeys(row.fact for row in rows))
        implications = tuple(dict.fromkeys(row.implication for row in rows))
        subject_fact = tuple(facts.index(row.fact) for row in rows)
        return FactSet(
            name=path.stem,
            causal=self.causal,
            subjects=tuple(row.subject for row in rows),
            facts=facts,
            implications=implications,
            subject_fact=subject_fact,
            subject_implication=tuple(implications.index(row.implication) for row in rows),
            fact_templates=chosen_templates(config, "fact", ()),
            implication_templates=chosen_templates(config, "implication", ()),
            **told(facts, subject_fact, config),
        )


FACTS = FileFacts(name="file", title="Facts of a file", colour="#949494", pairing=None)
