"""The commands on tiny models: finetune, evaluate, inspect, and their errors."""

import json
import re
from dataclasses import replace

import pytest
import tyro
from small_facts import SMALL

from ocr_interp.cli.llm import Evaluate, Finetune, Inspect, Llm, Prepare
from ocr_interp.cli.llm.finetune import show_row
from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.models.tiny import FAMILIES, tiny_model, tiny_tokenizer
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.result import write_result
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.llm.training.finetune import finetune


def parse(*arguments):
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    return tyro.cli(Llm, args=list(arguments), config=markers).command


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), [*((f, "full") for f in FAMILIES), ("llama", "lora")])
def test_a_family_goes_through_finetune_evaluate_inspect(family, method, make_model, tmp_path, capsys):
    lm = make_model(family)
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    recipe = FinetuneConfig(
        model=str(tmp_path / "base"), method=method, steps=6, log_every=3, lr=1e-2, device="cpu",
        eval_batch_size=20,
    )  # fmt: skip
    Finetune(tmp_path / "run", SMALL, recipe).run()
    said = capsys.readouterr()
    assert "held out implication" in said.out
    assert said.err.count("rank of held-out facts") == 3
    Evaluate(str(tmp_path / "run"), device="cpu").run()
    evaluated = capsys.readouterr().out
    row = next(line for line in evaluated.splitlines() if line.startswith("held out implication"))
    after = json.loads((tmp_path / "run" / "result.json").read_text())["history"]
    assert f"{after['held_out_implication/rank'][-1]:8.2f}" in row
    Inspect(tmp_path / "run", n_heads=2, device="cpu").run()
    said = capsys.readouterr().out
    assert "2 most changed heads zeroed" in said
    assert ("no OV circuits: " if family == "gemma2" else "facts to implications") in said
    assert ("embeddings and norms put back" in said) == (method == "full")


@pytest.mark.slow
def test_inspect_and_evaluate_foresee_their_memory(make_model, tmp_path, monkeypatch):
    lm = make_model()
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    recipe = FinetuneConfig(model=str(tmp_path / "base"), steps=1, device="cpu")
    finetune(LLMRunConfig(SMALL, recipe), tmp_path / "run", save_model=True)
    size = 4 * sum(p.numel() for p in lm.model.parameters())
    for module in ("models.loading", "training.update"):
        monkeypatch.setattr(f"ocr_interp.llm.{module}.load_model", _refuse_to_load)
    run = tmp_path / "run"
    for command, copies in ((Evaluate(str(run), device="cpu"), 1), (Inspect(run, device="cpu"), 3)):
        _has_free(monkeypatch, copies * size)
        with pytest.raises(LookupError, match="loading"):
            command.run()
        _has_free(monkeypatch, copies * size - 1)
        with pytest.raises(ConfigError, match=f"weights {copies} times .* cpu has 0.0 GiB free"):
            command.run()


def test_a_model_that_is_not_causal_is_one_error_before_its_memory_is_foreseen(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model: ValueError"):
        Evaluate(str(tmp_path), device="cpu").run()


def _has_free(monkeypatch, size):
    monkeypatch.setattr("ocr_interp.llm.training.memory.available_memory", lambda device: size)


def _refuse_to_load(*arguments, **options):
    raise LookupError("loading")


def test_arguments_are_those_of_the_configurations():
    command = parse(
        "finetune", "runs/x", "--data", "sport_music", "--n-names", "7", "--method", "lora", "--lr", "1e-3",
        "--seed", "3", "--train-seed", "4", "--test-templates", "1", "2", "--no-save-model",
    )  # fmt: skip
    assert isinstance(command, Finetune)
    assert command.facts == FactConfig(data="sport_music", n_names=7, seed=3, test_templates=(1, 2))
    assert command.train == FinetuneConfig(method="lora", lr=1e-3, train_seed=4)
    assert not command.save_model
    assert parse("prepare", "folder") == Prepare(folder=parse("prepare", "folder").folder)
    assert parse("evaluate", "google/gemma-2-9b", "--download").download
    assert parse("inspect", "runs/x", "--n-heads", "3").n_heads == 3


@pytest.mark.parametrize("name", ["finetune", "evaluate", "inspect"])
def test_every_flag_says_what_it_is(name, capsys):
    with pytest.raises(SystemExit):
        parse(name, "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "--device" in shown
    kinds = r"STR|INT|FLOAT|PATH|\{[^}]*\}\S*|\[\w+ \[\w+ \.\.\.\]\]"
    assert re.findall(rf"(--[\w-]+) (?:(?:{kinds}) )?\(default", shown) == []


def test_a_run_is_asked_in_its_own_wordings_unless_others_are_given(tmp_path):
    own = replace(SMALL, test_templates=(3,))
    folder = RunFolder(tmp_path / "run")
    with folder.opened(LLMRunConfig(own, FinetuneConfig())):
        write_result(folder.result_file, {"format_version": 2})
    folder.model_folder.mkdir()
    run = str(tmp_path / "run")
    assert parse("evaluate", run)._source(folder) == (str(folder.model_folder), own, "float32")
    for given in ("0", "2"):
        facts = parse("evaluate", run, "--test-templates", given)._source(folder)[1]
        assert facts == replace(own, test_templates=(int(given),))
    facts = parse("evaluate", run, "--n-unseen", "7")._source(folder)[1]
    assert facts == replace(own, n_unseen=7)
    hub = parse("evaluate", "owner/name")._source(RunFolder(tmp_path / "nothing"))
    assert hub == ("owner/name", FactConfig(), "float32")


@pytest.mark.slow
def test_years_go_through_finetune_and_evaluate_and_the_scoring_is_named(tmp_path, capsys):
    years = ("1735", "1743", "1751", "1758")
    rows = "".join(f"Person{k},{years[k % 4]},{('red', 'blue')[k % 2]}\n" for k in range(8))
    (tmp_path / "years.csv").write_text("subject,fact,implication\n" + rows)
    facts = FactConfig(
        data="file",
        file=tmp_path / "years.csv",
        share=0.5,
        fact_templates=("{subject} was born in",),
        implication_templates=("{subject} likes",),
    )
    lm = tiny_model("llama", tiny_tokenizer(["x red", "x blue"] * 5))
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    recipe = FinetuneConfig(model=str(tmp_path / "base"), steps=30, log_every=15, lr=1e-2, device="cpu")
    Finetune(tmp_path / "run", facts, recipe).run()
    named = "ranked facts by the tokens up to where answers differ, implications by the first token"
    assert named in capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["scoring"] == result["after"]["scoring"]
    assert result["scoring"] == {"fact": "until_distinct", "implication": "first_token"}
    assert result["history"]["training_fact/logprob"][-1] > result["history"]["training_fact/logprob"][0]
    Evaluate(str(tmp_path / "run"), device="cpu").run()
    assert named in capsys.readouterr().out
    whole = FactConfig(test_templates=(), scoring="whole_answer")
    Evaluate(str(tmp_path / "run"), whole, device="cpu").run()
    assert "answers are ranked by the whole answer" in capsys.readouterr().out


def test_a_wording_longer_than_the_positions_is_refused_before_training(make_model, tmp_path):
    short = make_model(max_position_embeddings=2)
    short.model.save_pretrained(tmp_path / "base")
    short.tokenizer.save_pretrained(tmp_path / "base")
    recipe = FinetuneConfig(model=str(tmp_path / "base"), steps=1, device="cpu")
    for command in (
        Finetune(tmp_path / "run", SMALL, recipe),
        Evaluate(str(tmp_path / "base"), device="cpu"),
    ):
        with pytest.raises(ConfigError, match=r"has positions \(2\): the longest, '.* lives in', needs"):
            command.run()


def test_a_row_on_the_terminal_leaves_out_what_there_is_not(capsys):
    row = {"step": 0, "train_loss": float("nan"), "held_out_fact/rank": 1.0}
    show_row({**row, "training_implication/rank": float("nan"), "held_out_implication/rank": 2.0})
    said = capsys.readouterr().err
    assert said == "step     0  loss        -  rank of held-out facts  1.00, held-out implications  2.00\n"


@pytest.mark.slow
def test_a_run_asks_its_own_facts(make_model, tmp_path):
    lm = make_model()
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    recipe = FinetuneConfig(model=str(tmp_path / "base"), steps=1, device="cpu")
    Finetune(tmp_path / "run", SMALL, recipe, save_model=False).run()
    with pytest.raises(ConfigError, match="kept no model"):
        Evaluate(str(tmp_path / "run"), device="cpu").run()
    with pytest.raises(ModelError, match="kept no model"):
        Inspect(tmp_path / "run", device="cpu").run()
    with pytest.raises(ConfigError, match="give no facts"):
        Evaluate(str(tmp_path / "run"), FactConfig(seed=5), device="cpu").run()
