"""Hostile command lines: sizes, paths of any letters, pipes, links, terminals that only know ASCII."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import places
from attempts import command

Named = tuple[str, Callable[[], Any]]


def commands(count: int, rng: random.Random, folder: Path, made: Path) -> Iterator[Named]:
    """Command lines: sizes, paths of any letters, pipes, links, terminals that only know ASCII."""
    run, long = made / "run", "x" * 300
    known: list[tuple[str, Callable[[], Any]]] = []

    def line(what: str, *words: str, encoding: str = "utf-8") -> None:
        known.append((what, lambda: command(*words, encoding=encoding)))

    tiny = (
        "--n-pairs",
        "3",
        "--m-test",
        "1",
        "--n-noise",
        "2",
        "--seq-len",
        "5",
        "--steps",
        "2",
        "--batch-size",
        "6",
    )
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
        for words in (
            ("train", path, *tiny),
            ("info", path),
            ("analyze", path),
            ("sweep", path, "--axis", "seed=0:2", *tiny),
            ("llm", "evaluate", path),
            ("diagram", str(run), "-o", path + ".svg"),
            ("export", str(run), path + ".safetensors"),
            ("ablate", str(run), "--zero", "v", "--no-controls", "-o", path + ".csv"),
        ):
            line(f"{words[0]} of a path {odd[:12]!r}", *words)
    for name in ("ünï", "日本"):
        path = folder / name
        for words in (
            ("train", str(path / "r"), *tiny),
            ("diagram", str(run), "-o", str(path / "d.svg")),
            ("export", str(run), str(path / "w.safetensors")),
            ("analyze", str(run), "--json", str(path / "a.json")),
            ("sweep", str(path / "s"), "--axis", "seed=0:2", *tiny),
            ("ablate", str(run), "--zero", "v", "--no-controls", "-o", str(path / "t.csv")),
            ("info", str(path / "r")),
            ("solve",),
        ):
            line(f"{words[0]} in {name} on an ASCII terminal", *words, encoding="ascii")
    for words in (
        ("sweep", str(folder / "f"), "--grid", "PIPE"),
        ("info", "RUN config.json"),
        ("info", "RUN history.csv"),
        ("info", "RUN checkpoint/state.safetensors"),
        ("analyze", "RUN weights.safetensors"),
        ("diagram", "RUN snapshots", "-o", str(folder / "p.svg")),
        ("ablate", str(run), "--zero", "v", "--no-controls", "-o", "PIPE"),
        ("llm", "evaluate", str(made / "model"), "--data", "file", "--file", "PIPE"),
    ):
        known.append(
            (f"{words[0]} with a pipe as {words[-1]}", lambda words=words: _with_pipe(words, folder, run))
        )
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
    odd = (
        "nan",
        "-1",
        "1e400",
        "9" * 400,
        "",
        "\x1b[2J",
        "ä",
        "[",
        "s0",
        "r1",
        "EOS",
        "b0",
        "0",
        "3",
        "True",
        "None",
    )
    verbs = {
        "analyze": ("--step", "--norm", "--tolerance", "--random-seeds", "--json", "--other"),
        "diagram": (
            "--prompt",
            "--answer",
            "--against",
            "--prune",
            "--tolerance",
            "--max-blocks",
            "--max-subjects",
        ),
        "ablate": (
            "--zero",
            "--mean",
            "--resample",
            "--block",
            "--seeds",
            "--draws",
            "--spec",
            "--tolerance",
        ),
        "solve": ("--norm", "--tolerance", "--outputs", "--inputs", "--method", "--n-pairs", "--m-test"),
        "export": ("--step",),
        "llm": ("--share", "--seed", "--n-pairs", "--n-names", "--data", "--control", "--train-templates"),
    }
    verb = rng.choice(list(verbs))
    words = {
        "solve": ["solve"],
        "llm": ["llm", "facts"],
        "export": ["export", str(run), str(folder / "e.safetensors")],
    }
    given = words.get(verb, [verb, str(run)]) + (["-o", str(folder / "r.svg")] if verb == "diagram" else [])
    for flag in rng.sample(verbs[verb], min(len(verbs[verb]), rng.randrange(1, 3))):
        given += [flag, rng.choice(odd)] + ([rng.choice(odd)] if flag == "--spec" else [])
    return " ".join(given)[:150], given
