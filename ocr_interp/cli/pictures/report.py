"""ocr-interp report: one HTML page from runs, sweeps, ablation studies, language-model runs and circuits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ocr_interp.cli.arguments.files import check_output, read_object, read_run, say
from ocr_interp.errors import ConfigError, OcrInterpError, RunError
from ocr_interp.storage.reading import read_text

if TYPE_CHECKING:
    from ocr_interp.viz.report.report import Reportable

KINDS = (
    "a run directory, a sweep's folder, a .csv of `ablate -o`, a language-model run's directory or "
    "result.json, or a circuit graph .json of `diagram -o`"
)
"""What a page can be made of."""


@dataclass(frozen=True)
class Report:
    """Write one HTML page that shows results and needs no network.

    A run has a slider over its snapshots (train with --snapshots 20), several runs are compared, graphs of
    the same nodes are drawn over each other: the first is before.
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """a run directory, a sweep's folder, the .csv of an ablation study, the directory or result.json of a
    language-model run, or the .json of a circuit graph; or several of them"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report.html")
    """the .html file; an earlier report there is replaced, another file is not"""
    title: str | None = None
    """title of the page; by default the names of the results"""
    expert: int | None = None
    """of routed experts, the expert whose circuit is drawn"""
    max_subjects: int = 6
    """tasks with at most this many subjects have one node per subject"""

    def run(self) -> None:
        check_output(self.output, (".html", ".htm"))
        if not self.paths:
            raise ConfigError(f"report needs at least one path: {KINDS}")
        from ocr_interp.viz.report.report import build_report, check_target

        check_target(self.output)
        results = {name: _read(path) for name, path in _named(self.paths).items()}
        page = build_report(results, title=self.title, expert=self.expert, max_subjects=self.max_subjects)
        size = page.save(self.output).stat().st_size
        say(f"{self.output} ({size / 1e6:.1f} MB)")


def _named(paths: tuple[Path, ...]) -> dict[str, Path]:
    """The paths by their last parts, or by their whole texts where those are equal."""
    short = [path.resolve().name.removesuffix(".json").removesuffix(".csv") for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    found = dict(zip(names, paths, strict=True))
    if len(found) < len(paths):
        raise ConfigError("every path must be given once, got one twice")
    return found


def _read(path: Path) -> Reportable:
    """What a path holds.

    Raises:
        RunError, ConfigError: nothing that a page can be made of, or damaged.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() == ".csv":
        from ocr_interp.ablation.study import read_ablation_study

        return read_ablation_study(path)
    if path.suffix.lower() != ".json" or not path.exists():
        if not path.exists():
            read_run(path)  # raises, and names runs nearby
        raise RunError(f"{path} must be {KINDS}")
    return _read_json(path)


def _read_folder(path: Path) -> Reportable:
    if (path / "sweep.json").is_file():
        from ocr_interp.sweeps.sweep import load_sweep

        return load_sweep(path)
    if read_object(path / "config.json").keys() >= {"facts", "train"}:
        return _language_run(path / "result.json")
    return read_run(path)


def _read_json(path: Path) -> Reportable:
    content = read_object(path)
    if "schema" in content:
        from ocr_interp.graphs.graph import CircuitGraph

        try:
            return CircuitGraph.from_json(read_text(path))
        except OcrInterpError as error:
            raise type(error)(f"{path}: {error}") from error
    if content.keys() >= {"config", "before", "after"}:
        return _language_run(path)
    raise RunError(f"{path} must be {KINDS}; it is JSON of another kind")


def _language_run(path: Path) -> dict[str, Any]:
    """The result of a language-model run, whose configuration must be the one that was written."""
    from ocr_interp.llm.training.files.result import config_of_result, read_result

    result = read_result(path)
    config_of_result(result)
    return result
