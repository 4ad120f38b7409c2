"""The files of a language-model run: config.json, history.csv, result.json, checkpoint/, model/, adapter/."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ocr_interp.errors import OcrInterpError, RunError
from ocr_interp.llm.measuring.measure import METRICS
from ocr_interp.llm.training.configuration import FORMAT_VERSION, LLMRunConfig
from ocr_interp.storage.folders import foreign_files, locked_folder
from ocr_interp.storage.tensors import TEMPORARY_PREFIX, write_atomic
from ocr_interp.task import SPLITS

COLUMNS = ("step", "train_loss", *(f"{split}/{metric}" for split in SPLITS for metric in METRICS))
"""The columns that every history has: train_loss is the mean since the row before, nats per answer token.

A method may add columns of its own after them, named "method/name" (`Adapter.columns`).
"""


_SEALED = ("step", "seconds", "device", "history", "before", "pending")


@dataclass(frozen=True)
class Checkpoint:
    """What fine-tuning needs to go on as if it had never stopped.

    Attributes:
        step: updates done.
        seconds: spent so far, as in `FinetuneRun`.
        device: type of the device.
        tensors: `trainable.training_state`.
        history: rows up to this step.
        before: the measurement before training, as `Measurement.to_dict`.
        pending: losses of the steps since the last row.
    """

    step: int
    seconds: dict[str, float]
    device: str
    tensors: dict[str, Tensor]
    history: list[dict[str, float]]
    before: dict[str, list[Any]]
    pending: list[float]


class RunFolder:
    """Reads and writes one run directory; each file is written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config_file, self.history_file = self.path / "config.json", self.path / "history.csv"
        self.result_file, self.model_folder = self.path / "result.json", self.path / "model"
        self.adapter_file = self.path / "adapter" / "adapter.safetensors"
        self.checkpoint_file = self.path / "checkpoint" / "state.safetensors"

    @contextmanager
    def opened(self, config: LLMRunConfig) -> Iterator[None]:
        """The directory, made if needed, locked against other processes, holding this configuration.

        Raises:
            RunBusyError: another process trains into it.
            RunError: it holds another run, or files that are no run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"run_dir must be a directory, got the file {self.path}")
        foreign = [] if self.config_file.exists() else foreign_files(self.path, ("checkpoint",))
        if foreign:
            raise RunError(
                f"{self.path} is no run directory (no config.json, but "
                f"{', '.join(foreign[:3])}): choose an empty or a new one"
            )
        if self.config_file.exists():
            self.read_config()  # before anything is written beside what may be somebody else's
        busy = f"{self.path} is in use by another process: wait for it, or choose another run_dir"
        with locked_folder(self.path, [self.checkpoint_file.parent], "run directory", busy):
            self._adopt(config)
            yield

    def _adopt(self, config: LLMRunConfig) -> None:
        if not self.config_file.exists() or self._holds_nothing_of(config):
            content = {
                "format_version": FORMAT_VERSION,
                "fingerprint": config.fingerprint,
                **config.to_dict(),
            }
            write_atomic(self.config_file, (json.dumps(content, indent=2) + "\n").encode())
            return
        found = self.read_config()
        if found.fingerprint != config.fingerprint:
            raise RunError(
                f"{self.path} holds a run with another configuration "
                f"({'; '.join(config.differences(found))}): pass that configuration to go on with it, or "
                "choose another run_dir"
            )

    def _holds_nothing_of(self, config: LLMRunConfig) -> bool:
        """Whether a run of another configuration ended, by an error, before it left anything to lose."""
        left = (
            self.checkpoint_file,
            self.history_file,
            self.result_file,
            self.model_folder,
            self.adapter_file,
        )
        return self.read_config().fingerprint != config.fingerprint and not any(p.exists() for p in left)

    def read_config(self) -> LLMRunConfig:
        """The configuration of the run in the directory."""
        if not self.config_file.is_file():
            raise RunError(f"{self.path} is no run directory: it has no config.json")
        try:
            values = json.loads(self.config_file.read_text(encoding="utf-8"))
            if values["format_version"] > FORMAT_VERSION:
                raise RunError(
                    f"{self.config_file} has format version {values['format_version']}, this version reads "
                    f"up to {FORMAT_VERSION}: update ocr-interp"
                )
            return LLMRunConfig.from_dict(values)
        except RunError:
            raise
        except KeyError as error:
            raise RunError(
                f"{self.config_file} is no configuration of a language-model run, it has no {error}: choose "
                "an empty or a new run_dir (a model folder is given as model)"
            ) from None
        except (OcrInterpError, ValueError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self.config_file} is damaged or no configuration of a run: {error}; choose another run_dir"
            ) from None

    def write_checkpoint(self, config: LLMRunConfig, checkpoint: Checkpoint) -> None:
        """Writes history.csv, then the checkpoint, which carries its rows too."""
        write_atomic(self.history_file, history_csv(checkpoint.history))
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        sealed = {
            "fingerprint": config.fingerprint,
            "digest": _digest(tensors),
            **{name: getattr(checkpoint, name) for name in _SEALED},
        }
        temporary = self.checkpoint_file.with_name(f"{TEMPORARY_PREFIX}state")
        try:
            # Straight to disk: these files are as large as the model is several times over.
            save_file(tensors, temporary, {"ocr_interp": json.dumps(sealed)})
            os.replace(temporary, self.checkpoint_file)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise RunError(
                f"cannot write {self.checkpoint_file}: {error}. What was written before is intact: free "
                "space or rights there, then start again with the same run_dir"
            ) from error

    def read_checkpoint(self, config: LLMRunConfig) -> Checkpoint | None:
        """The last checkpoint; None if there is none."""
        path = self.checkpoint_file
        if not path.exists():
            return None
        advice = "delete it to start this run anew"
        try:
            with safe_open(path, framework="pt") as file:
                sealed = json.loads((file.metadata() or {})["ocr_interp"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise RunError(f"{path} is damaged ({error}): {advice}") from None
        if sealed.pop("digest") != _digest(tensors):
            raise RunError(f"{path} is damaged (its content is not that of its digest): {advice}")
        if sealed.pop("fingerprint") != config.fingerprint:
            raise RunError(f"{path} belongs to another run: {advice}")
        return Checkpoint(tensors=tensors, **sealed)

    def finish(self, history: Sequence[Mapping[str, float]], result: Mapping[str, Any]) -> None:
        """Writes history.csv and result.json, then drops the checkpoint, which nothing needs any more."""
        write_atomic(self.history_file, history_csv(history))
        write_result(self.result_file, result)
        self.checkpoint_file.unlink(missing_ok=True)


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Writes the JSON of a finished run, one line a field, NaN as null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f" {json.dumps(key)}: {json.dumps(_plain(value))}" for key, value in result.items())
    write_atomic(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read_result(path: Path) -> dict[str, Any]:
    """The JSON of a finished run.

    Raises:
        RunError: no such file, or one that is damaged or too new.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        newer = result["format_version"] > FORMAT_VERSION
    except FileNotFoundError:
        raise RunError(f"{path} is missing: the run has not finished") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}): delete it, and the run is made again") from None
    if newer:
        raise RunError(f"{path} has format version {result['format_version']}: update ocr-interp")
    return result


def history_csv(rows: Sequence[Mapping[str, float]]) -> bytes:
    """The bytes of history.csv: every number in full."""
    text = io.StringIO()
    pd.DataFrame(list(rows), columns=_columns(rows)).to_csv(text, index=False, lineterminator="\n")
    return text.getvalue().encode()


def history_frame(rows: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """Rows of a history as a table with all columns in order."""
    frame = pd.DataFrame(list(rows), columns=_columns(rows))
    return frame.astype({name: np.int64 if name == "step" else np.float64 for name in frame.columns})


def _columns(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """The usual columns, then those of the method."""
    return [*COLUMNS, *(name for name in (rows[0] if rows else ()) if name not in COLUMNS)]


def _plain(value: Any) -> Any:
    """NaN as null, floats with 6 significant digits."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if value - value == 0 else None
    return value


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes and bytes."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:32]
