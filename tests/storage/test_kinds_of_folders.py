"""A folder of another kind is called what it is, with the commands that read it, and not damaged."""

import json

import pytest

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import RunError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.task import FactRecallTask
from ocr_interp.training.store import RunStore


def _language_model_run(path):
    with RunFolder(path).opened(LLMRunConfig(FactConfig(), FinetuneConfig())):
        return path


def _fact_recall_run(path):
    with RunStore(path).opened(RunConfig(FactRecallTask(2, 1, 1), ModelConfig(), TrainConfig())):
        return path


@pytest.mark.parametrize(
    "words",
    [("info",), ("export", "m.safetensors"), ("train",), ("analyze",), ("ablate",)],
    ids=lambda w: w[0],
)
def test_commands_of_runs_on_a_language_model_run(command, tmp_path, words):
    folder = _language_model_run(tmp_path / "lm")
    code, _, said = command(words[0], str(folder), *words[1:])
    said = " ".join(f"{code} {said}".split())
    assert "got a language-model run of `ocr-interp llm finetune`, which ocr-interp llm evaluate and" in said
    assert "damaged" not in said


def test_a_model_folder_and_a_run_of_facts_are_named_too(command, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]})
    )
    code, _, said = command("info", str(folder))
    assert "got a model folder of transformers, which ocr-interp circuit" in " ".join(
        f"{code} {said}".split()
    )
    with pytest.raises(RunError, match=r"a language-model run .*got a fact-recall run of .ocr-interp train"):
        RunFolder(_fact_recall_run(tmp_path / "run")).read_config()


def test_a_damaged_run_is_still_called_damaged(tmp_path):
    path = _fact_recall_run(tmp_path / "run") / "config.json"
    values = json.loads(path.read_text())
    del values["task"]
    path.write_text(json.dumps(values))
    with pytest.raises(RunError, match="damaged or no configuration of a run: it has no 'task'"):
        RunStore(path.parent).read_config()
