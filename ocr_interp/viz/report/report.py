"""Report: results as one HTML file, with everything in it that it needs."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ocr_interp.ablation.study import AblationStudy
from ocr_interp.errors import ConfigError, shown
from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.storage.atomic import write_atomic
from ocr_interp.sweeps.result import SweepResult
from ocr_interp.training.run import Run
from ocr_interp.viz.report.circuits import circuit_panel, grouped
from ocr_interp.viz.report.curves import comparison, sweep_section
from ocr_interp.viz.report.language import language_section
from ocr_interp.viz.report.panels import Section, label
from ocr_interp.viz.report.studies import study_section
from ocr_interp.viz.report.training import run_section

PAGE = Path(__file__).parent / "page"
SCRIPTS = ("base", "controls", "charts", "bars", "heatmap", "geometry", "circuit", "tables", "start")
"""Files of the page's script, in the order in which they need each other."""

MARK = "ocr-interp report"
"""What a page calls itself, so that nothing else is ever replaced by one."""

Reportable = Run | SweepResult | AblationStudy | CircuitGraph | Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """Results as one HTML page; made by `build_report`.

    Attributes:
        title: of the page.
        sections: one per result, and a comparison of several runs before them.
    """

    title: str
    sections: tuple[Section, ...] = field(repr=False)

    @property
    def html(self) -> str:
        """The page: no request leaves it, and every text of others is escaped."""
        script, style = _script(), _file("style.css")
        panels = [panel for section in self.sections for panel in section.panels]
        data = [{"kind": panel.kind, "title": panel.title, **panel.data} for panel in panels]
        return _template().render(
            title=label(self.title),
            mark=MARK,
            version=importlib.metadata.version("ocr-interp"),
            sections=self._numbered(),
            style=style,
            script=script,
            policy=_policy(script, style),
            data=json_in_html({"panels": data, "steps": [list(section.steps) for section in self.sections]}),
        )

    def _numbered(self) -> list[dict[str, Any]]:
        """The sections with the number of each panel in the page."""
        found, first = [], 0
        for section in self.sections:
            numbered = [{"number": first + k, "panel": panel} for k, panel in enumerate(section.panels)]
            found.append({"number": len(found), "section": section, "panels": numbered})
            first += len(section.panels)
        return found

    def save(self, path: str | Path) -> Path:
        """Writes the page; an earlier report is replaced whole, another file is not.

        Returns: the path.

        Raises:
            ConfigError: the name does not end in .html, or the file there is no report.
            RunError: the file cannot be written; an earlier file is left unchanged.
        """
        target = Path(path)
        check_target(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, self.html.encode())
        return target


def build_report(
    results: Mapping[str, Reportable] | Reportable,
    *,
    title: str | None = None,
    expert: int | None = None,
    max_subjects: int = 6,
) -> Report:
    """A report of one result, or of several by name.

    Args:
        results: a Run, a SweepResult, an AblationStudy, a CircuitGraph, the content of a language-model run's
            result.json (`FinetuneRun.to_dict()`), or several of them by name. Several runs are compared
            first. Graphs of the same nodes are drawn over each other, the first as before.
        title: of the page; by default the names.
        expert: of routed experts, whose circuit is drawn.
        max_subjects: tasks with at most this many subjects have one node per subject.

    Raises:
        ConfigError: nothing to report, or something that is none of these.

    >>> from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
    >>> recipe = TrainConfig(steps=20, batch_size=12, snapshots=2, device="cpu")
    >>> run = train(FactRecallTask(3, 1, 2), ModelConfig(d_head=8), recipe, progress=False)
    >>> [panel.kind for panel in build_report(run).sections[0].panels[:4]]
    ['heatmap', 'geometry', 'circuit', 'circuit']
    """
    named = _by_name(results)
    if not named:
        raise ConfigError("a report needs at least one result, got none")
    runs = {name: one for name, one in named.items() if isinstance(one, Run)}
    graphs = {name: one for name, one in named.items() if isinstance(one, CircuitGraph)}
    sections = [comparison(runs)] if len(runs) > 1 else []
    for name, one in named.items():
        if isinstance(one, Run):
            share = 1 / len(runs)
            sections.append(run_section(name, one, expert=expert, share=share, max_subjects=max_subjects))
        elif isinstance(one, SweepResult):
            sections.append(sweep_section(name, one))
        elif isinstance(one, AblationStudy):
            sections.append(study_section(name, one))
        elif isinstance(one, Mapping):
            sections.append(language_section(name, one))
        elif not isinstance(one, CircuitGraph):
            raise ConfigError(
                "a report is made of a Run, SweepResult, AblationStudy, CircuitGraph or the result of a "
                f"language-model run, got {type(one).__name__}"
            )
    sections += [_graph_section(group) for group in grouped(graphs)]
    return Report(title or ", ".join(map(str, named)), tuple(sections))


def _by_name(results: Mapping[str, Reportable] | Reportable) -> dict[str, Reportable]:
    if not isinstance(results, Mapping) or "history" in results:
        named = getattr(results, "path", None) or getattr(results, "title", None)
        if isinstance(results, Mapping):
            named = results.get("data")
        return {str(named or type(results).__name__): results}
    if any(not isinstance(name, str) for name in results):
        raise ConfigError(f"results must be named by texts, got {shown(list(results))}")
    return dict(results)


def _graph_section(graphs: dict[str, CircuitGraph]) -> Section:
    """Graphs of the same nodes as one diagram."""
    last = list(graphs.values())[-1]
    facts = tuple((label(name), label(graph.source)) for name, graph in graphs.items())
    panel = circuit_panel("Circuit", graphs)
    return Section(label(last.title), facts, (panel,))


def check_target(path: Path) -> None:
    """Requires that a page can be written to a path without losing something else.

    Raises:
        ConfigError: the name does not end in .html, or the file there is no report.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"a report must end in .html, got {path.name!r}")
    if not path.exists():
        return
    if not path.is_file():
        raise ConfigError(f"{path} must be a file, got something else: choose another name")
    with open(path, "rb") as file:
        if f'content="{MARK}'.encode() not in file.read(2_000):
            raise ConfigError(f"{path} is there and is no report: choose another name, or move it away")


def json_in_html(data: Any) -> str:
    """JSON that can stand in a script element: no character of it ends the element or begins a comment."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _policy(script: str, style: str) -> str:
    """What the browser allows this page: its own script and style, and nothing from anywhere."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@cache
def _file(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    parts = "\n".join(_file(f"{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}\n}})();\n'


@cache
def _template() -> Any:
    """The page's template; what is put into it is escaped."""
    try:
        import jinja2
    except ImportError:
        raise ConfigError("a report needs Jinja2: pip install 'ocr-interp[report]'") from None
    found = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return found.from_string(_file("page.html"))
