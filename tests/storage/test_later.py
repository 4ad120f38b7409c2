"""What comes later breaks nothing: a field with a default, a column of histories, a key of results."""

import dataclasses
import json
import math
from dataclasses import dataclass

import pytest

from ocr_interp.configuration import run as run_module
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import RunError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.training import configuration as llm_module
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.result import config_of_result, read_result, write_result
from ocr_interp.sweeps.sweep import load_sweep, sweep
from ocr_interp.task import FactRecallTask
from ocr_interp.training.loop import train
from ocr_interp.training.store import RunStore, load_run
from ocr_interp.training.tracking import COLUMNS, Tracker

TASK = FactRecallTask(2, 1, 1, n_noise=1, seq_len=4)
RECIPE = {"steps": 20, "batch_size": 6, "log_every": 5, "checkpoint_every": 10, "device": "cpu"}


@dataclass(frozen=True)
class LaterModel(ModelConfig):
    """A model configuration of some later day."""

    gate: float = 1.0


@dataclass(frozen=True)
class LaterTrain(TrainConfig):
    """A recipe of some later day."""

    warm_up: int = 0
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaterFinetune(FinetuneConfig):
    """A fine-tuning recipe of some later day."""

    warm_up: int = 0


@pytest.fixture
def later_fields(monkeypatch):
    """Today's classes are replaced by the later ones, as a new release does."""

    def replace():
        monkeypatch.setattr(run_module, "ModelConfig", LaterModel)
        monkeypatch.setattr(run_module, "TrainConfig", LaterTrain)
        monkeypatch.setattr(llm_module, "FinetuneConfig", LaterFinetune)

    return replace


@pytest.fixture
def later_column(monkeypatch):
    """Histories get another column."""

    def add():
        measure = Tracker.measure
        monkeypatch.setattr(Tracker, "measure", lambda self, model: {**measure(self, model), "new": 7.5})

    return add


class Killed(BaseException):
    pass


def stop_at(step):
    def on_log(row):
        if row["step"] == step:
            raise Killed

    return on_log


def stopped_run(path, **changes):
    with pytest.raises(Killed):
        train(
            TASK,
            ModelConfig(d_head=3),
            TrainConfig(**RECIPE, **changes),
            path,
            progress=False,
            on_log=stop_at(15),
        )


# --- fields ----------------------------------------------------------------------------------------------


def test_a_later_field_at_its_default_keeps_fingerprints():
    recipe = {**RECIPE, "lr": 0.01}
    now = RunConfig(TASK, ModelConfig(d_head=3), TrainConfig(**recipe))
    then = RunConfig(TASK, LaterModel(d_head=3), LaterTrain(**recipe))
    assert then.fingerprint == now.fingerprint
    for other in (
        RunConfig(TASK, LaterModel(d_head=3, gate=0.5), LaterTrain(**recipe)),
        RunConfig(TASK, LaterModel(d_head=3), LaterTrain(**recipe, groups=("a",))),
    ):
        assert other.fingerprint != now.fingerprint
    facts, told = FactConfig(n_pairs=2), {"model": "tiny", "lr": 0.01}
    was = LLMRunConfig(facts, FinetuneConfig(**told)).fingerprint
    assert LLMRunConfig(facts, LaterFinetune(**told)).fingerprint == was
    assert LLMRunConfig(facts, LaterFinetune(**told, device="cpu", eval_batch_size=3)).fingerprint == was
    assert LLMRunConfig(facts, LaterFinetune(**told, warm_up=3)).fingerprint != was


def test_every_field_that_is_changed_changes_the_fingerprint():
    config = RunConfig(TASK, ModelConfig(), TrainConfig())
    changes = {"task": {"n_noise": 3}, "model": {"dtype": "float64"}, "train": {"eps": 1e-6}}
    others = [
        dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **change)})
        for part, change in changes.items()
    ]
    assert len({config.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_a_run_from_before_a_field_is_read_and_goes_on(tmp_path, later_fields):
    whole = train(TASK, ModelConfig(d_head=3), TrainConfig(**RECIPE), progress=False)
    stopped_run(tmp_path / "run")
    later_fields()
    found = load_run(tmp_path / "run")
    assert (found.step, found.config.model) == (10, LaterModel(d_head=3))
    run = train(TASK, LaterModel(d_head=3), LaterTrain(**RECIPE), tmp_path / "run", progress=False)
    assert (run.step, run.status) == (20, "finished")
    assert run.history.equals(whole.history)
    with pytest.raises(RunError, match=r"\(model\.gate: 0\.5 != 1\.0\)"):
        train(TASK, LaterModel(d_head=3, gate=0.5), LaterTrain(**RECIPE), tmp_path / "run", progress=False)


def test_a_run_with_a_field_that_is_not_known_here_is_refused(tmp_path, later_fields, monkeypatch):
    later_fields()
    run = tmp_path / "run"
    train(TASK, LaterModel(d_head=3), LaterTrain(**RECIPE, warm_up=2), run, progress=False)
    monkeypatch.undo()
    with pytest.raises(RunError, match=r"config\.json .*unknown model field 'gate'"):
        load_run(run)


def test_a_sweep_from_before_a_field_gets_new_points(tmp_path, later_fields):
    options = {"task": TASK, "path": tmp_path / "sweep", "progress": False, "keep_weights": True}
    before = sweep({"seed": [0]}, train=TrainConfig(**RECIPE), **options)
    later_fields()
    after = load_sweep(tmp_path / "sweep")
    assert after.runs["run"].tolist() == before.runs["run"].tolist()
    grown = sweep({"seed": [0, 1]}, train=TrainConfig(**RECIPE), **options)
    assert grown.runs["seed"].tolist() == [0, 1]
    assert grown.runs["seconds"][0] == before.runs["seconds"][0], "not trained again"
    grown.run(grown.runs["run"][0])


# --- columns ---------------------------------------------------------------------------------------------


def test_a_run_from_before_a_column_goes_on_with_it(tmp_path, later_column):
    path = tmp_path / "run"
    stopped_run(path)
    assert "new" not in load_run(path).history
    later_column()
    # Killed again after history.csv has the column and before the checkpoint knows of it.
    store = RunStore(path)
    checkpoint = store.read_checkpoint()
    wider = checkpoint.history.assign(new=math.nan)
    (path / "history.csv").write_text(wider.to_csv(index=False))
    assert list(load_run(path).history.columns) == list(COLUMNS)
    run = train(TASK, ModelConfig(d_head=3), TrainConfig(**RECIPE), path, progress=False)
    assert list(run.history.columns) == [*COLUMNS, "new"]
    assert run.history["new"].isna().tolist() == [True, True, True, False, False]
    assert load_run(path).history.equals(run.history)


def test_a_sweep_joins_runs_with_other_columns(tmp_path, later_column):
    options = {"task": TASK, "train": TrainConfig(**RECIPE), "path": tmp_path / "sweep", "progress": False}
    sweep({"seed": [0]}, **options)
    later_column()
    grown = sweep({"seed": [0, 1]}, **options)
    new = grown.curves("new")
    assert new.loc[new["seed"] == 0, "new"].isna().all()
    assert (new.loc[new["seed"] == 1, "new"] == 7.5).all()
    assert load_sweep(tmp_path / "sweep").table.shape == grown.table.shape


# --- results of language models --------------------------------------------------------------------------


def test_a_result_with_later_keys_and_columns_is_read(tmp_path, later_fields):
    config = LLMRunConfig(FactConfig(n_pairs=2), FinetuneConfig(model="tiny", lr=0.01))
    result = {"format_version": 2, "fingerprint": config.fingerprint, "config": config.to_dict()}
    history = {"step": [0, 1], "train_loss": [math.nan, 1 / 3], "lora/norm": [0.0, 1.0]}
    write_result(tmp_path / "a.json", {**result, "history": history, "energy": {"joule": 3}})
    later_fields()
    found = read_result(tmp_path / "a.json")
    assert found["history"] == {"step": [0, 1], "train_loss": [None, 0.333333], "lora/norm": [0.0, 1.0]}
    assert found["energy"] == {"joule": 3}
    assert config_of_result(found).train == LaterFinetune(model="tiny", lr=0.01)
    found["config"]["train"]["lr"] = 0.02
    with pytest.raises(RunError, match="was changed after it was written"):
        config_of_result(found)
    (tmp_path / "a.json").write_text(json.dumps({**found, "format_version": 3}))
    with pytest.raises(RunError, match="update ocr-interp"):
        read_result(tmp_path / "a.json")
