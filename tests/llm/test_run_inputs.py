"""A run holds its facts and digests of its model: moved is fine, changed is refused with what changed."""

import contextlib
import copy
import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_facts import SMALL
from tokenizers.normalizers import Lowercase

from ocr_interp.cli.llm import Evaluate
from ocr_interp.errors import ConfigError, ModelError, RunError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.inside.inside import inspect_run
from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer
from ocr_interp.llm.training import finetune as module
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.inputs import RunInputs, tokenizer_digest
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.llm.training.finetune import finetune
from ocr_interp.llm.training.update import load_finetuned

LINES = ["subject,fact,implication"] + [
    f"{name},{city},{language}"
    for name, (city, language) in zip(
        ["Ada", "Ben", "Cora", "Dan", "Eva", "Finn"],
        3 * [("Rome", "Italian"), ("Paris", "French")],
        strict=True,
    )
]


@pytest.fixture
def csv(tmp_path):
    """A file of facts, and the function that changes it."""
    path = tmp_path / "facts.csv"

    def write(*lines):
        path.write_text("\n".join(lines) + "\n")
        return path

    write(*LINES)
    return write


@pytest.fixture
def base(csv, tmp_path):
    """A folder with a tiny model whose tokenizer knows the file's words."""
    tokenizer = tiny_tokenizer([line.replace(",", " ") for line in LINES] + ["lives in speaks"], 400)
    lm = tiny_model("llama", tokenizer, num_hidden_layers=1, hidden_size=16, intermediate_size=16)
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def config(file, base, **values):
    facts = FactConfig(
        data="file",
        file=file,
        share=0.34,
        fact_templates=("{subject} lives in", "The home of {subject} is"),
        implication_templates=("{subject} speaks", "The language of {subject} is"),
    )
    given = {"model": str(base), "lr": 1e-2, "steps": 4, "log_every": 2, "batch_size": 4, "device": "cpu"}
    return LLMRunConfig(facts, FinetuneConfig(**{**given, **values}))


def stopped(recipe, run):
    def stop(row):
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    assert finetune(recipe, run, on_log=stop).status == "interrupted"


# --- facts -----------------------------------------------------------------------------------------------


CHANGES = {
    "a fact": (
        lambda rows: [row.replace("Ada,Rome", "Ada,Paris") for row in rows],
        r"'Ada' fact: 'Rome' is now 'Paris'",
    ),
    "a row less": (lambda rows: rows[:-1], r"1 missing: 'Finn'"),
    "a row more": (lambda rows: [*rows, "Gus,Rome,Italian"], r"1 new: 'Gus'"),
    "other names": (
        lambda rows: [rows[0], *(f"New {row}" for row in rows[1:])],
        r"6 missing: 'Ada', 'Ben', 'Cora' and 3 more; 6 new: 'New Ada'",
    ),
    "an implication": (
        lambda rows: [row.replace("Eva,Rome,Italian", "Eva,Rome,French") for row in rows],
        r"1 changed: 'Eva' implication: 'Italian' is now 'French'",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_changed_rows_are_refused_and_named(change, csv, base, tmp_path):
    file, (edit, said) = tmp_path / "facts.csv", CHANGES[change]
    stopped(config(file, base), tmp_path / "run")
    csv(*edit(LINES))
    with pytest.raises(
        RunError, match=rf"facts in .*facts\.csv are not those that .*run was given: .*{said}"
    ):
        finetune(config(file, base), tmp_path / "run")
    csv(*LINES)
    assert finetune(config(file, base), tmp_path / "run", save_model=True).status == "finished"
    csv(*edit(LINES))
    for again in (
        lambda: Evaluate(str(tmp_path / "run"), device="cpu").run(),
        lambda: finetune(config(file, base), tmp_path / "run"),
        lambda: inspect_run(tmp_path / "run", 1, "cpu"),
    ):
        with pytest.raises(RunError, match=said):
            again()


def test_rows_in_another_order_are_another_training(csv, base, tmp_path):
    file = tmp_path / "facts.csv"
    stopped(config(file, base), tmp_path / "run")
    csv(LINES[0], *LINES[3:5], *LINES[1:3], *LINES[5:])
    with pytest.raises(RunError, match=r"another order|is a training name"):
        finetune(config(file, base), tmp_path / "run")


@pytest.mark.slow
def test_a_file_that_is_gone_or_moved_does_not_matter(csv, base, tmp_path, capsys):
    file, new = tmp_path / "facts.csv", tmp_path / "other name.csv"
    whole = finetune(config(file, base), tmp_path / "whole")
    for run in ("gone", "moved"):
        stopped(config(file, base), tmp_path / run)
    file.rename(new)
    gone = finetune(config(file, base), tmp_path / "gone", save_model=True)
    moved = finetune(config(new, base), tmp_path / "moved", save_model=True)
    for run in (gone, moved):
        assert run.history.equals(whole.history)
        assert run.config == whole.config, "the configuration that it was begun with"
        assert run.facts.name == "facts"
        np.testing.assert_array_equal(run.after.rank, whole.after.rank)
    Evaluate(str(tmp_path / "gone"), device="cpu").run()
    without = capsys.readouterr().out.splitlines()
    assert without[0] == f"facts: the rows that {tmp_path / 'gone'} holds ({file} is not there)"
    Evaluate(str(tmp_path / "moved"), FactConfig("file", new, test_templates=()), device="cpu").run()
    assert capsys.readouterr().out.splitlines() == without[1:]
    Evaluate(str(tmp_path / "moved"), FactConfig(test_templates=(1,)), device="cpu").run()
    others = capsys.readouterr().out.splitlines()
    Evaluate(str(tmp_path / "moved"), FactConfig("file", new, test_templates=(1,)), device="cpu").run()
    assert capsys.readouterr().out.splitlines() == others[1:]
    assert others[1:] != without[1:]
    assert finetune(config(new, base), tmp_path / "moved").status == "finished"
    new.write_text(new.read_text().replace("Ada,Rome", "Ada,Paris"))
    with pytest.raises(RunError, match="'Ada' fact: 'Rome' is now 'Paris'"):
        Evaluate(str(tmp_path / "moved"), FactConfig("file", new, test_templates=()), device="cpu").run()
    with pytest.raises(ConfigError, match="give no facts but test_templates"):
        Evaluate(
            str(tmp_path / "moved"), FactConfig("file", new, seed=1, test_templates=()), device="cpu"
        ).run()


def test_other_facts_of_the_package_are_refused(make_model, tmp_path, monkeypatch):
    """A later version whose lists of names differ would tell other facts under the same configuration."""
    recipe = LLMRunConfig(SMALL, FinetuneConfig(model="tiny", steps=2, device="cpu"))
    finetune(recipe, tmp_path / "run", lm=make_model())
    from ocr_interp.llm.facts.sets import base as sets

    made = sets.made_names
    monkeypatch.setattr(sets, "made_names", lambda count, rng: ("Zoe Zimt", *made(count, rng)[1:]))
    with pytest.raises(RunError, match=r"the facts 'city_language' are not those .* 1 new: 'Zoe Zimt'"):
        finetune(recipe, tmp_path / "run", lm=make_model())


def test_inputs_come_back_as_they_were(facts, make_model):
    from ocr_interp.llm.training.files.inputs import BaseModel

    inputs = RunInputs(facts, BaseModel.of(make_model(), {"a": "b"}))
    assert RunInputs.from_dict(json.loads(json.dumps(inputs.to_dict()))) == inputs


# --- the model before fine-tuning ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_moved_model_does_not_matter(csv, base, tmp_path):
    file, new = tmp_path / "facts.csv", tmp_path / "elsewhere"
    whole = finetune(config(file, base), tmp_path / "whole")
    stopped(config(file, base), tmp_path / "run")
    base.rename(new)
    with pytest.raises(ModelError, match="there is no folder"):
        finetune(config(file, base), tmp_path / "run")
    run = finetune(config(file, new), tmp_path / "run", save_model=True)
    assert run.history.equals(whole.history)
    assert run.config.train.model == str(base)
    with pytest.raises(ModelError, match="there is no folder"):
        inspect_run(tmp_path / "run", 1, "cpu")
    assert inspect_run(tmp_path / "run", 1, "cpu", base=str(new)).heads


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_changed_model_is_refused_and_its_files_are_named(name, csv, base, tmp_path, monkeypatch):
    file = tmp_path / "facts.csv"
    stopped(config(file, base), tmp_path / "run")
    finetune(config(file, base), tmp_path / "done", save_model=True)
    content = bytearray((base / name).read_bytes())
    content[-2] ^= 1
    (base / name).write_bytes(bytes(content))
    (base / "README.md").write_text("notes are no part of a model")
    monkeypatch.setattr(module, "Finetuning", None)  # before any weight is loaded
    said = rf"the model .*base is not the one that .* was given \(changed: {name}\): put it back, name"
    with pytest.raises(RunError, match=said):
        finetune(config(file, base), tmp_path / "run")
    with pytest.raises(RunError, match=said):
        inspect_run(tmp_path / "done", 1, "cpu")


def test_a_missing_and_a_new_file_are_named(csv, base, tmp_path):
    file = tmp_path / "facts.csv"
    stopped(config(file, base), tmp_path / "run")
    (base / "tokenizer_config.json").rename(base / "added_tokens.json")
    with pytest.raises(RunError, match=r"missing: tokenizer_config\.json; new: added_tokens\.json"):
        finetune(config(file, base), tmp_path / "run")


def test_another_model_in_memory_is_refused(make_model, tmp_path):
    recipe = LLMRunConfig(SMALL, FinetuneConfig(model="tiny", steps=4, log_every=2, device="cpu"))

    def stop(row):
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    finetune(recipe, tmp_path / "run", lm=make_model(), on_log=stop)
    with pytest.raises(RunError, match=r"model tiny is not the one .* \(changed: weights\)"):
        finetune(recipe, tmp_path / "run", lm=make_model(seed=1))
    other = make_model()
    other = replace(other, tokenizer=copy.deepcopy(other.tokenizer))
    other.tokenizer.backend_tokenizer.normalizer = Lowercase()
    with pytest.raises(RunError, match=r"\(changed: tokenizer\)"):
        finetune(recipe, tmp_path / "run", lm=other)
    finetune(recipe, tmp_path / "run", lm=make_model())


@pytest.mark.slow
def test_a_folder_takes_the_place_of_the_same_model_in_memory(make_model, tmp_path):
    lm = make_model()
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    in_memory = LLMRunConfig(SMALL, FinetuneConfig(model="tiny", steps=4, log_every=2, device="cpu"))
    on_disk = LLMRunConfig(
        SMALL, FinetuneConfig(model=str(tmp_path / "base"), steps=4, log_every=2, device="cpu")
    )

    def stop(row):
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    finetune(in_memory, tmp_path / "run", lm=make_model(), on_log=stop)
    assert finetune(on_disk, tmp_path / "run").status == "finished"
    other = make_model(seed=2)
    other.model.save_pretrained(tmp_path / "base")
    shutil.rmtree(tmp_path / "run")
    finetune(in_memory, tmp_path / "run", lm=make_model(), on_log=stop)
    with pytest.raises(RunError, match=r"\(changed: weights\)"):
        finetune(on_disk, tmp_path / "run")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_finished_run_refuses_a_model_that_was_changed(name, csv, base, tmp_path):
    file, run, kept = tmp_path / "facts.csv", tmp_path / "run", (base / name).read_bytes()
    done = finetune(config(file, base, method="lora"), run)
    (base / name).write_bytes(kept[:-2] + bytes([kept[-2] ^ 1]) + kept[-1:])
    with pytest.raises(RunError, match=rf"base is not the one .*\(changed: {name}\): put it back"):
        finetune(config(file, base, method="lora"), run)
    (base / name).write_bytes(kept)
    assert finetune(config(file, base, method="lora"), run).history.equals(done.history)
    base.rename(tmp_path / "elsewhere")
    for where in (base, tmp_path / "elsewhere"):  # gone, and moved
        assert finetune(config(file, where, method="lora"), run).history.equals(done.history)


def test_a_finished_run_refuses_another_model_in_memory(make_model, tmp_path):
    recipe = LLMRunConfig(SMALL, FinetuneConfig(model="tiny", steps=1, device="cpu", dtype="bfloat16"))
    done = finetune(recipe, tmp_path / "run", lm=make_model())
    other = make_model(seed=1)
    with pytest.raises(RunError, match=r"model tiny is not the one .* \(changed: weights\): pass the model"):
        finetune(recipe, tmp_path / "run", lm=other)
    assert {p.dtype for p in other.model.parameters()} == {torch.float32}, "it is only compared"
    assert finetune(recipe, tmp_path / "run", lm=make_model()).history.equals(done.history)
    on_disk = replace(recipe, train=replace(recipe.train, model=str(tmp_path / "base")))
    for lm, refused in ((make_model(), False), (other, True)):
        lm.model.save_pretrained(tmp_path / "base")
        lm.tokenizer.save_pretrained(tmp_path / "base")
        with pytest.raises(RunError, match="changed: weights") if refused else contextlib.nullcontext():
            finetune(on_disk, tmp_path / "run")


def test_a_digest_of_a_tokenizer_does_not_depend_on_its_use(tokenizer):
    before = tokenizer_digest(tokenizer)
    tokenizer(["a", "b c d e"], padding=False, truncation=True, max_length=3)
    assert tokenizer_digest(tokenizer) == before


def test_a_run_that_never_began_takes_another_model(csv, base, tmp_path):
    file = tmp_path / "facts.csv"
    with pytest.raises(ModelError, match="there is no folder"):
        finetune(config(file, tmp_path / "nothing"), tmp_path / "run")
    run = finetune(config(file, base), tmp_path / "run")
    assert run.config.train.model == str(base)
    assert RunFolder(tmp_path / "run").read_config() == run.config


@pytest.mark.slow
def test_an_update_beside_the_weights_asks_for_its_model(make_model, tmp_path):
    from toy_adapters import Gate

    from ocr_interp.llm import methods

    lm = make_model()
    for folder in ("base", "copy"):
        lm.model.save_pretrained(tmp_path / folder)
        lm.tokenizer.save_pretrained(tmp_path / folder)
    with methods.registered("gate", Gate()):
        recipe = FinetuneConfig(model=str(tmp_path / "base"), method="gate", steps=2, device="cpu")
        finetune(LLMRunConfig(SMALL, recipe), tmp_path / "run", save_model=True)
        (tmp_path / "base").rename(tmp_path / "moved")
        Evaluate(str(tmp_path / "run"), device="cpu", base=str(tmp_path / "copy")).run()
        assert load_finetuned(tmp_path / "run", model=str(tmp_path / "moved")).attached is not None
        make_model(seed=1).model.save_pretrained(tmp_path / "copy")
        with pytest.raises(RunError, match=r"copy is not the one .*\(changed: model\.safetensors\)"):
            Evaluate(str(tmp_path / "run"), device="cpu", base=str(tmp_path / "copy")).run()
