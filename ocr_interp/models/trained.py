"""A model of the fact-recall task with its configuration and weights, by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ocr_interp.configuration.run import RunConfig
from ocr_interp.errors import SolverError
from ocr_interp.models.weights import TokenWeights, effective_circuit
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import SaddleSolution, has_saddle, saddle_solution

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


Route = int | tuple[str, ...] | None
"""Which circuit of routed experts: an expert's, that of a prompt by its labels, or None: the only one."""


@dataclass(frozen=True, repr=False)
class TrainedModel:
    """A fact-recall model at one step of its training; circuits are read from it.

    Attributes:
        config: configuration of the run.
        step: number of updates that the weights have seen.
        weights: the weights by token.
    """

    config: RunConfig
    step: int
    weights: TokenWeights

    def __repr__(self) -> str:
        m = self.config.model
        return f"{type(self).__name__}({m.ov}, {m.attention} attention, step {self.step:,})"

    @property
    def task(self) -> FactRecallTask:
        """The task that the model was trained on."""
        return self.config.task

    @property
    def scores(self) -> Float[np.ndarray, " input"]:
        """Scores of the EOS query for the input tokens: subjects, r1, r2, noise, EOS."""
        return self.weights.W_QK[self.task.eos_token, : self.task.n_inputs].numpy()

    @property
    def subjects_and_relations_W(self) -> Float[np.ndarray, "subject_or_relation answer"]:
        """The part of `effective_W` that predictions are for: subjects and relations by answers."""
        return self.effective_W[: self.task.noise_tokens.start, self.task.n_inputs :]

    @property
    def effective_W(self) -> Float[np.ndarray, "input output"]:
        """diag(a) W_OV as an array in the model's dtype: every input token by the whole vocabulary.

        a is the attention: `scores`, or exp of them with softmax attention.
        """
        n = self.task.n_inputs
        scores, W_OV = self.weights.W_QK[self.task.eos_token, :n], self.weights.W_OV[:n]
        return effective_circuit(self.config.model.attention, scores, W_OV).numpy()

    def mixture(self, prompt: Sequence[str]) -> Float[np.ndarray, " expert"]:
        """Weight of every expert for a prompt (labels, EOS last) of a model that routes prompts.

        Raises:
            ModelError: a model that does not route prompts, or a prompt that says no expert.
        """
        return self.weights.mixture(self.task, prompt).numpy()

    def of_route(self, route: Route) -> TrainedModel:
        """The model as one expert (a number), or as a prompt sees it (its labels); itself for None.

        Raises:
            ModelError: no such expert, or a model that does not route prompts.
        """
        if route is None:
            return self
        one = (
            self.weights.of_expert(route)
            if isinstance(route, int)
            else self.weights.of_prompt(self.task, route)
        )
        return TrainedModel(self.config, self.step, one)

    @property
    def untrained(self) -> TrainedModel | None:
        """The model before training, if it was stored."""
        return None

    @cached_property
    def saddle(self) -> SaddleSolution | None:
        """Where gradient descent from a small start goes instead of the smallest nuclear norm.

        Frozen attention: with EOS, and noise if the prompts have it, as inputs. Trained attention: from
        scores as small as the factors, of subjects and relations alone.

        Returns: None if there is no such saddle or none is known: a parameterisation that makes another norm
            small, unequal groups, m_train = 0 or m_train >= m_test (K m_test with K implications of a fact),
            softmax attention, trained attention with several implications.
        """
        model, norm = self.config.model, self.config.model.placed_map(self.task).norm
        if norm is None or model.attention != "linear" or not has_saddle(self.task, norm):
            return None
        if model.train_attention and self.task.implied_relations > 1:
            return None
        if not model.train_attention:
            return saddle_solution(self.task, inputs="noise_eos" if self.config.has_noise else "eos")
        try:
            return saddle_solution(self.task, attention="trained")
        except SolverError:  # its small program is not convex; what is shown of a run must not fail with it
            return None

    @cached_property
    def model(self) -> HookedTransformer:
        """The HookedTransformer, on the CPU; `.to(device)` moves it."""
        # transformer_lens takes seconds to import; a run that only trains never pays for it.
        from ocr_interp.models.hooked39 import build_model

        return build_model(self.task, self.config.model, device="cpu", weights=self.weights)
