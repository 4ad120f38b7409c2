"""ocr-interp compare: which heads, MLPs and circuits changed from one model to another."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ocr_interp.cli.arguments.files import check_output, say, write_output
from ocr_interp.errors import ConfigError

if TYPE_CHECKING:
    from ocr_interp.cli.arguments.models import GivenModel
    from ocr_interp.graphs.graph import CircuitGraph

SUFFIXES = (".svg", ".png", ".pdf")


@dataclass(frozen=True)
class Compare:
    """Say what changed between two states of a model: fine-tuned, with an adapter, or two checkpoints.

    ocr-interp compare BASE FINE_TUNED --inputs " Rome" " Paris" --outputs " Italian" " French"
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    """before and after, as for `circuit`; the folder of a peft adapter alone is compared with its base"""
    inputs: tuple[str, ...] = ()
    """tokens (labels, ids, strings of one token) that circuits lead from; runs of `train` know their own"""
    outputs: tuple[str, ...] = ()
    """tokens that circuits lead to"""
    prompt: tuple[str, ...] = ()
    """also compare who adds what to an answer, and the edges that carry it; as for `circuit`"""
    answer: tuple[str, ...] = ()
    """as for `circuit`"""
    against: tuple[str, ...] = ()
    """as for `circuit`"""
    donor: tuple[str, ...] = ()
    """as for `circuit`"""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """picture of both circuits on one scale with what changed marked: .svg, .png or .pdf; it needs a prompt,
    or two runs of `train`"""
    table: Path | None = None
    """a .json file of all numbers"""
    edges: int = 30
    """number of edges of each circuit"""
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
        check_output(self.table, (".json",))
        if len(self.models) not in (1, 2):
            raise ConfigError(f"compare takes two models, or one adapter, got {len(self.models)}")
        from ocr_interp.checks import check_count
        from ocr_interp.cli.arguments.models import read_any_model

        for name in ("edges", "steps", "rows", "most_nodes"):
            check_count(name, getattr(self, name), 1)
        steps = (self.before_step, self.after_step)
        given = [read_any_model(name, step) for name, step in zip(self.models, steps, strict=False)]
        runs = [one.run for one in given if one.run is not None]
        is_task = len(runs) == 2 and runs[0].task == runs[1].task
        if not is_task and not (self.inputs and self.outputs):
            raise ConfigError("compare needs the tokens that matter: pass --inputs and --outputs")
        if self.output is not None and not (self.prompt or is_task):
            raise ConfigError("a picture needs --prompt, --answer and --against: pass them, or leave -o out")
        content = self._by_task(runs) if is_task and not self.inputs else self._by_tokens(given)
        graphs = None
        if self.prompt:
            content |= self._asked(given, graphs := [])
        elif is_task:
            from ocr_interp.graphs import mechanism_graph

            graphs = [
                replace(mechanism_graph(run), title=f"{when}, step {run.step:,}")
                for run, when in zip(runs, ("before", "after"), strict=True)
            ]
        if self.output is not None and graphs is not None:
            self._draw(graphs)
        if self.table is not None:
            write_output(self.table, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
            say(str(self.table))

    def _by_task(self, runs: list[Any]) -> dict[str, Any]:
        """The effective circuits of two runs of one task."""
        from ocr_interp.comparison import compare
        from ocr_interp.storage.plain import plain

        options = {"tolerance": self.tolerance, "controls": self.controls, "seed": self.seed}
        found = compare(runs[0].circuit, runs[1].circuit, **options)
        say(found.summary(self.rows))
        return {"circuit": plain(found)}

    def _by_tokens(self, given: list[GivenModel]) -> dict[str, Any]:
        """All heads and MLPs on the tokens."""
        from ocr_interp.cli.arguments.question import as_token
        from ocr_interp.comparison import compare_models
        from ocr_interp.storage.plain import plain

        found = compare_models(
            *[one.model for one in given],
            inputs=[as_token(word) for word in self.inputs],
            outputs=[as_token(word) for word in self.outputs],
            circuits=self.circuits,
            tolerance=self.tolerance,
            controls=self.controls,
            seed=self.seed,
        )
        say(found.summary(self.rows))
        return {"units": plain(found.units), "circuits": plain(found.circuits), "notes": list(found.notes)}

    def _asked(self, given: list[GivenModel], graphs: list[CircuitGraph]) -> dict[str, Any]:
        """Direct attribution before and after, and the circuits found in both, whose graphs are added."""
        from ocr_interp.cli.arguments.question import Question

        if len(given) == 1:
            raise ConfigError("--prompt compares two models, got one: merge the adapter into a second folder")
        question = Question(self.prompt, self.answer, self.against, self.donor)
        before, after = (question.attribution(one) for one in given)
        names = [part.name for part in before.parts]
        other = dict(zip((part.name for part in after.parts), after.mean, strict=True))
        parts = {
            name: (float(old), float(other[name]))
            for name, old in zip(names, before.mean, strict=True)
            if name in other
        }
        order = sorted(parts, key=lambda name: -abs(parts[name][1] - parts[name][0]))
        say(f"\ntotal {before.totals.mean():.4g} before, {after.totals.mean():.4g} after")
        for name in order[: self.rows]:
            say(f"{name:>24} {parts[name][0]:+.4g} -> {parts[name][1]:+.4g}")
        circuits = []
        for one, when in zip(given, ("before", "after"), strict=True):
            circuit, worth = question.circuit(one, self.edges, self.steps)
            say(f"\n{when}: {circuit!r}\n{worth.summary()}")
            circuits.append(circuit)
        # Both graphs show the edges of both circuits, each with its own scores.
        either = circuits[0].mask | circuits[1].mask
        for circuit, when in zip(circuits, ("before", "after"), strict=True):
            graphs.append(question.graph(replace(circuit, mask=either), when))
        return {"parts": parts, "totals": [float(before.totals.mean()), float(after.totals.mean())]}

    def _draw(self, graphs: list[CircuitGraph]) -> None:
        """Both graphs, alike and on one scale."""
        assert self.output is not None
        from ocr_interp.comparison import compare_graphs
        from ocr_interp.viz import save_diagram

        before, after = graphs
        save_diagram(compare_graphs(before, after), self.output, most_nodes=self.most_nodes)
        say(str(self.output))
