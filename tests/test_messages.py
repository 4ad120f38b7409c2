"""What errors say of unknown names, of arguments in another order, and of files of another kind."""

import re

import jaxtyping
import numpy as np
import pytest

from ocr_interp.cli.ablate.specs import tokens_named
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError, UnknownNameError, unknown_name
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import certify, solve
from ocr_interp.training.loop import train
from ocr_interp.viz.text.run import describe_run

TASK = FactRecallTask(2, 1, 1)


def test_no_name_is_suggested_twice_and_equally_close_ones_come_in_their_order():
    said = str(unknown_name("token", "r7", ["subjects", "r1", "r2", "s7", "r1", "r2", "r3"]))
    assert "did you mean 'r1' or 'r2' or 's7'? allowed: 'subjects', 'r1', 'r2', 's7', 'r3'" in said
    assert "did you mean 'r77'" in str(unknown_name("token", "r7", ["r1", "r77", "s7"])), "closest first"


def test_a_kind_comes_before_a_label_on_the_command_line():
    with pytest.raises(UnknownNameError, match="did you mean 'r1' or 'r2' or 's9'"):
        tokens_named("r9", FactRecallTask(3, 4, 4))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda: train(ModelConfig(), TASK), r"task must be a FactRecallTask, got a ModelConfig: .* order"),
        (lambda: train(TASK, TrainConfig()), "model_config must be a ModelConfig, got a TrainConfig"),
        (lambda: train(TASK, ModelConfig(), "runs/a"), "train_config must be a TrainConfig, got a str"),
        (
            lambda: certify(TASK, np.eye(4)),
            r"task must be a FactRecallTask, got a ndarray",
        ),
        (
            lambda: solve(train(TASK, None, TrainConfig(steps=1), progress=False)),
            "got a Run: pass its",
        ),
    ],
)
def test_arguments_in_another_order(asked, message):
    jaxtyping.config.update("jaxtyping_disable", True)  # users have no checks of annotations
    try:
        with pytest.raises(ConfigError, match=message):
            asked()
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("words", [("ablate",), ("analyze",), ("diagram", "-o", "a.svg"), ("info",)])
def test_a_file_of_a_model_is_no_run(command, tmp_path, words):
    file = tmp_path / "my.safetensors"
    file.write_bytes(b"0")
    code, _, said = command(words[0], str(file), *words[1:])
    said = " ".join(f"{code} {said}".split())
    assert "is a file of a model and no run" in said
    assert "ocr-interp circuit" in said
    assert "run_ablation_study(load_model(" in said


def test_beta_without_a_reference_says_why():
    task = FactRecallTask(3, 1, 2, n_noise=0, seq_len=3, implied_relations=2)
    run = train(task, ModelConfig(), TrainConfig(steps=2), progress=False)
    said = f"no reference: trained attention .* max-margin solution has {solve(task).beta:.4f}"
    assert re.search(said, describe_run(run))
