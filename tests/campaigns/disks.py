"""Full disks: no file may grow beyond a size. One clear line, and the same call with room ends as always."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import places
from attempts import Outcome, Tally, attempt, command, judged
from kills import PATIENCE


def fill(
    name: str,
    count: int,
    rng: random.Random,
    folder: Path,
    work: Callable[[Path], str],
    meaning: Callable[[Path], object],
) -> Tally:
    """Runs `work(path)` with a limit on the size of files, then without, and compares."""
    tally, start = Tally(f"full disks: {name}"), time.monotonic()
    whole = folder / "whole"
    assert attempt(lambda: work(whole), own_limit=PATIENCE).kind == "ok"
    expected = attempt(lambda: meaning(whole)).value
    largest = max(file.stat().st_size for file in whole.rglob("*") if file.is_file())
    for k in range(count):
        path, most = folder / str(k), int(largest ** rng.uniform(0.0, 1.0))
        what = f"{name} with files of at most {most} bytes"
        outcome = attempt(lambda path=path: work(path), file_size=most, own_limit=PATIENCE)
        if outcome.kind in ("ok", "refused"):
            if outcome.kind == "refused" and "cannot" not in outcome.text:
                outcome.kind = "died"  # an error, but of something else
            else:
                outcome = _again(path, work, meaning, expected, outcome)
        tally.count(outcome, what)
    tally.seconds = time.monotonic() - start
    return tally


def _again(
    path: Path,
    work: Callable[[Path], str],
    meaning: Callable[[Path], object],
    expected: object,
    first: Outcome,
) -> Outcome:
    ended = attempt(lambda: work(path), own_limit=PATIENCE)
    if ended.kind != "ok":
        return Outcome("lost" if ended.kind == "refused" else ended.kind, ended.text)
    found = attempt(lambda: meaning(path))
    if found.kind != "ok":
        return Outcome("lost" if found.kind == "refused" else found.kind, found.text)
    return (
        first if found.value == expected else Outcome("silent", f"{found.value} instead of {expected}"[:300])
    )


def outputs(count: int, rng: random.Random, folder: Path, run: Path) -> Tally:
    """Commands that write one file: it is whole or not there, and an earlier one stays."""
    tally, start = Tally("full disks: outputs of commands"), time.monotonic()
    words = {
        "d.svg": ("diagram", str(run), "-o"),
        "d.json": ("diagram", str(run), "-o"),
        "a.json": ("analyze", str(run), "--json"),
        "w.safetensors": ("export", str(run)),
        "t.csv": ("ablate", str(run), "--zero", "v", "--no-controls", "-o"),
    }
    for k in range(count):
        name = rng.choice(list(words))
        path, most = folder / f"{k}-{name}", rng.choice((0, 10, 100, 1_000))
        earlier = rng.random() < 0.5 and not name.startswith("t.")
        if earlier:
            path.write_bytes(b"earlier")
        given = (*words[name], str(path))
        outcome = judged(attempt(lambda given=given: command(*given), file_size=most, own_limit=60))
        if outcome.kind == "refused":
            content = path.read_bytes() if path.exists() else None
            if content != (b"earlier" if earlier else None) and not name.startswith("t."):
                outcome = Outcome("lost", f"{name} holds {str(content)[:50]}")
        tally.count(outcome, f"{' '.join(given[:1])} {name} with files of at most {most} bytes")
    tally.seconds = time.monotonic() - start
    return tally


def campaign(count: int, rng: random.Random, folder: Path, made: Path) -> list[Tally]:
    """`count` full disks over all that writes."""
    rows, model = [], made / "model"
    jobs = {
        "train": (0.35, places.do_train, places.bits),
        "sweep": (0.15, places.do_sweep, places.meaning_of_sweep),
        "llm finetune": (0.25, lambda path: places.do_finetune(model, path), places.meaning_of_finetuned),
    }
    for name, (share, work, meaning) in jobs.items():
        place = folder / name.replace(" ", "-")
        place.mkdir()
        rows.append(fill(name, max(1, round(share * count)), rng, place, work, meaning))
    place = folder / "outputs"
    place.mkdir()
    rows.append(outputs(max(1, round(0.25 * count)), rng, place, made / "run"))
    return rows
