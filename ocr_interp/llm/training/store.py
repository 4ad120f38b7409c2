"""The files of a language-model run: config.json, history.csv, result.json, checkpoint/, model/, adapter/."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ocr_interp.checks import check_count, check_text
from ocr_interp.configuration import version_1
from ocr_interp.errors import OcrInterpError, RunError, shown
from ocr_interp.llm.measuring.measure import METRICS, Measurement
from ocr_interp.llm.training.configuration import FORMAT_VERSION, LLMRunConfig
from ocr_interp.storage.atomic import GO_ON, write_atomic
from ocr_interp.storage.configured import ConfiguredFolder
from ocr_interp.storage.folders import FolderKind, read_settings
from ocr_interp.storage.plain import plain
from ocr_interp.storage.reading import sealed_fields
from ocr_interp.storage.tables import csv_bytes, history_table
from ocr_interp.storage.tensors import read_tensors, write_tensors
from ocr_interp.task import SPLITS

COLUMNS = ("step", "train_loss", *(f"{split}/{metric}" for split in SPLITS for metric in METRICS))
"""The columns of every history; train_loss is the mean since the last row, in nats per answer token.

A method may add columns after these, named "method/name" (`Adapter.columns`).
"""


_SEALED = ("step", "seconds", "device", "history", "before", "pending")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that fine-tuning needs to resume with the same result as an uninterrupted run.

    Attributes:
        step: updates done.
        seconds: time spent so far, as in `FinetuneRun`.
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


class RunFolder(ConfiguredFolder[LLMRunConfig]):
    """Reads and writes one run directory; each file is written whole or not at all."""

    kind = FolderKind(
        name="run directory",
        noun="directory",
        argument="run_dir",
        settings="config.json",
        inside=("checkpoint",),
        user="another process",
    )
    newest = FORMAT_VERSION

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.history_file, self.result_file = self.path / "history.csv", self.path / "result.json"
        self.model_folder = self.path / "model"
        self.adapter_file = self.path / "adapter" / "adapter.safetensors"
        self.checkpoint_file = self.path / "checkpoint" / "state.safetensors"

    def _configuration(self, values: dict[str, Any]) -> LLMRunConfig:
        return LLMRunConfig.from_dict(values)

    def _fingerprint_of_version_1(self, values: Mapping[str, Any]) -> str:
        return version_1.llm_fingerprint(values)

    def _holds_nothing(self) -> bool:
        left = (
            self.checkpoint_file,
            self.history_file,
            self.result_file,
            self.model_folder,
            self.adapter_file,
        )
        return not any(path.exists() for path in left)

    def _damaged(self, error: Exception) -> str:
        if isinstance(error, KeyError):
            return (
                f"is no configuration of a language-model run, it has no {error}: choose an empty or a new "
                "run_dir (a model folder is given as model)"
            )
        return f"is damaged or no configuration of a run: {error}; choose another run_dir"

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Writes history.csv, then the checkpoint, which contains its rows too."""
        write_atomic(self.history_file, history_csv(checkpoint.history), GO_ON)
        metadata = {
            "kind": "checkpoint",
            "format_version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            **{name: getattr(checkpoint, name) for name in _SEALED},
        }
        # These files are several times as large as the model.
        write_tensors(self.checkpoint_file, checkpoint.tensors, metadata, large=True)

    def read_checkpoint(self) -> Checkpoint | None:
        """The last checkpoint; None if there is no checkpoint."""
        if not self.checkpoint_file.exists():
            return None
        advice = "delete it to start this run anew"
        tensors, metadata = read_tensors(
            self.checkpoint_file, self.fingerprint, "checkpoint", advice, bare=True
        )
        with sealed_fields(self.checkpoint_file, advice):
            fields = {name: metadata[name] for name in _SEALED}
            check_count("step", fields["step"], 0)
            check_text("device", fields["device"])
            Measurement.from_dict(fields["before"])
            numbers = [fields["seconds"], *fields["history"], dict(enumerate(fields["pending"]))]
            for name, value in (pair for values in numbers for pair in values.items()):
                if not isinstance(value, int | float):
                    raise TypeError(f"{name} must be a number, got {shown(value)}")
            return Checkpoint(tensors=tensors, **fields)

    def finish(self, history: Sequence[Mapping[str, float]], result: Mapping[str, Any]) -> None:
        """Writes history.csv and result.json, then deletes the checkpoint, which is no longer needed."""
        write_atomic(self.history_file, history_csv(history), GO_ON)
        stamp = {"format_version": self.version, "fingerprint": self.fingerprint}
        write_result(self.result_file, {**result, **stamp})
        self.checkpoint_file.unlink(missing_ok=True)


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Writes the JSON of a finished run, one line per field, six significant digits, NaN as null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f" {json.dumps(key)}: {json.dumps(plain(value, 6))}" for key, value in result.items())
    write_atomic(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode(), GO_ON)


def read_result(path: Path) -> dict[str, Any]:
    """Reads the JSON of a finished run, of any version, with all its fields.

    Raises:
        RunError: the file is missing, damaged, or of a newer version.
    """
    missing = f"{path} is missing: the run has not finished"

    def damaged(error: Exception) -> str:
        return f"is damaged ({error}): delete it, and the run is made again"

    return read_settings(path, FORMAT_VERSION, missing, damaged)


def config_of_result(result: Mapping[str, Any]) -> LLMRunConfig:
    """The configuration in the result of `read_result`.

    Raises:
        RunError: its fingerprint is not the one that was written.
    """
    try:
        config = LLMRunConfig.from_dict(result["config"])
        is_first = result["format_version"] == 1
        expected = version_1.llm_fingerprint(result["config"]) if is_first else config.fingerprint
    except (OcrInterpError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"this is no result of a language-model run ({error})") from None
    if expected != result.get("fingerprint"):
        raise RunError(
            f"the configuration of a result was changed after it was written (fingerprint "
            f"{result.get('fingerprint')}, its content has {expected}): make the run again"
        )
    return config


def history_csv(rows: Sequence[Mapping[str, float]]) -> bytes:
    """The bytes of history.csv, with every digit of the numbers."""
    return csv_bytes(history_table(rows))
