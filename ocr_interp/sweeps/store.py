"""The files of a sweep: sweep.json, parts/ (a file a stack of runs), weights/, and the merged tables."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ocr_interp.configuration.run import RunConfig
from ocr_interp.errors import OcrInterpError, RunError
from ocr_interp.models.weights import TokenWeights
from ocr_interp.storage.folders import foreign_files, locked_folder
from ocr_interp.storage.tensors import read_tensors, write_atomic, write_tensors
from ocr_interp.sweeps.records import RunRecord

FORMAT_VERSION = 1
"""Version of the files of a sweep; a newer one is refused when read."""


class SweepStore:
    """Reads and writes one folder of runs; each file is written whole or not at all.

    A part holds the runs of one stack and is written once, when they have ended; after a kill at any
    moment whatever is in parts/ is complete, and the rest is trained again. Weights are written before
    the part that speaks of them. runs.csv and table.csv are made from the parts.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._settings, self._parts = self.path / "sweep.json", self.path / "parts"

    @contextmanager
    def opened(self, settings: dict[str, Any]) -> Iterator[None]:
        """The folder, made if needed, locked against other sweeps, holding runs with these settings.

        Raises:
            RunBusyError: another sweep writes into it.
            RunError: it holds other files, or runs with other settings.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"the path of a sweep must be a folder, got the file {self.path}")
        self._refuse_foreign_files()
        busy = f"{self.path} is in use by another sweep: wait for it, or choose another path"
        with locked_folder(self.path, [self._parts, self.path / "weights"], "folder", busy):
            self._adopt(settings)
            yield

    def _refuse_foreign_files(self) -> None:
        if self._settings.exists():
            return
        foreign = foreign_files(self.path, ("parts", "weights"))
        if foreign:
            raise RunError(
                f"{self.path} is no folder of a sweep (no sweep.json, but {', '.join(foreign[:3])}): "
                "choose an empty or a new one"
            )

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
        versions = {name: version(name) for name in ("ocr-interp", "torch", "numpy")}
        content = {
            "format_version": FORMAT_VERSION,
            "versions": {"python": platform.python_version(), **versions},
            **settings,
        }
        write_atomic(self._settings, (json.dumps(content, indent=2) + "\n").encode())

    def read_settings(self) -> dict[str, Any]:
        """What sweep.json says.

        Raises:
            RunError: no such file, a damaged one, or one of a newer version.
        """
        try:
            values = dict(json.loads(self._settings.read_text(encoding="utf-8")))
            newer = values["format_version"] > FORMAT_VERSION
        except FileNotFoundError:
            raise RunError(f"{self.path} is no folder of a sweep: it has no sweep.json") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(f"{self._settings} is damaged ({error}): restore it") from None
        if newer:
            raise RunError(
                f"{self._settings} has format version {values['format_version']}, this version reads up to "
                f"{FORMAT_VERSION}: update ocr-interp"
            )
        return values

    def write_part(self, records: Sequence[RunRecord]) -> None:
        """Adds the runs of one stack."""
        for record in records:
            if record.weights is not None:
                metadata = {"kind": "weights", "fingerprint": record.run}
                write_tensors(self._weights(record.run), record.weights.tensors(), metadata)
        content = json.dumps([record.to_dict() for record in records]).encode()
        digest = hashlib.sha256(content).hexdigest()
        name = hashlib.sha256("".join(record.run for record in records).encode()).hexdigest()[:16]
        write_atomic(self._parts / f"{name}.json", digest.encode() + b"\n" + content)

    def read_records(self) -> dict[str, RunRecord]:
        """All runs in the folder by name; of a run in two parts, the one that did not fail.

        Raises:
            RunError: a part that is damaged.
        """
        found: dict[str, RunRecord] = {}
        for path in sorted(self._parts.glob("[0-9a-f]*.json")):
            for record in _read_part(path):
                if record.run not in found or found[record.run].status == "failed":
                    found[record.run] = record
        return found

    def read_weights(self, config: RunConfig) -> TokenWeights:
        """The weights at the last step of the run with a configuration.

        Raises:
            RunError: there are none, or they are damaged.
        """
        run = config.fingerprint
        tensors, _ = read_tensors(self._weights(run), run, "weights")
        return TokenWeights.from_tensors(config.model.linear_map, tensors)

    def write_tables(self, runs: pd.DataFrame, table: pd.DataFrame) -> None:
        """Writes the merged tables, with every number in full."""
        for name, frame in (("runs.csv", runs), ("table.csv", table)):
            write_atomic(self.path / name, frame.to_csv(index=False, lineterminator="\n").encode())

    def _weights(self, run: str) -> Path:
        return self.path / "weights" / f"{run}.safetensors"


def _read_part(path: Path) -> list[RunRecord]:
    digest, _, content = path.read_bytes().partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise RunError(f"{path} is damaged: restore it, or delete it to train its runs again")
    try:
        return [RunRecord.from_dict(values) for values in json.loads(content)]
    except (OcrInterpError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read by this version ({error}): use its own") from None
