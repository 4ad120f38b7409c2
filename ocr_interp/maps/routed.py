"""Routed experts: y = Σ_e alpha_e x A_e B_e, the experts chosen by relation, subject or a router."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ConfigError
from ocr_interp.maps.base import Draw, LinearMap, Parameters
from ocr_interp.maps.routing import (
    EXPERTS_ARE,
    Gate,
    Load,
    check_options,
    check_top_k,
    expert_of_relations,
    expert_of_subjects,
    gate,
    relation_groups,
)
from ocr_interp.theory.norms.by_expert import NuclearByExpert

if TYPE_CHECKING:
    from ocr_interp.task import FactRecallTask
    from ocr_interp.theory.norms import Norm

ROUTER = "router"
"""Name of the router's parameter [token, expert]."""


def _numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Whole numbers on a device; a GPU gets them once, since it would be waited for at every step."""
    return _kept_numbers(values, device) if device.type == "cuda" else torch.tensor(values, device=device)


@lru_cache(maxsize=64)
def _kept_numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a later gradient may need them
        return torch.tensor(values, device=device)


@dataclass(frozen=True)
class Routed(LinearMap):
    """Experts W^e = W_V^e W_O^e of which every token or prompt gets a mixture.

    By "subject" and "token" every token has a mixture of its own, so the product is one matrix with rows
    W_OV[x] = Σ_e alpha_e(x) W^e[x]. By "relation" and "sequence" the whole prompt has one: there is one
    matrix per route (`n_routes`), and none that is the model's.

    Attributes:
        by: what chooses the expert.
            "relation": the prompt's relation.
            "subject": each subject has an expert; all other tokens have expert 0.
            "token": a learned router, the softmax of one row of logits per token.
            "sequence": the same of the mean of these rows over the tokens of the prompt.
        routed_side: "read" (own W_V, shared W_O), "write" (shared W_V, own W_O) or "both".
        experts: by relation, also in the first stage of hard-soft training: which relations share an expert,
            e.g. "r1+r2|r3". Empty: each relation has one of its own.
        n_experts: number of experts; 0: as many as there are by relation, where these are used, else 2.
        assignment: by subject: "index" (modulo the number of experts) or "random".
        assignment_seed: of the random assignment.
        temperature: of a router's softmax.
        top_k: how many experts a router keeps, their weights divided by their sum; 0: all.
        soft_from_step: hard-soft training of a router: for so many updates each prompt goes to the expert of
            its relation and the router waits; then the router takes over. 0: from the start.
        soft_trains: after that step, "all" or the "router" alone, on experts that no longer change.
        balance: weight alpha of the balance term Σ_e p̄_e f̄_e of a router's loss.
        entropy: weight lambda of −H, with its sign: above 0 raises the entropy (even routing), below 0 lowers
            it (peaked routing).
        anchor: weight beta of ‖θ − θ⁰‖², θ the experts and θ⁰ what they were when the router took over.
        hard: whether prompts go by relation for now; set by `staged`.

    Source: Li et al. 2025, LoRA-Mixer (arXiv 2507.00029); docs/theory.md §14.
    """

    name: ClassVar[str] = "routed"
    label: ClassVar[str] = "routed experts"
    colour: ClassVar[str] = "#cc78bc"
    starts: ClassVar[tuple[str, ...]] = ("product", "entries")
    takes_d_head: ClassVar[bool] = True
    needs_axes: ClassVar[bool] = True

    by: str = "token"
    routed_side: str = "both"
    experts: str = field(default="", metadata={"hint": EXPERTS_ARE})
    n_experts: int = 0
    assignment: str = "index"
    assignment_seed: int = 0
    temperature: float = 1.0
    top_k: int = 0
    soft_from_step: int = 0
    soft_trains: str = "all"
    balance: float = 0.0
    entropy: float = 0.0
    anchor: float = 0.0
    hard: bool = field(default=False, metadata={"option": False})

    def __post_init__(self) -> None:
        defaults = type(self).options()
        check_options({name: getattr(self, name) for name in defaults}, defaults)

    # --- what the tokens decide -------------------------------------------------------------------

    @property
    def _task(self) -> FactRecallTask:
        if self.axes is None:
            raise ConfigError("routed experts depend on the task: ask `placed` for the map of its tokens")
        return self.axes.task

    def placed(self, axes: Any) -> LinearMap:
        """The map for these tokens.

        Raises:
            ConfigError: relations that are not the task's, or more experts than there is to tell apart.
        """
        found = dataclasses.replace(self, axes=axes)
        check_top_k(found.top_k, found.size)
        task = axes.task
        most = {"subject": task.n_subjects, "token": task.n_inputs}
        limit = most.get(self.by, len(task.training_triples))
        if found.size > limit:
            what = {"subject": "subjects", "token": "input tokens"}.get(self.by, "training examples")
            raise ConfigError(
                f"there must be at most as many experts as {what} ({limit}), got {found.size}: lower "
                "n_experts"
            )
        return found

    @cached_property
    def _expert_of_relation(self) -> tuple[int, ...]:
        names = [self._task.labels[token] for token in self._task.relation_tokens]
        return expert_of_relations(relation_groups(self.experts), names)

    @cached_property
    def size(self) -> int:
        """Number of experts."""
        if self.by != "relation" and not self.soft_from_step:
            return self.n_experts or 2
        found = max(self._expert_of_relation) + 1
        if self.n_experts not in (0, found):
            raise ConfigError(
                f"n_experts must be 0 or {found}, the number of experts by relation, got {self.n_experts}"
            )
        return found

    @cached_property
    def expert_of_token(self) -> tuple[int, ...] | None:
        """By subject: the expert of every input token; else None."""
        if self.by != "subject":
            return None
        task = self._task
        subjects = expert_of_subjects(task.n_subjects, self.size, self.assignment, self.assignment_seed)
        return (*subjects.tolist(), *[0] * (task.n_inputs - task.n_subjects))

    @property
    def norm(self) -> str | Norm | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """By subject the nuclear norm on the read side, else the sum of the experts' nuclear norms.

        None of a learned router, and by relation, where no single W_OV has a norm (`theory.solver.routed`).
        """
        if self.by != "subject":
            return None
        assert self.expert_of_token is not None
        return "nuclear" if self.routed_side == "read" else NuclearByExpert(self.expert_of_token)

    # --- stages -----------------------------------------------------------------------------------

    def staged(self, step: int) -> LinearMap:
        """By relation up to step soft_from_step, then by the router."""
        hard = self.soft_from_step > 0 and step <= self.soft_from_step
        return self if hard == self.hard else dataclasses.replace(self, hard=hard)

    @property
    def route_by(self) -> str:
        """What chooses the expert in the present stage."""
        return "relation" if self.hard else self.by

    @property
    def has_router(self) -> bool:
        """Whether a router is used in the present stage."""
        return self.route_by in ("token", "sequence")

    @property
    def still(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The router in the first stage; in the second the experts, if it trains the router alone."""
        if self.hard:
            return frozenset({ROUTER})
        return frozenset(self.expert_names) if self.soft_trains == "router" else frozenset()

    @property
    def hooked_trained(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """W_OV where there is one; the heads of routed prompts are trained in the token-count form alone."""
        return frozenset({"W_V"}) if self.n_routes is None else frozenset()

    @property
    def n_routes(self) -> int | None:
        """The number of experts where the whole prompt has one mixture; else None."""
        return self.size if self.route_by in ("relation", "sequence") else None

    # --- parameters -------------------------------------------------------------------------------

    def _names(self, factor: str) -> list[str]:
        """Names of a factor of every expert; a shared one is named once for each."""
        own = "read" if factor == "W_V" else "write"
        shared = self.routed_side not in (own, "both")
        return [factor if shared else f"{factor}_{expert}" for expert in range(self.size)]

    @property
    def expert_names(self) -> tuple[str, ...]:
        """Names of the experts' parameters."""
        return tuple(dict.fromkeys((*self._names("W_V"), *self._names("W_O"))))

    @property
    def token_rows(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The values and the router have one row per token."""
        return frozenset(self._names("W_V")) | ({ROUTER} if self.by in ("token", "sequence") else set())

    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """W_V [input, d_head] and W_O [d_head, output] of the experts, router [input, expert]."""
        d_head = self.width(n_out)
        found: dict[str, tuple[int, ...]] = dict.fromkeys(self._names("W_V"), (n_in, d_head))
        found |= dict.fromkeys(self._names("W_O"), (d_head, n_out))
        return found | ({ROUTER: (n_in, self.size)} if self.by in ("token", "sequence") else {})

    def start(self, draw: Draw) -> dict[str, Tensor]:
        """Normal entries; expert 0 has the draws of a factorized model."""
        found = {}
        for name, shape in self.shapes(draw.n_tokens, draw.n_tokens).items():
            found[name] = draw.normal(name.removesuffix("_0"), *shape)
        return found

    def expert_factors(self, parameters: Parameters, expert: int) -> tuple[Any, Any]:
        """(W_V, W_O) of one expert."""
        return parameters[self._names("W_V")[expert]], parameters[self._names("W_O")[expert]]

    def product(self, parameters: Parameters) -> Float[Any, "*run input output"]:
        """W_OV, or by relation and sequence the matrices of all experts [*run, expert, input, output]."""
        factors = [self.expert_factors(parameters, expert) for expert in range(self.size)]
        if self.n_routes is not None:
            return torch.stack([W_V @ W_O for W_V, W_O in factors], dim=-3)
        mixture = self._token_mixture(parameters)
        W, *others = [mixture[..., e].unsqueeze(-1) * (W_V @ W_O) for e, (W_V, W_O) in enumerate(factors)]
        for other in others:
            W = W + other
        return W

    def gradients(
        self, parameters: Parameters, grad: Float[Any, "*run input output"]
    ) -> dict[str, Float[Any, "..."]]:
        """Gradients of factors and, of a router by token, through its softmax."""
        found: dict[str, Tensor] = {}
        mixture = None if self.n_routes is not None else self._token_mixture(parameters)
        of_mixture: list[Tensor] = []
        for expert in range(self.size):
            W_V, W_O = self.expert_factors(parameters, expert)
            if mixture is None:
                of_expert = grad[..., expert, :, :]
            else:
                if self.has_router:
                    of_mixture.append((grad * (W_V @ W_O)).sum(-1))
                of_expert = mixture[..., expert].unsqueeze(-1) * grad
            for name, value in (
                (self._names("W_V")[expert], of_expert @ W_O.mT),
                (self._names("W_O")[expert], W_V.mT @ of_expert),
            ):
                found[name] = found[name] + value if name in found else value
        if ROUTER in parameters:
            found[ROUTER] = torch.zeros_like(parameters[ROUTER])
        if of_mixture:
            with torch.enable_grad():
                router = parameters[ROUTER].detach().requires_grad_()
                through = self._gate(router).mixture
            (found[ROUTER],) = torch.autograd.grad(through, router, torch.stack(of_mixture, -1))
        return {name: found[name] for name in parameters}

    # --- mixtures ---------------------------------------------------------------------------------

    def _gate(self, logits: Float[Tensor, "*item expert"]) -> Gate:
        return gate(logits, self.temperature, self.top_k)

    def _token_mixture(self, parameters: Parameters) -> Float[Tensor, "*run token expert"]:
        """Weight of every expert for every token."""
        if self.expert_of_token is None:
            return self._gate(parameters[ROUTER]).mixture
        any_factor = parameters[self._names("W_V")[0]]
        n_tokens = any_factor.shape[-2]
        of_answers = [0] * max(0, n_tokens - len(self.expert_of_token))
        experts = _numbers((*self.expert_of_token, *of_answers), any_factor.device)[:n_tokens]
        return torch.nn.functional.one_hot(experts, self.size).to(any_factor)

    def routing(self, parameters: Parameters, counts: Float[Tensor, "batch token"]) -> Gate:
        """The gate of every item that is routed: the prompts, or by token and subject the tokens.

        Args:
            parameters: of one model, without an axis for runs.
            counts: count of every token in each prompt; as many tokens as the parameters have rows.
        """
        if self.route_by == "sequence":
            return self._gate(counts @ parameters[ROUTER] / counts.sum(-1, keepdim=True))
        if self.route_by == "token":
            return self._gate(parameters[ROUTER])
        if self.route_by == "relation":
            relations = _numbers(tuple(map(int, self._task.relation_tokens)), counts.device)
            members = _numbers(tuple(self._expert_of_relation), counts.device)
            of = counts[..., relations] @ torch.nn.functional.one_hot(members, self.size).to(counts)
        else:
            of = self._token_mixture(parameters)
        return Gate(of, of, torch.where(of > 0, 0.0, -torch.inf).nan_to_num(neginf=0.0), of > 0)

    def load(
        self,
        parameters: Parameters,
        counts: Float[Tensor, "batch token"],
        weight: Float[Tensor, " batch"],
    ) -> Load:
        """How prompts, or by token and subject their tokens, are spread over the experts.

        Args:
            parameters, counts: as in `routing`.
            weight: of the prompts; they sum to 1.
        """
        if self.n_routes is None:
            weight = (weight.unsqueeze(-1) * counts / counts.sum(-1, keepdim=True)).sum(0)
        return Load.of(self.routing(parameters, counts), weight)

    @property
    def has_balance_loss(self) -> bool:
        """Whether the loss has a term for the router in the present stage."""
        return self.has_router and (self.balance != 0 or self.entropy != 0)

    def anchored(self, parameters: Mapping[str, Tensor], to: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Σ ‖θ − θ⁰‖² over the experts' parameters."""
        return torch.stack([(parameters[name] - to[name]).square().sum() for name in to]).sum()


MAP = Routed
