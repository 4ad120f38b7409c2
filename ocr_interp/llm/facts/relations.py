"""The relations of a file of facts, and two relations joined by subject."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocr_interp.errors import ConfigError
from ocr_interp.fact_tables import check_column
from ocr_interp.llm.facts.format_catalogue import formats
from ocr_interp.llm.facts.formats.base import Format, Statement
from ocr_interp.llm.facts.reading import Records, read_records
from ocr_interp.llm.facts.spelling import MOST_SHOWN, AnswerFinder, alike, listed, shown_apart


@dataclass(frozen=True)
class FileRelations:
    """What a file says, by relation.

    Attributes:
        path: the file.
        format: its format.
        relations: the statements of every relation, in the file's order.
    """

    path: Path
    format: Format
    relations: Mapping[str, tuple[Statement, ...]]

    def contents(self) -> str:
        """The relations with their numbers of statements, the largest first, for messages."""
        sizes = sorted(
            ((len(own), name) for name, own in self.relations.items()), key=lambda x: (-x[0], x[1])
        )
        more = len(sizes) - MOST_SHOWN
        shown = ", ".join(f"{name!r} ({size})" for size, name in sizes[:MOST_SHOWN])
        return shown + (f" and {more} more" if more > 0 else "")

    @property
    def says_told(self) -> bool:
        """Whether a column told says which statements are told."""
        return any(s.told is not None for own in self.relations.values() for s in own)

    def named(self, field: str, name: str) -> tuple[Statement, ...]:
        """The statements of a relation.

        Raises:
            ConfigError: there is none of that name; the message lists those that are there.
        """
        if name not in self.relations:
            raise ConfigError(
                f"{self.path} has no relation {name!r} ({field}), it has {self.contents()}"
                + _close(name, self.relations)
            )
        return self.relations[name]


@dataclass(frozen=True)
class TripleRow:
    """A subject with its two answers, where they stand, and whether the file says that it is told."""

    place: str
    subject: str
    fact: str
    implication: str
    told: bool | None = None


def _close(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f": did you mean {close[0]!r}?" if close else ""


def read_relations(path: Path, language: str = "") -> FileRelations:
    """Reads a file of any known format.

    Raises:
        ConfigError: a file that cannot be read, or of no known format; the message lists the columns or keys
            that it has. What is missing in a record is named with its line, all of it at once.
    """
    records = read_records(path)
    if not records.columns and not records.is_table:
        raise ConfigError(f"{path} holds no facts: it has no objects")
    known = [formats[name] for name in formats]
    # Our own comes first, as its column told would be lost else; of others, one with more keys says more.
    fitting = [form for form in known if form.fits(records.columns, language)]
    if not fitting:
        _refuse_columns(records, known)
    form = max(fitting, key=lambda form: (form.reads_told, len(form.keys)))
    _check_columns(records, form)
    if language and not form.has_languages:
        raise ConfigError(
            f"{path} has no columns of several languages, but {', '.join(form.keys)}: leave language "
            f"({language!r}) out"
        )
    if not records.rows:
        raise ConfigError(f"{path} holds no facts: at least one row with {', '.join(form.keys)} is required")
    relations: dict[str, list[Statement]] = {}
    for statement in form.statements(records, language):
        relations.setdefault(statement.relation, []).append(statement)
    return FileRelations(path, form, {name: tuple(own) for name, own in relations.items()})


def _check_columns(records: Records, form: Format) -> None:
    """Refuses a column told that the format would not obey, and misspellings of what it reads or of told."""
    columns = dict.fromkeys((*records.columns, *(key for _, values in records.rows for key in values)))
    keys = () if form.has_languages else form.keys  # those of a language have names of their own
    known = tuple(dict.fromkeys((*keys, *form.optional, "told")))
    for name in columns:
        check_column(records.place, name, columns, known)
    if "told" in columns and not form.reads_told:
        raise ConfigError(
            f"{records.place}: a column told is obeyed beside subject, fact, implication, and the file is "
            f"read as {form.name} ({', '.join(form.keys)}): write it with the former columns, or remove told "
            "and choose with share"
        )


def _refuse_columns(records: Records, known: Sequence[Format]) -> None:
    """Says which columns or keys there are, and what the nearest format lacks."""
    has = records.columns

    def nearness(form: Format) -> tuple[int, bool, int]:
        close = sum(bool(difflib.get_close_matches(key, has, n=1)) for key in form.keys)
        shared = len(set(form.keys) & set(has))
        # One word in common, such as name, makes a table of one's own no relation file of LRE.
        return shared if shared > 1 or form.reads_told else 0, form.reads_told, close

    near = max(known, key=nearness)
    lacking = next((key for key in near.keys if key not in has), near.keys[0])
    close = difflib.get_close_matches(lacking, has, n=1)
    hint = f" (is it {close[0]!r}?)" if close else ""
    if records.is_table and len(has) == 1:
        hint += f" (are columns separated by {records.separator!r}?)"
    what = "the header has no column" if records.is_table else "there is no key"
    others = "; ".join(f"{', '.join(form.keys)} ({form.says})" for form in known if form is not near)
    raise ConfigError(
        f"{records.place}: {what} {lacking!r}{hint}, required: {', '.join(near.keys)}, "
        f"got: {', '.join(has) or 'nothing'}; other formats have {others}"
    )


def joined(
    facts: Sequence[Statement], implications: Sequence[Statement], allows_repeats: bool
) -> tuple[TripleRow, ...]:
    """The subjects that have both a fact and an implication, in the order of the facts.

    Args:
        facts, implications: the statements of the two relations.
        allows_repeats: whether the same statement may stand twice.

    Raises:
        ConfigError: no subject has both; names or answers that read alike; a subject with two answers, or
            that names an answer. The message gives all places.
    """
    refused = _several_answers(facts, allows_repeats)
    if allows_repeats:  # else both relations stand in the same rows
        refused += _several_answers(implications, allows_repeats)
    refused += _alike("subject", [(s.subject, s.place) for s in (*facts, *implications)])
    refused += _alike("fact", [(s.answer, s.place) for s in facts])
    refused += _alike("implication", [(s.answer, s.place) for s in implications])
    if refused:
        raise ConfigError(listed(refused))
    implied = {statement.subject: statement for statement in implications}
    rows = {
        s.subject: TripleRow(s.place, s.subject, s.answer, implied[s.subject].answer, implied[s.subject].told)
        for s in facts
        if s.subject in implied
    }
    if not rows:
        raise ConfigError(
            f"no subject has both a fact and an implication: {facts[0].relation!r} speaks of "
            f"{_few(facts)}, {implications[0].relation!r} of {_few(implications)}; take two relations of the "
            "same subjects"
        )
    answers = [answer for row in rows.values() for answer in (row.fact, row.implication)]
    finder = AnswerFinder(dict.fromkeys(answers))
    refused = [
        f"{row.place}: subject {row.subject!r} names the answer {answer!r}"
        for row in rows.values()
        if (answer := finder.first_in(row.subject)) is not None
    ]
    if refused:
        raise ConfigError(
            f"{listed(refused)}: the prompt would give it away; rename one of them, or leave the subject out"
        )
    return tuple(rows.values())


def _few(statements: Sequence[Statement]) -> str:
    names = list(dict.fromkeys(statement.subject for statement in statements))
    return f"{len(names)} such as {', '.join(map(repr, names[:3]))}"


def _several_answers(statements: Sequence[Statement], allows_repeats: bool) -> list[str]:
    first: dict[str, Statement] = {}
    refused = []
    for own in statements:
        other = first.setdefault(own.subject, own)
        if other is own or (allows_repeats and other.answer == own.answer):
            continue
        what = "" if not allows_repeats else f" with {other.answer!r}, here with {own.answer!r}"
        refused.append(
            f"{own.place}: subject {own.subject!r} stands in {other.place} already{what}: one answer "
            "a subject"
        )
    return refused


def _alike(what: str, texts: Sequence[tuple[str, str]]) -> list[str]:
    """Spellings of one text that differ, with the places of the first of each."""
    places: dict[str, str] = {}
    for text, place in texts:
        places.setdefault(text, place)
    refused = []
    for first, *others in alike(places):
        for other in others:
            one, two = shown_apart((other, first)).split(" and ")
            refused.append(
                f"{places[other]}: {what} {one} reads like {two} in {places[first]} (capitals, blanks, "
                "accents or signs that cannot be seen): write both alike"
            )
    return refused


def wordings_of(statements: Sequence[Statement]) -> tuple[str, ...]:
    """The wordings that a relation brings, the most frequent first."""
    counts = Counter(wording for statement in statements for wording in statement.wordings)
    return tuple(wording for wording, _ in counts.most_common())
