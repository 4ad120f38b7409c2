"""SIGKILL at any moment of a computation's life; the same call must then end as if nothing had happened."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import places
from attempts import Outcome, Tally, attempt

PATIENCE = 120.0
"""Processor seconds that a computation of the campaign may take."""


def kill_and_resume(
    name: str,
    count: int,
    rng: random.Random,
    folder: Path,
    work: Callable[[Path], str],
    meaning: Callable[[Path], object],
    ends: str = "finished",
) -> Tally:
    """Kills `work(path)` `count` times, spread over its whole life and its last sixth; resumes and compares.

    Args:
        name: the row of the table.
        count: number of kills that hit it alive.
        rng: the moments.
        folder: where the folders are made.
        work: computes into a folder and returns how it ended.
        meaning: what the folder then says, to the bit.
        ends: what `work` returns at its end.
    """
    tally, start = Tally(name), time.monotonic()
    lives = []
    for k in range(3):
        whole = folder / f"whole-{k}"
        lives.append(_required(attempt(lambda whole=whole: work(whole), own_limit=PATIENCE)).cpu)
    expected = _required(attempt(lambda: meaning(folder / "whole-0"))).value
    again = _required(attempt(lambda: meaning(folder / "whole-1"))).value
    assert expected == again, f"{name} is not reproducible: there is nothing to compare with"
    life, missed = statistics.median(lives), 0
    while tally.tried < count and missed < 3 * count + 20:
        # Even in [0, life], and every fourth kill in the last sixth, where the final files are written.
        share = rng.uniform(0.83, 1.02) if tally.tried % 4 == 3 else rng.uniform(0.0, 1.0)
        path = folder / f"killed-{tally.tried}-{missed}"
        killed = attempt(lambda path=path: work(path), kill_after=share * life, own_limit=PATIENCE)
        if killed.kind not in ("killed", "died"):
            missed += 1  # it had ended
            continue
        ended = attempt(lambda path=path: work(path), own_limit=PATIENCE)
        outcome = ended
        if ended.kind == "refused" or (ended.kind == "ok" and ended.value != ends):
            outcome = Outcome("lost", ended.text or str(ended.value))
        elif ended.kind == "ok":
            outcome = attempt(lambda path=path: meaning(path))
            if outcome.kind == "refused":
                outcome.kind = "lost"
            elif outcome.kind == "ok" and outcome.value != expected:
                outcome = Outcome("silent", f"{outcome.value} instead of {expected}"[:300])
        tally.count(outcome, f"{name} killed at {share:.2f} of its life of {life:.2f} CPU-seconds")
    tally.seconds = time.monotonic() - start
    return tally


def _required(outcome: Outcome) -> Outcome:
    assert outcome.kind == "ok", f"{outcome.kind}: {outcome.text}"
    return outcome


def campaign(counts: dict[str, int], rng: random.Random, folder: Path, model: Path) -> list[Tally]:
    """Kills of training, of fine-tuning and of sweeps."""
    rows = []
    jobs = {
        "kills of train": ("train", places.do_train, places.bits, "finished"),
        "kills of llm finetune": (
            "finetune",
            lambda path: places.do_finetune(model, path),
            places.meaning_of_finetuned,
            "finished",
        ),
        "kills of sweep": ("sweep", places.do_sweep, places.meaning_of_sweep, "finished"),
    }
    for name, (key, work, meaning, ends) in jobs.items():
        if counts[key]:
            place = folder / key
            place.mkdir()
            rows.append(kill_and_resume(name, counts[key], rng, place, work, meaning, ends))
    return rows
