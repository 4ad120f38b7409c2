"""The interface of a fact set, and fact sets drawn from lists of answers. Imports no torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.fact_set import FactSet, Templates, check_template
from ocr_interp.llm.facts.names import made_names
from ocr_interp.llm.facts.spelling import listed

DEFAULT_PAIRS, DEFAULT_NAMES = 5, 20
PAIRS, NAMES, TRAINED, CONTROL, UNSEEN = range(5)
"""Independent random streams of one seed."""

Request = Any
"""A `FactConfig`. Its module imports this folder, so its type cannot be imported here."""

Pairing = Literal["causal", "counterfactual", "spurious"]


@dataclass(frozen=True, kw_only=True)
class FactSource(ABC):
    """One kind of facts, from which fact sets are drawn.

    A new one is a module in this folder with a constant FACTS, or an object that is registered from
    outside: `ocr_interp.llm.fact_sets.register("my_facts", FactPool(...))`. Most are a `FactPool`.

    Attributes:
        name: name of its fact sets; equals the name of its module.
        title: name in tables and figures.
        colour: colour in figures, as "#rrggbb".
        pairing: "causal": a fact entails its implication in the real world; "counterfactual": it entails
            another one; "spurious": it entails none; None if unknown.
        needs_file: whether it is read from `FactConfig.file`.
        joins_files: whether it can join `FactConfig.implications_file` to it.
        has_languages: whether it can read the columns of `FactConfig.language`.
    """

    name: str
    title: str
    colour: str
    pairing: Pairing | None
    needs_file: ClassVar[bool] = False
    joins_files: ClassVar[bool] = False
    has_languages: ClassVar[bool] = False

    @property
    def causal(self) -> bool | None:
        """Whether a fact entails its implication; None if unknown."""
        return None if self.pairing is None else self.pairing == "causal"

    @abstractmethod
    def draw(self, config: Request) -> FactSet:
        """The fact set of a configuration before its control; randomness comes from `stream` only.

        Raises:
            ConfigError: a configuration that does not fit; for a file the message gives the line.
        """


@dataclass(frozen=True, kw_only=True)
class FactPool(FactSource):
    """Answers to draw pairs from, with wordings.

    Attributes:
        facts, implications: answers. Unless the pairing is spurious, facts[i] entails implications[i] in the
            real world: "causal" keeps these pairs, "counterfactual" gives every fact another implication.
        fact_templates, implication_templates: wordings, the default one first.
        names: subjects to draw from; None makes up names.

    Raises:
        ConfigError: a malformed wording, or paired lists of different lengths.
    """

    facts: tuple[str, ...]
    implications: tuple[str, ...]
    fact_templates: tuple[str, ...]
    implication_templates: tuple[str, ...]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for template in (*self.fact_templates, *self.implication_templates):
            check_template(template)
        if self.pairing is None:
            raise ConfigError(f"pairing of {self.name} must be 'causal', 'counterfactual' or 'spurious'")
        if self.pairing != "spurious" and len(self.facts) != len(self.implications):
            raise ConfigError(
                f"{self.name} is {self.pairing}: facts and implications must be of the same number, in the "
                f"same order, got {len(self.facts)} and {len(self.implications)}"
            )

    @property
    def n_pairs(self) -> int:
        """The largest number of pairs that can be drawn."""
        return min(len(self.facts), len(self.implications))

    def draw(self, config: Request) -> FactSet:
        """Draws pairs, names and training subjects, each from its own random stream."""
        n_pairs = DEFAULT_PAIRS if config.n_pairs is None else config.n_pairs
        n_names = DEFAULT_NAMES if config.n_names is None else config.n_names
        if n_pairs > self.n_pairs:
            raise ConfigError(f"n_pairs must be <= {self.n_pairs} for {self.name}, got {n_pairs}")
        subjects = self._subjects(n_pairs * n_names, stream(config, NAMES))  # refuses more than there are
        chosen, partners = self._pairs(n_pairs, stream(config, PAIRS))
        facts, implications = (
            tuple(self.facts[k] for k in chosen),
            tuple(self.implications[k] for k in partners),
        )
        subject_fact = tuple(int(fact) for fact in np.repeat(np.arange(n_pairs), n_names))
        return FactSet(
            name=self.name,
            causal=self.causal,
            subjects=subjects,
            facts=facts,
            implications=implications,
            subject_fact=subject_fact,
            subject_implication=subject_fact,
            fact_templates=chosen_templates(config, "fact", self.fact_templates),
            implication_templates=chosen_templates(config, "implication", self.implication_templates),
            entails=() if self.pairing == "spurious" else tuple(list(partners).index(k) for k in chosen),
            **told(facts, subject_fact, config),
        )

    def _pairs(self, n_pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Indices of facts and, in their order, of the implication of each."""
        chosen = rng.choice(len(self.facts), size=n_pairs, replace=False)
        if self.pairing == "spurious":
            partners = rng.choice(len(self.implications), size=n_pairs, replace=False)
        elif self.pairing == "causal":
            partners = chosen
        else:
            partners = chosen
            while (partners == chosen).any():
                partners = rng.permutation(chosen)
        return chosen, partners

    def _subjects(self, count: int, rng: np.random.Generator) -> tuple[str, ...]:
        if self.names is None:
            return made_names(count, rng)
        if count > len(self.names):
            raise ConfigError(
                f"n_pairs x n_names must be <= {len(self.names)}, the names of {self.name}, got {count}"
            )
        return tuple(self.names[k] for k in rng.choice(len(self.names), size=count, replace=False))


def stream(config: Request, which: int) -> np.random.Generator:
    """One of the streams of a configuration's seed: PAIRS, NAMES, TRAINED, CONTROL or UNSEEN."""
    return np.random.default_rng([config.seed, which])


def chosen_templates(config: Request, relation: str, wordings: tuple[str, ...]) -> Templates:
    """The chosen wordings of a relation, "fact" or "implication"."""
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


def told(facts: Sequence[str], subject_fact: Sequence[int], config: Request) -> dict[str, tuple[bool, ...]]:
    """The fields of a FactSet that mark training subjects and told triples.

    The training subjects are a random share of every fact's subjects.
    """
    groups, rng = np.array(subject_fact), stream(config, TRAINED)
    trained = np.zeros(len(groups), dtype=bool)
    too_few = []
    order = np.argsort(groups, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        count = math.floor(config.told_share * len(members) + 0.5)
        if config.told_share > 0 and not count:
            too_few.append(f"the {len(members)} of {facts[int(groups[members[0]])]!r}")
        trained[rng.choice(members, size=count, replace=False)] = True
    if too_few:
        raise ConfigError(
            f"share must leave every fact a training name, got {config.told_share} of {listed(too_few)}, "
            "which rounds to 0: raise it or add names, or pass 0 for the facts alone"
        )
    flags = tuple(bool(value) for value in trained)
    return {"trained": flags, "fact_told": (True,) * len(groups), "implication_told": flags}
