"""circuit and compare: models of every kind are read, the numbers are the library's, bad input one line."""

import json
import warnings

import pytest
import torch
from hooked_models import hooked_transformer

from ocr_interp import ModelConfig, TrainConfig, name_tokens, train
from ocr_interp.circuits import direct_attribution
from ocr_interp.cli.pictures.compare import TIMES
from ocr_interp.comparison import compare, compare_models
from ocr_interp.errors import ModelError, RunError
from ocr_interp.graphs import CircuitGraph
from ocr_interp.models import load_model, save_model

RECIPE = TrainConfig(steps=20, batch_size=12, snapshots=2, device="cpu")
ASK = ("--prompt", "w3", "w4", "w5", "--answer", "w7", "--against", "w8", "--edges", "6", "--steps", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_task):
    """Two saved HookedTransformers, a run and its export."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("ab"):
        model = hooked_transformer("LN", n_layers=2, attn_only=False, seed=seed)
        name_tokens(model, [f"w{k}" for k in range(32)])
        save_model(model, folder / f"{name}.safetensors")
    run = train(tiny_task, ModelConfig(d_head=6), RECIPE, folder / "run", progress=False)
    run.export(folder / "run.safetensors")
    return folder


@pytest.fixture
def call(folder, command):
    """Runs a command with names of files in the folder."""
    return lambda *words: command(*(str(folder / w[1:]) if w.startswith("@") else w for w in words))


@pytest.mark.slow
def test_saved_models_are_the_same_models(folder, tiny_task):
    first = hooked_transformer("LN", n_layers=2, attn_only=False, seed=0)
    again = load_model(folder / "a.safetensors")
    tokens = torch.tensor([[3, 4, 5]])
    assert torch.equal(first(tokens), again(tokens))
    run = train(tiny_task, ModelConfig(d_head=6), RECIPE, folder / "run", progress=False)
    exported = load_model(folder / "run.safetensors")
    prompt = torch.as_tensor(tiny_task.tokens("noise0", "s0", "r1", "EOS"))[None]
    assert torch.equal(run.model(prompt), exported(prompt))
    with pytest.raises(ModelError, match=r"run\.export"):
        save_model(run.model, folder / "no.safetensors")


@pytest.mark.slow
def test_circuit_prints_the_attribution_and_draws_what_was_found(call, folder):
    code, out, err = call("circuit", "@a.safetensors", *ASK, "-o", "@made/c.svg", "--table", "@t.json")
    assert (code, err) == (0, "")
    wanted = direct_attribution(load_model(folder / "a.safetensors"), ["w3", "w4", "w5"], "w7", "w8")
    assert f"total {wanted.totals[0]:.6g}" in out
    rows = json.loads((folder / "t.json").read_text())
    assert len(rows["direct attribution"]) == len(wanted.parts)
    assert rows["direct attribution"][0]["mean"] == pytest.approx(wanted.table()["mean"][0])
    assert len(rows["edges"]) <= 6
    assert (folder / "made" / "c.svg").read_text().startswith("<?xml")
    code, out, _ = call("circuit", "@a.safetensors", *ASK, "--donor", "w3", "w9", "w5", "-o", "@c.json")
    assert code == 0
    assert "edges outside: donor" in out
    assert json.loads((folder / "c.json").read_text())["schema"] == "ocr-interp/circuit-graph"


@pytest.mark.slow
def test_compare_says_what_changed_and_draws_both(call, folder):
    tokens = ("--inputs", "w3", "w4", "--outputs", "w7", "w8")
    code, out, err = call(
        "compare", "@a.safetensors", "@b.safetensors", *tokens, *ASK, "-o", "@d.png", "--graphs", "@d"
    )
    assert (code, err) == (0, "")
    before, after = (CircuitGraph.from_json((folder / "d" / f"{when}.json").read_text()) for when in TIMES)
    assert {edge.target for edge in before.edges} == {edge.target for edge in after.edges}
    code, _, err = call("report", "@d/before.json", "@d/after.json", "-o", "@both.html")
    assert (code, err) == (0, "")
    pair = [load_model(folder / f"{name}.safetensors") for name in "ab"]
    wanted = compare_models(*pair, inputs=["w3", "w4"], outputs=["w7", "w8"])
    for line in wanted.summary().splitlines()[2:]:
        assert line in out
    assert "before: a.safetensors, weights " in out, "models are called as they were named"
    assert (folder / "d.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_compare_two_checkpoints_of_a_run(call, folder, tiny_task):
    run = train(tiny_task, ModelConfig(d_head=6), RECIPE, folder / "run", progress=False)
    step = str(run.snapshot_steps[0])
    words = ("compare", "@run", "@run", "--before-step", step, "-o", "@steps.svg", "--table", "@steps.json")
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    wanted = compare(run.at(int(step)).circuit, run.circuit, controls=3)
    assert f"change {wanted.relative:.4g} of its size" in out
    kept = json.loads((folder / "steps.json").read_text())
    assert kept["circuit"]["relative"] == pytest.approx(wanted.relative)
    assert (folder / "steps.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("circuit", "@a.safetensors", "--prompt", "w3", "--answer", "w99", "--against", "w8"), "w99"),
        (("circuit", "@nothing.safetensors", *ASK), "is missing"),
        (("compare", "@a.safetensors", "@b.safetensors", "--graphs", "@a.safetensors", *ASK), "is a file"),
        (("circuit", "@a.safetensors", *ASK, "-o", "c.gif"), "must end in .svg"),
        (("circuit", "@a.safetensors", *ASK, "--edges", "0", "-o", "c.svg"), "--edges of at least 1"),
        (("circuit", "@a.safetensors", *ASK, "--step", "3"), "a step belongs to a run"),
        (("circuit", "@bare.safetensors", *ASK), "weights alone: write it again"),
        (("circuit", "@empty", *ASK), "is no model that this command reads"),
        (("compare", "@a.safetensors", "@b.safetensors"), "--inputs and --outputs"),
        (("compare", "@a.safetensors"), "which is no adapter"),
        (("compare", "@a.safetensors", "@b.safetensors", "@b.safetensors"), "takes two models"),
        (("compare", "@a.safetensors", "@run.safetensors", "--inputs", "w1", "--outputs", "w2"), "layers"),
        (
            (
                "compare",
                "@a.safetensors",
                "@b.safetensors",
                "--inputs",
                "w1",
                "--outputs",
                "w2",
                "-o",
                "x.png",
            ),
            "picture of edges needs --prompt",
        ),
    ],
)
def test_bad_input_is_one_line(call, folder, words, message):
    from safetensors.torch import save_file

    save_file({"W": torch.zeros(2)}, folder / "bare.safetensors")
    (folder / "empty").mkdir(exist_ok=True)
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_settings_that_do_not_fit_are_refused(folder):
    from ocr_interp.storage.tensors import read_any_tensors, write_tensors

    state, about = read_any_tensors(folder / "a.safetensors", "")
    about.pop("digest")
    write_tensors(
        folder / "odd.safetensors", state, {**about, "settings": {**about["settings"], "n_layers": 1}}
    )
    with pytest.raises(RunError, match="do not fit its settings"):
        load_model(folder / "odd.safetensors")


@pytest.mark.slow
def test_a_peft_adapter_is_compared_with_its_base(command, tmp_path, make_tiny_folder):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    base = make_tiny_folder(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["v_proj"]))
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_B" in name:
                    parameter.add_(0.1)
        wrapped.save_pretrained(tmp_path / "adapter")
    code, out, err = command(
        "compare", str(tmp_path / "adapter"), "--inputs", "id:5", "id:6", "--outputs", "id:7", "id:8"
    )
    assert code == 0, err
    assert "0.0" not in out.split("circuits changed")[0][-3:]
    assert "OV" in out


@pytest.fixture
def make_tiny_folder():
    """Writes a tiny Llama with its tokenizer into a folder."""
    from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer

    def make(path):
        tokenizer = tiny_tokenizer(["Anna lives in Rome", "Anna speaks Italian"])
        lm = tiny_model("llama", tokenizer)
        lm.model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        return path

    return make
