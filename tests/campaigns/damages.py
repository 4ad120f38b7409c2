"""Damage to every kind of file: it is refused, or reads as if nothing had happened."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import places
from attempts import Outcome, Tally, attempt, guarded

from ocr_interp.cli.sweep import read_grid
from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.llm.facts.reading import read_records
from ocr_interp.viz.diagram.dot import to_dot

BATCH = 20
"""Damages per fork."""


@dataclass(frozen=True)
class Victim:
    """A kind of file.

    Attributes:
        row: of the table.
        whole: the folder (or file) that it belongs to.
        files: its files inside of `whole`, as a pattern.
        read: what `whole` says.
        sealed: whether another meaning is a failure; what a user writes may be changed into something else.
    """

    row: str
    whole: Path
    files: str
    read: Callable[[Path], object]
    sealed: bool = True

    @property
    def copy(self) -> str:
        """The name of the copy that is damaged; of a file with its suffix."""
        return f"copy{self.whole.suffix}"


def damaged(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Other bytes, and what was done."""
    size = len(content)
    place = rng.randrange(size)
    kind = rng.choice(
        ("bit", "bit", "digit", "digit", "cut", "zeros", "insert", "delete", "swap", "junk", "empty")
    )
    changed = bytearray(content)
    if kind == "bit":
        changed[place] ^= 1 << rng.randrange(8)
    elif kind == "digit":
        digits = [k for k in range(min(size, 200_000)) if changed[k] in b"0123456789"]
        if not digits:
            return damaged(content, rng)
        place = rng.choice(digits)
        changed[place] = ord(str((int(chr(changed[place])) + rng.randrange(1, 10)) % 10))
    elif kind == "cut":
        del changed[place:]
    elif kind == "zeros":
        end = min(size, place + rng.choice((1, 64, 4096)))
        changed[place:end] = bytes(end - place)
    elif kind == "insert":
        changed[place:place] = rng.randbytes(rng.choice((1, 3, 100)))
    elif kind == "delete":
        del changed[place : place + rng.choice((1, 3, 100))]
    elif kind == "swap":
        other = rng.randrange(size)
        changed[place], changed[other] = changed[other], changed[place]
    elif kind == "junk":
        changed = bytearray(
            rng.choice((b"{}", b"null", b"[]", b"\x00" * 50, b"\xff\xfe" * 50, b"a,b\n1,2\n", b"0"))
        )
    else:
        changed = bytearray()
    return bytes(changed), f"{kind} at byte {place} of {size}"


def _batch(victim: Victim, expected: object, count: int, seed: int, folder: Path) -> list[list[str]]:
    """Damages one file at a time; gives [outcome, what, text]."""
    rng, found = random.Random(seed), []
    copy = places.fresh(victim.whole, folder / victim.copy)
    for _ in range(count):
        file = rng.choice(sorted(copy.glob(victim.files))) if copy.is_dir() else copy
        content = file.read_bytes()
        other, how = damaged(content, rng)
        if other == content:
            continue
        file.write_bytes(other)
        outcome = guarded(lambda: victim.read(copy), 20.0)
        file.write_bytes(content)
        if outcome.kind == "ok" and victim.sealed and outcome.value != expected:
            outcome.kind = "silent"
        name = file.relative_to(copy) if copy.is_dir() else file.name
        found.append([outcome.kind, f"{victim.row}, {name}: {how}", outcome.text])
    return found


def damage(victim: Victim, count: int, rng: random.Random, folder: Path) -> Tally:
    """Damages the files of a kind."""
    tally, start = Tally(f"damages: {victim.row}"), time.monotonic()
    whole = attempt(lambda: victim.read(places.fresh(victim.whole, folder / victim.copy)), own_limit=60)
    assert whole.kind == "ok", f"{victim.row}: {whole.kind}: {whole.text}"
    while tally.tried < count:
        size, seed = min(BATCH, count - tally.tried), rng.randrange(2**32)
        batch = attempt(
            lambda size=size, seed=seed: _batch(victim, whole.value, size, seed, folder), own_limit=300
        )
        if batch.kind != "ok":
            tally.count(batch, f"{victim.row}, a batch of {size} with seed {seed}")
            continue
        for kind, what, text in batch.value:
            tally.count(Outcome(kind, text), what)
    tally.seconds = time.monotonic() - start
    return tally


def read_graph(path: Path) -> str:
    return to_dot(CircuitGraph.from_json(path.read_bytes().decode("utf-8", "surrogateescape")))


def read_facts(path: Path) -> int:
    return len(read_records(path).rows)


def victims(made: Path) -> list[tuple[Victim, float]]:
    """The kinds of files and their shares of all damages."""
    run, table = made / "run", made / "table.csv"
    return [
        (Victim("run", run, "**/*.[jcs]*", places.meaning_of_run), 0.25),
        (Victim("sweep", made / "sweep", "*/*.[js]*", places.meaning_of_sweep), 0.15),
        (Victim("sweep.json", made / "sweep", "sweep.json", places.meaning_of_sweep, sealed=False), 0.03),
        (
            Victim(
                "checkpoint of a language model", made / "stopped", "**/*.[js]*", places.meaning_of_checkpoint
            ),
            0.17,
        ),
        (
            Victim(
                "config and result of a language model",
                made / "finetuned",
                "*.json",
                places.meaning_of_finetuned,
            ),
            0.1,
        ),
        (Victim("kept language model", made / "finetuned", "model/*", places.meaning_of_finetuned), 0.1),
        (Victim("table of ablations", table, "", lambda copy: places.do_ablate(run, copy)), 0.05),
        (Victim("circuit graph", made / "graph.json", "", read_graph, sealed=False), 0.05),
        (Victim("grid", made / "grid.yaml", "", lambda copy: str(read_grid(copy)), sealed=False), 0.05),
        (Victim("facts", made / "facts.csv", "", read_facts, sealed=False), 0.05),
    ]


def campaign(count: int, rng: random.Random, folder: Path, made: Path) -> list[Tally]:
    """`count` damages over all kinds of files."""
    rows = []
    for victim, share in victims(made):
        place = folder / victim.row.replace(" ", "-")
        place.mkdir()
        rows.append(damage(victim, max(1, round(share * count)), rng, place))
    return rows
