"""The exact token-count form of a model: logits, losses and gradients without a sequence axis.

With linear attention and the EOS query last, logits = (counts * a) @ W_OV, where a holds the score of
every token; with softmax attention a token weighs counts * exp(a), normalised. Nothing is approximated
(theory.md §2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.data import Batch
from ocr_interp.models.config import ModelConfig
from ocr_interp.models.weights import TokenWeights
from ocr_interp.task import FactRecallTask


@dataclass(frozen=True)
class Residuals:
    """Losses of a batch and what they say about the logits, safe at any size of margin.

    Attributes:
        loss: cross-entropy of each example, in nats.
        grad_logits: gradient of each example's loss with respect to its logits (softmax - one-hot).
    """

    loss: Float[Tensor, " batch"]
    grad_logits: Float[Tensor, "batch output"]


def cross_entropy(logits: Float[Tensor, "batch output"], target: Int[Tensor, " batch"]) -> Residuals:
    """Cross-entropy as softplus(logsumexp(wrong) - correct), with residuals from the same margin.

    A log-softmax returns 0 from a margin of about 50 on even in float64; this form keeps its relative
    precision, and with it the gradient, at any margin.
    """
    index = target.unsqueeze(-1)
    wrong = logits.scatter(-1, index, -torch.inf)
    top = wrong.amax(-1, keepdim=True)
    # In place from here: fresh memory of this size costs more than the arithmetic on it.
    exp = wrong.sub_(top).exp_()
    total = exp.sum(-1, keepdim=True)
    lag = top + total.log() - logits.gather(-1, index)
    p_wrong = torch.sigmoid(lag)
    grad_logits = exp.mul_(p_wrong / total).scatter_(-1, index, -p_wrong)
    loss = torch.logaddexp(lag, torch.zeros((), dtype=lag.dtype, device=lag.device))
    return Residuals(loss.squeeze(-1), grad_logits)


class TokenCountModel:
    """The trained parameters of a model: input tokens only, outputs over the whole vocabulary.

    Rows of answer tokens, and scores of queries other than EOS, never act; they are kept from the start
    (`base`) and only weight decay reaches them.

    Args:
        task, config: what the model is.
        base: the weights at step 0.
        device: where the parameters live.
    """

    def __init__(
        self, task: FactRecallTask, config: ModelConfig, base: TokenWeights, device: torch.device
    ) -> None:
        self.task, self.config, self.base = task, config, base.to(device)
        inputs = slice(0, task.n_inputs)
        trained = {"W_V" if self.base.W_O is not None else "W_OV": self.base.W_V[inputs]}
        if self.base.W_O is not None:
            trained["W_O"] = self.base.W_O
        self.scores = self.base.W_QK[task.eos_token, inputs].clone()
        if config.train_attention:
            trained["scores"] = self.scores
        self.parameters = {name: tensor.detach().clone() for name, tensor in trained.items()}
        self.scores = self.parameters.get("scores", self.scores)

    @property
    def W_OV(self) -> Float[Tensor, "input output"]:
        """The OV circuit of the input tokens."""
        if "W_OV" in self.parameters:
            return self.parameters["W_OV"]
        return self.parameters["W_V"] @ self.parameters["W_O"]

    def logits(self, counts: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """Logits at EOS over the whole vocabulary, for any sequences (`data.token_counts`)."""
        if self.config.attention == "linear":
            return counts @ (self.scores.unsqueeze(-1) * self.W_OV)
        scores = self.scores.masked_fill(counts == 0, -torch.inf)
        attended = counts * torch.exp(scores - scores.amax(-1, keepdim=True))
        return (attended / attended.sum(-1, keepdim=True)) @ self.W_OV

    def batch_logits(self, batch: Batch) -> Float[Tensor, "batch output"]:
        """Logits at EOS of a batch: `logits(batch.counts)` without the columns that are 0."""
        return self._forward(batch, self.W_OV)[0]

    def loss_and_gradients(self, batch: Batch) -> Float[Tensor, ""]:
        """The weighted loss of a batch in nats; its gradients go to each parameter's `.grad`."""
        W_OV = self.W_OV
        logits, attended = self._forward(batch, W_OV)
        residuals = cross_entropy(logits, batch.target)
        grad_logits = residuals.grad_logits.mul_(batch.weight.unsqueeze(-1))
        if attended is None:
            pulled = _transposed_counts(batch.subject, batch.context, batch.n_subjects, grad_logits)
            grad_OV = self.scores.unsqueeze(-1) * pulled
            if "scores" in self.parameters:
                self.parameters["scores"].grad = (pulled * W_OV).sum(-1)
        else:
            weighted = grad_logits * attended.subject.unsqueeze(-1)
            grad_OV = torch.cat(
                [_add_rows(batch.subject, weighted, batch.n_subjects), attended.context.mT @ grad_logits]
            )
            if "scores" in self.parameters:
                self.parameters["scores"].grad = attended.gradient(batch, grad_logits, W_OV)
        self._set_ov_gradients(grad_OV)
        return (residuals.loss * batch.weight).sum(-1)

    def weights(self, inert_factor: float = 1.0, inert_scores: float | None = None) -> TokenWeights:
        """A copy of all weights; those that never act are `inert_factor` times their start.

        Trained scores have a factor of their own where another optimiser updates them.
        """
        inert_scores = inert_factor if inert_scores is None else inert_scores
        n = self.task.n_inputs
        W_V = self.base.W_V * inert_factor
        W_V[:n] = self.parameters["W_V" if "W_V" in self.parameters else "W_OV"]
        W_O = self.parameters["W_O"].clone() if "W_O" in self.parameters else None
        W_QK = self.base.W_QK * (inert_scores if self.config.train_attention else 1.0)
        W_QK[self.task.eos_token, :n] = self.scores
        return TokenWeights(W_V, W_O, W_QK)

    def _forward(self, batch: Batch, W_OV: Tensor) -> tuple[Tensor, _Attended | None]:
        """Logits, and with softmax attention the weights of the attended tokens."""
        n = batch.n_subjects
        if self.config.attention == "linear":
            circuit = self.scores.unsqueeze(-1) * W_OV
            return circuit[:n].index_select(0, batch.subject).addmm_(batch.context, circuit[n:]), None
        subject = self.scores[:n].index_select(0, batch.subject)
        context = self.scores[n:].masked_fill(batch.context == 0, -torch.inf)
        top = torch.maximum(subject, context.amax(-1))
        subject, context = (subject - top).exp_(), batch.context * (context - top.unsqueeze(-1)).exp_()
        total = subject + context.sum(-1)
        attended = _Attended(subject / total, context / total.unsqueeze(-1))
        values = W_OV[:n].index_select(0, batch.subject).mul_(attended.subject.unsqueeze(-1))
        return values.addmm_(attended.context, W_OV[n:]), attended

    def _set_ov_gradients(self, grad_OV: Float[Tensor, "input output"]) -> None:
        parameters = self.parameters
        if "W_OV" in parameters:
            parameters["W_OV"].grad = grad_OV
        else:
            parameters["W_V"].grad = grad_OV @ parameters["W_O"].mT
            parameters["W_O"].grad = parameters["W_V"].mT @ grad_OV


@dataclass(frozen=True)
class _Attended:
    """How much softmax attention gives to the tokens of each sequence; all of one sequence sum to 1."""

    subject: Float[Tensor, " batch"]
    context: Float[Tensor, "batch other_input"]

    def gradient(self, batch: Batch, grad_logits: Tensor, W_OV: Tensor) -> Float[Tensor, " input"]:
        """Gradient with respect to the scores, through the normalisation."""
        n = batch.n_subjects
        subject = self.subject * (grad_logits * W_OV[:n].index_select(0, batch.subject)).sum(-1)
        context = self.context * (grad_logits @ W_OV[n:].mT)
        mean = subject + context.sum(-1)
        subject = _add_rows(batch.subject, (subject - mean * self.subject).unsqueeze(-1), n).squeeze(-1)
        return torch.cat([subject, (context - mean.unsqueeze(-1) * self.context).sum(0)])


def _transposed_counts(
    subject: Int[Tensor, " batch"],
    context: Float[Tensor, "batch other_input"],
    n_subjects: int,
    values: Float[Tensor, "batch output"],
) -> Float[Tensor, "input output"]:
    """counts^T @ values without the columns of counts that are 0."""
    return torch.cat([_add_rows(subject, values, n_subjects), context.mT @ values])


def _add_rows(
    index: Int[Tensor, " batch"], values: Float[Tensor, "batch output"], n_rows: int
) -> Float[Tensor, "row output"]:
    """Sums of the values that go to each row.

    A GPU adds rows in no fixed order; there a matrix product gives the same bits every time.
    """
    if index.device.type == "cpu":
        return values.new_zeros(n_rows, values.shape[1]).index_add_(0, index, values)
    return torch.nn.functional.one_hot(index, n_rows).to(values).mT @ values
