"""Training steps of routed experts: one matrix per expert, mixed by prompt, and a router's own losses.

The logits of a prompt are the sum over experts of its mixture times the logits of each. All experts of all
runs are computed as if they were runs of their own; what mixes them is computed run by run, so that a run has
the same bits alone as together with others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.maps.base import LinearMap
from ocr_interp.maps.non_factorized import NonFactorized
from ocr_interp.maps.routed import ROUTER, Routed
from ocr_interp.models.stacks import StackedBatch, StackedModels, input_rows, residuals_


def routed(linear_map: LinearMap) -> Routed:
    """The linear map, which must be one of routed experts."""
    assert isinstance(linear_map, Routed)
    return linear_map


def anchor_of(linear_map: LinearMap, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the experts, where the loss holds them to their values; else nothing."""
    if not isinstance(linear_map, Routed) or not linear_map.anchor:
        return {}
    return {name: parameters[name].clone() for name in linear_map.expert_names}


def make_stack(
    linear_map: LinearMap,
    parameters: dict[str, Tensor],
    constants: dict[str, Tensor],
    scores: Float[Tensor, "run input"],
    attention: str,
    anchor: dict[str, Tensor],
) -> StackedModels:
    """The stack of models with this linear map (see `StackedModels`)."""
    given = (parameters, constants, scores, attention)
    if isinstance(linear_map, Routed):
        return RoutedStack(linear_map, *given, anchor)
    return StackedModels(linear_map, *given)


class RoutedStack(StackedModels):
    """`StackedModels` of routed experts.

    Args:
        linear_map, parameters, constants, scores, attention: as in `StackedModels`.
        anchor: values to which the loss holds the experts; empty without such a term.
    """

    def __init__(
        self,
        linear_map: Routed,
        parameters: dict[str, Tensor],
        constants: dict[str, Tensor],
        scores: Float[Tensor, "run input"],
        attention: str,
        anchor: dict[str, Tensor],
    ) -> None:
        self.anchor = anchor
        super().__init__(linear_map, parameters, constants, scores, attention)

    @property
    def routed(self) -> Routed:
        """The linear map in its present stage."""
        return routed(self.linear_map)

    def _allocate(self) -> None:
        self._last: tuple[StackedBatch, StackedBatch, Tensor] | None = None
        n_routes = self.linear_map.n_routes
        if n_routes is None:
            super()._allocate()
            return
        W = self.linear_map.product(self._ov)
        own = {"W_OV": torch.empty_like(W).flatten(0, 1)}
        scores = self.scores.repeat_interleave(n_routes, 0)
        if "scores" in self.parameters:
            own["scores"] = scores
        self._experts = StackedModels(NonFactorized(), own, {}, scores, self.attention)
        self._W = own["W_OV"].view_as(W)

    def enter(self, step: int) -> bool:
        """The next stage of the routing; when the router takes over, the experts are what holds them."""
        if step == self.routed.soft_from_step:
            for name, value in self.anchor.items():
                value.copy_(self.parameters[name])
        staged = self.linear_map.staged(step + 1)
        if staged is self.linear_map:
            return False
        self.linear_map = staged
        self._allocate()
        return True

    def loss_and_gradients(self, batch: StackedBatch) -> Float[Tensor, " run"]:
        """The weighted cross-entropy of every run's batch in nats; gradients hold all terms of the loss."""
        n_routes = self.linear_map.n_routes
        if n_routes is None:
            loss = super().loss_and_gradients(batch)
            if self.routed.has_balance_loss:
                self._add_router_gradients(batch, None)
        else:
            loss = self._loss_of_prompts(batch, n_routes)
        if self.anchor and not self.routed.hard:
            for name, value in self.anchor.items():
                self.gradients[name].add_((self.parameters[name] - value) * (2 * self.routed.anchor))
        return loss

    def logits(self, batch: StackedBatch) -> Float[Tensor, "run batch output"]:
        """Logits at EOS of every run's batch, in new memory."""
        if self.linear_map.n_routes is None:
            return super().logits(batch)
        experts, _ = self._logits_of_experts(batch)
        return self._mixed(self._mixture(batch), experts)

    # --- prompts that are routed ------------------------------------------------------------------

    def _loss_of_prompts(self, batch: StackedBatch, n_routes: int) -> Float[Tensor, " run"]:
        experts, attended = self._logits_of_experts(batch)
        mixture = self._mixture(batch)
        logits = self._mixed(mixture, experts)
        loss = residuals_(logits, batch.target)
        grad_logits = logits.mul_(batch.weight.unsqueeze(-1))
        if self.routed.has_router:
            of_mixture = [(experts[:, e] * grad_logits).sum(-1) for e in range(n_routes)]
            self._add_router_gradients(batch, torch.stack(of_mixture, -1))
        of_experts = experts
        for e in range(n_routes):
            torch.mul(mixture[..., e].unsqueeze(-1), grad_logits, out=of_experts[:, e])
        inner = self._experts
        inner._backward(self._expanded(batch)[0], self._W.flatten(0, 1), of_experts.flatten(0, 1), attended)
        router = self._grad_ov.get(ROUTER)
        kept = None if router is None else router.clone()
        self.linear_map.pull_back(self._ov, inner.gradients["W_OV"].view_as(self._W), self._grad_ov)
        if router is not None and kept is not None:
            router.copy_(kept)
        if "scores" in self.gradients:
            by_expert = inner.gradients["scores"].view(len(self.scores), n_routes, -1)
            self.gradients["scores"].copy_(by_expert[:, 0])
            for e in range(1, n_routes):
                self.gradients["scores"].add_(by_expert[:, e])
        return (loss * batch.weight).sum(-1)

    def _logits_of_experts(self, batch: StackedBatch):
        """Logits [run, expert, batch, output], and the attended tokens with softmax attention."""
        n_routes = self.linear_map.n_routes
        assert n_routes is not None
        self._W.copy_(self.linear_map.product(self._ov))
        inner = self._experts
        inner.scores.view(len(self.scores), n_routes, -1).copy_(self.scores.unsqueeze(1))
        expanded = self._expanded(batch)[0]
        logits = self.scores.new_empty(*expanded.target.shape, self._W.shape[-1])
        attended = inner._forward(expanded, self._W.flatten(0, 1), logits)
        return logits.view(len(self.scores), n_routes, *logits.shape[1:]), attended

    def _mixed(
        self, mixture: Float[Tensor, "run batch expert"], experts: Float[Tensor, "run expert batch output"]
    ) -> Float[Tensor, "run batch output"]:
        """Σ_e mixture_e logits_e, expert after expert: sums of one order in every run."""
        mixed = mixture[..., 0].unsqueeze(-1) * experts[:, 0]
        for e in range(1, experts.shape[1]):
            mixed.add_(mixture[..., e].unsqueeze(-1) * experts[:, e])
        return mixed

    def _mixture(self, batch: StackedBatch) -> Float[Tensor, "run batch expert"]:
        counts = self._expanded(batch)[1]
        found = [self.routed.routing(self._of_run(run), counts[run]).mixture for run in range(len(counts))]
        return torch.stack(found)

    def _of_run(self, run: int) -> dict[str, Tensor]:
        return {name: value[run] for name, value in self._ov.items()}

    def _expanded(self, batch: StackedBatch) -> tuple[StackedBatch, Tensor]:
        """The batch of every expert of every run, and the token counts of the batch."""
        if self._last is None or self._last[0] is not batch:
            n, context = batch.n_subjects, batch.context
            subjects = torch.nn.functional.one_hot(batch.subject, n).to(context)
            times = self.linear_map.n_routes or 1
            subject, context = (t.repeat_interleave(times, 0) for t in (batch.subject, context))
            expanded = StackedBatch(
                n_subjects=n,
                subject=subject,
                context=context,
                target=batch.target.repeat_interleave(times, 0),
                weight=batch.weight.repeat_interleave(times, 0),
                row=input_rows(subject, n + context.shape[-1]).flatten(),
            )
            self._last = (batch, expanded, torch.cat([subjects, batch.context], dim=-1))
        return self._last[1], self._last[2]

    # --- routers ----------------------------------------------------------------------------------

    def _add_router_gradients(
        self, batch: StackedBatch, of_mixture: Float[Tensor, "run batch expert"] | None
    ) -> None:
        """Writes the router's gradient from that of the mixture, or adds to it, with the balance term."""
        counts, linear_map = self._expanded(batch)[1], self.routed
        for run in range(len(counts)):
            with torch.enable_grad():
                own = self._of_run(run)
                router = own[ROUTER].detach().requires_grad_()
                own[ROUTER] = router
                value = router.new_zeros(())
                if of_mixture is not None:
                    mixture = linear_map.routing(own, counts[run]).mixture
                    value = value + (mixture * of_mixture[run]).sum()
                if linear_map.has_balance_loss:
                    load = linear_map.load(own, counts[run], batch.weight[run])
                    value = value + load.balance_loss(linear_map.balance, linear_map.entropy)
            (gradient,) = torch.autograd.grad(value, router)
            target = self.gradients[ROUTER][run]
            target.copy_(gradient) if of_mixture is not None else target.add_(gradient)
