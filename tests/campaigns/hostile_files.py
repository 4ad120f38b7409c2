"""Hostile files: with a fitting digest, circuit graphs, grids, facts."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import places
import torch
from damages import read_facts
from places import first_row
from safetensors import safe_open
from safetensors.torch import save_file
from values import AXES, FACTS, GRIDS, JSON_VALUES, mutated

from ocr_interp.cli.sweep import parse_axes, read_grid
from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.storage.digests import digest_of
from ocr_interp.storage.tensors import write_tensors
from ocr_interp.sweeps.grid import grid_points
from ocr_interp.viz.diagram.saving import save_diagram

Named = tuple[str, Callable[[], Any]]


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
        yield (
            f"forged {kind} with seed {seed}",
            lambda kind=kind, seed=seed, k=k: _forge(kind, seed, folder, made),
        )


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
    yield (
        "deep inside",
        json.dumps(content).replace('"title": ', '"title": ' + "[" * 500 + "]" * 500 + ', "t": ', 1),
    )
    yield "long number", json.dumps(content).replace('"version": 1', '"version": ' + "1" * 6_000, 1)
    big = {
        **content,
        "nodes": [{"name": f"n{k}", "kind": "token", "label": "x", "members": []} for k in range(10_000)],
    }
    big["nodes"] += content["nodes"]
    yield "10,000 nodes", json.dumps(big)


def _draw(text: str, folder: Path) -> None:
    graph = CircuitGraph.from_json(text)
    for suffix in (".svg", ".dot"):
        written = save_diagram(graph, folder / f"graph{suffix}").read_bytes()
        assert not any(byte < 32 and byte not in b"\t\n\r" for byte in written), "control characters"
        written.decode("utf-8")


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
        first_row(points[-1].config)


def _noise(text: str, rng: random.Random) -> str:
    chars = list(text) or ["x"]
    for _ in range(rng.randrange(1, 4)):
        chars[rng.randrange(len(chars))] = rng.choice(list("[]{}:,-&*!|>'\"%@#\t\n 0e.\x00\u2028"))
    return "".join(chars)


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
                text = rng.choice(
                    ("[" * 100_000, "[" + "1" * 6_000 + "]", '[{"subject": ' * 300, "{}", '"x"')
                )
        yield f"facts {k} {text[:40]!r}", lambda name=name, text=text: _read_facts(folder / name, text)


def _read_facts(file: Path, text: str) -> None:
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    read_facts(file)
    wording = {"fact_templates": ("{subject} lives in",), "implication_templates": ("{subject} speaks",)}
    make_facts(FactConfig(data="file", file=file, **wording))
