"""The files of a language-model run: settings, history, logits, result, checkpoint/, model/, adapter/."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from ocr_interp.configuration import version_1
from ocr_interp.errors import OcrInterpError, RunError
from ocr_interp.llm.measuring.measure import METRICS, Measurement
from ocr_interp.llm.measuring.recorder import FIRST_COLUMNS
from ocr_interp.llm.measuring.table import LogitTable, read_table, write_table
from ocr_interp.llm.training.configuration import FORMAT_VERSION, LLMRunConfig
from ocr_interp.llm.training.files.checkpoint import Checkpoint
from ocr_interp.llm.training.files.inputs import RunInputs
from ocr_interp.llm.training.files.result import config_of_result, read_result, write_result
from ocr_interp.storage.atomic import GO_ON, write_atomic
from ocr_interp.storage.configured import ConfiguredFolder
from ocr_interp.storage.digests import digest_of, digest_of_file
from ocr_interp.storage.folders import FolderKind, read_settings, write_settings
from ocr_interp.storage.known_folders import LANGUAGE_MODEL_RUN
from ocr_interp.storage.plain import plain
from ocr_interp.storage.reading import parse_json, read_bytes, sealed_fields
from ocr_interp.storage.seals import SEAL, SEAL_FILE, require_seal, require_sealed_folder
from ocr_interp.storage.tables import csv_bytes, history_table, read_history
from ocr_interp.storage.tensors import read_tensors, write_tensors
from ocr_interp.task import SPLITS

COLUMNS = (
    "step",
    "train_loss",
    *(f"{split}/{metric}" for split in SPLITS for metric in METRICS),
    *FIRST_COLUMNS,
)
"""The columns of every history; train_loss is the mean since the last row, in nats per answer token.

With unseen names there are `recorder.CALIBRATED_COLUMNS` too, with movement="logged" "movement/<part>". A
method may add columns after these, named "method/name" (`Adapter.columns`).
"""

_RESTORE = "put the original back, or fine-tune into a new run_dir"

ADAPTER_FILE = "adapter.safetensors"
MODEL, ADAPTER = "model", "adapter"
"""What a run keeps of its model: all of it, or an update that cannot be merged."""


class RunFolder(ConfiguredFolder[LLMRunConfig]):
    """Reads and writes one run directory; each file is written whole or not at all.

    At the end of training a checkpoint of the trained parameters is written, then the small files, then the
    model, and the checkpoint is deleted last. Until the model is kept, a marker says that it is not, so that
    the same command keeps it.
    """

    kind = FolderKind(
        name="run directory",
        noun="directory",
        argument="run_dir",
        settings="config.json",
        inside=("checkpoint",),
        user="another process",
    )
    newest = FORMAT_VERSION
    _known = LANGUAGE_MODEL_RUN
    _unsealed = ("format_version", "fingerprint", "facts", "train")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.history_file, self.result_file = self.path / "history.csv", self.path / "result.json"
        self.logits_file = self.path / "logits.safetensors"
        self.model_folder = self.path / "model"
        self.adapter_file = self.path / "adapter" / ADAPTER_FILE
        self.checkpoint_file = self.path / "checkpoint" / "state.safetensors"
        self.inputs_file = self.path / "inputs.json"
        self._not_kept = self.path / "checkpoint" / "model_not_kept"

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

    def _differences(self, config: LLMRunConfig, stored: LLMRunConfig) -> list[str]:
        """The differences that matter: not where a file or model lies, if the run holds what is in it."""
        if self.inputs_file.exists() and not self._holds_nothing():
            for name in ("file", "implications_file"):
                then = getattr(stored.facts, name)
                if getattr(config.facts, name) is not None and then is not None:
                    config = replace(config, facts=replace(config.facts, **{name: then}))
            config = replace(config, train=replace(config.train, model=stored.train.model))
        return config.differences(stored)

    def is_complete(self) -> bool:
        """Whether the result is there, and the model if it was to be kept."""
        return self.result_file.exists() and not self._not_kept.exists()

    def is_run(self) -> bool:
        """Whether the folder holds a language-model run, and not a model or something else."""
        try:
            values = parse_json(read_bytes(self.config_file))
        except (OSError, ValueError):
            return False
        return isinstance(values, dict) and {"format_version", "facts", "train"} <= values.keys()

    def write_inputs(self, inputs: RunInputs) -> None:
        """Writes what the run is given, before it is trained."""
        stamp = {"format_version": 1, "fingerprint": self.fingerprint}
        write_settings(self.inputs_file, {**stamp, **inputs.to_dict()})

    def read_inputs(self) -> RunInputs | None:
        """What the run was given; None for a run of an earlier version, which does not say.

        Raises:
            RunError: the file was changed, is damaged, or belongs to another run.
        """
        if not self.inputs_file.exists():
            return None

        def damaged(error: Exception) -> str:
            return f"is damaged ({error!r}): {_RESTORE}"

        values = read_settings(self.inputs_file, 1, f"{self.inputs_file} is missing: {_RESTORE}", damaged)
        require_seal(self.inputs_file, values, (), _RESTORE)
        if values.get("fingerprint") != self.fingerprint:
            raise RunError(
                f"{self.inputs_file} belongs to another run (fingerprint {values.get('fingerprint')}, "
                f"expected {self.fingerprint}): {_RESTORE}"
            )
        try:
            return RunInputs.from_dict(values)
        except (OcrInterpError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self.inputs_file} {damaged(error)}") from None

    def _inputs_seal(self) -> str | None:
        """The seal of inputs.json; None for a run of an earlier version, which has none."""
        if not self.inputs_file.exists():
            return None
        try:
            return str(dict(parse_json(read_bytes(self.inputs_file)))[SEAL])
        except (OSError, ValueError, TypeError, KeyError):
            raise RunError(f"{self.inputs_file} is damaged: {_RESTORE}") from None

    def _require_inputs(self, seal: str | None, whose: Path) -> None:
        """Requires the inputs.json that a file of this run was written beside."""
        if seal != self._inputs_seal():
            there = "is not the one" if self.inputs_file.exists() else "is missing, the one"
            raise RunError(f"{self.inputs_file} {there} that {whose.name} was made from: {_RESTORE}")

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Writes history.csv, then the checkpoint, which contains its rows too."""
        write_atomic(self.history_file, history_csv(checkpoint.history), GO_ON)
        metadata = {
            "kind": "checkpoint",
            "format_version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "inputs": self._inputs_seal(),
            **checkpoint.metadata(),
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
        self._require_inputs(metadata.get("inputs"), self.checkpoint_file)
        with sealed_fields(self.checkpoint_file, advice):
            checkpoint = Checkpoint.from_metadata(tensors, metadata)
        if "kind" not in metadata:
            self._require_history_of_version_1(checkpoint, advice)
        return checkpoint

    def _require_history_of_version_1(self, checkpoint: Checkpoint, advice: str) -> None:
        """Compares what the digest of a checkpoint of version 1 leaves out: it is of the tensors alone."""
        rows = read_history(self.history_file, None, advice)
        rows = rows.loc[rows["step"] <= checkpoint.step].reset_index(drop=True)
        first = Measurement.from_dict(checkpoint.before).row()
        # The log-probabilities of `before` have four decimals.
        known = all(
            math.isclose(first[name], row, abs_tol=1e-4) or (math.isnan(first[name]) and math.isnan(row))
            for name, row in rows.iloc[0].items()
            if name in first
        )
        if not known or csv_bytes(rows) != history_csv(checkpoint.history):
            raise RunError(
                f"{self.checkpoint_file} and {self.history_file} tell two histories: put the originals "
                f"back, or {advice}"
            )

    def write_result(
        self,
        history: Sequence[Mapping[str, float]],
        result: Mapping[str, Any],
        keeps: str | None,
        logits: LogitTable,
    ) -> None:
        """Writes history.csv, logits.safetensors and result.json of a run that has done all its steps.

        Args:
            history: all rows.
            result: the content of result.json.
            keeps: MODEL or ADAPTER if the model is still to be kept, for `kept`; None keeps none.
            logits: the logits of all measurements.
        """
        if keeps is not None:
            write_atomic(
                self._not_kept, b"start again with the same run_dir: the model is kept then\n", GO_ON
            )
        rows = history_csv(history)
        write_atomic(self.history_file, rows, GO_ON)
        write_table(self.logits_file, logits, self.fingerprint)
        stamp = {"format_version": self.version, "fingerprint": self.fingerprint}
        write_result(
            self.result_file,
            {
                **result,
                **stamp,
                "keeps": keeps,
                "history_digest": digest_of(rows, 32),
                "logits_digest": digest_of_file(self.logits_file),
                "inputs": self._inputs_seal(),
            },
        )

    def kept(self) -> None:
        """Deletes the checkpoint: the run has ended, and its model is kept if it was to be."""
        try:
            self._not_kept.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(
                f"cannot delete {self._not_kept}: {error.strerror or error}. The result and the model are "
                f"written: {GO_ON}"
            ) from None
        with contextlib.suppress(OSError):  # it is not read any more
            self.checkpoint_file.unlink(missing_ok=True)

    def read_result(self) -> dict[str, Any]:
        """The content of result.json, which must be of the run in config.json.

        Raises:
            RunError: it is missing, was changed, or is of another run.
        """
        result, config = read_result(self.result_file), self.read_config()
        if config_of_result(result).differences(config) or result["fingerprint"] != self.fingerprint:
            raise RunError(f"{self.config_file} and {self.result_file} are of two runs: {_RESTORE}")
        self._require_inputs(result.get("inputs"), self.result_file)
        return result

    def read_history(self, result: Mapping[str, Any]) -> pd.DataFrame:
        """The rows of history.csv, which must be those of the result.

        Raises:
            RunError: it is missing or was changed.
        """
        history = read_history(self.history_file, None, _RESTORE)
        if "history_digest" in result:
            same = digest_of(csv_bytes(history), 32) == result["history_digest"]
        else:  # an earlier version: six digits of each number are in the result
            same = plain(history.to_dict("list"), 6) == dict(result["history"])
        if not same:
            raise RunError(
                f"{self.history_file} was changed after it was written (its rows are not those of "
                f"{self.result_file.name}): {_RESTORE}"
            )
        return history

    def read_logits(self, result: Mapping[str, Any]) -> LogitTable:
        """The logits of all measurements, which must be those of the result.

        Raises:
            RunError: the file is missing, was changed, or the run is of a version that kept no logits.
        """
        if "logits_digest" not in result:
            raise RunError(
                f"{self.path} kept no logits: an earlier version made it. Fine-tune into a new run_dir to "
                "get them"
            )
        table = read_table(self.logits_file, self.fingerprint)
        if digest_of_file(self.logits_file) != result["logits_digest"]:
            raise RunError(
                f"{self.logits_file} was changed after it was written (its digest is not that in "
                f"{self.result_file.name}): {_RESTORE}"
            )
        return table

    def require_kept_model(self, result: Mapping[str, Any]) -> None:
        """Requires that a kept model has its seal, and that the files of the folder are those sealed.

        Raises:
            RunError: changed files.
        """
        if require_sealed_folder(self.model_folder, _RESTORE) is None and result.get("keeps") == MODEL:
            raise RunError(f"{self.model_folder} has lost its seal, {SEAL_FILE}: {_RESTORE}")

    def progress(self) -> str:
        """How far a run is that has not finished, in words."""
        steps = self.read_config().train.steps
        checkpoint = self.read_checkpoint()
        done = 0 if checkpoint is None else checkpoint.step
        return (
            f"{self.path} is not finished: step {done} of {steps}; the same `llm finetune` goes on from there"
        )


def history_csv(rows: Sequence[Mapping[str, float]]) -> bytes:
    """The bytes of history.csv, with every digit of the numbers."""
    return csv_bytes(history_table(rows))
