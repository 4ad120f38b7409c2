"""Hostile model folders: code, pipes, sizes that no model has, settings changed by chance."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import places
from values import mutated

from ocr_interp.llm.models.loading import load_config, load_model

Named = tuple[str, Callable[[], Any]]

_SPY = "open({path!r}, 'w').write('run')\nfrom transformers import LlamaConfig as C, LlamaForCausalLM as M\n"


def model_folders(count: int, rng: random.Random, folder: Path, made: Path) -> Iterator[Named]:
    """Folders of models: with code, pipes, sizes that are no model's, and settings changed by chance."""
    special = (
        "auto_map",
        "tokenizer auto_map",
        "layers",
        "hidden",
        "vocab",
        "fifo",
        "adapter",
        "deep",
        "kernel",
    )
    for k in range(count):
        kind = special[k % len(special)] if k < 3 * len(special) else "changed"
        seed = rng.randrange(2**32)
        yield (
            f"model folder: {kind}, seed {seed}",
            lambda kind=kind, seed=seed: _load(kind, seed, folder, made),
        )


def _load(kind: str, seed: int, folder: Path, made: Path) -> None:
    rng = random.Random(seed)
    model, spy = places.fresh(made / "model", folder / "model"), folder / "spy"
    spy.unlink(missing_ok=True)
    (model / "code.py").write_text(_SPY.format(path=str(spy)))
    name = "tokenizer_config.json" if kind.startswith("tokenizer") else "config.json"
    if kind == "changed":
        name = rng.choice(
            ("config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json")
        )
    settings = json.loads((model / name).read_text())
    if kind.endswith("auto_map"):
        known = rng.random() < 0.5
        settings |= {} if known else {"model_type": "mine"}
        names = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
        settings["auto_map"] = dict.fromkeys(names, "code.M") if rng.random() < 0.7 else ["code.C", "code.C"]
    elif kind == "layers":
        settings["num_hidden_layers"] = rng.choice((10_000_000, 10**9, 2**63, 10**30, -1, 0, 3_000))
    elif kind == "hidden":
        settings["hidden_size"] = rng.choice((2**20, 2**40, 10**30, -4, 0))
    elif kind == "vocab":
        settings["vocab_size"] = rng.choice((2**40, 10**9, 10**7, 0, -1))
    elif kind == "kernel":
        settings["attn_implementation"] = settings["_attn_implementation"] = "owner/kernel"
    elif kind == "changed":
        settings = mutated(settings, rng)
    (model / name).write_text("[" * 100_000 if kind == "deep" else json.dumps(settings))
    if kind == "fifo":
        file = model / rng.choice(
            ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
        )
        file.unlink()
        os.mkfifo(file)
    if kind == "adapter":
        (model / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": str(made / "model")})
        )
    try:
        load_config(str(model))
        load_model(str(model))
    finally:
        assert not spy.exists(), "code of the folder was run"
        if kind.endswith("auto_map") or kind in ("fifo", "adapter", "kernel"):
            shutil.rmtree(model)
    if kind in ("auto_map", "tokenizer auto_map", "fifo", "adapter", "kernel"):
        raise AssertionError(f"a model folder with {kind} was accepted")
