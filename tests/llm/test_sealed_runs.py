"""A changed digit or bit in any file of a language-model run is refused by name, or changes nothing."""

import json
import os
import random
import shutil
import signal

import pytest
from small_facts import SMALL
from toy_adapters import Gate

from ocr_interp.cli.llm import Evaluate
from ocr_interp.errors import ModelError, OcrInterpError, RunError
from ocr_interp.llm import methods
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.models.loading import load_model
from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.result import read_result, write_result
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.llm.training.finetune import finetune
from ocr_interp.llm.training.run import stored_run
from ocr_interp.llm.training.update import load_finetuned
from ocr_interp.storage.seals import SEAL_FILE
from ocr_interp.storage.tensors import read_tensors, write_tensors


def config(**values):
    given = {"model": "tiny", "lr": 1e-2, "steps": 4, "log_every": 2, "batch_size": 6, "device": "cpu"}
    return LLMRunConfig(SMALL, FinetuneConfig(**{**given, **values}))


def small_model():
    facts = make_facts(SMALL)
    tokenizer = tiny_tokenizer([f"{e.prompt} {a}" for e in facts.test_examples for a in e.candidates], 300)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    return tiny_model("llama", tokenizer, **sizes, num_attention_heads=2, num_key_value_heads=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run with its model, one with an update beside it, and one that was stopped."""
    place = tmp_path_factory.mktemp("runs")

    def stop(row):
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with methods.registered("gate", Gate()):
        finetune(config(), place / "model", lm=small_model(), save_model=True)
        finetune(config(method="gate"), place / "adapter", lm=small_model(), save_model=True)
        finetune(config(), place / "stopped", lm=small_model(), on_log=stop)
        yield place


FILES = {
    "model": ("config.json", "inputs.json", "history.csv", "logits.safetensors", "result.json"),
    "adapter": ("adapter/adapter.safetensors",),
    "stopped": ("config.json", "inputs.json", "checkpoint/state.safetensors"),
}
KEPT = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", SEAL_FILE)
CASES = [(run, name) for run, names in FILES.items() for name in names]


def read_all(run_dir):
    """Everything that is read again of a run."""
    folder = RunFolder(run_dir)
    inputs, checkpoint = folder.read_inputs(), folder.read_checkpoint()
    if checkpoint is not None:
        tensors = {name: tensor.tolist() for name, tensor in checkpoint.tensors.items()}
        told = {name: value for name, value in vars(checkpoint).items() if name != "tensors"}
        return repr((folder.read_config(), inputs, told, tensors))
    run = stored_run(folder, inputs.facts_now(SMALL, run_dir))
    lm = load_finetuned(run_dir, base=small_model() if folder.adapter_file.exists() else None)
    weights = {name: tensor.tolist() for name, tensor in lm.model.state_dict().items()}
    history = run.history.to_dict("records")
    result = {**folder.read_result(), "after": run.after.to_dict()}
    table = (run.logits.logits.tolist(), run.logits.steps.tolist(), run.logits.prompts, run.movement)
    tokenizer = lm.tokenizer.backend_tokenizer.to_str()
    return repr((run.config, inputs, history, result, weights, table, tokenizer))


def places(whole, name, rng, count):
    """Places of digits in a text file; in a file of tensors of its header's, and of some bytes behind."""
    end = 8 + int.from_bytes(whole[:8], "little") if name.endswith("safetensors") else len(whole)
    digits = [at for at in range(8 if end < len(whole) else 0, end) if chr(whole[at]).isdigit()]
    found = rng.sample(digits, min(count, len(digits)))
    return found + ([rng.randrange(end, len(whole)) for _ in range(count // 4)] if end < len(whole) else [])


def silent(run_dir, name, read, seed=0, count=24):
    """Changes one digit or bit at a time; gives those read as something else, or not refused by name."""
    path, rng = run_dir / name, random.Random(seed)
    whole, expected, odd, refused = path.read_bytes(), read(run_dir), [], 0
    for at in places(whole, name, rng, count):
        damaged = bytearray(whole)
        is_digit = chr(whole[at]).isdigit()
        damaged[at] = (
            ord(rng.choice([d for d in "0123456789" if d != chr(whole[at])])) if is_digit else whole[at] ^ 4
        )
        path.write_bytes(bytes(damaged))
        try:
            if read(run_dir) != expected:
                odd.append((at, whole[max(0, at - 20) : at + 10]))
        except (RunError, ModelError) as error:
            refused += 1
            if str(path) not in str(error) and str(run_dir / "result.json") not in str(error):
                odd.append((at, str(error)))
    path.write_bytes(whole)
    assert refused > 0
    return odd


@pytest.mark.slow
@pytest.mark.parametrize(("run", "name"), CASES)
def test_no_digit_is_changed_in_silence(run, name, runs, tmp_path):
    shutil.copytree(runs / run, tmp_path / run)
    assert silent(tmp_path / run, name, read_all) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_no_digit_of_a_kept_model_is_changed_in_silence(name, runs, tmp_path):
    """Neither as the model of its run nor as an ordinary model folder."""
    shutil.copytree(runs / "model", tmp_path / "run")

    def weights(folder):
        lm = load_model(str(folder))
        return repr(lm.model.state_dict()) + lm.tokenizer.backend_tokenizer.to_str()

    assert silent(tmp_path / "run", f"model/{name}", read_all, count=8) == []
    assert silent(tmp_path / "run" / "model", name, weights, seed=1, count=8) == []


@pytest.mark.slow
def test_a_bit_of_a_kept_model_is_refused_with_the_way_out(runs, tmp_path):
    shutil.copytree(runs / "model", tmp_path / "run")
    file = tmp_path / "run" / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 16
    file.write_bytes(bytes(content))
    for read in (
        lambda: Evaluate(str(tmp_path / "run"), device="cpu").run(),
        lambda: load_finetuned(tmp_path / "run"),
        lambda: load_model(str(tmp_path / "run" / "model")),
    ):
        with pytest.raises(
            RunError, match=r"model/model\.safetensors: changed after it was written .*: put the"
        ):
            read()
    (tmp_path / "run" / "model" / SEAL_FILE).unlink()
    with pytest.raises(RunError, match="has lost its seal"):
        load_finetuned(tmp_path / "run")
    load_model(str(tmp_path / "run" / "model"))  # an ordinary model folder, as the message says


@pytest.mark.parametrize("file", ["config.json", "result.json"])
@pytest.mark.parametrize("change", [{"train": {"lr": 0.5}}, {"train": {"device": "cuda"}}, {"seal": None}])
def test_an_edited_configuration_of_a_finished_run_is_not_believed(file, change, runs, tmp_path):
    shutil.copytree(runs / "model", tmp_path / "run")
    path = tmp_path / "run" / file
    values = json.loads(path.read_text())
    part = values if file == "config.json" else values["config"]
    for name, new in change.items():
        if new is None:
            del values[name]
            values["more"] = 1
        else:
            part[name] |= new
    path.write_text(json.dumps(values))
    for read in (
        lambda: Evaluate(str(tmp_path / "run"), device="cpu").run(),
        lambda: finetune(config(), tmp_path / "run", lm=small_model()),
    ):
        with pytest.raises(RunError, match=rf"{file} was changed after it was written"):
            read()


def test_files_of_another_run_are_refused(runs, tmp_path):
    for name in ("inputs.json", "result.json", "history.csv"):
        run = tmp_path / name
        shutil.copytree(runs / "model", run)
        shutil.copy(runs / "adapter" / name, run / name)
        with pytest.raises(RunError, match=str(run)):
            read_all(run)


def test_missing_files_are_named(runs, tmp_path):
    for run, name in (("model", "inputs.json"), ("model", "history.csv"), ("stopped", "inputs.json")):
        copy = tmp_path / f"{run}-{name}"
        shutil.copytree(runs / run, copy)
        (copy / name).unlink()
        with pytest.raises(RunError, match=f"{name} is missing"):
            finetune(config(), copy, lm=small_model())


def test_a_run_that_is_not_finished_says_how_far_it_is(runs, tmp_path):
    from ocr_interp.llm.inside.inside import inspect_run

    said = r"stopped is not finished: step 2 of 4; the same `llm finetune` goes on"
    for read in (
        lambda: Evaluate(str(runs / "stopped"), device="cpu").run(),
        lambda: inspect_run(runs / "stopped"),
        lambda: load_finetuned(runs / "stopped"),
    ):
        with pytest.raises(OcrInterpError, match=said):
            read()


@pytest.mark.slow
def test_a_stopped_run_from_before_there_were_seals_goes_on(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "stopped", run)
    whole = finetune(config(), lm=small_model())
    folder = RunFolder(run)
    tensors, said = read_tensors(folder.checkpoint_file, folder.fingerprint, "checkpoint", "")
    write_tensors(folder.checkpoint_file, tensors, {k: v for k, v in said.items() if k != "inputs"})
    folder.inputs_file.unlink()
    values = json.loads(folder.config_file.read_text())
    del values["seal"]
    folder.config_file.write_text(json.dumps(values))
    with pytest.raises(RunError, match=r"another configuration \(train\.model: 'elsewhere' != 'tiny'\)"):
        finetune(config(model="elsewhere"), run, lm=small_model())
    again = finetune(config(), run, lm=small_model(), save_model=True)
    assert again.history.equals(whole.history)
    assert finetune(config(), run).history.equals(whole.history)
    Evaluate(str(run), device="cpu").run()


def test_results_from_before_there_were_seals_are_read(tmp_path):
    write_result(tmp_path / "result.json", {"format_version": 2, "step": 3, "ov_update": [1.0]})
    values = json.loads((tmp_path / "result.json").read_text())
    assert read_result(tmp_path / "result.json") == {k: v for k, v in values.items() if k != "seal"}
    del values["seal"]
    (tmp_path / "result.json").write_text(json.dumps(values))
    assert read_result(tmp_path / "result.json") == values
    (tmp_path / "result.json").write_text(json.dumps({**values, "keeps": None}))
    with pytest.raises(RunError, match="no seal"):
        read_result(tmp_path / "result.json")
