"""The logits of every candidate for every test prompt, at every measurement of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ocr_interp.errors import ConfigError, RunError, unknown_name
from ocr_interp.llm.facts.fact_set import Example, FactSet
from ocr_interp.llm.measuring.answers import NO_ANSWER, Answers, FirstAnswers
from ocr_interp.storage.reading import sealed_fields
from ocr_interp.storage.tensors import read_tensors, write_tensors
from ocr_interp.task import FACT, IMPLICATION, SPLITS

RELATIONS = {"fact": FACT, "implication": IMPLICATION}
KIND = "logits"
_COLUMNS = ("split", "relation", "subject", "fact", "template", "target", "world", "told")
_RESTORE = "put the original back, or fine-tune into a new run_dir"


@dataclass(frozen=True)
class Prompts:
    """What the rows of a table of logits are: the test prompts, then those of unseen names.

    Attributes:
        split: index into SPLITS; -1 for an unseen name.
        relation: FACT or IMPLICATION.
        subject: index into `names`.
        fact: index of the subject's fact; -1 for an unseen name.
        template: index of the test wording.
        target: index of the right answer among those of the relation; NO_ANSWER for an unseen name.
        world: index of the answer that the subject's fact has in the real world; NO_ANSWER if there is none.
        told: whether the prompt's statement is in the training set.
        names: subjects, then unseen names.
        facts, implications: the candidates of the two relations.
    """

    split: Int[np.ndarray, " example"]
    relation: Int[np.ndarray, " example"]
    subject: Int[np.ndarray, " example"]
    fact: Int[np.ndarray, " example"]
    template: Int[np.ndarray, " example"]
    target: Int[np.ndarray, " example"]
    world: Int[np.ndarray, " example"]
    told: Bool[np.ndarray, " example"]
    names: tuple[str, ...]
    facts: tuple[str, ...]
    implications: tuple[str, ...]

    @classmethod
    def of(cls, facts: FactSet, unseen: Sequence[Example] = (), names: Sequence[str] = ()) -> Prompts:
        """The test prompts of a fact set, and those of unseen names (`facts.drawing.unseen_examples`)."""
        every = (*facts.test_examples, *unseen)
        columns = {name: [getattr(e, name) for e in every] for name in _COLUMNS}
        columns["target"] = [NO_ANSWER if e.split < 0 else e.target for e in every]
        columns["world"] = [NO_ANSWER if e.world is None else e.world for e in every]
        arrays = {n: np.array(v, dtype=bool if n == "told" else np.int64) for n, v in columns.items()}
        return cls(
            **arrays, names=(*facts.subjects, *names), facts=facts.facts, implications=facts.implications
        )

    def candidates(self, relation: str) -> tuple[str, ...]:
        """The answers of "fact" or "implication", in the order of the table's columns."""
        return self.facts if relation == "fact" else self.implications


@dataclass(frozen=True)
class LogitTable:
    """The logits of every candidate for every test prompt, at every measurement of a run.

    Attributes:
        prompts: what the rows are.
        steps: updates done at each measurement.
        logits: nats, the numbers that ranks are made of; -inf in columns that the relation of a row lacks.
    """

    prompts: Prompts
    steps: Int[np.ndarray, " measurement"] = field(repr=False)
    logits: Float[np.ndarray, "measurement example candidate"] = field(repr=False)

    def answers(self, split: str, step: int | None = None) -> Answers:
        """The answers of a split at a measured step; None is the last.

        Raises:
            UnknownNameError: no such split.
            ConfigError: a step that the table does not have.
        """
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        relation = split.rpartition("_")[2]
        rows = self.prompts.split == SPLITS.index(split)
        others = (self.prompts.split < 0) & (self.prompts.relation == RELATIONS[relation])
        width = len(self.prompts.candidates(relation))
        logits = self.logits[self._place(step), :, :width]
        columns = {n: getattr(self.prompts, n)[rows] for n in ("target", "world", "fact", "template")}
        return Answers(
            logits[rows], **columns, unseen=logits[others], unseen_template=self.prompts.template[others]
        )

    def _place(self, step: int | None) -> int:
        if step is None and len(self.steps):
            return len(self.steps) - 1
        found = np.flatnonzero(self.steps == step)
        if not len(found):
            raise ConfigError(f"step must be one of {self.steps.tolist()}, the measured ones, got {step}")
        return int(found[-1])

    def first_answers(self, split: str) -> pd.DataFrame:
        """Whose answer is first at every measurement: step, told, pretrained, other, tied (shares)."""
        found: list[FirstAnswers] = [self.answers(split, int(step)).first_answers() for step in self.steps]
        rows = [{"step": int(s), **one.shares()} for s, one in zip(self.steps, found, strict=True)]
        return pd.DataFrame(rows)

    def frame(self, step: int | None = None) -> pd.DataFrame:
        """One row a prompt and candidate at a measured step, in words; None is the last step."""
        own, logits = self.prompts, self.logits[self._place(step)]
        rows = []
        for k in range(len(own.split)):
            relation = "fact" if own.relation[k] == FACT else "implication"
            answers = own.candidates(relation)
            known = {
                "split": SPLITS[own.split[k]] if own.split[k] >= 0 else "unseen",
                "relation": relation,
                "name": own.names[own.subject[k]],
                "template": int(own.template[k]),
                "told": bool(own.told[k]),
                "right_answer": answers[own.target[k]] if own.target[k] >= 0 else None,
                "world_answer": answers[own.world[k]] if own.world[k] >= 0 else None,
            }
            rows += [{**known, "candidate": a, "logit": float(logits[k, c])} for c, a in enumerate(answers)]
        return pd.DataFrame(rows)

    def tensors(self) -> dict[str, Tensor]:
        """The logits by relation, float32 where no bit is lost, for a file; `with_tensors` reads them."""
        found = {"steps": torch.from_numpy(np.asarray(self.steps, dtype=np.int64))}
        for relation, number in RELATIONS.items():
            width = len(self.prompts.candidates(relation))
            own = np.ascontiguousarray(self.logits[:, self.prompts.relation == number, :width])
            short = own.astype(np.float32)
            found[relation] = torch.from_numpy(short if np.array_equal(short, own) else own)
        return found

    @classmethod
    def with_tensors(cls, prompts: Prompts, tensors: Mapping[str, Tensor]) -> LogitTable:
        """The table of some prompts from the tensors of `tensors`.

        Raises:
            ValueError, KeyError: tensors of other prompts.
        """
        steps = tensors["steps"].numpy()
        width = max(len(prompts.facts), len(prompts.implications))
        logits = np.full((len(steps), len(prompts.split), width), -np.inf)
        for relation, number in RELATIONS.items():
            rows, own = prompts.relation == number, tensors[relation].numpy()
            n_own = len(prompts.candidates(relation))
            shape = (len(steps), int(rows.sum()), n_own)
            if own.shape != shape:
                raise ValueError(f"the logits of {relation}s must have the shape {shape}, got {own.shape}")
            logits[:, rows, :n_own] = own
        return cls(prompts, steps, logits)


def write_table(path: Path, table: LogitTable, fingerprint: str) -> None:
    """Writes a table with what its rows are, under a seal.

    Raises:
        RunError: the file cannot be written.
    """
    own = table.prompts
    columns = {f"prompt|{name}": torch.from_numpy(getattr(own, name).astype(np.int32)) for name in _COLUMNS}
    texts = {name: list(getattr(own, name)) for name in ("names", "facts", "implications")}
    about: dict[str, Any] = {"kind": KIND, "format_version": 1, "fingerprint": fingerprint, **texts}
    write_tensors(path, {**table.tensors(), **columns}, about)


def read_table(path: Path, fingerprint: str) -> LogitTable:
    """Reads a table of the run with this fingerprint.

    Raises:
        RunError: no such file, a damaged one, or one of another run.
    """
    tensors, about = read_tensors(path, fingerprint, KIND, _RESTORE)
    if about.get("format_version") != 1:
        raise RunError(
            f"{path} has format version {about.get('format_version')}, this version reads 1: read it with "
            "the version that wrote it"
        )
    with sealed_fields(path, _RESTORE):
        columns = {
            name: tensors[f"prompt|{name}"].numpy().astype(bool if name == "told" else np.int64)
            for name in _COLUMNS
        }
        names, facts, implications = (tuple(map(str, about[n])) for n in ("names", "facts", "implications"))
        prompts = Prompts(**columns, names=names, facts=facts, implications=implications)
        return LogitTable.with_tensors(prompts, tensors)
