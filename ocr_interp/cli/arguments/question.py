"""A prompt, its answers and its donor: what `circuit` and `compare` ask of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ocr_interp.cli.arguments.models import GivenModel
from ocr_interp.errors import ConfigError

if TYPE_CHECKING:
    from ocr_interp.discovery import Circuit, CircuitEvaluation
    from ocr_interp.graphs.graph import CircuitGraph

Words = tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        prompt: texts, each a prompt, for a model with a tokenizer; else the labels or ids of one prompt.
        answer, against: of all prompts, or one for each.
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
                raise ConfigError(f"a circuit needs --prompt, --answer and --against, got no --{name}")

    def prompts(self, given: GivenModel) -> list[Any]:
        """The prompts as the model takes them."""
        return self._rows(given, self.prompt)

    def _rows(self, given: GivenModel, words: Words) -> list[Any]:
        if not given.has_tokenizer:
            return [[as_token(word) for word in words]]
        from ocr_interp.hooked.adapted.copies import as_hooked
        from ocr_interp.hooked.tokens import encode_prompt, labels_of

        model = as_hooked(given.model)
        return [list(encode_prompt(model, text, labels_of(model, None))) for text in words]

    def _one_each(self, words: Words, count: int, what: str) -> list[Any]:
        if len(words) not in (1, count):
            raise ConfigError(f"--{what} must be one, or one for each of {count} prompts, got {len(words)}")
        return [as_token(word) for word in (words * count if len(words) == 1 else words)]

    def attribution(self, given: GivenModel) -> Any:
        """Direct attribution of the answers' logits minus those they are against."""
        from ocr_interp.circuits import direct_attribution

        prompts = self.prompts(given)
        answer = self._one_each(self.answer, len(prompts), "answer")
        against = self._one_each(self.against, len(prompts), "against")
        return direct_attribution(given.model, prompts, answer, against)

    def circuit(self, given: GivenModel, edges: int, steps: int) -> tuple[Circuit, CircuitEvaluation]:
        """The circuit of the top edges, and what it is worth by real ablation."""
        from ocr_interp.discovery import Contrast, attribute_edges, evaluate_circuit, find_circuit

        prompts = self.prompts(given)
        donors = self._rows(given, self.donor) if self.donor else None
        if donors is not None and len(donors) == 1:
            donors = donors * len(prompts)
        answer, against = (
            self._one_each(words, len(prompts), what)
            for words, what in ((self.answer, "answer"), (self.against, "against"))
        )
        contrast = Contrast.of(given.model, prompts, donors, answer, against)
        ablation = "zero" if donors is None else "donor"
        scores = attribute_edges(given.model, contrast, steps=steps, ablation=ablation)
        size = min(edges, scores.nodes.n_edges)
        found = find_circuit(given.model, contrast, size=size, scores=scores, ablation=ablation)
        worth = evaluate_circuit(given.model, found, contrast, ablation=ablation, random_circuits=5)
        return found, worth

    def graph(self, circuit: Circuit, title: str) -> CircuitGraph:
        """The circuit for a picture or a file."""
        from ocr_interp.discovery import circuit_as_graph

        asked = f"{', '.join(self.answer[:3])} against {', '.join(self.against[:3])}"
        return circuit_as_graph(circuit, title=f"{title}: {asked}"[:200])


def as_token(word: str) -> str | int:
    """An id, if the word is a whole number; else a label or a string of one token."""
    return int(word) if word.isdecimal() and word.isascii() else word
