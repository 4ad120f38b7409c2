"""The configuration of a fact set: a plain dataclass that imports no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from ocr_interp.checks import check_choice, check_count, check_number, check_text, from_fields
from ocr_interp.errors import ConfigError, shown
from ocr_interp.llm.facts.catalogue import fact_sets

Control = Literal["none", "random_implications", "facts_only", "implications_only"]
CONTROLS: tuple[Control, ...] = ("none", "random_implications", "facts_only", "implications_only")


@dataclass(frozen=True)
class FactConfig:
    """A fact set: the paper's sizes by default (5 pairs x 20 names, implications of 4 names per pair told).

    Attributes:
        data: which facts: "city_language", "city_language_counterfactual", "country_code",
            "profession_color" or "sport_music"; or from a file: "file" (columns subject, fact, implication)
            or "popqa" (PopQA's columns). `ocr_interp.llm.fact_sets.names` lists all.
        file: the file for data "file" (CSV or JSON) or "popqa" (CSV or TSV).
        n_pairs: number of pairs of a fact and an implication; None is 5, or all pairs of a file.
        n_names: number of names per pair; None is 20, or all names of a file.
        share: share of each pair's names whose implication is told, rounded to whole names.
        control: "none"; "random_implications" (names that share a fact get different implications, both
            told and held out); "facts_only" (no implication is told); "implications_only" (no fact is told).
        seed: seed of the names, the pairs and the choice of training subjects; controls with the same seed
            share all three.
        train_templates: indices, from 0, of the wordings used in training prompts.
        test_templates: indices, from 0, of the wordings used in test prompts.
        fact_templates: your own wordings of facts instead of the data set's, each with "{subject}" in it,
            such as "{subject} lives in".
        implication_templates: your own wordings of implications, likewise.
        fact_property: with data "popqa", the value of column prop whose rows are the facts.
        implication_property: with data "popqa", the value of column prop whose rows are the implications.
    """

    data: str = "city_language"
    file: Path | None = None
    n_pairs: int | None = None
    n_names: int | None = None
    share: float = 0.2
    control: Control = "none"
    seed: int = 0
    train_templates: tuple[int, ...] = (0,)
    test_templates: tuple[int, ...] = (0,)
    fact_templates: tuple[str, ...] = ()
    implication_templates: tuple[str, ...] = ()
    fact_property: str = "place of birth"
    implication_property: str = "sport"

    def __post_init__(self) -> None:
        self._check_types()
        for field in ("n_pairs", "n_names"):
            if getattr(self, field) is not None:
                check_count(field, getattr(self, field), 2 if field == "n_pairs" else 1)
        check_number("share", self.share, at_least=0)
        if self.share > 1:
            raise ConfigError(f"share must be in 0..1, got {self.share}")
        check_choice("control", self.control, CONTROLS)
        check_count("seed", self.seed, 0)
        object.__setattr__(self, "share", float(self.share))  # 1 and 1.0 are one configuration
        if self.file is not None:
            object.__setattr__(self, "file", Path(self.file))
        if (self.file is not None) != fact_sets[self.data].needs_file:
            reading = " or ".join(repr(name) for name in fact_sets if fact_sets[name].needs_file)
            raise ConfigError(
                f"file goes with data={reading} and only with them, got data={self.data!r}, "
                f"file={shown(None if self.file is None else str(self.file))}"
            )

    def _check_types(self) -> None:
        """Requires texts and indices where they belong, and keeps them as Python's own types."""
        if self.file is not None and not (isinstance(self.file, str | Path) and "\0" not in str(self.file)):
            raise ConfigError(f"file must be a path, got {shown(self.file)}")
        for field in ("fact_property", "implication_property"):
            check_text(field, getattr(self, field))
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
        for field in ("n_pairs", "n_names", "seed"):
            value = getattr(self, field)
            if isinstance(value, Integral) and not isinstance(value, bool):
                object.__setattr__(self, field, int(value))

    @property
    def required_file(self) -> Path:
        """The file, for data sets that need one."""
        if self.file is None:
            raise ConfigError(f"file must be given for data={self.data!r}")
        return self.file

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them."""
        values = dataclasses.asdict(self)
        return {**values, "file": None if self.file is None else str(self.file)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FactConfig:
        """The configuration from the values of `to_dict`; an unknown field raises."""
        file = values.get("file")
        return from_fields(cls, "facts", values if file is None else {**values, "file": Path(file)})
