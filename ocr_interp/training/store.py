"""The files of a run directory: config.json, history.csv, model.safetensors, snapshots/, checkpoint/."""

from __future__ import annotations

import hashlib
import io
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ocr_interp.configuration.run import FORMAT_VERSION, RunConfig
from ocr_interp.errors import OcrInterpError, RunError
from ocr_interp.models.starts import initial_weights
from ocr_interp.models.token_counts import TokenCountModel
from ocr_interp.models.weights import TokenWeights, hooked_state_dict, weights_of_state_dict
from ocr_interp.storage.folders import foreign_files, locked_folder
from ocr_interp.storage.tensors import read_tensors, write_atomic, write_tensors
from ocr_interp.training.run import Run
from ocr_interp.training.tracking import COLUMNS


@dataclass(frozen=True)
class Checkpoint:
    """What training needs to go on as if it had never stopped.

    Attributes:
        step: updates done.
        status: as in `Run`.
        device: type of the device it was trained on; another one draws other batches.
        tensors: "parameter.<name>" and "optimizer.<name>.<key>".
        history: the rows up to this step.
    """

    step: int
    status: str
    device: str
    tensors: dict[str, Tensor]
    history: pd.DataFrame


class RunStore:
    """Reads and writes one run directory; each file is written whole or not at all.

    The checkpoint is written last, so that whatever it speaks of is on disk: after a kill at any moment
    history.csv may hold more rows and snapshots/ more files than the checkpoint knows; they are ignored
    and written again, to the bit, when training goes on.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._config, self._history = self.path / "config.json", self.path / "history.csv"
        self._model = self.path / "model.safetensors"
        self._checkpoint = self.path / "checkpoint" / "state.safetensors"

    @contextmanager
    def opened(self, config: RunConfig) -> Iterator[None]:
        """The directory, made if needed, locked against other processes, holding this configuration.

        Raises:
            RunBusyError: another process trains into it.
            RunError: it holds another run, or files that are no run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"run_dir must be a directory, got the file {self.path}")
        self._refuse_foreign_files()
        busy = (
            f"{self.path} is in use by another process that trains into it: wait for it, or choose "
            "another run_dir"
        )
        folders = [self.path / "checkpoint", self.path / "snapshots"]
        with locked_folder(self.path, folders, "run directory", busy):
            self._adopt(config)
            yield

    def _refuse_foreign_files(self) -> None:
        """Raises if the directory holds files but no run, before anything is made in it."""
        if self._config.exists():
            return
        foreign = foreign_files(self.path, ("checkpoint", "snapshots"))
        if foreign:
            raise RunError(
                f"{self.path} is no run directory (no config.json, but {', '.join(foreign[:3])}): "
                "choose an empty or a new one"
            )

    def _adopt(self, config: RunConfig) -> None:
        """Writes config.json into a new directory, or checks that it is the same run."""
        if self._config.exists():
            differences = config.differences(self.read_config())
            if differences:
                raise RunError(
                    f"{self.path} holds a run with another configuration ({'; '.join(differences)}): pass "
                    "that configuration to go on with it, or choose another run_dir"
                )
            return
        content = {
            "format_version": FORMAT_VERSION,
            "fingerprint": config.fingerprint,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("ocr-interp", "torch", "numpy", "transformer-lens")},
            },
            **config.to_dict(),
        }
        write_atomic(self._config, (json.dumps(content, indent=2) + "\n").encode())

    def read_config(self) -> RunConfig:
        """The configuration of the run in the directory."""
        if not self._config.is_file():
            raise RunError(f"{self.path} is no run directory: it has no config.json")
        try:
            values = json.loads(self._config.read_text(encoding="utf-8"))
            found = values["format_version"]
            if not isinstance(found, int) or found > FORMAT_VERSION:
                raise RunError(
                    f"{self._config} has format version {found!r}, this version reads up to "
                    f"{FORMAT_VERSION}: update ocr-interp"
                )
            config = RunConfig.from_dict(values)
        except RunError:
            raise
        except (OcrInterpError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self._config} is damaged or no configuration of a run: {error}") from None
        if values.get("fingerprint") != config.fingerprint:
            raise RunError(
                f"{self._config} was changed after it was written (fingerprint {values.get('fingerprint')}, "
                f"its content has {config.fingerprint}): put the original back, or train into a new run_dir"
            )
        return config

    def write_checkpoint(self, config: RunConfig, checkpoint: Checkpoint) -> None:
        """Writes history.csv, then the checkpoint."""
        history = _as_csv(checkpoint.history)
        write_atomic(self._history, history)
        metadata = {
            "kind": "checkpoint",
            "fingerprint": config.fingerprint,
            "step": str(checkpoint.step),
            "status": checkpoint.status,
            "device": checkpoint.device,
            "history_digest": hashlib.sha256(history).hexdigest(),
        }
        write_tensors(self._checkpoint, checkpoint.tensors, metadata)

    def read_checkpoint(self, config: RunConfig) -> Checkpoint | None:
        """The last checkpoint with its history; None before the first."""
        if not self._checkpoint.exists():
            return None
        tensors, metadata = read_tensors(self._checkpoint, config.fingerprint, "checkpoint")
        step = int(metadata["step"])
        history = self._read_history(step)
        if hashlib.sha256(_as_csv(history)).hexdigest() != metadata["history_digest"]:
            raise RunError(
                f"{self._history} was changed or cut (its rows up to step {step} are not those of the "
                "checkpoint): restore it, or train into a new run_dir"
            )
        return Checkpoint(step, metadata["status"], metadata["device"], tensors, history)

    def _read_history(self, step: int) -> pd.DataFrame:
        try:
            # As text first: float() of a string is exact, which a fast CSV parser need not be.
            text = pd.read_csv(self._history, dtype=str)
        except FileNotFoundError:
            raise RunError(f"{self._history} is missing: restore it, or train into a new run_dir") from None
        except (ValueError, OSError) as error:
            raise RunError(f"{self._history} is damaged ({error}): restore it") from None
        if tuple(text.columns) != COLUMNS:
            raise RunError(f"{self._history} has other columns than a history of this version")
        try:
            history = history_frame(text.to_dict("records"))
        except ValueError as error:
            raise RunError(f"{self._history} is damaged ({error}): restore it") from None
        return history.loc[history["step"] <= step].reset_index(drop=True)

    def write_snapshot(self, config: RunConfig, step: int, weights: TokenWeights) -> None:
        """Writes the weights at a step."""
        metadata = {"kind": "snapshot", "fingerprint": config.fingerprint, "step": str(step)}
        write_tensors(self._snapshot(step), weights.tensors(), metadata)

    def read_snapshot(self, config: RunConfig, step: int) -> TokenWeights:
        """The weights at a step."""
        tensors, metadata = read_tensors(self._snapshot(step), config.fingerprint, "snapshot")
        if metadata["step"] != str(step):
            raise RunError(f"{self._snapshot(step)} holds the weights at step {metadata['step']}: restore it")
        return TokenWeights.from_tensors(config.model.linear_map, tensors)

    def snapshot_steps(self) -> list[int]:
        """Steps that have a snapshot on disk."""
        files = (self.path / "snapshots").glob("step_[0-9]*.safetensors")
        return sorted(int(file.stem.removeprefix("step_")) for file in files)

    def _snapshot(self, step: int) -> Path:
        return self.path / "snapshots" / f"step_{step:08d}.safetensors"

    def write_model(self, config: RunConfig, step: int, weights: TokenWeights) -> None:
        """Writes the state_dict of the HookedTransformer."""
        metadata = {"kind": "model", "fingerprint": config.fingerprint, "step": str(step)}
        write_tensors(self._model, hooked_state_dict(config.task, weights), metadata)

    def read_run(self) -> Run:
        """The run as it is on disk."""
        config = self.read_config()
        checkpoint = self.read_checkpoint(config)
        if checkpoint is None:
            raise RunError(f"{self.path} has no checkpoint yet: its training was stopped before the first")
        weights = self._weights(config, checkpoint)
        snapshots = StoredSnapshots(self, config, checkpoint.step)
        return Run(
            config, checkpoint.step, weights, checkpoint.history, checkpoint.status, self.path, snapshots
        )

    def _weights(self, config: RunConfig, checkpoint: Checkpoint) -> TokenWeights:
        """From model.safetensors where it is of the checkpoint's step, else from the checkpoint."""
        if checkpoint.status != "unfinished" and self._model.exists():
            state, metadata = read_tensors(self._model, config.fingerprint, "model")
            if int(metadata["step"]) == checkpoint.step:
                return weights_of_state_dict(config.task, state, config.model.linear_map.has_factors)
        start = initial_weights(config.task, config.model, config.train.seed)
        model = TokenCountModel(config.task, config.model, start, torch.device("cpu"))
        for name, parameter in model.parameters.items():
            parameter.copy_(checkpoint.tensors[f"parameter.{name}"])
        recipe, step = config.train, checkpoint.step
        return model.weights(recipe.inert_factor(step), recipe.inert_factor(step, "scores"))


class StoredSnapshots(Mapping[int, TokenWeights]):
    """The snapshots on disk up to a step, read when asked for."""

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
        RunError: no run there, a file that is damaged, truncated or of another run, or a format newer
            than this version reads. Nothing is changed on disk.
    """
    return RunStore(Path(path)).read_run()


def history_frame(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Rows of a history as a table with all columns in order."""
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    return frame.astype({name: "int64" if name == "step" else "float64" for name in COLUMNS})


def _as_csv(history: pd.DataFrame) -> bytes:
    """The bytes of history.csv: every number in full, so that reading gives back the same bits."""
    text = io.StringIO()
    history.to_csv(text, index=False, lineterminator="\n")
    return text.getvalue().encode()
