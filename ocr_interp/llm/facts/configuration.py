"""The configuration of a fact set: a plain dataclass that imports no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, get_args

from ocr_interp.checks import check_choice, check_count, check_number, check_text, from_fields
from ocr_interp.errors import ConfigError, shown
from ocr_interp.llm.facts.catalogue import fact_sets

Scoring = Literal["auto", "first_token", "until_distinct", "whole_answer"]
SCORINGS: tuple[Scoring, ...] = ("auto", "first_token", "until_distinct", "whole_answer")

Control = Literal["none", "random_implications", "facts_only", "implications_only", "strangers"]
CONTROLS: tuple[Control, ...] = get_args(Control)

DEFAULT_SHARE = 0.2
"""The share told where neither `FactConfig.share` nor a column told of the file says it."""

_PATHS = ("file", "implications_file")


@dataclass(frozen=True)
class FactConfig:
    """A fact set: the paper's sizes by default (5 pairs x 20 names, implications of 4 names per pair told).

    Attributes:
        data: which facts: "city_color", "city_language", "city_language_counterfactual", "country_code",
            "profession_color", "profession_workplace" or "sport_music"; or from a file: "file" (columns
            subject, fact, implication, told), "popqa" (PopQA's columns) or "extractive_structures".
            `ocr_interp.llm.fact_sets.names` lists all.
        file: the file for data "file" (CSV or JSON) or "popqa" (CSV or TSV).
        n_pairs: number of pairs of a fact and an implication; None is 5, or all pairs of a file.
        n_names: number of names per pair; None is 20, or all names of a file.
        share: share of each pair's names whose implication is told, rounded to whole names; None is 0.2, or
            what the column told of the file says, beside which a share is refused.
        control: "none"; "random_implications" (names that share a fact get different implications, both
            told and held out); "facts_only" (no implication is told); "implications_only" (no fact is told);
            "strangers" (implications are told of names whose facts are not, all answers as often as each
            other: the wording and the answers are learned, and nothing of their pairs).
        seed: seed of the names, the pairs and the choice of training subjects; controls with the same seed
            share all three.
        train_templates: indices, from 0, of the wordings used in training prompts.
        test_templates: indices, from 0, of the wordings used in test prompts.
        fact_templates: your own wordings of facts instead of the data set's, each with "{subject}" in it,
            such as "{subject} lives in".
        implication_templates: your own wordings of implications, likewise.
        fact_property: which relation of the file is the facts: with data "popqa" a value of column prop, with
            "extractive_structures" a key, with "file" a relation of a file that holds several. "" is the
            only one, or the data set's own.
        implication_property: which relation is the implications, likewise.
        implications_file: with data "file", a second file, whose relation is the implications; the two are
            joined by subject.
        language: language of the columns to read, such as "ru" for subj_ru and obj_ru; "" is the plain ones.
        scoring: what an answer is ranked by: "first_token", the paper's; "until_distinct", its tokens up to
            where no other answer begins so; "whole_answer", all its tokens; "auto" is the first token where
            that tells all answers of a relation apart, else until_distinct. Every result names it.
        n_unseen: number of further made-up names, of which nothing is told and everything is asked at every
            measurement: what the model says whoever is asked, for calibrated ranks. 0 asks of none.
    """

    data: str = "city_language"
    file: Path | None = None
    n_pairs: int | None = None
    n_names: int | None = None
    share: float | None = None
    control: Control = "none"
    seed: int = 0
    train_templates: tuple[int, ...] = (0,)
    test_templates: tuple[int, ...] = (0,)
    fact_templates: tuple[str, ...] = ()
    implication_templates: tuple[str, ...] = ()
    fact_property: str = "place of birth"
    implication_property: str = "sport"
    implications_file: Path | None = None
    language: str = ""
    scoring: Scoring = "auto"
    n_unseen: int = 0

    def __post_init__(self) -> None:
        self._check_types()
        for field in ("n_pairs", "n_names"):
            if getattr(self, field) is not None:
                check_count(field, getattr(self, field), 2 if field == "n_pairs" else 1)
        if self.share is not None:
            check_number("share", self.share, at_least=0)
            if self.share > 1:
                raise ConfigError(f"share must be in 0..1, got {self.share}")
            object.__setattr__(self, "share", float(self.share))  # 1 and 1.0 are one configuration
        check_choice("control", self.control, CONTROLS)
        check_choice("scoring", self.scoring, SCORINGS)
        check_count("seed", self.seed, 0)
        check_count("n_unseen", self.n_unseen, 0)
        for field in _PATHS:
            if getattr(self, field) is not None:
                object.__setattr__(self, field, Path(getattr(self, field)))
        needs_file = fact_sets[self.data].needs_file
        if self.file is None and needs_file:
            raise ConfigError(
                f"data={self.data!r} needs a file, got none: say with file (--file) which one is read"
            )
        if self.file is not None and not needs_file:
            reading = " or ".join(repr(name) for name in fact_sets if fact_sets[name].needs_file)
            raise ConfigError(
                f"file goes with data={reading} and only with them, got data={self.data!r}, "
                f"file={shown(str(self.file))}: name one of them with data (--data), or leave file out"
            )
        if self.language and not fact_sets[self.data].has_languages:
            raise ConfigError(
                f"language goes with data='popqa' or 'file' and only with them, got data={self.data!r}, "
                f"language={shown(self.language)}"
            )
        if self.implications_file is not None and not fact_sets[self.data].joins_files:
            raise ConfigError(
                f"implications_file goes with data='file' and only with it, got data={self.data!r}, "
                f"implications_file={shown(str(self.implications_file))}"
            )

    def _check_types(self) -> None:
        """Requires texts and indices where they belong, and keeps them as Python's own types."""
        for field in _PATHS:
            path = getattr(self, field)
            if path is not None and not (isinstance(path, str | Path) and "\0" not in str(path)):
                raise ConfigError(f"{field} must be a path, got {shown(path)}")
        for field in ("fact_property", "implication_property", "language"):
            value = getattr(self, field)
            if not isinstance(value, str) or value:  # "" is the only one, or the plain one
                check_text(field, value)
        for field in ("train_templates", "test_templates", "fact_templates", "implication_templates"):
            values = getattr(self, field)
            if not isinstance(values, tuple | list):
                raise ConfigError(f"{field} must be a tuple, got {shown(values)}")
            for k, value in enumerate(values):
                if field in ("train_templates", "test_templates"):
                    check_count(f"{field}[{k}]", value, 0)
                else:
                    check_text(f"{field}[{k}]", value)
            numbers = field in ("train_templates", "test_templates")
            object.__setattr__(self, field, tuple(map(int, values)) if numbers else tuple(values))
        for field in ("n_pairs", "n_names", "seed", "n_unseen"):
            value = getattr(self, field)
            if isinstance(value, Integral) and not isinstance(value, bool):
                object.__setattr__(self, field, int(value))

    @property
    def told_share(self) -> float:
        """The share of names told where no column of a file says who is."""
        return DEFAULT_SHARE if self.share is None else self.share

    @property
    def required_file(self) -> Path:
        """The file, for data sets that need one."""
        if self.file is None:
            raise ConfigError(f"file must be given for data={self.data!r}")
        return self.file

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them."""
        # A share that is left out is kept as the default, so that fingerprints of earlier runs stay.
        values = {**dataclasses.asdict(self), "share": self.told_share}
        return {**values, **{name: str(values[name]) for name in _PATHS if values[name] is not None}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FactConfig:
        """The configuration from the values of `to_dict`; an unknown field raises."""
        paths = {name: Path(values[name]) for name in _PATHS if values.get(name) is not None}
        share = {"share": None} if values.get("share") == DEFAULT_SHARE else {}
        return from_fields(cls, "facts", {**values, **paths, **share})
