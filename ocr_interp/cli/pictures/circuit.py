"""ocr-interp circuit: who adds what to an answer of any model, and which edges carry it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ocr_interp.cli.arguments.files import check_output, say, write_output
from ocr_interp.errors import ConfigError

SUFFIXES = (".svg", ".png", ".pdf", ".dot", ".json")


@dataclass(frozen=True)
class Circuit:
    """Say which heads and MLPs carry an answer of any model: direct attribution, and the edges found.

    ocr-interp circuit FOLDER --prompt "Anna is in Rome. Anna speaks" --answer " Italian" --against " French"
    """

    model: Annotated[str, tyro.conf.Positional]
    """folder of a transformers model or of a peft adapter, a run of `train` or `llm finetune`, a .safetensors
    of `export` or `save_model`, or a name on the hub that is on this machine"""
    prompt: tuple[str, ...]
    """texts, each a prompt; for a model without tokenizer the labels or ids of one prompt, e.g. s5 r2 EOS"""
    answer: tuple[str, ...]
    """token of the right answer (of texts usually with its space, " French"), of all prompts or of each"""
    against: tuple[str, ...]
    """token whose logit is subtracted, of all prompts or of each"""
    donor: tuple[str, ...] = ()
    """prompt, or one for each, of as many tokens, that edges outside of the circuit come from, e.g. with
    another city; without it they carry nothing"""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """file of the circuit: .svg, .png, .pdf, .dot (Graphviz) or .json (the graph as data)"""
    edges: int = 30
    """number of edges of the circuit; 0 finds none"""
    steps: int = 5
    """steps of the integrated gradients"""
    rows: int = 15
    """number of parts and edges that are printed"""
    most_nodes: int = 60
    """above so many nodes a picture shows the smaller heads of a layer as one"""
    step: int | None = None
    """of a run of `train`, the step of the snapshot to use"""
    table: Path | None = None
    """a .json file of all contributions and edges"""

    def run(self) -> None:
        check_output(self.output, SUFFIXES)
        check_output(self.table, (".json",))
        if self.edges < 0 or (self.output is not None and not self.edges):
            raise ConfigError(f"a picture needs --edges of at least 1, got {self.edges}")
        from ocr_interp.checks import check_count
        from ocr_interp.cli.arguments.models import read_any_model
        from ocr_interp.cli.arguments.question import Question

        for name in ("steps", "rows", "most_nodes"):
            check_count(name, getattr(self, name), 1)
        question = Question(self.prompt, self.answer, self.against, self.donor)
        given = read_any_model(self.model, self.step)
        found = question.attribution(given)
        say(found.summary(self.rows))
        content: dict[str, Any] = {"direct attribution": _records(found.table())}
        if self.edges:
            circuit, worth = question.circuit(given, self.edges, self.steps)
            say(f"\n{circuit!r}\n{circuit.table().head(self.rows).to_string(index=False)}")
            say(worth.summary())
            content |= {"method": circuit.method, "edges": _records(circuit.table())}
            if self.output is not None:
                write_circuit(self.output, question.graph(circuit, Path(self.model).name), self.most_nodes)
        if self.table is not None:
            write_output(self.table, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
            say(str(self.table))


def write_circuit(path: Path, graph: Any, most_nodes: int) -> None:
    """Writes a graph: whole as .json; in a picture grouped where it has many nodes."""
    if path.suffix.lower() == ".json":
        write_output(path, graph.to_json().encode())
    else:
        from ocr_interp.viz import save_diagram

        save_diagram(graph, path, most_nodes=most_nodes)
    say(str(path))


def _records(table: Any) -> list[dict[str, Any]]:
    """The rows of a table as plain values."""
    from ocr_interp.storage.plain import plain

    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return plain(rows)
