"""The saddle of a run: with what its prompts hold and its attention, and in what is shown of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ocr_interp import FactRecallTask, ModelConfig, RunConfig, TrainConfig, train
from ocr_interp.circuits.analysis import analyze_run
from ocr_interp.cli.solve import Solve
from ocr_interp.models.trained import TrainedModel
from ocr_interp.models.weights import TokenWeights
from ocr_interp.theory import saddle_solution, trained_attention_beta_interval
from ocr_interp.viz import describe_run

QUIET = TrainConfig.gradient_descent(steps=1)


def trained_model(task, recipe=QUIET, **model):
    d = task.d_vocab
    generator = np.random.default_rng(0)
    W = [torch.as_tensor(generator.standard_normal((d, d))) for _ in range(3)]
    config = ModelConfig(dtype="float64", **model)
    W_O = W[1] if config.ov == "factorized" else None
    return TrainedModel(RunConfig(task, config, recipe), 1, TokenWeights.of_factors(W[0], W_O, W[2]))


def test_frozen_attention_has_what_the_prompts_hold():
    task = FactRecallTask(20, 1, 3)
    quiet = trained_model(task, train_attention=False).saddle
    assert quiet.beta == saddle_solution(task, inputs="eos").beta == pytest.approx(0.7792, abs=5e-5)
    noisy = trained_model(task, replace(QUIET, data="noisy"), train_attention=False).saddle
    assert noisy.beta == saddle_solution(task, inputs="noise_eos").beta
    assert noisy.beta != quiet.beta


def test_trained_attention_goes_near_the_cube_root():
    found = trained_model(FactRecallTask(20, 1, 3)).saddle
    assert found.attention == "trained"
    assert found.beta == pytest.approx(0.713, abs=5e-4)


def test_none_where_there_is_none(mapped_task):
    task = FactRecallTask(3, 1, 2, n_noise=0, seq_len=3)
    assert trained_model(task, ov="non_factorized").saddle is None
    assert trained_model(task, attention="softmax").saddle is None
    for sizes in ((3, 1, 1), (3, 2, 1), (3, 0, 2)):
        assert trained_model(FactRecallTask(*sizes, n_noise=0, seq_len=3)).saddle is None
    assert trained_model(mapped_task).saddle is None


@pytest.mark.parametrize("trained", [False, True])
def test_a_run_is_shown_beside_its_saddle(trained):
    task = FactRecallTask(4, 1, 3, n_noise=0, seq_len=3)
    run = train(task, ModelConfig(train_attention=trained, d_head=4), QUIET, progress=False)
    low, high = trained_attention_beta_interval(task)
    solved = (
        f"max-margin solutions, trained attention: {low:.4f} to {high:.4f}"
        if trained
        else f"max-margin solution, frozen attention: {3**-0.5:.4f}"
    )
    assert f"({solved}; saddle, where a small start goes: {run.saddle.beta:.4f})" in describe_run(run)
    notes = analyze_run(run).notes
    assert any(f"the saddle's beta is {run.saddle.beta:.4f}" in note for note in notes)
    plain = train(task, ModelConfig(ov="non_factorized", train_attention=trained), QUIET, progress=False)
    solved = "max-margin solution: 0" if trained else "max-margin solution, frozen attention: 0.0000"
    assert f"({solved})" in describe_run(plain)
    assert not any("saddle" in note for note in analyze_run(plain).notes)


def test_solve_says_where_descent_goes(capsys):
    Solve(task=FactRecallTask(20, 1, 3)).run()
    assert "goes to a saddle instead: beta 0.78584498, rank 20" in capsys.readouterr().out
    for other in (Solve(task=FactRecallTask(3, 2, 2)), Solve(task=FactRecallTask(3, 1, 2), norm="frobenius")):
        other.run()
        assert "saddle" not in capsys.readouterr().out
