"""The files of a sweep: sweep.json, parts/ (one file per stack of runs), weights/, and the merged tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ocr_interp.errors import OcrInterpError, RunError, UnknownVariantError
from ocr_interp.models.weights import TokenWeights
from ocr_interp.storage.atomic import write_atomic
from ocr_interp.storage.digests import digest_of
from ocr_interp.storage.folders import FolderKind, package_versions, read_settings, write_settings
from ocr_interp.storage.reading import parse_json, read_bytes, sealed_fields
from ocr_interp.storage.seals import SEAL, require_seal
from ocr_interp.storage.tables import csv_bytes
from ocr_interp.storage.tensors import read_tensors, write_tensors
from ocr_interp.sweeps.records import RunRecord
from ocr_interp.training.store import stored_weights

FORMAT_VERSION = 2
"""Version of the files of a sweep; files of a newer version are refused."""

_FOLDER = FolderKind(
    name="folder of a sweep",
    noun="folder",
    argument="path",
    settings="sweep.json",
    inside=("parts", "weights"),
    user="another sweep",
)
_UNSEALED = ("format_version", "versions", "certificates", "keep_weights")
"""Names in a sweep.json from before it had a seal."""

MOST_BYTES = 2**30
"""Largest part that is read: 256 runs of 10,000 rows."""

_AGAIN = "start the sweep again: it goes on with what is missing"


class SweepStore:
    """Reads and writes one folder of runs; each file is written whole or not at all.

    A part holds the runs of one stack and is written once, when they have ended. If the process is killed
    at any moment, every file in parts/ is complete, and the missing runs are trained by the next call.
    Weights are written before the part that lists their runs. runs.csv and table.csv are made from the
    parts.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._settings, self._parts = self.path / _FOLDER.settings, self.path / "parts"

    @contextmanager
    def opened(self, settings: dict[str, Any]) -> Iterator[None]:
        """Makes the folder if needed, locks it against other sweeps, and checks or writes its settings.

        Raises:
            RunBusyError: another sweep writes into it.
            RunError: it holds other files, or runs with other settings.
        """
        with _FOLDER.locked(self.path):
            self._adopt(settings)
            yield

    def _adopt(self, settings: dict[str, Any]) -> None:
        """Writes sweep.json into a new folder, or checks that its runs have the same settings."""
        if self._settings.exists():
            found = self.read_settings()
            different = [f"{k}={found.get(k)!r} != {v!r}" for k, v in settings.items() if found.get(k) != v]
            if different:
                raise RunError(
                    f"{self.path} holds a sweep with other settings ({'; '.join(different)}): pass those, or "
                    "choose another path"
                )
            return
        versions = package_versions("torch", "numpy")
        write_settings(self._settings, {"format_version": FORMAT_VERSION, "versions": versions, **settings})

    def read_settings(self) -> dict[str, Any]:
        """The content of sweep.json.

        Raises:
            RunError: the file is missing, damaged, or of a newer version.
        """
        missing = f"{self.path} is no folder of a sweep: it has no sweep.json"
        values = read_settings(
            self._settings, FORMAT_VERSION, missing, lambda error: f"is damaged ({error}): restore it"
        )
        require_seal(self._settings, values, _UNSEALED, "restore it")
        return {name: value for name, value in values.items() if name != SEAL}

    def write_part(self, records: Sequence[RunRecord]) -> None:
        """Adds the runs of one stack."""
        settings = self.read_settings()
        if settings["format_version"] < FORMAT_VERSION:  # an earlier version cannot read the new part
            write_settings(self._settings, {**settings, "format_version": FORMAT_VERSION})
        for record in records:
            if record.weights is not None:
                metadata = {
                    "kind": "weights",
                    "format_version": FORMAT_VERSION,
                    "fingerprint": record.run,
                }
                write_tensors(self._weights(record.run), record.weights.tensors(), metadata, then=_AGAIN)
        content = json.dumps(
            {"format_version": FORMAT_VERSION, "runs": [record.to_dict() for record in records]}
        ).encode()
        name = digest_of("".join(record.run for record in records), 16)
        part = digest_of(content).encode() + b"\n" + content
        write_atomic(self._parts / f"{name}.json", part, _AGAIN)

    def read_records(self) -> dict[str, RunRecord]:
        """All runs in the folder by name; if a run is in two parts, the record that did not fail.

        A run of version 1 has files under another name; it is listed by the fingerprint of its
        configuration like all others.

        Raises:
            RunError: a damaged part.
        """
        found: dict[str, RunRecord] = {}
        for path in sorted(self._parts.glob("[0-9a-f]*.json")):
            for record in _read_part(path):
                if record.run not in found or found[record.run].status == "failed":
                    found[record.run] = record
        return found

    def read_weights(self, record: RunRecord) -> TokenWeights:
        """The weights at the last step of a run.

        Raises:
            RunError: the file is missing or damaged.
        """
        path, advice = self._weights(record.stamp), "restore it, or train into a new path"
        tensors, metadata = read_tensors(path, record.stamp, "weights", advice)
        with sealed_fields(path, advice):
            return stored_weights(record.config, int(record.rows[-1]["step"]), tensors, metadata)

    def write_tables(self, runs: pd.DataFrame, table: pd.DataFrame) -> None:
        """Writes the merged tables, with every digit of the numbers."""
        for name, frame in (("runs.csv", runs), ("table.csv", table)):
            write_atomic(self.path / name, csv_bytes(frame), _AGAIN)

    def _weights(self, run: str) -> Path:
        return self.path / "weights" / f"{run}.safetensors"


def _read_part(path: Path) -> list[RunRecord]:
    try:
        digest, _, content = read_bytes(path, MOST_BYTES).partition(b"\n")
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    if digest_of(content).encode() != digest:
        raise RunError(f"{path} is damaged: restore it, or delete it to train its runs again")
    try:
        part = parse_json(content)
        if isinstance(part, list):  # version 1
            part = {"format_version": 1, "runs": part}
        return [RunRecord.from_dict(values, part["format_version"]) for values in part["runs"]]
    except UnknownVariantError as error:
        raise RunError(f"{path} cannot be read in this process: {error}") from None
    except (OcrInterpError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise RunError(f"{path} cannot be read by this version ({error}): use its own") from None
