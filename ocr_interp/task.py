"""The symbolic fact-recall task: symbols, pairs, splits, token ids, which triple is trained.

Integers and numpy only. All arrays use the same order:

- inputs: subjects (pair-major, training subjects of a pair first), r1, r2, noise, EOS;
- outputs (answers): facts b0..b{n-1}, then implications c0..c{k-1};
- token ids: inputs, then answers.

With several implications of a fact the relations are r1, r2, r3, ..., and the answers are the facts, then the
implications of r2 (c), of r3 (d), and so on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from ocr_interp.checks import as_plain, check_count, check_mapping, from_fields
from ocr_interp.errors import ConfigError, unknown_name
from ocr_interp.fact_tables import NamedMapping, mapping_of_names, mapping_of_rows, rows_of
from ocr_interp.naming import check_names, entries, per_relation
from ocr_interp.triples import FACT as FACT
from ocr_interp.triples import IMPLICATION as IMPLICATION
from ocr_interp.triples import SPLITS as SPLITS
from ocr_interp.triples import TRAINED_SPLITS as TRAINED_SPLITS
from ocr_interp.triples import Triples as Triples
from ocr_interp.triples import all_triples, equal_groups

MOST_TOKENS = 10**8
"""Largest vocabulary of a task, and longest sequence. The theory takes seconds for it; a model is refused
where its weights do not fit."""

MOST_IMPLIED_RELATIONS = 15
"""Most implications of a fact: their answers are labelled by the letters c to q (r and s are taken)."""


@dataclass(frozen=True)
class FactRecallTask:
    """The fact-recall task of the paper: (s, r1, b_i) implies (s, r2, c_i) for every s of pair i.

    The training set holds the facts of all subjects and the implications of the training subjects; the
    implications of the held-out subjects are the test of out-of-context reasoning. The symbolic model cannot
    know whether a pair is causal (generalization) or not (hallucination).

    Attributes:
        n_pairs: number n of fact-implication pairs; at least 2.
        m_train: training subjects per pair; 0 is the control that never sees an implication. None in a task
            made by `from_mapping`.
        m_test: held-out subjects per pair; None in a task made by `from_mapping`.
        n_noise: number of different noise tokens.
        seq_len: tokens per sequence: seq_len - 3 noise tokens, subject, relation, EOS.
        fact_of_subject: for an unbalanced task, the index of each subject's fact. n_pairs is then the number
            of facts, and m_train and m_test are None, as `FactRecallTask.from_mapping` sets them; left at
            their defaults they become that. None for a balanced task.
        implication_of_fact: for an unbalanced task, the index of each fact's implication; else None.
        trained: for an unbalanced task, whether each subject's implication is in the training set; else None.
        names: own names of the subjects, the facts and the implications, in this order; they are the tokens'
            labels everywhere. None: s0, s1, ..., b0, ..., c0, ... .
        implied_relations: number K of implications of a fact, each with a relation r2, r3, ..., r{K+1} and
            answers of its own (c, d, e, ...). A balanced task tells its training subjects all of them. With a
            mapping, implication_of_fact has the entries of all facts under r2, then those under r3, and so
            on; trained may have one entry per subject, for all relations, or likewise as many for each.

    Raises:
        ConfigError: a count that is negative, fractional or too small, or names that are too few or alike.

    Source: Huang et al. 2025 (arXiv 2506.10887), section 3.
    """

    n_pairs: int = 20
    m_train: int | None = 1
    m_test: int | None = 3
    n_noise: int = 5
    seq_len: int = 16
    fact_of_subject: tuple[int, ...] | None = None
    implication_of_fact: tuple[int, ...] | None = None
    trained: tuple[bool, ...] | None = None
    names: tuple[str, ...] | None = None
    implied_relations: int = 1

    def __post_init__(self) -> None:
        check_count("n_pairs", self.n_pairs, 2)
        check_count("implied_relations", self.implied_relations, 1, MOST_IMPLIED_RELATIONS)
        check_count("n_noise", self.n_noise, 0)
        check_count("seq_len", self.seq_len, 3)
        if self.seq_len > 3 and self.n_noise == 0:
            raise ConfigError(
                f"n_noise must be >= 1 when seq_len > 3 (seq_len - 3 = {self.seq_len - 3} tokens are noise), "
                "got 0; for a task without noise pass seq_len=3"
            )
        for part in ("fact_of_subject", "implication_of_fact", "trained", "names"):
            if getattr(self, part) is not None:
                object.__setattr__(self, part, entries(part, getattr(self, part)))
        mapping = (self.fact_of_subject, self.implication_of_fact, self.trained)
        if all(part is None for part in mapping):
            check_count("m_train", self.m_train, 0)
            check_count("m_test", self.m_test, 0)
            if sum(self._group) == 0:
                raise ConfigError("m_train + m_test must be >= 1, got 0: a pair needs a subject")
        else:
            self._take_sizes_of_mapping()
            check_mapping(self.n_pairs, self.m_train, self.m_test, mapping, self.implied_relations)
        as_plain(self)
        sizes = {"tokens in its vocabulary": self.d_vocab, "tokens per sequence": self.seq_len}
        for name, value in sizes.items():
            if value > MOST_TOKENS:
                raise ConfigError(
                    f"a task must have at most {MOST_TOKENS:,} {name}, got {value:,}: lower n_pairs, "
                    "m_train, m_test, n_noise or seq_len"
                )
        if self.names is not None:
            check_names(
                self.names, self.n_subjects, self.n_facts, self.n_implications, self.implied_relations
            )

    def _take_sizes_of_mapping(self) -> None:
        """With a mapping, counts that were left at their defaults follow from it."""
        default = {each.name: each.default for each in dataclasses.fields(self)}
        if self.n_pairs == default["n_pairs"] and self.implication_of_fact is not None:
            object.__setattr__(self, "n_pairs", len(self.implication_of_fact) // self.implied_relations)
        if (self.m_train, self.m_test) == (default["m_train"], default["m_test"]):
            object.__setattr__(self, "m_train", None)
            object.__setattr__(self, "m_test", None)

    @classmethod
    def from_mapping(
        cls,
        fact_of_subject: Any,
        implication_of_fact: Any,
        trained: Any,
        n_noise: int = 5,
        seq_len: int = 16,
        names: Any = None,
    ) -> FactRecallTask:
        """A task with any groups: unequal sizes, several facts to one implication, pairs never implied.

        Args:
            fact_of_subject: for each subject the index of its fact, 0..n_facts-1.
            implication_of_fact: for each fact the index of its implication, 0..n_implications-1; for several
                implications of a fact one such list per relation r2, r3, ..., with indices of its own.
            trained: for each subject whether its implication is in the training set; for several
                implications one list for all of them, or one per relation.
            n_noise, seq_len: as in the balanced task.
            names: names of the subjects, the facts and the implications, in this order.

        Every column may be a list, a numpy array, a Series of pandas or polars, or a tensor. For a table of
        names see `from_names` and `from_rows`.

        Returns: the task. `n_pairs` is its number of facts, `m_train` and `m_test` are None. Subjects
            keep the order they are given in.

        Raises:
            ConfigError: lengths that do not fit, a subject with two facts, indices with gaps.
        """
        facts = entries("fact_of_subject", fact_of_subject)
        lists = per_relation("implication_of_fact", implication_of_fact)
        told = per_relation("trained", trained)
        if len(told) not in (1, len(lists)):
            raise ConfigError(
                f"trained must be one list for all relations or one for each of {len(lists)}, as many as "
                f"implication_of_fact has, got {len(told)}"
            )
        if all(each == told[0] for each in told):
            told = told[:1]
        return cls(
            n_pairs=len(lists[0]),
            m_train=None,
            m_test=None,
            n_noise=n_noise,
            seq_len=seq_len,
            fact_of_subject=facts,
            implication_of_fact=tuple(value for each in lists for value in each),
            trained=tuple(value for each in told for value in each),
            names=None if names is None else entries("names", names),
            implied_relations=len(lists),
        )

    @classmethod
    def from_names(
        cls,
        facts: Mapping[str, Mapping[str, bool]],
        implications: Mapping[str, str],
        n_noise: int = 5,
        seq_len: int = 16,
    ) -> FactRecallTask:
        """A task in own names, for example of people, their cities and the cities' languages.

        Args:
            facts: for each fact its subjects, and for each subject whether its implication is told:
                {"Rome": {"Ada": True, "Bo": False}, "Lima": {"Cy": True}}.
            implications: the implication of each fact: {"Rome": "Italian", "Lima": "Spanish"}. Facts may
                share one.
            n_noise, seq_len: as in the balanced task.

        Returns: the task of `from_mapping`, with these names as labels, in the order they are given in.

        Raises:
            ConfigError: a fact without subjects or implication, a subject with two facts, names that are
                alike.
        """
        return cls._named(mapping_of_names(facts, implications), n_noise, seq_len)

    @classmethod
    def from_rows(cls, table: Any, places: Any = None, n_noise: int = 5, seq_len: int = 16) -> FactRecallTask:
        """A task from a table with one row per subject and the columns subject, fact, implication, told.

        Args:
            table: a DataFrame (pandas or polars), a mapping of columns, or a list of rows as mappings. told
                is true or false (yes, no, 1, 0), and empty only where the row names no implication; without
                the column a subject is told what its row implies. The implication may be left out where
                another row of the same fact has it.
            places: a name for every row in messages, e.g. "facts.csv, line 7"; None: "row 0" and so on.
            n_noise, seq_len: as in the balanced task.

        Returns: as `from_names`.

        Raises:
            ConfigError: as `from_names`, a missing column or cell, and a column that reads like a known one;
                the message names the row.
        """
        rows = rows_of(table)
        if places is not None:
            rows = [(place, row) for place, (_, row) in zip(places, rows, strict=True)]
        return cls._named(mapping_of_rows(rows), n_noise, seq_len)

    @classmethod
    def _named(cls, found: NamedMapping, n_noise: int, seq_len: int) -> FactRecallTask:
        mapping = (found.fact_of_subject, found.implication_of_fact, found.told)
        return cls.from_mapping(*mapping, n_noise=n_noise, seq_len=seq_len, names=found.names)

    # --- counts ---------------------------------------------------------------------------------

    @property
    def n_facts(self) -> int:
        """Number of fact answers |A1|."""
        return self.n_pairs

    @property
    def n_relations(self) -> int:
        """Number of relations: r1 and those of the implications."""
        return 1 + self.implied_relations

    @cached_property
    def implication_counts(self) -> tuple[int, ...]:
        """Number of answers of every implication relation, r2 first."""
        if self.implication_of_fact is None:
            return (self.n_pairs,) * self.implied_relations
        lists = self._by_relation(self.implication_of_fact)
        return tuple(max(each) + 1 for each in lists)

    @property
    def n_implications(self) -> int:
        """Number of implication answers |A2|, those of all relations; n_pairs per relation if balanced."""
        return sum(self.implication_counts)

    @property
    def n_answers(self) -> int:
        """Number of answers |A1| + |A2|."""
        return self.n_facts + self.n_implications

    @property
    def n_subjects(self) -> int:
        """Number of subjects, training and held-out."""
        if self.fact_of_subject is not None:
            return len(self.fact_of_subject)
        return self.n_pairs * sum(self._group)

    @property
    def n_inputs(self) -> int:
        """Number of tokens that are never answers: subjects, relations, noise, EOS."""
        return self.n_subjects + self.n_relations + self.n_noise + 1

    @property
    def d_vocab(self) -> int:
        """Vocabulary size: inputs and answers."""
        return self.n_inputs + self.n_answers

    @property
    def _group(self) -> tuple[int, int]:
        """(m_train, m_test) of a task that was not made from a mapping."""
        assert self.m_train is not None
        assert self.m_test is not None
        return self.m_train, self.m_test

    # --- the mapping ----------------------------------------------------------------------------

    @cached_property
    def subject_fact(self) -> Int[np.ndarray, " subject"]:
        """Index of every subject's fact."""
        if self.fact_of_subject is not None:
            return np.array(self.fact_of_subject, dtype=np.int64)
        return np.repeat(np.arange(self.n_pairs), sum(self._group))

    def _by_relation(self, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """A list of a mapping, cut into those of the implication relations."""
        size = len(values) // self.implied_relations
        return [values[size * k : size * (k + 1)] for k in range(self.implied_relations)]

    @cached_property
    def told(self) -> Bool[np.ndarray, "relation subject"]:
        """Whether a subject's answer under every relation is in the training set; facts always are."""
        if self.trained is None:
            found = np.tile(np.repeat([True, False], self._group), self.n_pairs)[None]
        else:
            found = np.array(self.trained, dtype=bool).reshape(-1, self.n_subjects)
        told = np.broadcast_to(found, (self.implied_relations, self.n_subjects))
        return np.concatenate([np.ones((1, self.n_subjects), dtype=bool), told])

    @cached_property
    def subject_trained(self) -> Bool[np.ndarray, " subject"]:
        """Whether a subject's implications are in the training set.

        Raises:
            ConfigError: some subject is told one implication of its fact and not another.
        """
        if not self.same_told:
            raise ConfigError(
                "this needs a task whose subjects are told all implications of their fact or none, got one "
                "that tells every relation to subjects of its own: task.told has them by relation"
            )
        return self.told[IMPLICATION]

    @cached_property
    def same_told(self) -> bool:
        """Whether every subject is told all implications of its fact or none of them."""
        return bool((self.told[1:] == self.told[1]).all())

    @cached_property
    def fact_implication(self) -> Int[np.ndarray, " fact"]:
        """Index (among implications) of every fact's implication.

        Raises:
            ConfigError: a fact has several implications.
        """
        if self.implied_relations > 1:
            raise ConfigError(
                f"this needs a task with one implication of a fact, got implied_relations="
                f"{self.implied_relations}: task.answer_of_fact has the answers of every relation"
            )
        return self.answer_of_fact[IMPLICATION] - self.n_facts

    @cached_property
    def answer_of_fact(self) -> Int[np.ndarray, "relation fact"]:
        """Answer under every relation to a subject of every fact, as an index into the answers."""
        first = self.n_facts + np.cumsum((0, *self.implication_counts[:-1]))
        if self.implication_of_fact is None:
            lists = np.tile(np.arange(self.n_pairs), (self.implied_relations, 1))
        else:
            lists = np.array(self.implication_of_fact, dtype=np.int64).reshape(self.implied_relations, -1)
        return np.concatenate([np.arange(self.n_facts)[None], first[:, None] + lists])

    @cached_property
    def right_answer(self) -> Int[np.ndarray, "relation subject"]:
        """Answer under every relation to every subject, as an index into the answers."""
        return self.answer_of_fact[:, self.subject_fact]

    @cached_property
    def answer_relation(self) -> Int[np.ndarray, " answer"]:
        """The relation whose answers every answer belongs to: FACT, IMPLICATION, ... ."""
        return np.repeat(np.arange(self.n_relations), (self.n_facts, *self.implication_counts))

    @cached_property
    def balanced_sizes(self) -> tuple[int, int, int] | None:
        """(n, m_train, m_test) if all pairs are one-to-one and of equal size, else None.

        A task made by `from_mapping` counts as balanced too, whatever the order of its subjects. Several
        implications of a fact are balanced if all of them are one-to-one and told to the same subjects.
        """
        if self.fact_of_subject is None:
            return self.n_pairs, *self._group
        if not self.same_told or any(count != self.n_facts for count in self.implication_counts):
            return None
        sizes = equal_groups(self.subject_fact, self.subject_trained)
        return None if sizes is None else (self.n_pairs, *sizes)

    @cached_property
    def triples(self) -> Triples:
        """All (subject, relation, answer) triples: the facts of all subjects, then their implications.

        Implications of r2 come first, then those of r3, and so on. A fact is a held-out one if any
        implication of its subject is not told.
        """
        return all_triples(self.right_answer, self.told)

    @cached_property
    def training_triples(self) -> Triples:
        """The triples of the training set: all facts, and the implications of the training subjects."""
        return self.triples.of_split(*TRAINED_SPLITS)

    # --- tokens ---------------------------------------------------------------------------------

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Readable label of every token id: "s7", "r1", "noise0", "EOS", "b3", "c3", or `names`.

        Implications of r2 are c0, c1, ..., those of r3 are d0, d1, ..., and so on.
        """
        names = self.names or (
            *(f"s{i}" for i in range(self.n_subjects)),
            *(f"b{i}" for i in range(self.n_facts)),
            *(f"{chr(ord('c') + k)}{i}" for k, n in enumerate(self.implication_counts) for i in range(n)),
        )
        relations = (f"r{i}" for i in range(1, self.n_relations + 1))
        noise = (f"noise{i}" for i in range(self.n_noise))
        return (*names[: self.n_subjects], *relations, *noise, "EOS", *names[self.n_subjects :])

    @cached_property
    def _id_of_label(self) -> dict[str, int]:
        return {label: index for index, label in enumerate(self.labels)}

    def token(self, label: str) -> int:
        """Token id of a label; an unknown one raises UnknownNameError with the close matches."""
        try:
            return self._id_of_label[label]
        except (KeyError, TypeError):
            raise unknown_name("token", label, self.labels) from None

    def tokens(self, *labels: str) -> Int[np.ndarray, " token"]:
        """Token ids of several labels, e.g. task.tokens("s7", "r1", "EOS")."""
        return np.array([self.token(label) for label in labels], dtype=np.int64)

    @property
    def relation_tokens(self) -> tuple[int, ...]:
        """Token ids of r1, r2, and the relations of further implications."""
        return tuple(range(self.n_subjects, self.n_subjects + self.n_relations))

    @property
    def noise_tokens(self) -> range:
        """Token ids of the noise tokens."""
        first = self.n_subjects + self.n_relations
        return range(first, first + self.n_noise)

    @property
    def eos_token(self) -> int:
        """Token id of EOS, the query position's token."""
        return self.n_inputs - 1

    @property
    def answer_tokens(self) -> range:
        """Token ids of the answers, facts first. Answer index a has token id n_inputs + a."""
        return range(self.n_inputs, self.d_vocab)

    # --- configuration on disk ------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` restores the task."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FactRecallTask:
        """The task from the values of `to_dict`; lists, which JSON makes of tuples, become tuples again."""
        return from_fields(cls, "task", values)


def count_pairs(fields: dict[str, Any]) -> None:
    """Adds the counts that the lists of a mapping fix to a task's fields, where these are left out."""
    facts, implied = fields.get("implication_of_fact"), fields.get("implied_relations", 1)
    if isinstance(facts, tuple) and isinstance(implied, int) and implied > 0:
        for name, count in (("n_pairs", len(facts) // implied), ("m_train", None), ("m_test", None)):
            fields.setdefault(name, count)
