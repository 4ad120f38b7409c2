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
from ocr_interp.maps.base import LinearMap
from ocr_interp.models.routed_stacks import anchor_of, make_stack, routed
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
        self.anchor = anchor_of(self.linear_map, self.parameters)

    @property
    def ov(self) -> dict[str, Tensor]:
        """The parameters of the linear map, trained or not; rows are those of input tokens."""
        trained = {name: tensor for name, tensor in self.parameters.items() if name != "scores"}
        return {**self.constants, **trained}

    @property
    def W_OV(self) -> Float[Tensor, "*expert input output"]:
        """The OV circuit of the input tokens; of a map that routes prompts those of all its experts."""
        return self.linear_map.product(self.ov)[..., : self.task.n_inputs, :]

    def logits(self, counts: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """Logits at EOS over the whole vocabulary, for any sequences (`data.token_counts`)."""
        if self.linear_map.n_routes is not None:
            mixture = routed(self.linear_map).routing(self.ov, counts).mixture
            experts = [self._logits(counts, W_OV) for W_OV in self.W_OV]
            return torch.einsum("be,ebo->bo", mixture, torch.stack(experts))
        return self._logits(counts, self.W_OV)

    def _logits(
        self, counts: Float[Tensor, "batch input"], W_OV: Float[Tensor, "input output"]
    ) -> Float[Tensor, "batch output"]:
        if self.config.attention == "linear":
            return counts @ (self.scores.unsqueeze(-1) * W_OV)
        scores = self.scores.masked_fill(counts == 0, -torch.inf)
        attended = counts * torch.exp(scores - scores.amax(-1, keepdim=True))
        return (attended / attended.sum(-1, keepdim=True)) @ W_OV

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

        parameters, constants, anchor = one(self.parameters), one(self.constants), one(self.anchor)
        return make_stack(
            self.linear_map, parameters, constants, self.scores.unsqueeze(0), self.config.attention, anchor
        )

    def adopt(
        self, parameters: dict[str, Tensor], scores: Float[Tensor, " input"], anchor: dict[str, Tensor]
    ) -> None:
        """Uses other tensors as its parameters, scores and anchor."""
        self.parameters, self.scores, self.anchor = parameters, scores, anchor
        self.__dict__.pop("_alone", None)

    def enter(self, linear_map: LinearMap) -> None:
        """Takes up the next stage of its linear map (`LinearMap.staged`)."""
        self.linear_map = linear_map
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

    parameters, anchor = stacked_of("parameters"), stacked_of("anchor")
    scores = parameters.get("scores", torch.stack([model.scores for model in models]))
    constants = stacked_of("constants")
    stacked = make_stack(first.linear_map, parameters, constants, scores, first.config.attention, anchor)
    for run, model in enumerate(models):
        own = {name: tensor[run] for name, tensor in anchor.items()}
        model.adopt({name: tensor[run] for name, tensor in parameters.items()}, scores[run], own)
    give_gradients(stacked, models)
    return stacked


def give_gradients(stacked: StackedModels, models: Sequence[TokenCountModel]) -> None:
    """Gives each model's parameters their gradients; those that stand still have none, so no update."""
    for run, model in enumerate(models):
        for name, parameter in model.parameters.items():
            is_still = name in stacked.linear_map.still
            parameter.grad = None if is_still else stacked.gradients[name][run]


def enter(stacked: StackedModels, models: Sequence[TokenCountModel], step: int) -> None:
    """Takes up what changes with update number `step`, in the stack and in its models."""
    if stacked.enter(step):
        for model in models:
            model.enter(stacked.linear_map)
        give_gradients(stacked, models)
