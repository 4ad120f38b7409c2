"""Hostile configurations, files and commands: refused by name, or harmless."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attempts import Outcome, Tally, attempt, guarded, judged
from hostile_commands import commands
from hostile_files import facts, forged, graphs, grids
from hostile_models import model_folders
from places import first_row
from values import VALUES

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.task import FactRecallTask

Named = tuple[str, Callable[[], Any]]
BATCH = 20
"""Attempts per fork."""

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
        first_row(config)
    assert again.fingerprint == config.fingerprint, "another fingerprint after JSON"


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
