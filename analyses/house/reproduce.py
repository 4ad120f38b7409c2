"""Trains the experiments of figures, draws the figures and assembles figures/claims.json.

A figure that fails does not stop the others.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import tyro

from analyses.house.claims import assemble, claims_file, print_claims, read_claims, write_claims
from analyses.house.discovery import Found, choose, find_figures
from analyses.house.experiments import train_all
from analyses.house.figure import Figure
from ocr_interp.errors import OcrInterpError


def reproduce(
    runs: Path, figures: Path, only: Sequence[str] = (), everything: bool = False
) -> dict[str, str]:
    """Draws figures and assembles their claims.

    Args:
        runs: folder of the trained models; models that are already there are not trained again.
        figures: folder for pictures, their numbers and the claims.
        only: names of figures or studies; empty is all quick figures.
        everything: whether to draw the slow figures too.

    Returns: error messages by figure; empty if there was no error.

    Raises:
        UnknownNameError: a name in `only` is no figure and no study; the message lists close matches.
    """
    start, found = time.perf_counter(), find_figures()
    loaded, failed = _loaded(choose(found, only) if only else found)
    if not only and not everything:
        loaded = {script: figure for script, figure in loaded.items() if figure.cost == "quick"}
    experiments = {e.name: e for figure in loaded.values() for e in figure.experiments}
    try:
        train_all(runs, experiments.values())
    except Exception as error:
        failed["training"] = _told(error)  # figures that need these runs will fail with the same error
    for script, figure in loaded.items():
        if message := _draw(script, figure, runs, figures):
            failed[script] = message
        _assemble(figures, found)  # after each figure, so that an interruption does not lose claims
    if message := _assemble(figures, found):
        failed["claims.json"] = message
    _tell_of_left_over_claims(figures, found)
    drawn = sum(script not in failed for script in loaded)
    print(f"drew {drawn} figures into {figures}/, with their numbers and claims.json; models are in {runs}/")
    print(f"{time.perf_counter() - start:.0f} seconds")
    for script, message in failed.items():
        print(f"FAILED {script}: {message}", file=sys.stderr)
    return failed


def print_list(figures: Path, only: Sequence[str] = ()) -> None:
    """Prints every figure: name, cost, pictures, and the claims that it made when it was last drawn."""
    found = find_figures()
    chosen = choose(found, only) if only else found
    loaded, failed = _loaded(chosen)
    for script, figure in loaded.items():
        claims = read_claims(figures, script)
        print(f"{script}  {figure.cost}  {', '.join(figure.pictures) or 'no picture'}")
        for entry in claims:
            print(f"    {'holds' if entry['holds'] else 'FAILS'}  {entry['id']}")
    for script, message in failed.items():
        print(f"{script}  cannot be read: {message}")


def main() -> None:
    """Draws the figure whose module is run, e.g. `python -m analyses.paper.theorem_3`."""
    script = sys.modules["__main__"].__spec__.name.removeprefix("analyses.")  # pyright: ignore

    def draw(runs: Path = Path("runs"), figures: Path = Path("figures")) -> None:
        sys.exit(1 if reproduce(runs, figures, [script]) else 0)

    tyro.cli(draw, prog=f"python -m analyses.{script}")


def _loaded(found: Sequence[Found]) -> tuple[dict[str, Figure], dict[str, str]]:
    """The figures by name, and the errors of modules that could not be imported."""
    loaded: dict[str, Figure] = {}
    failed: dict[str, str] = {}
    for one in found:
        try:
            loaded[one.script] = one.load()
        except Exception as error:
            failed[one.script] = _told(error)
    return loaded, failed


def _draw(script: str, figure: Figure, runs: Path, figures: Path) -> str:
    """Draws one figure and writes its claims; returns an error message, or "" if there was none."""
    import matplotlib.pyplot as plt
    import torch

    threads, before = torch.get_num_threads(), _times(figure, figures)
    print(f"drawing {script}", file=sys.stderr)
    try:
        claims = figure.claims(figure.draw(runs, figures))
        after = _times(figure, figures)
        missing = [f"{name}.png" for name in figure.pictures if after[name] in (None, before[name])]
        if missing:
            raise OcrInterpError(f"its FIGURE promises {', '.join(missing)}, and it did not write that")
        write_claims(figures, script, claims)
    except (Exception, SystemExit) as error:
        return _told(error)
    finally:
        plt.close("all")
        torch.set_num_threads(threads)  # some figures set it to one
    print_claims(claims)
    return ""


def _assemble(figures: Path, found: Sequence[Found]) -> str:
    """Writes claims.json; returns an error message, or "" if there was none."""
    try:
        assemble(figures, [one.script for one in found])
    except OcrInterpError as error:
        return _told(error)
    return ""


def _times(figure: Figure, figures: Path) -> dict[str, int | None]:
    """When each of its pictures was last written; None for a picture that does not exist."""
    paths = {name: figures / f"{name}.png" for name in figure.pictures}
    return {name: path.stat().st_mtime_ns if path.exists() else None for name, path in paths.items()}


def _told(error: BaseException) -> str:
    """An error in one line; for unexpected errors also prints the traceback."""
    if not isinstance(error, OcrInterpError | SystemExit):
        traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def _tell_of_left_over_claims(figures: Path, found: Sequence[Found]) -> None:
    """Prints the files of claims that belong to no figure in the code; they are left out of claims.json."""
    known = {claims_file(figures, one.script) for one in found}
    for path in sorted((figures / "claims").glob("*.json")):
        if path not in known:
            print(f"{path} is of no figure in the code: left out of claims.json, and can be deleted")
