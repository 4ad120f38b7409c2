"""What the campaign attacks: a run, a sweep, a table of ablations, language-model runs; made in forks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from ocr_interp.ablation import Site, Zero
from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.graphs.mechanism_graph import mechanism_graph
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.result import config_of_result, read_result
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.llm.training.finetune import finetune
from ocr_interp.llm.training.update import load_finetuned
from ocr_interp.sweeps.sweep import load_sweep, sweep
from ocr_interp.task import FactRecallTask
from ocr_interp.training.loop import train
from ocr_interp.training.store import load_run

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
MODEL = ModelConfig(d_head=4)
RECIPE = TrainConfig(steps=300, batch_size=12, log_every=20, checkpoint_every=60, snapshots=5, device="cpu")
SWEPT = TrainConfig(steps=120, batch_size=12, log_every=20, device="cpu")
AXES = {"d_head": [2, 3], "seed": [0, 1], "lr": [0.01, 0.02]}
FACTS = FactConfig(n_pairs=3, n_names=4)


def do_train(path: Path, on_log: Any = None) -> str:
    return train(TASK, MODEL, RECIPE, path, progress=False, on_log=on_log).status


def do_sweep(path: Path) -> str:
    found = sweep(AXES, task=TASK, train=SWEPT, path=path, stack=2, progress=False, keep_weights=True)
    return ",".join(sorted(set(found.runs["status"])))


def do_ablate(run: Path, table: Path) -> str:
    """The table of a small study, as text; rows that the file has are not measured again."""
    specs = {name: Zero().at(Site(f"blocks.0.attn.hook_{name}")) for name in ("v", "z")}
    study = run_ablation_study(load_run(run), specs, seeds=(0,), controls=False, path=table, eval_draws=1)
    return study.table.to_csv(index=False)


def recipe_of(model: Path) -> LLMRunConfig:
    return LLMRunConfig(
        FACTS,
        FinetuneConfig(
            model=str(model), lr=1e-2, steps=12, log_every=2, checkpoint_every=2, batch_size=4, device="cpu"
        ),
    )


def do_finetune(model: Path, path: Path, on_log: Any = None) -> str:
    """The status; of a run that has finished before, "finished" too."""
    if RunFolder(path).result_file.exists():
        return str(read_result(path / "result.json")["status"])
    return finetune(recipe_of(model), path, save_model=True, on_log=on_log).status


def make_model(path: Path) -> str:
    facts = make_facts(FACTS)
    texts = [f"{e.prompt} {answer}" for e in facts.test_examples for answer in e.candidates]
    tokenizer = tiny_tokenizer(texts)
    lm = tiny_model("llama", tokenizer)
    lm.model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return "made"


def make_graph(run: Path, path: Path) -> str:
    path.write_text(mechanism_graph(load_run(run)).to_json(), encoding="utf-8")
    return "made"


class _EnoughError(Exception):
    pass


def first_row(config: RunConfig) -> None:
    """Trains to the first row of the history, which makes and measures the model."""

    def stop(row: object) -> None:
        raise _EnoughError

    with contextlib.suppress(_EnoughError):
        train(config.task, config.model, config.train, progress=False, on_log=stop)


# --- what a folder says, to the bit ----------------------------------------------------------------------


def bits(path: Path) -> dict[str, str]:
    """Digest of every file but locks, by relative path."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def meaning_of_run(path: Path) -> str:
    run = load_run(path)
    sha = hashlib.sha256(json.dumps([run.config.to_dict(), run.step, run.status]).encode())
    sha.update(repr(run.history.to_numpy().tolist()).encode())
    for weights in (run.weights, *(run.at(step).weights for step in run.snapshot_steps)):
        for name, tensor in weights.tensors().items():
            sha.update(name.encode() + tensor.numpy().tobytes())
    return f"{sha.hexdigest()} {run.snapshot_steps}"


def meaning_of_sweep(path: Path) -> str:
    found = load_sweep(path)
    sha = hashlib.sha256(found.runs.drop(columns="seconds").sort_values("run").to_csv().encode())
    sha.update(found.table.sort_values(["run", "step"]).to_csv(index=False).encode())
    for name in sorted(found.runs["run"]):
        for key, tensor in found.run(name).weights.tensors().items():
            sha.update(key.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


def meaning_of_finetuned(path: Path, seconds: bool = False) -> str:
    """A finished language-model run: its configuration, its result, and the model that it kept."""
    config = RunFolder(path).read_config().to_dict()
    result = read_result(path / "result.json")
    config_of_result(result)
    told = {k: v for k, v in result.items() if seconds or k != "seconds"}
    sha = hashlib.sha256(json.dumps([config, told], sort_keys=True).encode())
    lm = load_finetuned(path)
    for name, tensor in sorted(lm.model.state_dict().items()):
        sha.update(name.encode() + tensor.numpy().tobytes())
    sha.update(json.dumps(lm.tokenizer.get_vocab(), sort_keys=True).encode())
    settings = {k: v for k, v in lm.model.config.to_dict().items() if k != "_name_or_path"}
    sha.update(str(settings).encode())
    return sha.hexdigest()


def meaning_of_checkpoint(path: Path) -> str:
    """The checkpoint of a language-model run that was stopped."""
    found = RunFolder(path)
    config, checkpoint = found.read_config().to_dict(), found.read_checkpoint()
    assert checkpoint is not None
    fields = {name: value for name, value in vars(checkpoint).items() if name != "tensors"}
    sha = hashlib.sha256(repr([config, fields]).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


def fresh(source: Path, target: Path) -> Path:
    """A copy of a folder or file in place of an earlier one."""
    if target.is_dir():
        shutil.rmtree(target)
    elif target.exists():
        target.unlink()
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
    return target
