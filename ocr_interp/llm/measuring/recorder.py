"""Measures a model again and again, also on names of which nothing is told, and keeps the table of logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.devices import resolve_device
from ocr_interp.errors import RunError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import unseen_examples, unseen_names
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.measuring.answers import FIRST
from ocr_interp.llm.measuring.measure import Measurement, Questions
from ocr_interp.llm.measuring.table import LogitTable, Prompts
from ocr_interp.llm.models.forward import LogitsOf, logits_of
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.task import SPLITS

MOST_NUMBERS = 2**24
"""Most logits that a run keeps of all its measurements (64 MiB); beyond, those of the first and the last."""

FIRST_COLUMNS = tuple(f"{split}/first_{name}" for split in SPLITS for name in FIRST)
"""The columns of a history that say whose answer is first (`FirstAnswers`), shares of the split's prompts."""

CALIBRATED_COLUMNS = tuple(f"{split}/calibrated_rank" for split in SPLITS)
"""The columns of a history with unseen names: mean rank after `Answers.calibrated`."""

_STATE = "logits|"


class Recorder:
    """The test prompts of a fact set, those of unseen names, and the logits that were measured.

    Args:
        facts: the fact set.
        lm: its tokenizer encodes the prompts; no reference to the model is kept.
        config: its scoring, its number of unseen names and its seed are read.
        batch_size: sequences per forward pass.
        n_measurements: how many there will be; where their logits are more than MOST_NUMBERS, only those of
            the first and the last (`last_step`) are kept.
        last_step: the step of the last measurement.

    Raises:
        ConfigError: what `Questions` and `unseen_names` refuse.
    """

    def __init__(
        self,
        facts: FactSet,
        lm: LanguageModel,
        config: FactConfig,
        batch_size: int = 40,
        *,
        n_measurements: int = 1,
        last_step: int = 0,
    ) -> None:
        self.questions = Questions(facts, lm.tokenizer, lm.pad, batch_size, config.scoring)
        self.unseen: Questions | None = None
        names: tuple[str, ...] = ()
        if config.n_unseen:
            names = unseen_names(facts, config.n_unseen, config.seed)
            asked = unseen_examples(facts, names)
            self.unseen = Questions(facts, lm.tokenizer, lm.pad, batch_size, config.scoring, examples=asked)
        self.prompts = Prompts.of(facts, () if self.unseen is None else self.unseen.examples, names)
        self._width = max(len(facts.facts), len(facts.implications))
        self._keeps_all = n_measurements * len(self.prompts.split) * self._width <= MOST_NUMBERS
        self._last_step = last_step
        self._steps: list[int] = []
        self._logits: list[np.ndarray] = []

    def refuse_too_long(self, model: Any) -> None:
        """Requires a position for every token that is asked; errors as in `Questions.refuse_too_long`."""
        for questions in filter(None, (self.questions, self.unseen)):
            questions.refuse_too_long(model)

    def ask(self, answers: LogitsOf, device: torch.device | str) -> Measurement:
        """Measures all test prompts; errors as in `Questions.ask`. Nothing is kept."""
        return self.questions.ask(answers, device)

    def record(
        self, step: int, found: Measurement, answers: LogitsOf, device: torch.device | str
    ) -> dict[str, float]:
        """Keeps the logits of a measurement, and asks about the unseen names.

        Args:
            step: updates done.
            found: what `ask` returned.
            answers, device: of the same model.

        Returns: whose answer is first, and calibrated ranks if there are unseen names: columns of a history.

        Raises:
            ModelError: logits that are NaN or infinite.
        """
        asked = [found] if self.unseen is None else [found, self.unseen.ask(answers, device)]
        logits = np.concatenate([_as_wide(one, self._width) for one in asked])
        if self._keeps_all or not self._steps or step >= self._last_step:
            self._steps.append(step)
            self._logits.append(logits)
        now = LogitTable(self.prompts, np.array([step]), logits[None])
        by_split = {split: now.answers(split) for split in SPLITS}
        columns = {
            f"{split}/first_{name}": share
            for split, own in by_split.items()
            for name, share in own.first_answers().shares().items()
        }
        if self.unseen is not None:
            columns |= {
                f"{split}/calibrated_rank": own.calibrated().mean_rank for split, own in by_split.items()
            }
        return columns

    def table(self) -> LogitTable:
        """Everything that was kept."""
        shape = (0, len(self.prompts.split), self._width)
        logits = np.stack(self._logits) if self._logits else np.empty(shape)
        return LogitTable(self.prompts, np.array(self._steps, dtype=np.int64), logits)

    def state(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint; `restore` reads them."""
        return {f"{_STATE}{name}": tensor for name, tensor in self.table().tensors().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Goes on from the tensors of a checkpoint; those of earlier versions hold no logits.

        Returns: the other tensors of the checkpoint.

        Raises:
            RunError: logits of other prompts.
        """
        own = {n.removeprefix(_STATE): t for n, t in tensors.items() if n.startswith(_STATE)}
        if own:
            try:
                table = LogitTable.with_tensors(self.prompts, own)
            except (ValueError, KeyError) as error:
                raise RunError(
                    f"the checkpoint holds logits of other prompts ({error}): delete it to start this run "
                    "anew"
                ) from None
            self._steps, self._logits = table.steps.tolist(), list(table.logits)
        return {n: t for n, t in tensors.items() if not n.startswith(_STATE)}


def _as_wide(found: Measurement, width: int) -> Float[np.ndarray, "example candidate"]:
    """The scores of a measurement, with columns of -inf up to a width."""
    assert found.scores is not None
    missing = width - found.scores.shape[1]
    return np.pad(found.scores, ((0, 0), (0, missing)), constant_values=-np.inf)


def measure_logits(
    lm: LanguageModel,
    facts: FactSet,
    config: FactConfig | None = None,
    *,
    device: str = "auto",
    batch_size: int = 40,
) -> tuple[Measurement, LogitTable]:
    """Measures a language model once, with the table of all logits (its step is 0).

    Args:
        lm: the model; it is moved to the device and put in evaluation mode.
        facts: the fact set.
        config: its `scoring`, `n_unseen` and `seed` are read; None takes their defaults.
        device: "auto" (cuda, then mps, then cpu) or the name of a device.
        batch_size: prompts per forward pass.

    Raises:
        ConfigError: a prompt longer than the model's positions, or what `Recorder` refuses.
        ModelError: logits that are NaN or infinite.
    """
    where = resolve_device(device)
    recorder = Recorder(facts, lm, config or FactConfig(), batch_size)
    recorder.refuse_too_long(lm.model)
    lm.model.to(where).eval()
    answers = logits_of(lm)
    found = recorder.ask(answers, where)
    recorder.record(0, found, answers, where)
    return found, recorder.table()


def columns_of(config: FactConfig) -> tuple[str, ...]:
    """The columns that `Recorder.record` adds to every row of a history."""
    return (*FIRST_COLUMNS, *(CALIBRATED_COLUMNS if config.n_unseen else ()))
