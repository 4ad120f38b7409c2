"""The exact token-count form of a model: logits, losses and gradients without a sequence axis.

With linear attention and the EOS query last, logits = (counts * a) @ W_OV, where a holds the score of
every token; with softmax attention a token weighs counts * exp(a), normalised. Nothing is approximated
(docs/theory.md §9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.data import Batch
from ocr_interp.models.stacks import StackedModels, residuals_, stack_batches
from ocr_interp.models.weights import TokenWeights
from ocr_interp.task import FactRecallTask


@dataclass(frozen=True)
class Residuals:
    """Losses of a batch and their gradients with respect to the logits, precise at any margin.

    Attributes:
        loss: cross-entropy of each example, in nats.
        grad_logits: gradient of each example's loss with respect to its logits (softmax - one-hot).
    """

    loss: Float[Tensor, " batch"]
    grad_logits: Float[Tensor, "batch output"]


def cross_entropy(logits: Float[Tensor, "batch output"], target: Int[Tensor, " batch"]) -> Residuals:
    """Cross-entropy, with residuals from the same margin (`models.stacks.residuals_`)."""
    grad_logits = logits.clone()
    loss = residuals_(grad_logits, target)
    return Residuals(loss, grad_logits)


class TokenCountModel:
    """The trained parameters of a model; those with one row per token hold the input tokens only.

    Scores of queries other than EOS, and rows of answer tokens in parameters with one row per token, have no
    effect; they keep their initial values (`base`), multiplied by weight decay.

    Args:
        task, config: the task and the model's configuration.
        base: the weights at step 0.
        device: device of the parameters.
    """

    def __init__(
        self, task: FactRecallTask, config: ModelConfig, base: TokenWeights, device: torch.device
    ) -> None:
        self.task, self.config, self.base = task, config, base.to(device)
        self.linear_map, inputs = base.linear_map, slice(0, task.n_inputs)
        acting = {
            name: tensor[inputs] if name in self.linear_map.token_rows else tensor
            for name, tensor in self.base.ov.items()
        }
        frozen = self.linear_map.frozen
        self.constants = {name: tensor for name, tensor in acting.items() if name in frozen}
        trained = {name: tensor for name, tensor in acting.items() if name not in frozen}
        self.scores = self.base.W_QK[task.eos_token, inputs].clone()
        if config.train_attention:
            trained["scores"] = self.scores
        self.parameters = {name: tensor.detach().clone() for name, tensor in trained.items()}
        self.scores = self.parameters.get("scores", self.scores)

    @property
    def W_OV(self) -> Float[Tensor, "input output"]:
        """The OV circuit of the input tokens."""
        ov = {name: tensor for name, tensor in self.parameters.items() if name != "scores"}
        return self.linear_map.product({**self.constants, **ov})[: self.task.n_inputs]

    def logits(self, counts: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """Logits at EOS over the whole vocabulary, for any sequences (`data.token_counts`)."""
        if self.config.attention == "linear":
            return counts @ (self.scores.unsqueeze(-1) * self.W_OV)
        scores = self.scores.masked_fill(counts == 0, -torch.inf)
        attended = counts * torch.exp(scores - scores.amax(-1, keepdim=True))
        return (attended / attended.sum(-1, keepdim=True)) @ self.W_OV

    def batch_logits(self, batch: Batch) -> Float[Tensor, "batch output"]:
        """Logits at EOS of a batch: `logits(batch.counts)` without the columns that are 0."""
        return self._alone.logits(stack_batches([batch]))[0]

    def loss_and_gradients(self, batch: Batch) -> Float[Tensor, ""]:
        """The weighted loss of a batch in nats; its gradients go to each parameter's `.grad`."""
        loss = self._alone.loss_and_gradients(stack_batches([batch]))
        for name, parameter in self.parameters.items():
            parameter.grad = self._alone.gradients[name][0]
        return loss[0]

    @cached_property
    def _alone(self) -> StackedModels:
        """The stack of this model alone, over the same memory."""

        def one(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.unsqueeze(0) for name, tensor in tensors.items()}

        parameters, constants = one(self.parameters), one(self.constants)
        return StackedModels(
            self.linear_map, parameters, constants, self.scores.unsqueeze(0), self.config.attention
        )

    def adopt(self, parameters: dict[str, Tensor], scores: Float[Tensor, " input"]) -> None:
        """Uses other tensors as its parameters and scores."""
        self.parameters, self.scores = parameters, scores
        self.__dict__.pop("_alone", None)

    def weights(self, inert_factor: float = 1.0, inert_scores: float | None = None) -> TokenWeights:
        """A copy of all weights; those without effect are `inert_factor` times their initial values.

        Scores and other vectors have a separate factor (`inert_scores`), since another optimiser may update
        them.
        """
        inert_scores = inert_factor if inert_scores is None else inert_scores
        n, ov = self.task.n_inputs, {}
        for name, start in self.base.ov.items():
            if name in self.constants:
                ov[name] = start.clone()
            elif name in self.linear_map.token_rows:
                ov[name] = start * (inert_factor if start.ndim >= 2 else inert_scores)
                ov[name][:n] = self.parameters[name]
            else:
                ov[name] = self.parameters[name].clone()
        W_QK = self.base.W_QK * (inert_scores if self.config.train_attention else 1.0)
        W_QK[self.task.eos_token, :n] = self.scores
        return TokenWeights(self.linear_map, ov, W_QK)


def stack_models(models: Sequence[TokenCountModel]) -> StackedModels:
    """Models of one shape as one: their parameters become views of stacked tensors, `.grad` included."""
    first = models[0]

    def stacked_of(kind: str) -> dict[str, Tensor]:
        names = getattr(first, kind)
        return {name: torch.stack([getattr(model, kind)[name] for model in models]) for name in names}

    parameters = stacked_of("parameters")
    scores = parameters.get("scores", torch.stack([model.scores for model in models]))
    stacked = StackedModels(
        first.linear_map, parameters, stacked_of("constants"), scores, first.config.attention
    )
    for run, model in enumerate(models):
        model.adopt({name: tensor[run] for name, tensor in parameters.items()}, scores[run])
        for name, parameter in model.parameters.items():
            parameter.grad = stacked.gradients[name][run]
    return stacked
