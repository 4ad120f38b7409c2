"""The result of training: the model with its history and snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import OcrInterpError
from ocr_interp.models.routed_stacks import routed
from ocr_interp.models.trained import TrainedModel
from ocr_interp.models.weights import TokenWeights, hooked_state_dict
from ocr_interp.storage.notebooks import ShownAsTable
from ocr_interp.storage.tensors import write_tensors
from ocr_interp.theory.problem import constant_feature
from ocr_interp.theory.subject_table import subject_logits, subject_table


@dataclass(frozen=True, repr=False)
class Snapshot(ShownAsTable, TrainedModel):
    """A model at one step of its training."""

    @cached_property
    def circuit(self) -> OVCircuit:
        """diag(a) W_OV, every input token by the answers: `OVCircuit.from_run(self)`."""
        return OVCircuit.from_run(self)

    def table(self) -> pd.DataFrame:
        """One row per subject: told or not, margins in logits, rank; see `subject_table.TABLE_COLUMNS`.

        Asked without noise if the model was trained without, else with the mean noise counts: with linear
        attention margins are then means over the noise, but for a router of the whole prompt, which is asked
        about the mean. Routed prompts have the logits of their own mixtures. "Every other output" is every
        other answer.
        """
        task, a = self.task, self.scores.astype(np.float64)
        inputs = "eos" if self.config.train.data == "noise_free" else "noise_eos"
        if self.weights.linear_map.n_routes is not None:
            return subject_table(task, self._routed_logits(inputs))
        logits = subject_logits(task, self.effective_W[:, task.n_inputs :].astype(np.float64), inputs)
        if self.config.model.attention == "softmax":
            total = subject_logits(task, np.exp(a)[:, None], inputs)
            logits = {relation: logits[relation] / total[relation] for relation in logits}
        return subject_table(task, logits)

    def _routed_logits(self, inputs: str) -> dict[int, Float[np.ndarray, "subject answer"]]:
        """Every subject's logits of answers under every relation, each prompt with its own mixture."""
        task, weights = self.task, self.weights
        a = torch.from_numpy(self.scores).double()
        a = a.exp() if self.config.model.attention == "softmax" else a
        experts = weights.linear_map.product(weights.ov)[:, : task.n_inputs, task.n_inputs :].double()
        found = {}
        for relation, token in enumerate(task.relation_tokens):
            counts = torch.zeros(task.n_subjects, task.d_vocab, dtype=weights.W_QK.dtype)
            counts[:, : task.n_inputs] = torch.from_numpy(constant_feature(task, inputs))
            counts[:, token] += 1
            counts[:, : task.n_subjects] += torch.eye(task.n_subjects)
            mixture = routed(weights.linear_map).routing(weights.ov, counts).mixture.double()
            attended = counts[:, : task.n_inputs].double() * a
            if self.config.model.attention == "softmax":
                attended = attended / attended.sum(-1, keepdim=True)
            found[relation] = torch.einsum("se,si,eio->so", mixture, attended, experts).numpy()
        return found

    def export(self, path: str | Path) -> Path:
        """Writes the state_dict of the HookedTransformer as a safetensors file.

        `load_model(path)` and the commands `circuit` and `compare` read it; or
        `model.load_state_dict(safetensors.torch.load_file(path))`.

        Args:
            path: the file; its folder must exist.

        Returns: the path.

        Raises:
            RunError: the file cannot be written; an earlier file is left unchanged.
        """
        about = {"kind": "hooked_transformer", "step": str(self.step), "fingerprint": self.config.fingerprint}
        about |= {"config": self.config.to_dict()}
        state = hooked_state_dict(self.task, self.weights, self.config.model.attention)
        write_tensors(Path(path), state, about, then="try again")
        return Path(path)


@dataclass(frozen=True)
class Run(Snapshot):
    """A trained model with its history; what `train` and `load_run` return.

    Attributes:
        history: one row per logged step; columns as in `ocr_interp.training.tracking`, or those that an
            earlier version wrote.
        status: "finished" (all steps), "learned" (stopped by stop_when_learned), "interrupted" (Ctrl-C)
            or "unfinished" (a checkpoint of a run that is still training or was killed).
        path: the run directory; None if the run is only in memory.
    """

    history: pd.DataFrame
    status: str
    path: Path | None
    _snapshots: Mapping[int, TokenWeights] = field(repr=False, default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether training has ended for good."""
        return self.status in ("finished", "learned")

    @property
    def snapshot_steps(self) -> list[int]:
        """Steps that have a snapshot, for `at`."""
        return sorted(self._snapshots)

    @property
    def untrained(self) -> Snapshot | None:
        """The snapshot at step 0; None if there is none, or if the run is still at step 0."""
        return self.at(0) if self.step and 0 in self._snapshots else None

    def at(self, step: int) -> Snapshot:
        """The model at a snapshot's step.

        Raises:
            OcrInterpError: a step without a snapshot; the message lists the steps that have one.
            RunError: the snapshot is damaged or belongs to another run.
        """
        if step not in self._snapshots:
            raise OcrInterpError(f"no snapshot at step {step}: there are snapshots at {self.snapshot_steps}")
        return Snapshot(self.config, step, self._snapshots[step])

    def __repr__(self) -> str:
        m = self.config.model
        where = f", path={str(self.path)!r}" if self.path else ""
        return f"Run({m.ov}, {m.attention} attention, step {self.step:,}, {self.status}{where})"
