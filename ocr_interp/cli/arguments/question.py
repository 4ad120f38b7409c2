"""A prompt, its answers and its donor: what `circuit` and `compare` ask of a model, and what they find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_interp.cli.arguments.asked import Asked, asked_of
from ocr_interp.cli.arguments.models import GivenModel
from ocr_interp.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from ocr_interp.circuits.attribution.direct import DirectAttribution
    from ocr_interp.discovery import Circuit, EdgeScores
    from ocr_interp.graphs.graph import CircuitGraph

Words = tuple[str, ...]

COLUMNS = {
    "prompt": ("prompt", "clean"),
    "answer": ("answer", "correct", "correct_idx"),
    "against": ("against", "incorrect", "incorrect_idx"),
    "donor": ("donor", "corrupted"),
}
"""Columns of a file of prompts, as here and as in the files of EAP-IG; those that end in _idx hold ids."""

RANDOM = 5
"""Random circuits of each kind beside one that was found."""

MINIMAL = 60
"""Largest circuit of which every edge (or node) is removed by itself."""

FIRST_NODES = 40
"""Number of nodes to try first where edges carry little."""

ALONE = 0.5
"""Faithfulness below which a circuit is said not to carry the answer by itself."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        prompt: texts, each a prompt, for a model with a tokenizer; else the labels or ids of one prompt, or
            one prompt a word.
        answer: of all prompts, or one for each.
        against: likewise; of one prompt several, whose mean is subtracted.
        donor: what edges outside of the circuit carry comes from: a prompt for each prompt, or one for all;
            empty for nothing (ablation to zero).
    """

    prompt: Words
    answer: Words
    against: Words
    donor: Words = ()

    def __post_init__(self) -> None:
        for name in ("prompt", "answer", "against"):
            if not getattr(self, name):
                raise ConfigError(
                    f"a circuit needs --prompt, --answer and --against, got no --{name}: pass it, or all of "
                    "them in a --file"
                )

    @classmethod
    def of(cls, file: Path | None, words: Mapping[str, Words]) -> Question:
        """The question of a file of prompts, or of the options.

        Raises:
            ConfigError: both, a file without the columns, or cells that are no text or number.
        """
        if file is None:
            return cls(**words)
        given = [f"--{name}" for name, value in words.items() if value]
        if given:
            raise ConfigError(f"--file brings prompts and answers: leave out {', '.join(given)}")
        return cls(**_read(file))

    def asked(self, given: GivenModel) -> Asked:
        """The question in the ids of a model."""
        return asked_of(given, self.prompt, self.answer, self.against, self.donor)


def _read(file: Path) -> dict[str, Words]:
    from ocr_interp.llm.facts.reading import read_records

    records = read_records(file)
    found: dict[str, Words] = {}
    for name, columns in COLUMNS.items():
        column = next((each for each in columns if each in records.columns), None)
        if column is None:
            if name == "donor":
                continue
            raise ConfigError(
                f"{records.place}: a file of prompts needs a column {' or '.join(columns)}, and may have "
                f"{' or '.join(COLUMNS['donor'])}; got {', '.join(records.columns) or 'none'}"
            )
        cells = []
        for place, values in records.rows:
            cell = values.get(column)
            if not isinstance(cell, str | int) or isinstance(cell, bool) or cell == "":
                raise ConfigError(f"{place}: {column} must be a text or an id, got {cell!r}")
            cells.append(f"id:{cell}" if column.endswith("_idx") else str(cell))
        found[name] = tuple(cells)
    if not found["prompt"]:
        raise ConfigError(f"{file} must hold at least one prompt, got none")
    return found


def attribution_of(asked: Asked, **options: Any) -> DirectAttribution:
    """Direct attribution of the answers' logits minus those they are against."""
    from ocr_interp.circuits import direct_attribution

    prompts = [list(ids) for ids in asked.prompts]
    against = [list(group) for group in asked.against]
    return direct_attribution(asked.given.model, prompts, list(asked.answer), against, **options)


@dataclass(frozen=True)
class FoundCircuit:
    """A circuit of the top edges, or of the top heads and MLPs, and what it is worth by real ablation.

    Attributes:
        circuit: the edges.
        scores: of all edges.
        faithfulness: share of the effect that it carries by itself, all other edges ablated.
        random: the same of random circuits, by kind.
        needed: share of its edges (or nodes) without which it loses 1 % or more; None of large circuits.
        most: number of edges or nodes that were asked for.
    """

    circuit: Circuit
    scores: EdgeScores
    faithfulness: float
    random: dict[str, np.ndarray]
    needed: float | None
    most: int

    @property
    def largest_random(self) -> float:
        """Faithfulness of the best random circuit."""
        return max((float(values.max()) for values in self.random.values()), default=0.0)

    @property
    def is_of_nodes(self) -> bool:
        """Whether heads and MLPs were chosen, and not edges."""
        return self.circuit.of == "nodes"

    @property
    def size(self) -> int:
        """Number of its heads and MLPs, or of its edges."""
        return len(self.circuit.kept) if self.is_of_nodes else len(self.circuit)

    @property
    def worth(self) -> str:
        """What it consists of and its faithfulness in a few words."""
        parts = "heads and MLPs" if self.is_of_nodes else "edges"
        return f"{self.size} {parts} carry {_percent(self.faithfulness)}"

    def summary(self) -> str:
        """What it is worth, beside random circuits, and what to type if that is little."""
        scores = self.scores
        of, others = ("nodes", "others") if self.is_of_nodes else ("edges", "other edges")
        lines = [
            f"faithfulness {_rounded(self.faithfulness)}: {_percent(self.faithfulness)} of the effect with "
            f"all {others} ablated ({scores.ablation}); measure {scores.full:.4g} with all edges, "
            f"{scores.empty:.4g} with none",
            *(
                f"random circuits, {name}: mean {_rounded(values.mean())}, largest {_rounded(values.max())}"
                for name, values in self.random.items()
            ),
        ]
        if self.needed is not None:
            lines.append(f"{self.needed:.0%} of its {of} are needed: without one of them 1 % or more is lost")
        if advice := self._advice():
            lines.append(advice)
        if scores.ablation == "zero":
            lines.append(
                "without --donor edges outside carry nothing, which is far from what the model has seen: "
                "name a donor that differs in what you ask for"
            )
        return "\n".join(lines)

    def _advice(self) -> str:
        """What to type if the circuit says little; empty if it says something."""
        most, of = self.scores.most(self.circuit.of), self.circuit.of
        more = min(4 * max(self.size, self.most), most)
        if self.faithfulness < ALONE and self.is_of_nodes:
            if 2 * self.size >= most:
                return "half of the heads and MLPs do not carry the answer: it has no small circuit of nodes"
            more = min(more, most // 2)
            return f"these do not carry the answer by themselves: ask for more, as --nodes {more}"
        if self.faithfulness < ALONE:
            nodes = min(FIRST_NODES, self.scores.most("nodes"))
            return (
                "this circuit does not carry the answer by itself: in a large model a head's effect spreads "
                f"over many edges. Ask for a circuit of heads and MLPs, as --nodes {nodes}, for more edges, "
                f"as --edges {more}, or for --faithfulness 0.8"
            )
        if 2 * self.size > most:
            return (
                f"these are most {of} of the model ({self.size} of {most}): ask for fewer --{of} to tell "
                "those that matter from the others"
            )
        if self.faithfulness <= self.largest_random:
            return (
                f"a random circuit with as many {of} carries as much: these {of} are not what does it; ask "
                "for fewer, or choose prompts and donors that differ in one thing"
            )
        return ""

    def graph(self, asked: Asked, name: str, mask: np.ndarray | None = None) -> CircuitGraph:
        """The circuit for a picture or a file; title and statement say what it is worth.

        Args:
            asked: the question.
            name: what the title begins with.
            mask: further edges to show, with their scores.
        """
        from ocr_interp.discovery import circuit_as_graph

        shown = self.circuit if mask is None else replace(self.circuit, mask=self.circuit.mask | mask)
        worth = self.worth
        if mask is not None and self.is_of_nodes:
            both = int(shown.mask[1:].any(1).sum())
            worth = f"its {self.size} of these {both} heads and MLPs carry {_percent(self.faithfulness)}"
        title = f"{name}: {asked.title}, {worth}"
        graph = circuit_as_graph(shown, title=title[:200], total=self.scores.full - self.scores.empty)
        of = "heads and MLPs" if self.is_of_nodes else "edges"
        own = f"the {of} carry" if mask is None else f"its own {self.size} {of} carry"
        said = (
            f"{own} {_percent(self.faithfulness)} of the effect with all others ablated (random "
            f"circuits at most {_percent(self.largest_random)}); {graph.statement}"
        )
        return replace(graph, statement=said)


def _percent(share: float) -> str:
    return f"{round(100 * share) + 0} %".replace("-", "−")


def _rounded(share: float) -> str:
    return f"{round(float(share), 3) + 0.0:.3f}"  # without a minus before zero


def circuit_of(
    asked: Asked, size: int, steps: int, faithfulness: float | None = None, of: str = "edges"
) -> FoundCircuit:
    """The circuit of the top edges (or nodes), down to a size or to a faithfulness, and what it is worth.

    Args:
        asked: the question.
        size: number of edges, or of heads and MLPs.
        steps: of the integrated gradients.
        faithfulness: instead of a size.
        of: "edges" or "nodes".

    Raises:
        ConfigError: prompts of several lengths, or donors that do not change the measure.
        ModelError: a model whose stream is not the sum of what heads and MLPs write.
    """
    from ocr_interp.discovery import attribute_edges, evaluate_circuit, faithfulness_of, find_circuit
    from ocr_interp.discovery.evaluation import CONNECTED, random_like

    contrast = _contrast(asked)
    model, ablation = asked.given.model, "zero" if asked.donors is None else "donor"
    scores = attribute_edges(model, contrast, steps=steps, ablation=ablation)
    options: dict[str, Any] = {"of": of, "scores": scores, "ablation": ablation}
    if of == "nodes" and faithfulness is not None:
        every = [scores.circuit(count, of) for count in range(1, size + 1)]
        values = faithfulness_of(model, every, contrast, ablation=ablation)
        if not (values >= faithfulness).any():
            raise ConfigError(
                f"none of 1 to {size} heads and MLPs carry {faithfulness:g}, the best {values.argmax() + 1} "
                f"carry {values.max():.3g}: ask for more --nodes, or for a smaller --faithfulness"
            )
        found = every[int((values >= faithfulness).argmax())]
    elif faithfulness is None:
        found = find_circuit(model, contrast, size=min(size, scores.most(of)), **options)
    else:
        found = find_circuit(model, contrast, faithfulness=faithfulness, **options)
    if not len(found):
        raise ConfigError(
            f"no path from the input to the logits has {size} edges or fewer among the top ones: ask for "
            "more --edges, or for --faithfulness 0.8"
        )
    if (len(found) if of == "edges" else len(found.kept)) <= MINIMAL:
        worth = evaluate_circuit(model, found, contrast, ablation=ablation, random_circuits=RANDOM)
        return FoundCircuit(found, scores, worth.faithfulness, worth.random, worth.minimality(), size)
    drawn = random_like(found, scores.at_query, RANDOM, np.random.default_rng(0))
    drawn.pop(CONNECTED, None)
    masks = [scores.with_edges(mask, of) for sets in drawn.values() for mask in sets]
    values = faithfulness_of(model, [found, *masks], contrast, ablation=ablation)
    random = dict(zip(drawn, np.split(values[1:], len(drawn)), strict=True))
    return FoundCircuit(found, scores, float(values[0]), random, None, size)


def check_edges(asked: Asked, nodes: int | None = None) -> None:
    """Requires prompts and a model that edges can be found of, before anything is printed.

    Args:
        asked: the question.
        nodes: number of heads and MLPs that are asked for.

    Raises:
        ConfigError, ModelError: see `circuit_of`; with what to type instead.
    """
    from ocr_interp.stream.checks import stream_of

    asked.require_one_length()
    try:
        found = stream_of(asked.given.model).nodes
    except ModelError as error:
        raise ModelError(f"{error}. For who adds what alone type --edges 0") from error
    most = len(found.writers) - 1
    if nodes is not None and nodes > most:
        raise ConfigError(f"--nodes must be at most {most}, all heads and MLPs, got {nodes}")


def _contrast(asked: Asked) -> Any:
    import torch

    from ocr_interp.discovery import Contrast

    prompts = [list(ids) for ids in asked.prompts]
    donors = None if asked.donors is None else [list(ids) for ids in asked.donors]
    rivals = list(asked.against[0])
    options: dict[str, Any] = {}
    if len(asked.prompts) == 1 and len(rivals) > 1:

        def measure(logits: torch.Tensor, contrast: Any) -> torch.Tensor:
            return logits[:, asked.answer[0]] - logits[:, rivals].mean(1)

        options = {"measure": measure}
    against = [group[0] for group in asked.against]
    return Contrast.of(asked.given.model, prompts, donors, list(asked.answer), against, **options)
