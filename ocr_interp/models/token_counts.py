"""The exact token-count form of a model: logits, losses and gradients without a sequence axis.

With linear attention and the EOS query last, logits = (counts * a) @ W_OV, where a holds the score of
every token; with softmax attention a token weighs counts * exp(a), normalised. Nothing is approximated
(theory.md §2). Every formula below allows leading axes (several models at once).
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

    loss: Float[Tensor, "*models batch"]
    grad_logits: Float[Tensor, "*models batch output"]


def cross_entropy(logits: Float[Tensor, "*m batch output"], target: Int[Tensor, "*m batch"]) -> Residuals:
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

    def token_weight(self) -> Float[Tensor, " input"]:
        """How much a token counts for the EOS query: its score, or exp of it before normalising."""
        return self.scores if self.config.attention == "linear" else torch.exp(self.scores)

    def logits(self, counts: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """Logits at EOS over the whole vocabulary."""
        return self._forward(counts)[0]

    def loss_and_gradients(self, batch: Batch) -> Float[Tensor, ""]:
        """The weighted loss of a batch in nats; its gradients go to each parameter's `.grad`."""
        logits, attended, W_OV = self._forward(batch.counts)
        residuals = cross_entropy(logits, batch.target)
        grad_logits = residuals.grad_logits.mul_(batch.weight.unsqueeze(-1))
        if self.config.attention == "linear":
            grad_circuit = batch.counts.mT @ grad_logits
            grad_OV = self.scores.unsqueeze(-1) * grad_circuit
            if "scores" in self.parameters:
                self.parameters["scores"].grad = (grad_circuit * W_OV).sum(-1)
        else:
            grad_OV = attended.mT @ grad_logits
            if "scores" in self.parameters:
                pull = attended * (grad_logits @ W_OV.mT)
                mean = pull.sum(-1, keepdim=True) * attended
                self.parameters["scores"].grad = (pull - mean).sum(-2)
        self._set_ov_gradients(grad_OV)
        return (residuals.loss * batch.weight).sum(-1)

    def weights(self, inert_factor: float = 1.0) -> TokenWeights:
        """A copy of all weights; those that never act are `inert_factor` times their start."""
        n = self.task.n_inputs
        W_V = self.base.W_V * inert_factor
        W_V[:n] = self.parameters["W_V" if "W_V" in self.parameters else "W_OV"]
        W_O = self.parameters["W_O"].clone() if "W_O" in self.parameters else None
        W_QK = self.base.W_QK * (inert_factor if self.config.train_attention else 1.0)
        W_QK[self.task.eos_token, :n] = self.scores
        return TokenWeights(W_V, W_O, W_QK)

    def _forward(self, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, the weights with which tokens are attended to (softmax only), and W_OV."""
        W_OV = self.W_OV
        if self.config.attention == "linear":
            return counts @ (self.scores.unsqueeze(-1) * W_OV), counts, W_OV
        attended = counts * torch.exp(self.scores).unsqueeze(-2)
        attended = attended / attended.sum(-1, keepdim=True)
        return attended @ W_OV, attended, W_OV

    def _set_ov_gradients(self, grad_OV: Float[Tensor, "input output"]) -> None:
        parameters = self.parameters
        if "W_OV" in parameters:
            parameters["W_OV"].grad = grad_OV
        else:
            parameters["W_V"].grad = grad_OV @ parameters["W_O"].mT
            parameters["W_O"].grad = parameters["W_V"].mT @ grad_OV
