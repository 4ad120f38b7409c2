"""ocr-interp circuit: who adds what to an answer of any model, and which edges carry it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ocr_interp.cli.arguments.files import check_output, say, write_output
from ocr_interp.errors import ConfigError

if TYPE_CHECKING:
    from ocr_interp.circuits.attribution.direct import DirectAttribution

SUFFIXES = (".svg", ".png", ".pdf", ".dot", ".json")
PICTURES = (".svg", ".png", ".pdf")


@dataclass(frozen=True)
class Circuit:
    """Say which heads and MLPs carry an answer of any model: direct attribution, and the edges found.

    ocr-interp circuit FOLDER --prompt "Anna is in Rome. Anna speaks" --answer " Italian" --against " French"
    """

    model: Annotated[str, tyro.conf.Positional]
    """folder of a transformers model or of a peft adapter, a run of `train` or `llm finetune`, a .safetensors
    of `export` or `save_model`, or a name on the hub that is on this machine"""
    prompt: tuple[str, ...] = ()
    """texts, each a prompt; for a model without tokenizer the labels or ids of one prompt, e.g. s5 r2 EOS,
    or several prompts, each in quotes"""
    answer: tuple[str, ...] = ()
    """token of the right answer (of texts usually with its space, " French"; an id as id:17), of all prompts
    or of each"""
    against: tuple[str, ...] = ()
    """token whose logit is subtracted, of all prompts or of each; of one prompt several, whose mean is"""
    donor: tuple[str, ...] = ()
    """prompt, or one for each, of as many tokens, that edges outside of the circuit come from, e.g. with
    another city; without it they carry nothing"""
    file: Path | None = None
    """instead of these a .csv, .tsv, .json or .jsonl with the columns prompt, answer, against and donor, or
    clean, correct_idx, incorrect_idx and corrupted as EAP-IG has them"""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """file of the circuit: .svg, .png, .pdf, .dot (Graphviz) or .json (the graph, also for `report`)"""
    parts: Path | None = None
    """picture of what every head and MLP adds: .svg, .png or .pdf"""
    edges: int = 30
    """number of edges of the circuit; 0 finds none"""
    nodes: int | None = None
    """instead, a circuit of so many heads and MLPs with all edges among them, e.g. 40: for large models"""
    faithfulness: float | None = None
    """instead, as many edges as carry this share of the effect by themselves, e.g. 0.8; with --nodes as many
    heads and MLPs, and no more than these"""
    steps: int = 5
    """steps of the integrated gradients"""
    rows: int = 15
    """number of parts and edges that are printed"""
    by_position: bool = False
    """also say which tokens the largest heads bring it from"""
    blocks: tuple[str, ...] = ()
    """heads, e.g. L3H1, whose contribution is also told by singular block of W_V W_O"""
    neurons: tuple[int, ...] = ()
    """layers whose MLP's contribution is also told by neuron"""
    most_nodes: int = 60
    """above so many nodes a picture shows the smaller heads of a layer as one"""
    step: int | None = None
    """of a run of `train`, the step of the snapshot to use"""
    table: Path | None = None
    """a .json file of all contributions and edges"""

    def run(self) -> None:
        check_output(self.output, SUFFIXES)
        check_output(self.parts, PICTURES)
        check_output(self.table, (".json",))
        if self.edges < 0 or (self.output is not None and not self.edges):
            raise ConfigError(
                f"a picture of edges needs --edges of at least 1, got {self.edges}: pass --parts FILE for a "
                "picture of heads and MLPs"
            )
        from ocr_interp.checks import check_count, check_number
        from ocr_interp.cli.arguments.models import read_any_model
        from ocr_interp.cli.arguments.question import Question, attribution_of, check_edges, circuit_of

        for name in ("steps", "rows", "most_nodes"):
            check_count(name, getattr(self, name), 1)
        if self.nodes is not None:
            check_count("nodes", self.nodes, 1)
            if not self.edges:
                raise ConfigError("--edges 0 finds no circuit, got --nodes too: leave one of them out")
        if self.faithfulness is not None:
            check_number("faithfulness", self.faithfulness, above=0.0, at_most=1.0)
        heads = [_head(word) for word in self.blocks]
        words = {name: getattr(self, name) for name in ("prompt", "answer", "against", "donor")}
        question = Question.of(self.file, words)
        given = read_any_model(self.model, self.step)
        asked = question.asked(given)
        if self.edges:
            check_edges(asked, self.nodes)
        options = {"by_position": self.by_position, "blocks": heads, "neurons": self.neurons}
        found = attribution_of(asked, **options)
        say(f"{asked.describe()}\n\n{found.summary(self.rows)}")
        content: dict[str, Any] = {
            "model": given.name,
            "prompts": [list(ids) for ids in asked.prompts],
            "direct attribution": _records(found.table()),
        }
        for title, table in _more(found, self.rows):
            say(f"\n{title}\n{table.head(self.rows).to_string(index=False)}")
            content[title] = _records(table)
        if self.parts is not None:
            write_parts(self.parts, found, f"{given.short}: {asked.title}")
        if self.edges:
            of = "edges" if self.nodes is None else "nodes"
            size = self.edges if self.nodes is None else self.nodes
            circuit = circuit_of(asked, size, self.steps, self.faithfulness, of)
            edges = circuit.circuit.table()
            chosen = edges if self.nodes is None else circuit.circuit.node_table()
            say(f"\n{circuit.circuit!r}\n{chosen.head(self.rows).to_string(index=False)}")
            say(circuit.summary())
            content |= {
                "method": circuit.circuit.method,
                "edges": _records(edges),
                "nodes": _records(circuit.circuit.node_table()),
                "faithfulness": circuit.faithfulness,
                "faithfulness of random circuits": {k: v.tolist() for k, v in circuit.random.items()},
            }
            if self.output is not None:
                write_circuit(self.output, circuit.graph(asked, given.short), self.most_nodes)
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


def write_parts(path: Path, found: DirectAttribution, title: str) -> None:
    """Writes a picture of what every head and MLP adds."""
    from matplotlib.figure import Figure

    from ocr_interp.viz import plot_direct_attribution
    from ocr_interp.viz.style import figure_style, picture_of

    with figure_style():
        layers = 1 + max((part.layer or 0 for part in found.parts), default=0)
        figure = Figure(figsize=(6.6, min(8.0, 1.4 + 0.16 * max(layers, 10))), layout="constrained")
        plot_direct_attribution(figure.subplots(), found)
        figure.suptitle(title[:90], fontsize=9, parse_math=False)
        write_output(path, picture_of(figure, path.suffix.lower().removeprefix(".")))
    say(str(path))


def _head(word: str) -> tuple[int, int]:
    found = re.fullmatch(r"[Ll](\d+)[Hh](\d+)", word)
    if found is None:
        raise ConfigError(f"--blocks must name heads as L3H1, got {word!r}")
    return int(found[1]), int(found[2])


def _more(found: DirectAttribution, rows: int) -> list[tuple[str, Any]]:
    """Tables beyond the parts: by position of the largest heads, by block, by neuron."""
    tables = []
    if found.heads_by_position is not None:
        tables.append(("largest heads by token", found.position_table(heads=min(rows, 5))))
    for block in found.blocks:
        tables.append((f"L{block.layer}H{block.head} by singular block", block.table()))
    for mlp in found.neurons:
        tables.append((f"MLP {mlp.layer} by neuron", mlp.table()))
    return tables


def _records(table: Any) -> list[dict[str, Any]]:
    """The rows of a table as plain values."""
    from ocr_interp.storage.plain import plain

    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return plain(rows)
