"""Hostile configurations and files: refused by name, or harmless. No traceback, no hang, no 2 GB, no code run."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import places
import torch
from attempts import Outcome, Tally, attempt, command, guarded, judged
from damages import read_facts, read_graph
from safetensors import safe_open

from ocr_interp.cli.sweep import parse_axes, read_grid
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import OcrInterpError
from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.models.loading import load_config, load_model
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.storage.digests import digest_of
from ocr_interp.storage.tensors import write_tensors
from ocr_interp.sweeps.grid import grid_points
from ocr_interp.task import FactRecallTask
from ocr_interp.training.loop import train
from ocr_interp.viz.diagram.drawing import save_diagram

Named = tuple[str, Callable[[], Any]]
BATCH = 20

_SELF: list[Any] = []
_SELF.append(_SELF)

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 7, 10**6, 10**9, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**19, 10**400, 10**5000,
    -(10**400), 0.5, 1e-320, 1e308, -0.0, float("nan"), float("inf"), 1 + 2j, "", "x", "7", "nan", "a" * 10_000,
    "\0", "\ud800", "\x1b[31m", "../../etc/passwd", b"x", [], [1], ["x", "y"], (), (1, 2), ("a",), {}, {"a": 1},
    {"lr": 1}, {"a": 10**400}, [("a", 1), ("a", 2)], _SELF, set(), object(), np.float64(2), np.int64(3),
    np.array([1, 2]), np.array(3), np.zeros((0,)), torch.tensor(3), torch.zeros(2, 2), range(10**9), int, len,
)  # fmt: skip
JSON_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2**31, 2**63, 10**30, 1e308, -1e308, 1e-320, float("nan"), float("inf"), "", "x", "7",
    "a" * 5_000, "\0", "\ud800", "\x1b]0;x\x07", "\u202e", "<script>", "$x$", [], [[]], [1, "a"], {}, {"a": {}},
)  # fmt: skip
CONFIGS = {
    "task": (FactRecallTask, {"n_pairs": 3, "m_train": 1, "m_test": 1, "n_noise": 2, "seq_len": 5}),
    "model": (ModelConfig, {"d_head": 3}),
    "train": (TrainConfig, {"steps": 4, "batch_size": 6, "log_every": 2, "device": "cpu"}),
    "facts": (FactConfig, {"n_pairs": 3, "n_names": 4}),
    "finetune": (FinetuneConfig, {"steps": 2}),
}


def batched(tally: Tally, attempts: Iterator[Named]) -> None:
    """Counts attempts, BATCH per fork; those of a batch that hung, grew or died are done again one by one."""
    waiting = list(attempts)
    for k in range(0, len(waiting), BATCH):
        some = waiting[k : k + BATCH]
        whole = attempt(lambda some=some: [_told(work) for _, work in some], own_limit=60)
        if whole.kind == "ok":
            for (what, _), (kind, text, value) in zip(some, whole.value, strict=True):
                tally.count(_judged(Outcome(kind, text, value)), what)
            continue
        for what, work in some:
            single = attempt(lambda work=work: _told(work), own_limit=12)
            if single.kind == "ok":
                single = Outcome(*single.value)
            tally.count(_judged(single), what)


def _told(work: Callable[[], Any]) -> list[Any]:
    found = guarded(work)
    value = found.value if isinstance(found.value, dict) else None
    return [found.kind, found.text, value]


def _judged(outcome: Outcome) -> Outcome:
    is_command = outcome.kind == "ok" and isinstance(outcome.value, dict) and "code" in outcome.value
    return judged(outcome) if is_command else outcome


# --- configurations --------------------------------------------------------------------------------------


def configurations(count: int, rng: random.Random) -> Iterator[Named]:
    """Every field with every value, `count` of them by chance; what is accepted is used."""
    pairs = [
        (part, field.name, k)
        for part, (cls, _) in CONFIGS.items()
        for field in dataclasses.fields(cls)
        for k in range(len(VALUES))
    ]
    for part, field, k in rng.sample(pairs, min(count, len(pairs))):
        yield f"{part}.{field} = value {k}", lambda part=part, field=field, k=k: _use(part, field, VALUES[k])


def _use(part: str, field: str, value: Any) -> None:
    cls, base = CONFIGS[part]
    made = cls(**{**base, field: value})
    if part in ("facts", "finetune"):
        config = LLMRunConfig(**({"facts": made} if part == "facts" else {"train": made}))
        again = LLMRunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        if part == "facts":
            make_facts(made)
    else:
        parts = {name: CONFIGS[name][0](**CONFIGS[name][1]) for name in ("task", "model", "train")}
        config = RunConfig(**{**parts, part: made})
        again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        _first_row(config)
    assert again.fingerprint == config.fingerprint, "another fingerprint after JSON"


class _Enough(Exception):
    pass


def _first_row(config: RunConfig) -> None:
    def stop(row: object) -> None:
        raise _Enough

    try:
        train(config.task, config.model, config.train, progress=False, on_log=stop)
    except _Enough:
        return


# --- files with a fitting seal ----------------------------------------------------------------------------


def mutated(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one entry anywhere in it replaced, removed, repeated or wrapped."""
    whole = copy.deepcopy(value)
    spots: list[tuple[Any, Any]] = []
    stack = [whole]
    while stack:
        item = stack.pop()
        for key in item if isinstance(item, dict) else range(len(item)):
            spots.append((item, key))
            if isinstance(item[key], dict | list):
                stack.append(item[key])
    if not spots:
        return rng.choice(JSON_VALUES)
    item, key = rng.choice(spots)
    how = rng.random()
    if how < 0.15:
        del item[key]
    elif how < 0.25 and isinstance(item, list):
        item.append(copy.deepcopy(item[key]))
    elif how < 0.3:
        item[key] = [item[key]]
    elif how < 0.35 and isinstance(item, dict):
        item["another"] = rng.choice(JSON_VALUES)
    else:
        item[key] = rng.choice(JSON_VALUES)
    return whole


def _resealed(file: Path, rng: random.Random) -> None:
    """Other tensors or other metadata under a digest that fits."""
    with safe_open(file, framework="pt") as opened:
        metadata = json.loads(opened.metadata()["ocr_interp"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    metadata.pop("digest")
    if rng.random() < 0.5:
        metadata = mutated(metadata, rng)
    else:
        name = rng.choice(sorted(tensors))
        changes: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
            lambda t: t * float("nan"),
            lambda t: t.double(),
            lambda t: t.flatten()[:1],
            lambda t: t[None],
            lambda t: t.to(torch.int64),
            lambda t: torch.zeros(0),
        )
        if rng.random() < 0.2:
            del tensors[name]
        else:
            tensors[name] = rng.choice(changes)(tensors[name])
    if not isinstance(metadata, dict):
        metadata = {}
    write_tensors(file, tensors, metadata)


def forged(count: int, rng: random.Random, folder: Path, made: Path) -> Iterator[Named]:
    """Files of runs, sweeps and language models whose digest fits and whose content does not."""
    for k in range(count):
        kind = rng.choice(("run", "run", "stopped", "sweep", "part", "settings", "brackets"))
        seed = rng.randrange(2**32)
        yield f"forged {kind} with seed {seed}", lambda kind=kind, seed=seed, k=k: _forge(kind, seed, folder, made)


def _forge(kind: str, seed: int, folder: Path, made: Path) -> object:
    rng = random.Random(seed)
    if kind in ("part", "sweep"):
        copied = places.fresh(made / "sweep", folder / "sweep")
        if kind == "sweep":
            _resealed(rng.choice(sorted(copied.glob("weights/*"))), rng)
        else:
            file = rng.choice(sorted(copied.glob("parts/*.json")))
            content = json.dumps(mutated(json.loads(file.read_bytes().partition(b"\n")[2]), rng)).encode()
            file.write_bytes(digest_of(content).encode() + b"\n" + content)
        places.meaning_of_sweep(copied)
        return places.do_sweep(copied)
    name = rng.choice(("run", "stopped", "sweep", "finetuned")) if kind == "settings" else "run"
    copied = places.fresh(made / ("stopped" if kind == "stopped" else name), folder / "copy")
    if kind == "settings":
        file = rng.choice(sorted(copied.glob("*.json")))
        file.write_text(json.dumps(mutated(json.loads(file.read_text()), rng)))
    else:
        files = sorted(copied.rglob("*.safetensors"))
        file = rng.choice([f for f in files if f.parent.name != "model"])
        if kind == "brackets":
            with safe_open(file, framework="pt") as opened:
                tensors = {n: opened.get_tensor(n) for n in opened.keys()}  # noqa: SIM118
            from safetensors.torch import save_file

            save_file(tensors, file, {"ocr_interp": "[" * 100_000})
        else:
            _resealed(file, rng)
    if kind == "stopped" or name == "stopped":
        places.meaning_of_checkpoint(copied)
        return places.do_finetune(made / "model", copied)
    if name == "finetuned":
        return places.meaning_of_finetuned(copied)
    if name == "sweep":
        return places.meaning_of_sweep(copied)
    found = places.meaning_of_run(copied)
    places.do_train(copied)
    return found


# --- graphs, facts, grids ---------------------------------------------------------------------------------


def graphs(count: int, rng: random.Random, folder: Path, made: Path) -> Iterator[Named]:
    """A graph with one entry changed: refused, or drawn."""
    content = json.loads((made / "graph.json").read_text())
    for k in range(count):
        other = mutated(content, rng) if k % 3 else copy.deepcopy(content)
        if k % 3 == 0:  # what is shown changes, the sums do not
            rng.choice(other["nodes"])["label"] = rng.choice(JSON_VALUES)
            other["title"] = rng.choice(("t", "\x00", "\u202e", "]]>", "$", "a" * 1_999))
        yield f"graph {k}", lambda other=other: _draw(json.dumps(other), folder)
    for name, text in _texts_of_graphs(content):
        yield f"graph: {name}", lambda text=text: _draw(text, folder)


def _texts_of_graphs(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "deep", "[" * 100_000
    yield "deep inside", json.dumps(content).replace('"title": ', '"title": ' + "[" * 500 + "]" * 500 + ', "t": ', 1)
    yield "long number", json.dumps(content).replace('"version": 1', '"version": ' + "1" * 6_000, 1)
    big = {**content, "nodes": [{"name": f"n{k}", "kind": "token", "label": "x", "members": []} for k in range(10_000)]}
    big["nodes"] += content["nodes"]
    yield "10,000 nodes", json.dumps(big)


def _draw(text: str, folder: Path) -> None:
    graph = CircuitGraph.from_json(text)
    for suffix in (".svg", ".dot"):
        written = save_diagram(graph, folder / f"graph{suffix}").read_bytes()
        assert not any(byte < 32 and byte not in b"\t\n\r" for byte in written), "control characters"
        written.decode("utf-8")


_DEEP = "axes:\n  seed: " + "[" * 5_000 + "]" * 5_000
_LAUGHS = "a: &a [1, 2]\n" + "".join(
    f"{chr(98 + k)}: &{chr(98 + k)} [*{chr(97 + k)}, *{chr(97 + k)}, *{chr(97 + k)}, *{chr(97 + k)}]\n"
    for k in range(20)
)
GRIDS = (
    _DEEP, _LAUGHS + "axes:\n  seed: *t", "axes: &x\n  seed: *x", "&a [*a]", "axes: {seed: &a [*a]}",
    "axes: {seed: [" + "9" * 6_000 + "]}", "axes: {seed: [" + "9" * 400 + "]}", "axes: {lr: [1e999]}",
    "axes: {d_head: [2, " + ", ".join(str(k) for k in range(120_000)) + "]}", "", "---\n---\n", "axes:", "axes: []",
    "axes: {}", "axes: {seed: 3}", "axes: {3: [1]}", "axes: {null: [1]}", "axes: {[1]: [1]}", "axes: {seed: {a: 1}}",
    "axes: {seed: [2024-13-45]}", "axes: {seed: [2024-01-01]}", "axes: {seed: [!!binary xx]}", "axes: [1, 2]",
    "axes: {seed: [!!python/object/apply:os.system ['true']]}", "axes: {seed: [1]}\ntask: 3", "axes: {optimizer: [[]]}",
    "axes: {seed: [1]}\nmodel: {d_head: [1]}", "axes: {seed: [1]}\ntrain: {steps: 1e400}", "axes: {ov: [{}]}",
    "axes: {seed: [1, 1]}", "axes: {n_pairs: [1000000000]}", "axes: {d_head: [10000000000]}", "!!set {a, b}",
    "axes: {train.lr: ['\\ud800']}", "axes: {data: [[noisy]]}", "\x00", "\xff", "axes: {seed: [&a 1, *a]}", "%YAML 9.9",
    "axes: {steps: [9223372036854775807], log_every: [9223372036854775807]}", "axes: {seed: [.inf, .nan]}",
    "axes: {log_every: [1], steps: [1000000000000]}", "axes: {batch_size: [9000000000000000000]}", "- " * 50_000 + "1",
    "{" * 3_000, "axes: {seed: ['" + "\\x1b" * 9 + "']}", "axes: {eval_draws: [1000000000]}", "a: !!int ''",
)  # fmt: skip
AXES = (
    "seed=0:10000000", "seed=0:99999999999999999999", "seed=5:0", "seed=", "=3", "seed=1,,2", "seed=1:2:3", "lr=nan",
    "lr=inf", "seed=" + "9" * 6_000, "seed=" + "9" * 400, "n_pairs=1000000", "d_head=1000000000", "x=1", "\0=1",
    "seq_len=1000000", "n_noise=999999", "batch_size=4000000000", "ov=" + "a" * 5_000, "steps=0:3", "seed=-5:5",
    "log_every=1e400", "snapshots=9000000000", "eval_draws=10000000000", "task=1", "model=x", "seed=١", "seed=0x10",
)  # fmt: skip


def grids(count: int, rng: random.Random, folder: Path) -> Iterator[Named]:
    """YAML files and axes, as the command reads them; what is accepted is prepared."""
    for k in range(count):
        if k % 2:
            text = AXES[(k // 2) % len(AXES)]
            if k // 2 >= len(AXES):
                text = _noise(text, rng)
            yield f"axis {text[:60]!r}", lambda text=text: _points(parse_axes((text,)))
        else:
            text = GRIDS[(k // 2) % len(GRIDS)]
            if k // 2 >= len(GRIDS):
                text = _noise(text[:2_000], rng)
            yield f"grid {text[:60]!r}", lambda text=text: _grid(text, folder)


def _grid(text: str, folder: Path) -> None:
    file = folder / "grid.yaml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    _points(read_grid(file)["axes"])


def _points(axes: Any) -> None:
    points = grid_points(axes, places.TASK, places.MODEL, places.SWEPT)
    if len(points) < 50:
        _first_row(points[-1].config)


def _noise(text: str, rng: random.Random) -> str:
    chars = list(text) or ["x"]
    for _ in range(rng.randrange(1, 4)):
        chars[rng.randrange(len(chars))] = rng.choice(list("[]{}:,-&*!|>'\"%@#\t\n 0e.\x00\u2028"))
    return "".join(chars)


FACTS = (
    "", "subject,fact,implication\n", "a,b\n1,2\n", '"', "subject,fact,implication\n\"x\ny\",b,c\n", "\ufeff" * 3,
    "subject,fact,implication\n" + "x," * 5_000 + "\n", "subject,subject,fact,implication\n1,2,3,4\n", "\x00\x00",
    "subject,fact,implication\na,b,c" + "\x00" + "\n", "subject,fact,implication\n" + "a" * 200_000 + ",b,c\n",
    "subject\tfact\timplication\n", "subject,fact,implication\n\ud800,b,c\n", "subject,fact,implication\na,b\n",
)  # fmt: skip


def facts(count: int, rng: random.Random, folder: Path) -> Iterator[Named]:
    """Files of facts: CSV and JSON."""
    good = [{"subject": f"s{k}", "fact": f"f{k % 2}", "implication": f"i{k % 2}"} for k in range(4)]
    for k in range(count):
        if k < len(FACTS):
            name, text = "a.csv", FACTS[k]
        elif k % 3 == 0:
            name, text = "a.csv", _noise("subject,fact,implication\nMara,Rome,Italy\nNoel,Oslo,Norway\n", rng)
        else:
            name, text = "a.json", json.dumps(mutated(good, rng))
            if k % 7 == 0:
                text = rng.choice(("[" * 100_000, "[" + "1" * 6_000 + "]", '[{"subject": ' * 300, "{}", '"x"'))
        yield f"facts {k} {text[:40]!r}", lambda name=name, text=text: _read_facts(folder / name, text)


def _read_facts(file: Path, text: str) -> None:
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    read_facts(file)
    wording = {"fact_templates": ("{subject} lives in",), "implication_templates": ("{subject} speaks",)}
    make_facts(FactConfig(data="file", file=file, **wording))


# --- model folders ----------------------------------------------------------------------------------------

_SPY = "open({path!r}, 'w').write('run')\nfrom transformers import LlamaConfig as C, LlamaForCausalLM as M\n"


def model_folders(count: int, rng: random.Random, folder: Path, made: Path) -> Iterator[Named]:
    """Folders of models: with code, pipes, sizes that are no model's, and settings changed by chance."""
    special = ("auto_map", "tokenizer auto_map", "layers", "hidden", "vocab", "fifo", "adapter", "deep", "kernel")
    for k in range(count):
        kind = special[k % len(special)] if k < 3 * len(special) else "changed"
        seed = rng.randrange(2**32)
        yield f"model folder: {kind}, seed {seed}", lambda kind=kind, seed=seed: _load(kind, seed, folder, made)


def _load(kind: str, seed: int, folder: Path, made: Path) -> None:
    rng = random.Random(seed)
    model, spy = places.fresh(made / "model", folder / "model"), folder / "spy"
    spy.unlink(missing_ok=True)
    (model / "code.py").write_text(_SPY.format(path=str(spy)))
    name = "tokenizer_config.json" if kind.startswith("tokenizer") else "config.json"
    if kind == "changed":
        name = rng.choice(("config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"))
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
        file = model / rng.choice(("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"))
        file.unlink()
        os.mkfifo(file)
    if kind == "adapter":
        (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(made / "model")}))
    try:
        load_config(str(model))
        load_model(str(model))
    finally:
        assert not spy.exists(), "code of the folder was run"
        if kind.endswith("auto_map") or kind in ("fifo", "adapter", "kernel"):
            shutil.rmtree(model)
    if kind in ("auto_map", "tokenizer auto_map", "fifo", "adapter", "kernel"):
        raise AssertionError(f"a model folder with {kind} was accepted")


# --- commands ---------------------------------------------------------------------------------------------


def commands(count: int, rng: random.Random, folder: Path, made: Path) -> Iterator[Named]:
    """Command lines: sizes, paths of any letters, pipes, links, terminals that only know ASCII."""
    run, long = made / "run", "x" * 300
    known: list[tuple[str, Callable[[], Any]]] = []

    def line(what: str, *words: str, encoding: str = "utf-8") -> None:
        known.append((what, lambda: command(*words, encoding=encoding)))

    tiny = ("--n-pairs", "3", "--m-test", "1", "--n-noise", "2", "--seq-len", "5", "--steps", "2", "--batch-size", "6")
    for flag, values in {
        "--n-pairs": ("1000000", "100000", "9" * 20, "9" * 6_000, "1e5", "-3", "nan"),
        "--d-head": ("1000000000", "10000000", "9" * 30),
        "--seq-len": ("1000000", "99999999"),
        "--n-noise": ("999999", "9" * 19),
        "--batch-size": ("4000000000", "60000000"),
        "--steps": ("9" * 19, "1000000000000000000"),
        "--log-every": ("0", "9" * 40),
        "--eval-draws": ("1000000000",),
        "--snapshots": ("9000000000",),
    }.items():
        for value in values:
            base = [w for pair in zip(tiny[::2], tiny[1::2], strict=True) if pair[0] != flag for w in pair]
            line(f"train {flag} {value[:30]}", "train", str(folder / "t"), *base, flag, value)
            if flag in ("--n-pairs", "--n-noise"):
                line(f"solve {flag} {value[:30]}", "solve", flag, value)
    for odd in (long, "\udcff\udcfe", "a\x1b[31mb", "a\nb", "ä" * 50, "\u202e", "x/" * 3_000, ""):
        path = str(folder / odd)
        for words in (("train", path, *tiny), ("info", path), ("analyze", path), ("sweep", path, "--axis", "seed=0:2", *tiny),
                      ("llm", "evaluate", path), ("diagram", str(run), "-o", path + ".svg"), ("export", str(run), path + ".safetensors"),
                      ("ablate", str(run), "--zero", "v", "--no-controls", "-o", path + ".csv")):  # fmt: skip
            line(f"{words[0]} of a path {odd[:12]!r}", *words)
    for name in ("ünï", "日本"):
        path = folder / name
        for words in (("train", str(path / "r"), *tiny), ("diagram", str(run), "-o", str(path / "d.svg")), ("export", str(run), str(path / "w.safetensors")),
                      ("analyze", str(run), "--json", str(path / "a.json")), ("sweep", str(path / "s"), "--axis", "seed=0:2", *tiny),
                      ("ablate", str(run), "--zero", "v", "--no-controls", "-o", str(path / "t.csv")), ("info", str(path / "r")), ("solve",)):  # fmt: skip
            line(f"{words[0]} in {name} on an ASCII terminal", *words, encoding="ascii")
    for words in (("sweep", str(folder / "f"), "--grid", "PIPE"), ("info", "RUN config.json"), ("info", "RUN history.csv"), ("info", "RUN checkpoint/state.safetensors"),
                  ("analyze", "RUN weights.safetensors"), ("diagram", "RUN snapshots", "-o", str(folder / "p.svg")),
                  ("ablate", str(run), "--zero", "v", "--no-controls", "-o", "PIPE"), ("llm", "evaluate", str(made / "model"), "--data", "file", "--file", "PIPE")):  # fmt: skip
        known.append((f"{words[0]} with a pipe as {words[-1]}", lambda words=words: _with_pipe(words, folder, run)))
    for names in ((".tmp-history.csv", ".tmp-config.json", ".tmp-state.safetensors"), (".lock",)):
        known.append((f"train among links {names}", lambda names=names: _among_links(names, folder, tiny)))
    for k in range(count):
        if k < len(known):
            yield known[k]
        else:
            what, words = _random_words(rng, run, folder)
            yield what, lambda words=words: command(*words)


def _with_pipe(words: tuple[str, ...], folder: Path, run: Path) -> Any:
    pipe = folder / f"pipe{'.csv' if words[0] in ('ablate', 'llm') else ''}"
    if not pipe.exists():
        os.mkfifo(pipe)
    given = []
    for word in words:
        if word.startswith("RUN "):
            copied = places.fresh(run, folder / "piped")
            target = copied / word.removeprefix("RUN ")
            target = sorted(target.iterdir())[0] if target.is_dir() else target
            target.unlink()
            os.mkfifo(target)
            word = str(copied)
        given.append(str(pipe) if word == "PIPE" else word)
    return command(*given)


def _among_links(names: tuple[str, ...], folder: Path, tiny: tuple[str, ...]) -> Any:
    run, victim = folder / "linked", folder / "victim"
    shutil.rmtree(run, ignore_errors=True)
    victim.write_text("mine")
    for place in (run, run / "checkpoint"):
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            (place / name).symlink_to(victim)
    (run / "checkpoint" / ".tmp-state.safetensors").unlink(missing_ok=True)
    found = command("train", str(run), *tiny)
    assert victim.read_text() == "mine", "the victim of a link was overwritten"
    return found


def _random_words(rng: random.Random, run: Path, folder: Path) -> tuple[str, list[str]]:
    odd = ("nan", "-1", "1e400", "9" * 400, "", "\x1b[2J", "ä", "[", "s0", "r1", "EOS", "b0", "0", "3", "True", "None")
    verbs = {
        "analyze": ("--step", "--norm", "--tolerance", "--random-seeds", "--json", "--other"),
        "diagram": ("--prompt", "--answer", "--against", "--prune", "--tolerance", "--max-blocks", "--max-subjects"),
        "ablate": ("--zero", "--mean", "--resample", "--block", "--seeds", "--draws", "--spec", "--tolerance"),
        "solve": ("--norm", "--tolerance", "--outputs", "--inputs", "--method", "--n-pairs", "--m-test"),
        "export": ("--step",),
        "llm": ("--share", "--seed", "--n-pairs", "--n-names", "--data", "--control", "--train-templates"),
    }
    verb = rng.choice(list(verbs))
    words = {"solve": ["solve"], "llm": ["llm", "facts"], "export": ["export", str(run), str(folder / "e.safetensors")]}
    given = words.get(verb, [verb, str(run)]) + (["-o", str(folder / "r.svg")] if verb == "diagram" else [])
    for flag in rng.sample(verbs[verb], min(len(verbs[verb]), rng.randrange(1, 3))):
        given += [flag, rng.choice(odd)] + ([rng.choice(odd)] if flag == "--spec" else [])
    return " ".join(given)[:150], given


def campaign(count: int, rng: random.Random, folder: Path, made: Path) -> list[Tally]:
    """`count` hostile configurations, files and command lines."""
    groups: dict[str, tuple[float, Callable[[int, Path], Iterator[Named]]]] = {
        "configurations": (0.35, lambda n, _: configurations(n, rng)),
        "files with a fitting digest": (0.15, lambda n, place: forged(n, rng, place, made)),
        "circuit graphs": (0.12, lambda n, place: graphs(n, rng, place, made)),
        "grids and axes": (0.12, lambda n, place: grids(n, rng, place)),
        "files of facts": (0.06, lambda n, place: facts(n, rng, place)),
        "model folders": (0.06, lambda n, place: model_folders(n, rng, place, made)),
        "command lines": (0.14, lambda n, place: commands(n, rng, place, made)),
    }
    rows = []
    for name, (share, make) in groups.items():
        place = folder / name.replace(" ", "-")
        place.mkdir()
        tally, start = Tally(f"hostile: {name}"), time.monotonic()
        batched(tally, make(max(1, round(share * count)), place))
        tally.seconds = time.monotonic() - start
        rows.append(tally)
    return rows


__all__ = ["OcrInterpError", "campaign", "read_graph"]
