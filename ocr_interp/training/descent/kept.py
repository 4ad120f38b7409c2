"""The file that keeps a descent, so that it goes on with the same result as without interruption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ocr_interp.storage.tensors import read_tensors, write_tensors
from ocr_interp.training.descent.state import COLUMNS, DescentState


@dataclass(frozen=True)
class DescentFile:
    """The file that keeps a descent: parameters, time and history, sealed."""

    path: Path
    fingerprint: str

    def write(self, descent: DescentState, rows: list[dict[str, float]]) -> None:
        """Writes the state and its rows, whole or not at all."""
        tensors = {f"parameter.{name}": value for name, value in descent.parameters.items()}
        tensors["log_time"] = descent.log_time.reshape(1)
        tensors["history"] = torch.tensor([[row[c] for c in COLUMNS] for row in rows], dtype=torch.float64)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {
            "kind": "long descent",
            "fingerprint": self.fingerprint,
            "step": descent.step,
            "columns": list(COLUMNS),
        }
        write_tensors(self.path, tensors, metadata)

    def restore(self, descent: DescentState) -> list[dict[str, float]]:
        """Puts the state of the file into the descent; returns its rows, none without a file.

        Raises:
            RunError: a damaged file, or one of another descent.
        """
        if not self.path.exists():
            return []
        advice = "delete it to start again, or give another file"
        tensors, metadata = read_tensors(self.path, self.fingerprint, "long descent", advice)
        descent.parameters = {
            name: tensors[f"parameter.{name}"].to(descent.device) for name in descent.parameters
        }
        descent.log_time = tensors["log_time"][0].to(descent.device)
        descent.step = int(metadata["step"])
        return [dict(zip(metadata["columns"], row, strict=True)) for row in tensors["history"].tolist()]
