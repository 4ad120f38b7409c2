"""The files of a run: config.json, history.csv, weights.safetensors, snapshots/, checkpoint/."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ocr_interp.checks import check_choice, check_count
from ocr_interp.configuration import version_1
from ocr_interp.configuration.run import FORMAT_VERSION, RunConfig
from ocr_interp.devices import DTYPES
from ocr_interp.errors import RunError
from ocr_interp.models.starts import initial_weights
from ocr_interp.models.token_counts import TokenCountModel
from ocr_interp.models.weights import SCORES, TokenWeights, weights_of_state_dict
from ocr_interp.storage.atomic import GO_ON, write_atomic
from ocr_interp.storage.configured import ConfiguredFolder
from ocr_interp.storage.digests import digest_of
from ocr_interp.storage.folders import FolderKind, package_versions, write_settings
from ocr_interp.storage.known_folders import FACT_RECALL_RUN
from ocr_interp.storage.reading import parse_json, read_bytes, sealed_fields
from ocr_interp.storage.tables import csv_bytes, read_history
from ocr_interp.storage.tensors import read_tensors, write_tensors
from ocr_interp.training.run import Run
from ocr_interp.training.tracking import learned

_FIRST_STEPS = "steps_at_first"
"""Entry of config.json: the steps of a run before it was made longer, whose fingerprint its files carry."""

ENDED = ("finished", "learned")
"""The statuses of a run that is not trained any further."""

_RESTORE = "restore it, or train into a new run_dir"
_SNAPSHOT = re.compile(r"step_([0-9]{8,18})\.safetensors")

STATUSES = ("unfinished", "finished", "learned", "interrupted")
"""Values of `Checkpoint.status`, as in `Run`."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training needs to resume with the same result as an uninterrupted run.

    Attributes:
        step: updates done.
        status: as in `Run`.
        device: type of the device it was trained on; another type would draw other batches.
        tensors: "parameter.<name>" and "optimizer.<name>.<key>".
        history: the rows up to this step.
    """

    step: int
    status: str
    device: str
    tensors: dict[str, Tensor]
    history: pd.DataFrame


def copy_exactly(target: Tensor, source: Tensor, name: str) -> None:
    """Copies a tensor of a file in place; another shape or dtype is no conversion but a RunError."""
    if (source.shape, source.dtype) != (target.shape, target.dtype):
        raise RunError(
            f"{name} must be {target.dtype} {tuple(target.shape)}, got {source.dtype} {tuple(source.shape)}"
        )
    target.copy_(source)


class RunStore(ConfiguredFolder[RunConfig]):
    """Reads and writes one run directory; each file is written whole or not at all.

    The checkpoint is written last, so that every file that it refers to is on disk. If the process is
    killed, history.csv may hold later rows and snapshots/ later files than the checkpoint; they are ignored,
    and written again with the same bits when training goes on.
    """

    kind = FolderKind(
        name="run directory",
        noun="directory",
        argument="run_dir",
        settings="config.json",
        inside=("checkpoint", "snapshots"),
        user="another process that trains into it",
    )
    newest = FORMAT_VERSION
    _known = FACT_RECALL_RUN
    _unsealed = ("format_version", "fingerprint", "versions", "task", "model", "train")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._history, self._final = self.path / "history.csv", self.path / "weights.safetensors"
        self._model_of_version_1 = self.path / "model.safetensors"
        self._checkpoint = self.path / "checkpoint" / "state.safetensors"

    def _configuration(self, values: dict[str, Any]) -> RunConfig:
        return RunConfig.from_dict(values)

    def _fingerprint_of_version_1(self, values: Mapping[str, Any]) -> str:
        return version_1.run_fingerprint(values)

    def is_complete(self) -> bool:
        """Whether all steps are done, or the run was stopped by stop_when_learned."""
        checkpoint = self.read_checkpoint()
        return checkpoint is not None and checkpoint.status in ENDED

    def _beside(self) -> dict[str, Any]:
        return {"versions": package_versions("torch", "numpy", "transformer-lens")}

    # --- a run that is made longer ----------------------------------------------------------------

    def _extend(self, config: RunConfig) -> bool:
        """Writes the larger number of steps into config.json; the files keep the fingerprint that they have.

        Everything but `steps` must be equal, and what is there must be what one long run has at that step.
        """
        found = self.read_config()
        more = dataclasses.replace(found.train, steps=config.train.steps)
        if config.differences(dataclasses.replace(found, train=more)):
            return False
        why_not = self._why_not_longer(found, config)
        if why_not:
            raise RunError(
                f"{self.path} holds a run of {found.train.steps:,} steps that cannot become one of "
                f"{config.train.steps:,} steps: {why_not}, or choose another run_dir"
            )
        values = parse_json(read_bytes(self.config_file))
        first = {_FIRST_STEPS: values.get(_FIRST_STEPS, found.train.steps)}
        values = {**values, **first, "train": {**values["train"], "steps": config.train.steps}}
        newest = values["format_version"] > 1
        values["fingerprint"] = config.fingerprint if newest else self._fingerprint_of_version_1(values)
        write_settings(self.config_file, values)
        self.read_config()
        return True

    def _why_not_longer(self, found: RunConfig, wanted: RunConfig) -> str | None:
        """Why a run cannot go on as one long run would have; None if it can."""
        if wanted.train.steps < found.train.steps:
            return "a run only gets longer; pass the steps that it has, and run.at(step) for a snapshot"
        checkpoint = self.read_checkpoint()
        if checkpoint is None:
            return None
        if checkpoint.step % found.train.log_every:
            return (
                f"its last row is at step {checkpoint.step:,}, no multiple of log_every="
                f"{found.train.log_every}, where one long run has none: pass the steps that it has"
            )
        last = {str(name): float(value) for name, value in checkpoint.history.iloc[-1].items()}
        if learned(last, found.train.stop_when_learned):
            return (
                f"it learned at step {checkpoint.step:,}, where stop_when_learned="
                f"{found.train.stop_when_learned:g} ends one long run too: pass the steps that it has"
            )
        return None

    def _stamp_of(self, values: Mapping[str, Any], fingerprint: str) -> str:
        """The fingerprint of the run as it was begun, before it was made longer."""
        steps = values.get(_FIRST_STEPS)
        if steps is None:
            return fingerprint
        begun = {**values, "train": {**values["train"], "steps": steps}}
        if values["format_version"] > 1:
            return self._configuration(begun).fingerprint
        return self._fingerprint_of_version_1(begun)

    # --- files ------------------------------------------------------------------------------------

    def _sealed(self, kind: str, step: int, **more: Any) -> dict[str, Any]:
        """Metadata that is written into a file."""
        stamp = {"format_version": FORMAT_VERSION, "fingerprint": self.fingerprint}
        return {"kind": kind, **stamp, "step": str(step), **more}

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Writes history.csv, then the checkpoint."""
        history = csv_bytes(checkpoint.history)
        write_atomic(self._history, history, GO_ON)
        metadata = self._sealed(
            "checkpoint",
            checkpoint.step,
            status=checkpoint.status,
            device=checkpoint.device,
            columns=list(checkpoint.history.columns),
            history_digest=digest_of(history),
        )
        write_tensors(self._checkpoint, checkpoint.tensors, metadata)

    def read_checkpoint(self) -> Checkpoint | None:
        """The last checkpoint with its history; None before the first."""
        if not self._checkpoint.exists():
            return None
        tensors, metadata = read_tensors(self._checkpoint, self.fingerprint, "checkpoint", _RESTORE)
        with sealed_fields(self._checkpoint, _RESTORE):
            step = _step_of(metadata)
            columns = [str(name) for name in metadata.get("columns", version_1.COLUMNS)]
            status, device = str(metadata["status"]), str(metadata["device"])
            check_choice("status", status, STATUSES)
            digest = metadata["history_digest"]
            require_finite(tensors)
        # Later rows may have columns that the checkpoint does not know.
        history = read_history(self._history, columns, _RESTORE)
        history = history.loc[history["step"] <= step].reset_index(drop=True)
        if digest_of(csv_bytes(history)) != digest:
            raise RunError(
                f"{self._history} was changed or cut (its rows up to step {step} are not those of the "
                f"checkpoint): {_RESTORE}"
            )
        if status == "finished" and step < self.read_config().train.steps:
            status = "unfinished"  # the run was made longer since
        return Checkpoint(step, status, device, tensors, history)

    def write_snapshot(self, step: int, weights: TokenWeights) -> None:
        """Writes the weights at a step."""
        write_tensors(self._snapshot(step), weights.tensors(), self._sealed("snapshot", step))

    def read_snapshot(self, config: RunConfig, step: int) -> TokenWeights:
        """The weights at a step."""
        advice = "restore it; the other snapshots and the weights at the end are not touched by it"
        path = self._snapshot(step)
        tensors, metadata = read_tensors(path, self.fingerprint, "snapshot", advice)
        with sealed_fields(path, advice):
            found = _step_of(metadata)
            if found == step:
                return stored_weights(config, step, tensors, metadata)
        raise RunError(f"{path} holds the weights at step {found}: restore it")

    def snapshot_steps(self) -> list[int]:
        """Steps that have a snapshot on disk."""
        found = (_SNAPSHOT.fullmatch(file.name) for file in (self.path / "snapshots").glob("step_*"))
        return sorted(int(name[1]) for name in found if name)

    def _snapshot(self, step: int) -> Path:
        return self.path / "snapshots" / f"step_{step:08d}.safetensors"

    def write_weights(self, step: int, weights: TokenWeights) -> None:
        """Writes the weights of a run that has ended."""
        write_tensors(self._final, weights.tensors(), self._sealed("weights", step))

    def read_run(self) -> Run:
        """The run as it is on disk."""
        config = self.read_config()
        checkpoint = self.read_checkpoint()
        if checkpoint is None:
            raise RunError(f"{self.path} has no checkpoint yet: its training was stopped before the first")
        weights = self._weights(config, checkpoint)
        snapshots = StoredSnapshots(self, config, checkpoint.step)
        return Run(
            config, checkpoint.step, weights, checkpoint.history, checkpoint.status, self.path, snapshots
        )

    def _weights(self, config: RunConfig, checkpoint: Checkpoint) -> TokenWeights:
        """From the file of weights if it belongs to the checkpoint's step, else from the checkpoint."""
        if checkpoint.status != "unfinished":
            found = self._final_weights(config, checkpoint.step)
            if found is not None:
                return found
        start = initial_weights(config.task, config.model, config.train.seed)
        model = TokenCountModel(config.task, config.model, start, torch.device("cpu"))
        with sealed_fields(self._checkpoint, _RESTORE):
            for name, parameter in model.parameters.items():
                copy_exactly(parameter, checkpoint.tensors[f"parameter.{name}"], name)
        recipe, step = config.train, checkpoint.step
        model.enter(model.linear_map.staged(step))
        return model.weights(recipe.inert_factor(step), recipe.inert_factor(step, "scores"))

    def _final_weights(self, config: RunConfig, step: int) -> TokenWeights | None:
        """The weights of a run that has ended; None if there is no file of this step."""
        advice = "restore it, or delete it: the checkpoint holds the same weights"
        if self._final.exists():
            tensors, metadata = read_tensors(self._final, self.fingerprint, "weights", advice)
            with sealed_fields(self._final, advice):
                if _step_of(metadata) == step:
                    return stored_weights(config, step, tensors, metadata)
        if self._model_of_version_1.exists():
            state, metadata = read_tensors(self._model_of_version_1, self.fingerprint, "model", advice)
            with sealed_fields(self._model_of_version_1, advice):
                if _step_of(metadata) != step:
                    return None
                return weights_of_state_dict(config.task, state, config.model.linear_map.has_factors)
        return None


def _step_of(metadata: Mapping[str, Any]) -> int:
    """The step in the metadata of a file; inside `sealed_fields`."""
    step = int(metadata["step"])
    check_count("step", step, 0)
    return step


def stored_weights(
    config: RunConfig, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> TokenWeights:
    """The weights from the tensors of a file; version 1 named them differently.

    Raises:
        RunError: other names, shapes or dtypes than those of the configuration, or weights that are not
            finite: a digest only says that a file is as it was written, not by whom.
    """
    linear_map, d = config.model.placed_map(config.task).staged(step), config.task.d_vocab
    if "format_version" not in metadata:
        tensors = version_1.named_weights(tensors, linear_map.has_factors)
    wanted = {**linear_map.shapes(d, d), SCORES: (d, d)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != wanted:
        raise RunError(f"it must hold the weights {wanted}, got {found}")
    kinds = {tensor.dtype for tensor in tensors.values()}
    if kinds != {DTYPES[config.model.dtype]}:
        raise RunError(f"its weights must be {config.model.dtype}, got {', '.join(sorted(map(str, kinds)))}")
    require_finite(tensors)
    return TokenWeights.from_tensors(linear_map, tensors)


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Requires finite numbers in the tensors of a file: training stops before it writes others.

    Raises:
        RunError: NaN or infinite numbers.
    """
    bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise RunError(f"{', '.join(bad)} must be finite, got NaN or inf")


class StoredSnapshots(Mapping[int, TokenWeights]):
    """The snapshots on disk up to a step; each is read when it is used."""

    def __init__(self, store: RunStore, config: RunConfig, last_step: int) -> None:
        self._store, self._config, self._last_step = store, config, last_step

    def __getitem__(self, step: int) -> TokenWeights:
        if step not in list(self):
            raise KeyError(step)
        return self._store.read_snapshot(self._config, step)

    def __iter__(self) -> Iterator[int]:
        return iter(step for step in self._store.snapshot_steps() if step <= self._last_step)

    def __len__(self) -> int:
        return len(list(iter(self)))


def load_run(path: str | Path) -> Run:
    """A run from its directory, complete or not.

    Raises:
        RunError: no run there, a file that is damaged, truncated or of another run, or a format that is
            newer than this version can read. Nothing is changed on disk.
    """
    return RunStore(Path(path)).read_run()
