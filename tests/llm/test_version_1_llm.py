"""Language-model runs in the files of version 1, and all results that stand in the repository."""

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from ocr_interp.configuration import version_1
from ocr_interp.errors import RunError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.result import config_of_result, read_result
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.llm.training.finetune import finetune

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_1"
ANALYSES = Path(__file__).parents[2] / "analyses"
FACTS = FactConfig(n_pairs=2, n_names=3)
LORA = {"method": "lora", "lora_rank": 2, "checkpoint_every": 4}
TRAIN = FinetuneConfig(model="tiny", lr=1e-2, steps=8, log_every=4, batch_size=2, device="cpu", **LORA)
CONFIG = LLMRunConfig(FACTS, TRAIN)


@pytest.fixture
def old(tmp_path):
    return lambda name: Path(shutil.copytree(FIXTURES / name, tmp_path / name))


def small_model():
    facts = make_facts(FACTS)
    tokenizer = tiny_tokenizer([f"{e.prompt} {a}" for e in facts.test_examples for a in e.candidates], 300)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    return tiny_model("llama", tokenizer, **sizes, num_attention_heads=2, num_key_value_heads=1)


def test_a_finished_run_is_read(old):
    path = old("llm_finished")
    assert RunFolder(path).read_config() == CONFIG
    result = read_result(path / "result.json")
    assert config_of_result(result) == CONFIG
    assert result["step"] == 8
    history = pd.read_csv(path / "history.csv")
    assert result["history"]["step"] == history["step"].tolist()
    found = finetune(CONFIG, path, lm=small_model())
    assert (found.step, found.status, found.config) == (8, "finished", CONFIG)
    assert found.history["train_loss"].tolist()[1:] == history["train_loss"].tolist()[1:]
    with pytest.raises(RunError, match=r"another configuration \(train.lr: 0.02 != 0.01\)"):
        finetune(LLMRunConfig(FACTS, FinetuneConfig(**{**vars(TRAIN), "lr": 0.02})), path, lm=small_model())


def test_a_stopped_run_goes_on_under_its_fingerprint(old):
    path, rows = old("llm_stopped"), []
    folder = RunFolder(path)
    assert folder.read_checkpoint().step == 4
    run = finetune(CONFIG, path, lm=small_model(), on_log=rows.append)
    assert [row["step"] for row in rows] == [8]
    whole = pd.read_csv(FIXTURES / "llm_finished" / "history.csv")
    pd.testing.assert_frame_equal(run.history[list(whole.columns)], whole, rtol=1e-5)
    result = read_result(path / "result.json")
    assert (result["format_version"], result["fingerprint"]) == (1, folder.fingerprint)
    assert config_of_result(result) == CONFIG
    history = pd.read_csv(io.BytesIO((path / "history.csv").read_bytes()))
    assert len(history) == len(whole)
    assert list(history.columns[: whole.shape[1]]) == list(whole.columns)
    assert history["held_out_fact/first_told"].notna().tolist() == [False, False, True]  # a later column
    assert run.logits.steps.tolist() == [8]  # the checkpoint is of a version that kept no logits


def test_damage_of_a_checkpoint_is_noticed(old):
    file = RunFolder(old("llm_stopped")).checkpoint_file
    whole = file.read_bytes()
    for damaged, message in (
        (whole[:-9], "is damaged"),
        (whole[:-9] + b"123456789", "not that of its digest"),
        (whole.replace(b"a09d04c8da6d6a1d", b"a09d04c8da6d6a1e"), "belongs to another run"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(RunError, match=message):
            RunFolder(file.parents[1]).read_checkpoint()


def test_another_history_in_a_checkpoint_is_noticed(old):
    """The digest of version 1 is of the tensors alone."""
    file = RunFolder(old("llm_stopped")).checkpoint_file
    whole = file.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    start, refused = whole.index(b'\\"history\\"'), 0
    digits = [at for at in range(start, whole.index(b'\\"before\\"')) if chr(whole[at]).isdigit()]
    assert digits[-1] < end
    for at in digits[::20]:
        other = b"7" if whole[at : at + 1] != b"7" else b"3"
        file.write_bytes(whole[:at] + other + whole[at + 1 :])
        with pytest.raises(RunError):
            RunFolder(file.parents[1]).read_checkpoint()
        refused += 1
    assert refused > 5


def test_an_edited_configuration_is_refused(old):
    path = old("llm_stopped")
    values = json.loads((path / "config.json").read_text())
    values["train"]["lr"] = 0.5
    (path / "config.json").write_text(json.dumps(values))
    with pytest.raises(RunError, match="was changed after it was written"):
        RunFolder(path).read_config()


@pytest.mark.slow
def test_all_committed_results_stay_valid():
    paths = sorted(path for path in ANALYSES.rglob("*--seed*.json") if path.parent.name == "llm")
    assert len(paths) >= 115
    for path in paths:
        result = read_result(path)
        config = config_of_result(result)
        if result["format_version"] == 1:
            assert version_1.llm_fingerprint(result["config"]) == result["fingerprint"]
        assert LLMRunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        assert {"history", "before", "after", "seconds"} <= result.keys()
