"""What a run was given: the rows of its facts, and digests of its base model and tokenizer.

Both are kept with the run. A file or folder that was moved does not matter then; one that was changed is
refused with what changed in it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_interp.errors import OcrInterpError, RunError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.facts.fact_set import FactSet, Templates
from ocr_interp.llm.models.loading import LanguageModel, local_files
from ocr_interp.storage.digests import digest_of, digest_of_file, digest_of_tensors

if TYPE_CHECKING:
    import torch

_SHOWN = 3


@dataclass(frozen=True)
class BaseModel:
    """Digests of a model before it was fine-tuned.

    Attributes:
        files: SHA-256 of the files that it is loaded from, by name; empty for a model in memory.
        weights: digest of its weights in the precision of the run.
        tokenizer: digest of its tokenizer.
    """

    files: Mapping[str, str]
    weights: str
    tokenizer: str

    @classmethod
    def of(cls, lm: LanguageModel, files: Mapping[str, str], dtype: torch.dtype | None = None) -> BaseModel:
        """The digests of a loaded model that has not been trained.

        Args:
            lm: the model; it is not changed.
            files: digests of its files.
            dtype: the precision in which its weights are compared; None is their own.
        """
        weights = lm.model.state_dict()
        for name, parameter in lm.model.named_parameters(remove_duplicate=False):
            if name in weights and dtype is not None:  # buffers keep their own precision
                weights[name] = parameter.detach().to(dtype)
        return cls(dict(files), digest_of_tensors(weights), tokenizer_digest(lm.tokenizer))


@dataclass(frozen=True)
class RunInputs:
    """What a run was given.

    Attributes:
        facts: the fact set.
        base: its model before fine-tuning.
    """

    facts: FactSet
    base: BaseModel

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunInputs:
        """The inputs from the values of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: the values are no inputs.
        """
        told = dict(values["facts"])
        for name in ("fact_templates", "implication_templates"):
            told[name] = Templates(**_frozen(told[name]))
        return cls(
            FactSet(**{name: _frozen(value) for name, value in told.items()}), BaseModel(**values["base"])
        )

    def facts_now(self, config: FactConfig, run_dir: Path) -> FactSet:
        """The facts of the run, asked in the wordings of a configuration.

        A file that is not there any more is not needed: the run holds its rows.

        Args:
            config: the run's configuration of facts, perhaps with another file or other test wordings.
            run_dir: the run, for messages.

        Raises:
            RunError: the rows, answers or wordings are not those of the run; the message says which.
            ConfigError: a file that cannot be read, or test wordings that are not there.
        """
        if config.file is not None and not config.file.exists():
            return self._asked(config)
        try:
            now = make_facts(config)
        except OcrInterpError as error:
            raise type(error)(f"{error} (the run {run_dir} holds the rows that it was given)") from None
        changed = fact_differences(self.facts, now)
        if changed:
            where = f"the facts in {config.file}" if config.file is not None else f"the facts {config.data!r}"
            raise RunError(
                f"{where} are not those that {run_dir} was given: {'; '.join(changed)}: put them back, or "
                "fine-tune into a new run_dir"
            )
        return replace(now, name=self.facts.name)

    def _asked(self, config: FactConfig) -> FactSet:
        """The rows of the run in the test wordings of a configuration, without its file."""
        facts = self.facts
        for relation in ("fact", "implication"):
            wordings = getattr(config, f"{relation}_templates")
            known: Templates = getattr(facts, f"{relation}_templates")
            if not wordings or not all(0 <= index < len(wordings) for index in config.test_templates):
                continue
            chosen = tuple(wordings[index] for index in config.test_templates)
            facts = replace(facts, **{f"{relation}_templates": Templates(known.train, chosen)})
        return facts

    def require_files(self, name: str, files: Mapping[str, str], run_dir: Path) -> bool:
        """Requires that the files of a model are those of the base model.

        Args:
            name: the model's folder or name, for the message.
            files: digests of its files; empty if they are not known.
            run_dir: the run, for the message.

        Returns: whether they could be compared; if not, its weights must be (`require_loaded`).

        Raises:
            RunError: other files; the message names them.
        """
        if not files or not self.base.files:
            return False
        changed = [n for n in self.base.files if n in files and files[n] != self.base.files[n]]
        gone = [n for n in self.base.files if n not in files]
        new = [n for n in files if n not in self.base.files]
        parts = (("changed", changed), ("missing", gone), ("new", new))
        what = "; ".join(f"{kind}: {_some(names)}" for kind, names in parts if names)
        if what:
            raise RunError(
                f"the model {name} is not the one that {run_dir} was given ({what}): put it back, name the "
                "folder where it is now, or fine-tune into a new run_dir"
            )
        return True

    def require_same(self, now: BaseModel, name: str, run_dir: Path) -> None:
        """Requires the weights and the tokenizer of the base model.

        Args:
            now: digests of the model that there is.
            name: its name, for the message.
            run_dir: the run, for the message.

        Raises:
            RunError: other weights or another tokenizer.
        """
        what = [part for part in ("weights", "tokenizer") if getattr(now, part) != getattr(self.base, part)]
        if what:
            raise RunError(
                f"the model {name} is not the one that {run_dir} was given (changed: {' and '.join(what)}): "
                "pass the model before fine-tuning, or fine-tune into a new run_dir"
            )


def fact_differences(old: FactSet, new: FactSet) -> list[str]:
    """In what two fact sets differ, in words: rows, told implications, answers, training wordings.

    Names of fact sets and test wordings are left out.
    """
    before, after = _rows(old), _rows(new)
    found = []
    changed = [
        f"{subject!r} {what}: {before[subject][what]!r} is now {after[subject][what]!r}"
        for subject in before
        if subject in after
        for what in before[subject]
        if before[subject][what] != after[subject][what]
    ]
    for kind, names in (
        ("changed", changed),
        ("missing", [repr(subject) for subject in before if subject not in after]),
        ("new", [repr(subject) for subject in after if subject not in before]),
    ):
        if names:
            found.append(f"{len(names)} {kind}: {_some(names)}")
    if not found and list(before) != list(after):
        found.append("the rows are in another order")
    for part in ("facts", "implications", "fact_templates", "implication_templates"):
        one, other = getattr(old, part), getattr(new, part)
        if isinstance(one, Templates):
            one, other = one.train, other.train
        if not found and one != other:
            found.append(f"{part.replace('_', ' ')}: {list(one)} are now {list(other)}")
    return found


def _rows(facts: FactSet) -> dict[str, dict[str, Any]]:
    """What a fact set says of each subject."""
    return {
        subject: {
            "fact": facts.facts[facts.subject_fact[k]],
            "implication": facts.implications[facts.subject_implication[k]],
            "is a training name": facts.trained[k],
            "fact is told": facts.fact_told[k],
            "implication is told": facts.implication_told[k],
        }
        for k, subject in enumerate(facts.subjects)
    }


def _some(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_SHOWN]) + (f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else "")


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return {key: _frozen(item) for key, item in value.items()} if isinstance(value, dict) else value


def model_files(name: str) -> dict[str, str]:
    """SHA-256 of the files that a model is loaded from; empty if it is not on this machine.

    Args:
        name: a folder, or a name in the hub's cache.
    """
    return {file.name: digest_of_file(file) for file in local_files(name)}


def tokenizer_digest(tokenizer: Any) -> str:
    """The digest of what a tokenizer makes of texts."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content: Any = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    else:
        content = json.loads(backend.to_str())
        for changed_by_use in ("padding", "truncation"):
            content.pop(changed_by_use, None)
    return digest_of(json.dumps(content, sort_keys=True), 32)
