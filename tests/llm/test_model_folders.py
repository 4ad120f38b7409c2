"""Folders of models from others: they bring data, never code, pipes, or sizes without weights."""

import json
import os
import sys

import pytest

from ocr_interp.errors import ModelError
from ocr_interp.llm.models.loading import load_config, load_model

SPY = "open({!r}, 'w').write('run')\nfrom transformers import LlamaConfig as C, LlamaForCausalLM as M\n"


@pytest.fixture(scope="module")
def kept(tmp_path_factory, tokenizer):
    from ocr_interp.llm.models.tiny import tiny_model

    folder = tmp_path_factory.mktemp("kept") / "model"
    tiny_model("llama", tokenizer).model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(kept, tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    for file in kept.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def change(folder, name="config.json", **values):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **values}))


def test_an_ordinary_folder_loads(folder):
    assert load_model(str(folder)).model.config.num_hidden_layers == 2


class Asked:
    """A terminal where somebody would answer y."""

    def isatty(self):
        return True

    def readline(self, *_):
        raise AssertionError("it asked")

    read = readline


@pytest.mark.parametrize("model_type", ["llama", "mine"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_a_folder_is_never_run_and_nobody_is_asked(folder, name, model_type, tmp_path, monkeypatch):
    (folder / "code.py").write_text(SPY.format(str(tmp_path / "spy")))
    names = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    change(folder, name, auto_map=dict.fromkeys(names, "code.M"))
    if name == "config.json":
        change(folder, model_type=model_type)
    monkeypatch.setattr(sys, "stdin", Asked())
    for load in (load_model, load_config):
        with pytest.raises(ModelError, match=rf"{name} names code of the folder \(auto_map\).*never run"):
            load(str(folder))
    assert not (tmp_path / "spy").exists()


def test_the_command_line_refuses_code_in_one_line(folder, command):
    change(folder, auto_map={"AutoConfig": "code.C"})
    code, out, err = command("llm", "evaluate", str(folder))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "auto_map" in err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 10_000_000}, "num_hidden_layers=10000000, allowed is at most 2,000"),
        ({"text_config": {"n_layers": 5_000}}, "n_layers=5000, allowed is at most"),
        ({"vocab_size": 10**9}, "vocab_size=1000000000, allowed is at most 10,000,000"),
        ({"vocab_size": 5_000_000}, "weights, its files hold .* bytes: they do not belong together"),
        ({"intermediate_size": 9_000_000}, "they do not belong together"),
        ({"_attn_implementation": "owner/kernel"}, "names a kernel to load"),
        ({"num_attention_heads": -4}, "cannot be loaded|lacks"),
    ],
)
def test_sizes_and_kernels(folder, values, message):
    change(folder, **values)
    with pytest.raises(ModelError, match=message):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_is_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=f"{name} cannot be read .*pipe|no config.json"):
        load_model(str(folder))


def test_deep_settings_and_adapters_of_other_folders(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(ModelError, match="holds an adapter"):
        load_model(str(folder))
    (folder / "adapter_config.json").unlink()
    (folder / "tokenizer_config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="lists within lists"):
        load_model(str(folder))
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ModelError, match="must be an object, got a list"):
        load_model(str(folder))
