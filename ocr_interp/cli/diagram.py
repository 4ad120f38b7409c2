"""ocr-interp diagram: the circuit of one run, or of several side by side, as a picture or as data."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ocr_interp.cli.files import check_output, read_snapshot, say, write_output
from ocr_interp.errors import ConfigError, OcrInterpError

if TYPE_CHECKING:
    from ocr_interp.graphs.graph import CircuitGraph
    from ocr_interp.training.run import Snapshot

SUFFIXES = (".svg", ".png", ".pdf", ".dot", ".json")


@dataclass(frozen=True)
class Diagram:
    """Draw a run's circuit as a whole or for one prompt; several runs are drawn side by side."""

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
    """answer whose logit is subtracted; by default the first run's wrong answer with the largest logit"""
    prune: float = 0.0
    """leave out edges whose contribution is below this share of the effect"""
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
        graphs = self._graphs([read_snapshot(path, self.step) for path in self.run_dirs])
        if self.prune:
            graphs = [graph.prune(self.prune) for graph in graphs]
        write_output(self.output, _rendered(graphs, self.output))
        say(self.output)

    def _graphs(self, runs: list[Snapshot]) -> list[CircuitGraph]:
        if not self.prompt:
            from ocr_interp.graphs.mechanism_graph import mechanism_graph

            return [mechanism_graph(run, max_subjects=self.max_subjects) for run in runs]
        from ocr_interp.graphs.building import prompt_graph

        prompt = self.prompt if self.prompt[-1] == "EOS" else (*self.prompt, "EOS")
        answer = self.answer or right_answer(runs[0], prompt)
        against = self.against or strongest_other(runs[0], prompt, answer)
        options = {"tolerance": self.tolerance, "max_blocks": self.max_blocks}
        found = []
        for path, run in zip(self.run_dirs, runs, strict=True):
            try:
                found.append(prompt_graph(run, prompt, answer, against, **options))
            except OcrInterpError as error:
                raise type(error)(f"{path}: {error}") from error
        return found


def right_answer(run: Snapshot, prompt: tuple[str, ...]) -> str:
    """The answer that the task gives to the subject and relation of a prompt.

    Raises:
        UnknownNameError: a token that does not exist, with the close matches.
        ConfigError: not one subject and one relation.
    """
    task = run.task
    ids = [task.token(label) for label in prompt]
    subjects = [i for i in ids if i < task.n_subjects]
    relations = [i for i in ids if i in task.relation_tokens]
    if len(subjects) != 1 or len(relations) != 1:
        raise ConfigError(
            f"a prompt with {len(subjects)} subjects and {len(relations)} relations has no right answer: "
            "pass --answer"
        )
    fact = int(task.subject_fact[subjects[0]])
    is_fact = relations[0] == task.relation_tokens[0]
    answer = fact if is_fact else task.n_facts + int(task.fact_implication[fact])
    return task.labels[task.n_inputs + answer]


def strongest_other(run: Snapshot, prompt: tuple[str, ...], answer: str) -> str:
    """The answer with the largest logit that is not the one given."""
    from ocr_interp.circuits.attribution.of_run import attribute_run

    answers = run.task.labels[run.task.n_inputs :]
    logits = {label: attribute_run(run, prompt, label).total for label in answers if label != answer}
    return max(logits, key=lambda label: logits[label])


def _rendered(graphs: list[CircuitGraph], path: Path) -> bytes:
    """The bytes of the file; drawn in a temporary folder, so that an error leaves the old file unchanged."""
    if path.suffix.lower() == ".json":
        return graphs[0].to_json().encode()
    from ocr_interp.viz.diagram.drawing import save_diagram

    with tempfile.TemporaryDirectory() as folder:
        return save_diagram(graphs, Path(folder) / f"diagram{path.suffix.lower()}").read_bytes()
