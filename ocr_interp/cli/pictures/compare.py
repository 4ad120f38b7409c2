"""ocr-interp compare: which heads, MLPs and circuits changed from one model to another."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ocr_interp.cli.arguments.files import check_output, say, write_output
from ocr_interp.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from ocr_interp.cli.arguments.asked import Asked
    from ocr_interp.cli.arguments.models import GivenModel
    from ocr_interp.comparison.model_change import ModelChange
    from ocr_interp.graphs.graph import CircuitGraph

SUFFIXES = (".svg", ".png", ".pdf", ".dot")
PICTURES = (".svg", ".png", ".pdf")
TIMES = ("before", "after")


@dataclass(frozen=True)
class Compare:
    """Say what changed between two states of a model: fine-tuned, with an adapter, or two checkpoints.

    ocr-interp compare BASE FINE_TUNED --inputs " Rome" " Paris" --outputs " Italian" " French"
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    """before and after, as for `circuit`; the folder of a peft adapter alone is compared with its base"""
    inputs: tuple[str, ...] = ()
    """tokens (labels, ids as id:17, strings of one token) that circuits lead from; else those of the prompts;
    runs of `train` know their own"""
    outputs: tuple[str, ...] = ()
    """tokens that circuits lead to; else the answers and what they are against"""
    prompt: tuple[str, ...] = ()
    """also compare who adds what to an answer, and the edges that carry it; as for `circuit`"""
    answer: tuple[str, ...] = ()
    """as for `circuit`"""
    against: tuple[str, ...] = ()
    """as for `circuit`"""
    donor: tuple[str, ...] = ()
    """as for `circuit`"""
    file: Path | None = None
    """as for `circuit`"""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """with a prompt, or two runs of `train`: both circuits on one scale with what changed marked, .svg, .png,
    .pdf or .dot"""
    graphs: Path | None = None
    """folder for before.json and after.json, both circuits whole; `report` draws them over each other"""
    heads: Path | None = None
    """picture of how much every head's and MLP's circuits changed on the tokens: .svg, .png or .pdf"""
    table: Path | None = None
    """a .json file of all numbers"""
    edges: int = 30
    """number of edges of each circuit; 0 finds none"""
    nodes: int | None = None
    """instead, circuits of so many heads and MLPs with all edges among them, e.g. 40: for large models"""
    steps: int = 5
    """steps of the integrated gradients"""
    rows: int = 10
    """number of circuits and parts that are printed"""
    circuits: int = 3
    """number of circuits that are compared by degenerate block"""
    most_nodes: int = 60
    """above so many nodes a picture shows the smaller heads of a layer as one"""
    tolerance: float = 0.05
    """singular values that differ by at most this share of the largest form one block"""
    controls: int = 3
    """number of random changes beside each"""
    seed: int = 0
    """of the random changes"""
    before_step: int | None = None
    """of a run of `train`, the snapshot before"""
    after_step: int | None = None
    """of a run of `train`, the snapshot after"""

    def run(self) -> None:
        check_output(self.output, SUFFIXES)
        check_output(self.heads, PICTURES)
        check_output(self.table, (".json",))
        if self.graphs is not None:
            for when in TIMES:
                check_output(self.graphs / f"{when}.json", (".json",))
        if len(self.models) not in (1, 2):
            raise ConfigError(f"compare takes two models, or one adapter, got {len(self.models)}")
        from ocr_interp.checks import check_count
        from ocr_interp.cli.arguments.question import Question, check_edges

        for name in ("steps", "rows", "most_nodes"):
            check_count(name, getattr(self, name), 1)
        check_count("edges", self.edges, 0)
        if self.nodes is not None:
            check_count("nodes", self.nodes, 1)
            if not self.edges:
                raise ConfigError("--edges 0 finds no circuit, got --nodes too: leave one of them out")
        words = {name: getattr(self, name) for name in ("prompt", "answer", "against", "donor")}
        question = Question.of(self.file, words) if self.file or any(words.values()) else None
        given = self._given()
        runs = [one.run for one in given if one.run is not None]
        is_task = len(runs) == 2 and runs[0].task == runs[1].task
        self._check(question is not None, is_task)
        asked = [question.asked(one) for one in given] if question else []
        if asked:
            _check_same_words(asked)
            if self.edges:
                for one in asked:
                    check_edges(one, self.nodes)
        content: dict[str, Any] = {"before": given[0].name, "after": given[1].name}
        content |= self._by_task(runs) if is_task and not self.inputs else self._by_tokens(given, asked)
        graphs: list[CircuitGraph] = []
        if asked:
            content |= self._asked(asked, graphs)
        elif is_task:
            from ocr_interp.graphs import mechanism_graph

            graphs = [
                replace(mechanism_graph(run), title=f"{when}, step {run.step:,}")
                for run, when in zip(runs, ("before", "after"), strict=True)
            ]
        if self.output is not None and graphs:
            self._draw(graphs)
        if self.graphs is not None:
            for graph, when in zip(graphs, TIMES, strict=True):
                path = self.graphs / f"{when}.json"
                write_output(path, graph.to_json().encode())
                say(str(path))
        if self.table is not None:
            write_output(self.table, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
            say(str(self.table))

    def _given(self) -> list[GivenModel]:
        """Both models; of an adapter alone its base first."""
        from ocr_interp.cli.arguments.models import base_of, read_any_model

        steps = (self.before_step, self.after_step)
        given = [read_any_model(name, step) for name, step in zip(self.models, steps, strict=False)]
        return [base_of(given[0]), *given] if len(given) == 1 else given

    def _check(self, has_question: bool, is_task: bool) -> None:
        if not is_task and not has_question and not (self.inputs and self.outputs):
            raise ConfigError(
                "compare needs the tokens that matter, got no --inputs and --outputs: pass both, or "
                "--prompt, --answer and --against"
            )
        drawn = self.output is not None or self.graphs is not None
        if drawn and not ((has_question and self.edges) or is_task):
            raise ConfigError(
                "a picture of edges needs --prompt, --answer and --against (and --edges of at least 1): pass "
                "them, or --heads FILE for a picture of how much every head changed"
            )
        if self.heads is not None and is_task and not self.inputs:
            raise ConfigError(
                "a picture of heads needs --inputs and --outputs of runs of `train`: pass them, or -o FILE"
            )

    def _by_task(self, runs: list[Any]) -> dict[str, Any]:
        """The effective circuits of two runs of one task."""
        from ocr_interp.comparison import compare
        from ocr_interp.storage.plain import plain

        options = {"tolerance": self.tolerance, "controls": self.controls, "seed": self.seed}
        found = compare(runs[0].circuit, runs[1].circuit, **options)
        say(found.summary(self.rows))
        return {"circuit": plain(found)}

    def _by_tokens(self, given: list[GivenModel], asked: list[Asked]) -> dict[str, Any]:
        """All heads and MLPs on the tokens.

        Where a model's weights cannot be read between tokens and a prompt was given, this is said and the
        prompt is still compared.
        """
        from ocr_interp.comparison import compare_models
        from ocr_interp.storage.plain import plain

        tokens = self._tokens(given[0], asked)
        options = {"tolerance": self.tolerance, "controls": self.controls, "seed": self.seed}
        try:
            found = compare_models(*[one.model for one in given], **tokens, circuits=self.circuits, **options)
        except ModelError as error:
            if not asked or "same architecture" in str(error) or "one vocabulary" in str(error):
                raise
            say(f"weights were not compared: {error}")
            return {"notes": [str(error)]}
        say(found.summary(self.rows))
        if self.heads is not None:
            self._draw_heads(found, given)
        return {"units": plain(found.units), "circuits": plain(found.circuits), "notes": list(found.notes)}

    def _tokens(self, given: GivenModel, asked: list[Asked]) -> dict[str, list[int]]:
        """Inputs and outputs in ids; those of the question where none are named."""
        from ocr_interp.cli.arguments.asked import WordsOf

        words = WordsOf(given)
        inputs = [words.id_of(word, "inputs", words.inputs) for word in self.inputs]
        outputs = [words.id_of(word, "outputs", words.outputs) for word in self.outputs]
        for one in asked[:1]:
            inputs = inputs or list(dict.fromkeys(token for ids in one.prompts for token in ids))
            rivals = [token for group in one.against for token in group]
            outputs = outputs or list(dict.fromkeys([*one.answer, *rivals]))
        return {"inputs": inputs, "outputs": outputs}

    def _asked(self, asked: list[Asked], graphs: list[CircuitGraph]) -> dict[str, Any]:
        """Direct attribution before and after, and the circuits found in both, whose graphs are added."""
        from ocr_interp.cli.arguments.question import attribution_of, circuit_of

        for one, when in zip(asked, ("before", "after"), strict=True):
            say(f"\n{when}\n{one.describe()}")
        before, after = (attribution_of(one) for one in asked)
        parts = _parts(before, after)
        order = sorted(parts, key=lambda name: -abs(parts[name][1] - parts[name][0]))
        say(
            f"\nwho adds what, the largest changes first: total {before.totals.mean():.4g} before, "
            f"{after.totals.mean():.4g} after"
        )
        changed = [name for name in order[: self.rows] if parts[name][0] != parts[name][1]]
        for name in changed:
            say(f"{name:>24} {parts[name][0]:+.4g} -> {parts[name][1]:+.4g}")
        say("" if changed else "nothing changed")
        content: dict[str, Any] = {
            "parts": parts,
            "totals": [float(before.totals.mean()), float(after.totals.mean())],
        }
        if not self.edges:
            return content
        of, size = ("edges", self.edges) if self.nodes is None else ("nodes", self.nodes)
        found = [circuit_of(one, size, self.steps, of=of) for one in asked]
        for circuit, when in zip(found, ("before", "after"), strict=True):
            say(f"{when}: {circuit.circuit!r}\n{circuit.summary()}\n")
        # Both graphs show the edges of both circuits, each with its own scores.
        either = found[0].circuit.mask | found[1].circuit.mask
        for circuit, one, when in zip(found, asked, ("before", "after"), strict=True):
            graphs.append(circuit.graph(one, when, either))
        content["faithfulness"] = [circuit.faithfulness for circuit in found]
        content["faithfulness of random circuits"] = [
            {name: values.tolist() for name, values in circuit.random.items()} for circuit in found
        ]
        content["nodes"] = {
            when: dict(circuit.circuit.node_table().itertuples(index=False))
            for circuit, when in zip(found, TIMES, strict=True)
        }
        content["edges"] = {
            when: {edge: float(circuit.scores[edge]) for edge in circuit.circuit.nodes.names(either)}
            for circuit, when in zip(found, ("before", "after"), strict=True)
        }
        return content

    def _draw(self, graphs: list[CircuitGraph]) -> None:
        """Both graphs, alike and on one scale."""
        assert self.output is not None
        from ocr_interp.comparison import compare_graphs
        from ocr_interp.viz import save_diagram

        before, after = graphs
        save_diagram(compare_graphs(before, after), self.output, most_nodes=self.most_nodes)
        say(str(self.output))

    def _draw_heads(self, found: ModelChange, given: list[GivenModel]) -> None:
        """Heat maps of every kind of circuit."""
        assert self.heads is not None
        from ocr_interp.viz.style import figure_style, picture_of
        from ocr_interp.viz.whole_model import draw_model_change

        with figure_style():
            figure = draw_model_change(found, f"{given[0].short} -> {given[1].short}")
            write_output(self.heads, picture_of(figure, self.heads.suffix.lower().removeprefix(".")))
        say(str(self.heads))


def _check_same_words(asked: list[Asked]) -> None:
    """Requires that both models read the question as the same tokens."""
    before, after = asked
    same = (before.prompts, before.donors, before.answer, before.against)
    if same != (after.prompts, after.donors, after.answer, after.against):
        raise ConfigError(
            "two models that are compared must read the prompts as the same tokens, got "
            f"{before.tokens(before.prompts[0])} before and {after.tokens(after.prompts[0])} after: compare "
            "two states of one model"
        )


def _parts(before: Any, after: Any) -> dict[str, tuple[float, float]]:
    """Mean contribution of every part before and after; 0 where one of them has no such part."""
    old, new = (
        dict(zip((part.name for part in found.parts), map(float, found.mean), strict=True))
        for found in (before, after)
    )
    return {name: (old.get(name, 0.0), new.get(name, 0.0)) for name in dict.fromkeys([*old, *new])}
