"""The tokens of a parameterisation's rows and columns reach it wherever it is used."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import torch

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError
from ocr_interp.maps import maps
from ocr_interp.maps.axes import TokenAxes
from ocr_interp.maps.base import LinearMap
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.norms.spectral import Spectral
from ocr_interp.training.long_descent import long_descent
from ocr_interp.training.loop import train
from ocr_interp.training.store import load_run

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=10, batch_size=12, log_every=5, checkpoint_every=5, snapshots=2, device="cpu")


@dataclasses.dataclass(frozen=True)
class AnswersOnly(LinearMap):
    """Writes to answers alone, so its shape depends on which columns are answers."""

    name: ClassVar[str] = "answers_only"
    label: ClassVar[str] = "answers only"
    needs_axes: ClassVar[bool] = True

    size: float = 2.0

    @property
    def norm(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return Scaled(self.size)

    def shapes(self, n_in, n_out):
        assert self.axes is not None
        assert (self.axes.n_in, self.axes.n_out) == (n_in, n_out)
        return {"W": (n_in, self.axes.task.n_answers)}

    def start(self, draw):
        return {"W": draw.normal("W", *self.shapes(draw.n_tokens, draw.n_tokens)["W"])}

    def product(self, parameters):
        assert self.axes is not None
        return torch.nn.functional.pad(self.size * parameters["W"], (self.axes.first_answer, 0))


class Scaled(Spectral):
    name = "scaled_spectral"

    def __init__(self, size):
        self.size = size

    def value(self, W):
        return super().value(W) / self.size


@pytest.fixture(autouse=True)
def _registered():
    with maps.registered("answers_only", AnswersOnly):
        yield


def test_it_is_trained_stored_descended_and_tracked_by_its_norm(tmp_path):
    model = ModelConfig(ov="answers_only", ov_options={"size": 3.0})
    run = train(TASK, model, RECIPE, tmp_path / "run", progress=False)
    again = load_run(tmp_path / "run")
    assert again.weights.linear_map.axes == TokenAxes.of_vocabulary(TASK)
    assert torch.equal(again.weights.W_OV, run.weights.W_OV)
    assert not run.weights.W_OV[:, : TASK.n_inputs].any()
    assert "gap_scaled_spectral" in run.history
    W = run.effective_W[:, TASK.n_inputs :]
    assert not np.allclose(W, 0)
    descent = long_descent(TASK, "answers_only", log10_time=1.0, ov_options={"size": 1.0})
    assert descent.W.shape == (TASK.n_subjects + 2, TASK.n_answers)


def test_other_numbers_of_rows_are_refused():
    with pytest.raises(ConfigError, match=r"W_OV must have 11 rows .* got 5 and 6"):
        TokenAxes(TASK, 5, 6)
