"""A checkpoint of a fine-tuning run: the tensors of its file, and the metadata beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ocr_interp.checks import check_count, check_text
from ocr_interp.errors import shown
from ocr_interp.llm.measuring.measure import Measurement

_SEALED = ("step", "seconds", "device", "history", "before", "pending")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that fine-tuning needs to resume with the same result as an uninterrupted run.

    Attributes:
        step: updates done.
        seconds: time spent so far, as in `FinetuneRun`.
        device: type of the device.
        tensors: `trainable.training_state`.
        history: rows up to this step; of the last step there is none if the model was still to be measured.
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

    def metadata(self) -> dict[str, Any]:
        """All fields but the tensors, for the metadata of the file."""
        return {name: getattr(self, name) for name in _SEALED}

    @classmethod
    def from_metadata(cls, tensors: dict[str, Tensor], metadata: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint from the tensors and the metadata of a file; inside `sealed_fields`.

        Raises:
            KeyError, TypeError, ConfigError: a field is missing or of another type.
        """
        fields = {name: metadata[name] for name in _SEALED}
        check_count("step", fields["step"], 0)
        check_text("device", fields["device"])
        Measurement.from_dict(fields["before"])
        numbers = [fields["seconds"], *fields["history"], dict(enumerate(fields["pending"]))]
        for name, value in (pair for values in numbers for pair in values.items()):
            if not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, got {shown(value)}")
        return cls(tensors=tensors, **fields)
