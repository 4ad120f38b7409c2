"""Directories of runs that are trained together hold the same bytes as those of each trained alone."""

import os
import signal
from dataclasses import replace

import pytest
from run_files import MODELS, RECIPE, TASK, Killed, content, differing, train_into

from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError, RunBusyError, RunError, TrainingDivergedError
from ocr_interp.task import FactRecallTask
from ocr_interp.training import loop
from ocr_interp.training.store import RunStore
from ocr_interp.training.together import train_together

SEEDS = range(3)


def configs(model=MODELS["factorized"], seeds=SEEDS, **recipe):
    return [RunConfig(TASK, model, TrainConfig(**{**RECIPE, **recipe, "seed": seed})) for seed in seeds]


def alone(wanted, folder):
    """The same runs, each by `train`."""
    paths = [folder / f"alone{k}" for k in range(len(wanted))]
    for config, path in zip(wanted, paths, strict=True):
        loop.train(config.task, config.model, config.train, path, progress=False)
    return paths


def assert_same_bytes(paths, others):
    for one, other in zip(paths, others, strict=True):
        assert differing(content(one), content(other)) == []


@pytest.fixture
def paths(tmp_path):
    return [tmp_path / f"together{seed}" for seed in SEEDS]


QUICK = ("factorized", "softmax")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in MODELS]
)
def test_every_directory_is_that_of_a_run_alone(kind, paths, tmp_path):
    wanted = configs(MODELS[kind])
    runs = train_together(wanted, paths)
    assert [run.config for run in runs] == wanted
    assert [run.status for run in runs] == ["finished"] * 3
    assert_same_bytes(paths, alone(wanted, tmp_path))


@pytest.mark.slow
def test_runs_may_differ_in_rate_decay_start_and_when_they_write(paths, tmp_path):
    first, second, third = configs()
    second = replace(second, train=replace(second.train, lr=0.002, weight_decay=0.3, checkpoint_every=20))
    third = replace(
        third, model=replace(third.model, init_scale=0.5), train=replace(third.train, snapshots=2)
    )
    train_together([first, second, third], paths)
    assert_same_bytes(paths, alone([first, second, third], tmp_path))


@pytest.mark.slow
def test_directories_that_stopped_at_different_steps_go_on_to_the_same_bytes(paths, tmp_path):
    wanted = configs()
    others = alone(wanted, tmp_path)

    def killed_at_25(row):
        if row["step"] == 25:
            raise Killed

    with pytest.raises(Killed):
        train_into(paths[0], on_log=killed_at_25)  # its last checkpoint is that of step 20
    train_into(paths[1], seed=1)  # complete
    train_together(wanted, paths)
    assert_same_bytes(paths, others)
    before = [path.stat().st_mtime_ns for path in paths[0].rglob("*.safetensors")]
    train_together(wanted, paths)  # nothing is left to do
    assert [path.stat().st_mtime_ns for path in paths[0].rglob("*.safetensors")] == before


@pytest.mark.slow
def test_ctrl_c_keeps_all_of_them_and_they_go_on_to_the_same_bytes(paths, tmp_path, monkeypatch):
    wanted, measured = configs(), []

    def measure(training, target, advance=loop.Training.advance):
        measured.append(target)
        if len(measured) == 5:  # the second run of three, at step 5
            os.kill(os.getpid(), signal.SIGINT)
        return advance(training, target)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Training, "advance", measure)
        stopped = train_together(wanted, paths)
    assert [(run.status, run.step) for run in stopped] == [("interrupted", 5)] * 3
    train_together(wanted, paths)
    assert_same_bytes(paths, alone(wanted, tmp_path))


@pytest.mark.slow
def test_one_that_has_learned_or_diverged_leaves_the_others_as_they_are_alone(paths, tmp_path):
    early, wild, plain = configs(steps=60)
    early = replace(early, train=replace(early.train, stop_when_learned=1e9, lr=0.05))
    wild = replace(wild, train=replace(wild.train, optimizer="adamw", lr=1e30))
    with pytest.raises(TrainingDivergedError, match="lr=1e\\+30"):
        train_together([early, wild, plain], paths)
    with pytest.raises(TrainingDivergedError):
        alone([wild], tmp_path / "wild")
    others = [*alone([early], tmp_path / "early"), tmp_path / "wild" / "alone0", *alone([plain], tmp_path)]
    assert_same_bytes(paths, others)
    assert RunStore(paths[0]).read_run().status == "learned"
    assert RunStore(paths[2]).read_run().status == "finished"


def test_what_cannot_be_trained_together_is_refused_before_anything_is_written(paths, tmp_path):
    wanted = configs()
    with pytest.raises(ConfigError, match="3 runs and 2 different directories"):
        train_together(wanted, [paths[0], paths[1], paths[0]])
    other = replace(wanted[2], task=FactRecallTask(4, 1, 2, n_noise=2, seq_len=5))
    with pytest.raises(ConfigError, match="equal shapes"):
        train_together([*wanted[:2], other], paths)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_directory_of_another_run_or_in_use_is_told(paths):
    wanted = configs()
    train_into(paths[1], seed=7)
    with pytest.raises(RunError, match="another configuration"):
        train_together(wanted, paths)
    with RunStore(paths[0]).opened(wanted[0]), pytest.raises(RunBusyError):
        train_together(wanted, [paths[0], paths[2], paths[1].with_name("new")])
