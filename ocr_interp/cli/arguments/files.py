"""Reads runs, writes files and prints for the command line; checks paths before any work is done."""

from __future__ import annotations

import difflib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_interp.errors import ConfigError, RunError
from ocr_interp.storage.atomic import write_atomic
from ocr_interp.storage.plain import printable
from ocr_interp.storage.reading import parse_json, read_text

if TYPE_CHECKING:
    from ocr_interp.training.run import Run, Snapshot


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file, or something else in it.

    Raises:
        RunError: a file that is damaged or no JSON.
    """
    if not path.is_file():
        return {}
    try:
        found = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged or no JSON ({error})") from None
    return found if isinstance(found, dict) else {}


def read_run(path: Path) -> Run:
    """A run from its directory.

    Raises:
        RunError: no run there; the message names runs nearby.
    """
    if path.suffix.lower() in (".json", ".csv") and not path.exists():
        raise RunError(f"there is no file {path}{_runs_nearby(path)}")
    if path.suffix.lower() == ".safetensors" and path.is_file():
        raise RunError(
            f"{path} is a file of a model and no run: ocr-interp circuit and compare read it; in Python, "
            f"from ocr_interp.models import load_model, and ablate with run_ablation_study(load_model("
            f"{str(path)!r}), specs, examples=...), explain with attribute, draw with head_graph"
        )
    if not (path / "config.json").is_file():
        raise RunError(f"{path} is no run directory: it has no config.json{_runs_nearby(path)}")
    from ocr_interp.training.store import load_run

    return load_run(path)


def read_snapshot(path: Path, step: int | None) -> Snapshot:
    """A run, or its snapshot at a step.

    Raises:
        RunError: no run there.
        ConfigError: no snapshot at that step; the message names the nearest ones.
    """
    run = read_run(path)
    if step is None or step == run.step:
        return run
    if step not in run.snapshot_steps:
        steps = sorted({*run.snapshot_steps, run.step}, key=lambda known: (abs(known - step), known))
        shown = ", ".join(str(k) for k in sorted(steps[:8]))
        raise ConfigError(f"{path} has no snapshot at step {step}: the nearest are {shown}")
    return run.at(step)


def check_routes(path: Path, run: Snapshot, then: str) -> None:
    """Requires a model with one W_OV for all prompts.

    Args:
        path: of the run.
        run: the model.
        then: what to type for one that routes prompts; "{run}" stands for the path.

    Raises:
        ConfigError: prompts are routed to experts.
    """
    n_routes = run.weights.linear_map.n_routes
    if n_routes is not None:
        raise ConfigError(
            f"prompts of {path} are routed to {n_routes} experts (0..{n_routes - 1}), and no single W_OV is "
            f"its own: type ocr-interp {then.format(run=path)}"
        )


def _runs_nearby(path: Path) -> str:
    """Text that names the runs inside a directory, or runs whose path is close to a missing one."""
    if path.is_dir():
        inside = _runs_below(path)
        return f"; it holds the runs {', '.join(inside[:6])}" if inside else ""
    place = path.parent
    while not place.is_dir():
        place = place.parent
    # Compare the names below the common folder: the common part would make all paths look alike.
    names = {str(Path(run).relative_to(place)): run for run in _runs_below(place)}
    close = difflib.get_close_matches(str(path.relative_to(place)), names, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(names[name] for name in close)}?" if close else ""


def _runs_below(place: Path, depth: int = 3) -> list[str]:
    """Directories with a config.json and a history, up to a depth; hidden directories are left out."""
    found: list[str] = []
    try:
        folders = sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return found
    for folder in folders[:200]:
        if (folder / "config.json").is_file() and (folder / "history.csv").is_file():
            found.append(str(folder))
        elif depth > 1:
            found += _runs_below(folder, depth - 1)
    return found


def check_output(path: Path | None, suffixes: Sequence[str]) -> None:
    """Checks that a path can be written as a file, before anything is computed or written.

    Raises:
        ConfigError: the path is a directory, has another suffix, or has a parent that is a file.
    """
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path} must end in {' or '.join(suffixes)}, got {path.suffix or 'no suffix'}")
    if path.is_dir():
        raise ConfigError(f"{path} must be a file, got a directory")
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise ConfigError(f"{path} cannot be written: {parent} is a file")
            return


def write_output(path: Path, content: bytes) -> None:
    """Writes a file atomically: an earlier file is replaced at the end, and stays if writing fails.

    Raises:
        RunError, OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)


def allow_any_text() -> None:
    """Makes stdout and stderr write characters that the terminal's encoding lacks as escapes.

    The work is done when a command prints: a path with an umlaut must not end it on an ASCII terminal.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: object, *, on_stderr: bool = False) -> None:
    """Prints a text; control characters, which may come from files of others, as escapes."""
    shown = str(text).replace("\t", "    ")
    print(printable(shown), file=sys.stderr if on_stderr else sys.stdout, flush=on_stderr)
