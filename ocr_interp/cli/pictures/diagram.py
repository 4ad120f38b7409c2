"""ocr-interp diagram: the circuit of one run, or of several on one scale, as a picture or as data."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ocr_interp.cli.arguments.files import check_output, check_routes, read_snapshot, say, write_output
from ocr_interp.errors import ConfigError, OcrInterpError

if TYPE_CHECKING:
    from ocr_interp.graphs.graph import CircuitGraph
    from ocr_interp.training.run import Snapshot

SUFFIXES = (".svg", ".png", ".pdf", ".dot", ".json")


@dataclass(frozen=True)
class Diagram:
    """Draw a run's circuit as a whole or for one prompt; several runs are drawn on one scale."""

    run_dirs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """directories of one or more runs"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """the file; its suffix is the format: .svg, .png, .pdf, .dot (Graphviz) or .json (the graph as data)"""
    step: int | None = None
    """step of a snapshot to use instead of the end of training"""
    prompt: tuple[str, ...] = ()
    """tokens of one prompt, e.g. s5 r2 (EOS is added); without a prompt, the mechanism over all prompts"""
    answer: str | None = None
    """answer whose logit is explained; by default the correct one"""
    against: str | None = None
    """answer whose logit is subtracted; by default the strongest other one of the first run, then printed"""
    expert: int | None = None
    """of routed experts, the expert whose mechanism is drawn; a prompt has its own mixture of them"""
    prune: float | None = None
    """leave out edges whose contribution is below this share of the effect; None leaves out of pictures what
    is below 1% or would be shown as zero, and nothing of .json; 0 leaves out nothing"""
    tolerance: float = 0.05
    """singular values that differ by at most this share of the largest form one OV block (prompts only)"""
    max_blocks: int = 4
    """number of OV blocks with a node of their own (prompts only)"""
    max_subjects: int = 6
    """tasks with at most this many subjects have one node per subject (without a prompt only)"""

    def run(self) -> None:
        check_output(self.output, SUFFIXES)
        if not self.run_dirs:
            raise ConfigError("diagram needs at least one run directory, got none")
        if len(self.run_dirs) > 1 and self.output.suffix.lower() in (".dot", ".json"):
            raise ConfigError(
                f"{self.output.suffix} holds one graph, got {len(self.run_dirs)} runs: write a file each, or "
                "one .svg, .png or .pdf"
            )
        if not self.prompt and (self.answer or self.against):
            raise ConfigError("--answer and --against belong to a prompt: pass --prompt too")
        graphs, said = self._graphs([read_snapshot(path, self.step) for path in self.run_dirs])
        if self.prune is None and self.output.suffix.lower() != ".json":
            graphs = [graph.readable() for graph in graphs]
        elif self.prune:
            graphs = [graph.prune(self.prune) for graph in graphs]
        names = zip(_names(self.run_dirs), graphs, strict=True)
        graphs = [replace(graph, title=f"{name}, {graph.title}") for name, graph in names]
        write_output(self.output, _rendered(graphs, self.output))
        say("\n".join([str(self.output), *said]))

    def _graphs(self, runs: list[Snapshot]) -> tuple[list[CircuitGraph], list[str]]:
        """One graph per run, and what was chosen for the user, in words."""
        if self.prompt and self.expert is not None:
            raise ConfigError("--expert draws the mechanism; a prompt has its own mixture: leave one out")
        if not self.prompt:
            if self.expert is None:
                for path, run in zip(self.run_dirs, runs, strict=True):
                    check_routes(path, run, f"diagram {{run}} --expert 0 -o {self.output}, or --prompt s0 r2")
            from ocr_interp.graphs.mechanism_graph import mechanism_graph

            options = {"max_subjects": self.max_subjects, "expert": self.expert}
            return [mechanism_graph(run, **options) for run in runs], []
        from ocr_interp.graphs.answers import right_answer, strongest_other
        from ocr_interp.graphs.building import prompt_graph

        prompt = self.prompt if self.prompt[-1] == "EOS" else (*self.prompt, "EOS")
        answer = self.answer or right_answer(runs[0], prompt)
        against = self.against or strongest_other(runs[0], prompt, answer)
        said = [f"{answer} against {against}, the strongest other answer in {self.run_dirs[0]} (--against)"]
        options = {"tolerance": self.tolerance, "max_blocks": self.max_blocks}
        found = []
        for path, run in zip(self.run_dirs, runs, strict=True):
            try:
                found.append(prompt_graph(run, prompt, answer, against, **options))
            except OcrInterpError as error:
                raise type(error)(f"{path}: {error}") from error
        return found, said if self.against is None else []


def _names(paths: tuple[Path, ...]) -> list[str]:
    """Names of the runs for titles: the last part of each path, or the whole paths if those are equal."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _rendered(graphs: list[CircuitGraph], path: Path) -> bytes:
    """The bytes of the file; drawn in a temporary folder, so that an error leaves the old file unchanged."""
    if path.suffix.lower() == ".json":
        return graphs[0].to_json().encode()
    from ocr_interp.viz.diagram.saving import save_diagram

    with tempfile.TemporaryDirectory() as folder:
        return save_diagram(graphs, Path(folder) / f"diagram{path.suffix.lower()}").read_bytes()
