"""The token-count form of several models of one shape at once: losses and gradients in one pass.

Every operation acts on each run by itself, so on a CPU a run gets the same bits alone as together with
others; a test checks this. All large intermediate tensors are kept from step to step, since fresh memory of
their size costs more than the arithmetic on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.data import Batch
from ocr_interp.maps.base import LinearMap


@dataclass(frozen=True)
class StackedBatch:
    """One batch per run, all of one size.

    Attributes:
        n_subjects: number of subjects, the same in every run.
        subject, context, target, weight: as in `data.Batch`.
        row: index of the subject's row among the input rows of all runs.
    """

    n_subjects: int
    subject: Int[Tensor, "run batch"]
    context: Float[Tensor, "run batch other_input"]
    target: Int[Tensor, "run batch"]
    weight: Float[Tensor, "run batch"]
    row: Int[Tensor, " run_and_example"]

    def of_runs(self, runs: Sequence[int]) -> StackedBatch:
        """The batches of some runs."""
        chosen = list(runs)
        subject, context = self.subject[chosen], self.context[chosen]
        row = input_rows(subject, self.n_subjects + context.shape[-1]).flatten()
        return StackedBatch(self.n_subjects, subject, context, self.target[chosen], self.weight[chosen], row)


def stack_batches(batches: Sequence[Batch]) -> StackedBatch:
    """Stacks batches of equal shapes, one per run."""
    subject = torch.stack([batch.subject for batch in batches])
    context = torch.stack([batch.context for batch in batches])
    return StackedBatch(
        n_subjects=batches[0].n_subjects,
        subject=subject,
        context=context,
        target=torch.stack([batch.target for batch in batches]),
        weight=torch.stack([batch.weight for batch in batches]),
        row=input_rows(subject, batches[0].n_subjects + context.shape[-1]).flatten(),
    )


def input_rows(subject: Int[Tensor, "*step run batch"], n_inputs: int) -> Int[Tensor, "*step run batch"]:
    """Row of each subject when the input rows of all runs are concatenated."""
    return subject + n_inputs * torch.arange(subject.shape[-2], device=subject.device).unsqueeze(-1)


def residuals_(
    logits: Float[Tensor, "*run batch output"], target: Int[Tensor, "*run batch"]
) -> Float[Tensor, "*run batch"]:
    """Cross-entropy of each example in nats; turns the logits into its gradient (softmax - one-hot).

    As softplus(logsumexp(wrong) - correct), with residuals from the same margin: a log-softmax returns 0
    from a margin of about 50 on even in float64; this form keeps its relative precision at any margin.
    """
    index = target.unsqueeze(-1)
    correct = logits.gather(-1, index)
    wrong = logits.scatter_(-1, index, -torch.inf)
    top = wrong.amax(-1, keepdim=True)
    exp = wrong.sub_(top).exp_()
    total = exp.sum(-1, keepdim=True)
    lag = _run_by_run(top + total.log() - correct)
    p_wrong = torch.sigmoid(lag)
    exp.mul_(p_wrong / total).scatter_(-1, index, -p_wrong)
    return torch.logaddexp(lag, torch.zeros((), dtype=lag.dtype, device=lag.device)).squeeze(-1)


def _run_by_run(values: Float[Tensor, "*run batch 1"]) -> Float[Tensor, "*run batch 1"]:
    """The same values in memory with a hole after each run.

    Sigmoid and logaddexp round differently in the vectorised part of a loop and in what is left over at
    its end; with the holes each run has a loop of its own, as it has alone.
    """
    holed = values.new_empty(*values.shape[:-2], values.shape[-2] + 1, 1)[..., :-1, :]
    return holed.copy_(values)


class StackedModels:
    """The parameters of models of one shape, stacked, with memory for a training step.

    Args:
        linear_map: how parameters make W_OV. Its product may have more rows than there are inputs (all
            tokens, where parameters mix rows); only those of inputs are used.
        parameters: the trained ones by name, [run, ...]; "scores" among them if they are trained.
        constants: parameters of W_OV that are not trained, [run, ...].
        scores: score of the EOS query for each input token, trained or not.
        attention: "linear" or "softmax".
    """

    def __init__(
        self,
        linear_map: LinearMap,
        parameters: dict[str, Tensor],
        constants: dict[str, Tensor],
        scores: Float[Tensor, "run input"],
        attention: str,
    ) -> None:
        self.linear_map, self.parameters, self.scores = linear_map, parameters, scores
        self.attention = attention
        self.gradients = {name: torch.zeros_like(stacked) for name, stacked in parameters.items()}
        trained = {name: tensor for name, tensor in parameters.items() if name != "scores"}
        self._ov, self._grad_ov = {**constants, **trained}, {name: self.gradients[name] for name in trained}
        self._allocate()

    def _allocate(self) -> None:
        """Makes the memory of a training step."""
        scores = self.scores
        shape, n = self.linear_map.product(self._ov).shape, scores.shape[1]
        self._product = scores.new_empty(shape)
        memory = self.linear_map.gradient_memory(self._grad_ov)
        self._grad_product = scores.new_zeros(shape) if memory is None else memory
        inputs = (len(scores), n, shape[-1])
        self._circuit, self._pulled = scores.new_empty(inputs), scores.new_empty(inputs)
        # A view of the product's gradient is not written to row by row, but copied into.
        whole = shape[1] == n
        self._grad_OV = self._grad_product if whole else scores.new_empty(inputs)
        self._logits = scores.new_empty(0)

    def loss_and_gradients(self, batch: StackedBatch) -> Float[Tensor, " run"]:
        """The weighted loss of every run's batch in nats; gradients go to `gradients`."""
        W_OV = self._refreshed_W_OV()
        if self._logits.shape[:2] != batch.target.shape:
            self._logits = self.scores.new_empty(*batch.target.shape, W_OV.shape[-1])
        logits = self._logits
        attended = self._forward(batch, W_OV, logits)
        loss = residuals_(logits, batch.target)
        self._backward(batch, W_OV, logits.mul_(batch.weight.unsqueeze(-1)), attended)
        return (loss * batch.weight).sum(-1)

    def _backward(
        self,
        batch: StackedBatch,
        W_OV: Float[Tensor, "run input output"],
        grad_logits: Float[Tensor, "run batch output"],
        attended: _Attended | None,
    ) -> None:
        """Writes the gradients; uses up grad_logits."""
        n, pulled, scores = batch.n_subjects, self._pulled, self.scores.unsqueeze(-1)
        if attended is None:
            _add_rows(batch, grad_logits, pulled)
            torch.bmm(batch.context.mT, grad_logits, out=pulled[:, n:])
            torch.mul(scores, pulled, out=self._grad_OV)
            if "scores" in self.gradients:
                torch.sum(pulled.mul_(W_OV), -1, out=self.gradients["scores"])
        else:
            if "scores" in self.gradients:
                self.gradients["scores"].copy_(attended.gradient(batch, grad_logits, W_OV))
            torch.bmm(attended.context.mT, grad_logits, out=self._grad_OV[:, n:])
            _add_rows(batch, grad_logits.mul_(attended.subject.unsqueeze(-1)), self._grad_OV)
        if self._grad_OV is not self._grad_product:
            self._grad_product[:, : self._grad_OV.shape[1]] = self._grad_OV
        self.linear_map.pull_back(self._ov, self._grad_product, self._grad_ov)

    def enter(self, step: int) -> bool:
        """Takes up what changes with update number `step`; returns whether the linear map did."""
        return False

    def logits(self, batch: StackedBatch) -> Float[Tensor, "run batch output"]:
        """Logits at EOS of every run's batch, in new memory."""
        W_OV = self._refreshed_W_OV()
        logits = self.scores.new_empty(*batch.target.shape, W_OV.shape[-1])
        self._forward(batch, W_OV, logits)
        return logits

    def _refreshed_W_OV(self) -> Float[Tensor, "run input output"]:
        return self.linear_map.product_into(self._ov, self._product)[:, : self.scores.shape[1]]

    def _forward(self, batch: StackedBatch, W_OV: Tensor, logits: Tensor) -> _Attended | None:
        """Writes the logits; returns the weights of the attended tokens with softmax attention."""
        n, values, attended = batch.n_subjects, W_OV, None
        if self.attention == "linear":
            values = torch.mul(self.scores.unsqueeze(-1), W_OV, out=self._circuit)
        else:
            attended = self._attended(batch)
        torch.index_select(values.flatten(0, 1), 0, batch.row, out=logits.flatten(0, 1))
        if attended is None:
            logits.baddbmm_(batch.context, values[:, n:])
        else:
            logits.mul_(attended.subject.unsqueeze(-1)).baddbmm_(attended.context, values[:, n:])
        return attended

    def _attended(self, batch: StackedBatch) -> _Attended:
        n = batch.n_subjects
        subject = self.scores.flatten().index_select(0, batch.row).view_as(batch.subject)
        context = self.scores[:, None, n:].masked_fill(batch.context == 0, -torch.inf)
        top = torch.maximum(subject, context.amax(-1))
        subject, context = (subject - top).exp_(), batch.context * (context - top.unsqueeze(-1)).exp_()
        total = subject + context.sum(-1)
        return _Attended(subject / total, context / total.unsqueeze(-1))


@dataclass(frozen=True)
class _Attended:
    """How much softmax attention gives to the tokens of each sequence; all of one sequence sum to 1."""

    subject: Float[Tensor, "run batch"]
    context: Float[Tensor, "run batch other_input"]

    def gradient(self, batch: StackedBatch, grad_logits: Tensor, W_OV: Tensor) -> Float[Tensor, "run input"]:
        """Gradient with respect to the scores, through the normalisation."""
        n = batch.n_subjects
        values = W_OV.flatten(0, 1).index_select(0, batch.row).view_as(grad_logits)
        subject = self.subject * (grad_logits * values).sum(-1)
        context = self.context * (grad_logits @ W_OV[:, n:].mT)
        mean = subject + context.sum(-1)
        gradient = W_OV.new_empty(*W_OV.shape[:2], 1)
        _add_rows(batch, (subject - mean * self.subject).unsqueeze(-1), gradient)
        gradient[:, n:, 0] = (context - mean.unsqueeze(-1) * self.context).sum(1)
        return gradient.squeeze(-1)


def _add_rows(
    batch: StackedBatch, values: Float[Tensor, "run batch output"], out: Float[Tensor, "run input output"]
) -> None:
    """Writes to each subject's row the sum of the values of its examples.

    A GPU adds rows in no fixed order; there a matrix product gives the same bits every time.
    """
    n = batch.n_subjects
    if values.device.type == "cpu":
        out[:, :n] = 0
        out.flatten(0, 1).index_add_(0, batch.row, values.flatten(0, 1))
    else:
        out[:, :n] = torch.nn.functional.one_hot(batch.subject, n).to(values).mT @ values
