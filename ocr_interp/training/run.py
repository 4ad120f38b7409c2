"""What training gives back: the model with its history and snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from ocr_interp.errors import OcrInterpError
from ocr_interp.models.weights import TokenWeights, effective_circuit
from ocr_interp.task import FactRecallTask
from ocr_interp.training.configuration import RunConfig

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


@dataclass(frozen=True)
class Snapshot:
    """A model as it was at one step of its training.

    Attributes:
        config: configuration of the run.
        step: number of updates that the weights have seen.
        weights: the weights by token.
    """

    config: RunConfig
    step: int
    weights: TokenWeights

    @property
    def task(self) -> FactRecallTask:
        """The task that the model was trained on."""
        return self.config.task

    @property
    def scores(self) -> Float[np.ndarray, " input"]:
        """What the EOS query scores for each input token: subjects, r1, r2, noise, EOS."""
        return self.weights.W_QK[self.task.eos_token, : self.task.n_inputs].numpy()

    @property
    def circuit(self) -> Float[np.ndarray, "subject_or_relation answer"]:
        """diag(a) W_OV: subjects, r1, r2 by answers; a is the attention (`scores`, or exp of them)."""
        return self.full_circuit[: self.task.n_subjects + 2, self.task.n_inputs :]

    @property
    def full_circuit(self) -> Float[np.ndarray, "input output"]:
        """diag(a) W_OV with every input token and the whole vocabulary as outputs."""
        n = self.task.n_inputs
        scores, W_OV = self.weights.W_QK[self.task.eos_token, :n], self.weights.W_OV[:n]
        return effective_circuit(self.config.model.attention, scores, W_OV).numpy()

    @cached_property
    def model(self) -> HookedTransformer:
        """The HookedTransformer, on the CPU; `.to(device)` moves it."""
        # transformer_lens takes seconds to import; a run that only trains never pays for it.
        from ocr_interp.models.hooked39 import build_model

        return build_model(self.task, self.config.model, device="cpu", weights=self.weights)


@dataclass(frozen=True)
class Run(Snapshot):
    """A trained model with its history; what `train` and `load_run` return.

    Attributes:
        history: a row a logged step; columns as in `ocr_interp.training.tracking`.
        status: "finished" (all steps), "learned" (stopped by stop_when_learned), "interrupted" (Ctrl-C)
            or "unfinished" (a checkpoint of a run that is still going or was killed).
        path: the run directory; None for a run that is only in memory.
    """

    history: pd.DataFrame
    status: str
    path: Path | None
    _snapshots: Mapping[int, TokenWeights] = field(repr=False, default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to train."""
        return self.status in ("finished", "learned")

    @property
    def snapshot_steps(self) -> list[int]:
        """Steps that `at` can give."""
        return sorted(self._snapshots)

    def at(self, step: int) -> Snapshot:
        """The model at a snapshot's step.

        Raises:
            OcrInterpError: a step without snapshot; the message lists those that have one.
            RunError: a snapshot that is damaged or of another run.
        """
        if step not in self._snapshots:
            raise OcrInterpError(f"no snapshot at step {step}: there are snapshots at {self.snapshot_steps}")
        return Snapshot(self.config, step, self._snapshots[step])

    def __repr__(self) -> str:
        m = self.config.model
        where = f", path={str(self.path)!r}" if self.path else ""
        return f"Run({m.ov}, {m.attention} attention, step {self.step:,}, {self.status}{where})"
