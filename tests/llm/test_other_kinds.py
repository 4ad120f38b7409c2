"""A folder of another kind than a command reads: the message says what it is, and what reads it."""

from dataclasses import replace

import pytest
from small_facts import SMALL

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
from ocr_interp.errors import ModelError, RunError
from ocr_interp.llm import read_result, save_update, wrap
from ocr_interp.llm.models.loading import load_model
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.finetune import finetune

RECIPE = FinetuneConfig(model="tiny", steps=1, batch_size=4, device="cpu")


@pytest.fixture
def one_layer(tmp_path):
    """A run of `ocr-interp train`."""
    train(FactRecallTask(2, 1, 1), ModelConfig(), TrainConfig(steps=1, batch_size=6), tmp_path / "mine")
    return str(tmp_path / "mine")


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "mine"),
        ("inspect", "mine"),
        ("finetune", "mine"),
        ("finetune", "new", "--model", "mine", "--device", "cpu"),
    ],
)
def test_a_run_of_the_one_layer_model_is_named(words, one_layer, command):
    code, _, err = command("llm", *words)
    assert code == 2
    said = " ".join(err.split())
    assert "got a fact-recall run of `ocr-interp train`, which ocr-interp info, analyze" in said
    assert "damaged" not in said


def test_a_run_of_a_language_model_is_no_model_folder(make_model, tmp_path):
    finetune(LLMRunConfig(SMALL, RECIPE), tmp_path / "run", lm=make_model())
    with pytest.raises(
        ModelError, match=r"run must be a model folder, got a language-model run .* name .*run/model"
    ):
        load_model(str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("method", "options"),
    [("compacter", {}), ("phm_adapter", {"phm_dim": 4}), ("lora_mixer", {"n_experts": 2}), ("gate", {})],
)
def test_a_run_with_an_update_that_cannot_be_merged_says_what_can_be_done(
    method, options, make_model, tmp_path, command
):
    from toy_adapters import Gate

    from ocr_interp.llm import methods

    with methods.registered("gate", Gate()):
        recipe = replace(RECIPE, method=method, method_options=options, lora_rank=1)
        finetune(LLMRunConfig(SMALL, recipe), tmp_path / "run", lm=make_model(), save_model=True)
        for given in ("run", "run/adapter"):
            code, _, err = command("circuit", given, "--prompt", "Ada", "--answer", "a", "--against", "b")
            assert (code, "Traceback" in err) == (2, False)
            assert f"{given} holds an update of this library's own kind ('{method}')" in err
            assert "cannot be merged" in err
            assert "llm.load_update(model, 'run/adapter')" in err
            assert "`ocr-interp llm evaluate run` measures it" in err


def test_a_saved_update_that_can_be_merged_says_how(make_model, tmp_path, command):
    save_update(wrap(make_model().model, "lora", lora_rank=1), tmp_path / "update")
    err = command("circuit", "update", "--prompt", "Ada", "--answer", "a", "--against", "b")[2]
    assert "('lora')" in err
    assert "llm.merge_update(ocr_interp.llm.load_update(model, 'update')) gives the whole model" in err


def test_the_result_of_a_folder_names_the_file_in_it(make_model, tmp_path):
    finetune(LLMRunConfig(SMALL, RECIPE), tmp_path / "run", lm=make_model())
    inside = tmp_path / "run" / "result.json"
    with pytest.raises(
        RunError, match=rf"run is a folder, required is the file .*: name the file in it, {inside}"
    ):
        read_result(tmp_path / "run")
    with pytest.raises(RunError, match=r"is a folder, .* it has no result.json"):
        read_result(str(tmp_path))
    assert read_result(str(inside)) == read_result(inside)
