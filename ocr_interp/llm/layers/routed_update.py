"""The routed update of one linear map: LoRA experts and the router that weighs them for each token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ocr_interp.llm.layers.hooking import changed_output
from ocr_interp.llm.layers.joined import JoinedMatrices


@dataclass(frozen=True)
class MixtureSettings:
    """Sizes and routing of a mixture.

    Attributes:
        n_experts: number of experts.
        rank: of each.
        scaling: factor of their sum, lora_alpha / lora_rank.
        separate: what the experts do not share: "both", "read" (A; B is shared), "write" (B; A is shared).
        by_sequence: whether a token is routed by the mean of all tokens up to it that are no padding.
        temperature: of the router's softmax.
        top_k: how many experts answer while nothing is trained; their scores are rescaled to sum to 1.
    """

    n_experts: int
    rank: int
    scaling: float
    separate: str
    by_sequence: bool
    temperature: float
    top_k: int


@runtime_checkable
class Routing(Protocol):
    """What a routed update asks its mixture.

    Attributes:
        settings: of the mixture.
        asks_routers: whether the pass that comes needs the routers' scores.
    """

    settings: MixtureSettings
    asks_routers: bool

    def of_scores(self, scores: Tensor) -> Tensor:
        """α of every token from the router's scores."""
        ...

    def of_labels(self, x: Tensor) -> Tensor:
        """α of every token from the labels of the sequences."""
        ...

    def mean_read(self, x: Tensor) -> Tensor:
        """The mean of all tokens that each one reads."""
        ...


class RoutedUpdate(nn.Module):
    """The experts and the router of one linear map.

    Args:
        n_in, n_out: widths of the map.
        settings: sizes and routing; fewer experts than the mixture has are one LoRA for all tokens.
        mixer: the mixture that it belongs to; says how tokens are routed now.

    Attributes:
        A: what the experts read, one product for all: [n_A × rank, n_in].
        B: what they write: [n_out, n_B × rank].
    """

    def __init__(self, n_in: int, n_out: int, settings: MixtureSettings, mixer: Routing) -> None:
        super().__init__()
        n_A, n_B = (1 if settings.separate == shared else settings.n_experts for shared in ("write", "read"))
        read, write = [], []
        for expert in range(settings.n_experts):
            # The draws are those of peft's LoRA, so that one expert starts as it.
            A = nn.Linear(n_in, settings.rank, bias=False).weight if expert < n_A else None
            B = nn.Linear(settings.rank, n_out, bias=False).weight if expert < n_B else None
            if A is not None:
                read.append(nn.init.kaiming_uniform_(A, a=math.sqrt(5)))
            if B is not None:
                write.append(nn.init.zeros_(B))
        self.A, self.B = JoinedMatrices(read, 0), JoinedMatrices(write, 1)
        self.settings, self._mixer = settings, (mixer,)
        self.is_routed = settings.n_experts == mixer.settings.n_experts

    def add_router(self, n_in: int) -> None:
        """Draws the router, after all experts of the model."""
        self.router = nn.Linear(n_in, self.settings.n_experts, bias=False)
        nn.init.normal_(self.router.weight, std=0.02)

    def on_output(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The forward hook on the linear map."""
        return changed_output(output, lambda y: self.added(y, args[0]))

    def added(
        self, y: Float[Tensor, "*batch n_out"], x: Float[Tensor, "*batch n_in"]
    ) -> Float[Tensor, "*batch n_out"]:
        """y with the mixture's output for x added."""
        own = x.to(self.A.weight.dtype)
        return (y + self.mixed(own) * self.settings.scaling).to(y.dtype)

    def mixed(self, x: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
        """Σ_e α_e(x) B_e A_e x."""
        kind, (mixer,) = self.settings, self._mixer
        if not self.is_routed:
            return functional.linear(functional.linear(x, self.A.weight), self.B.weight)
        read, scores = self._read(x)
        weights = (mixer.of_labels(x) if scores is None else mixer.of_scores(scores)).unsqueeze(-1)
        if kind.separate == "write":
            inner = (weights * read.unsqueeze(-2)).flatten(-2)
        else:
            inner = weights * read.unflatten(-1, (kind.n_experts, kind.rank))
            inner = inner.sum(-2) if kind.separate == "read" else inner.flatten(-2)
        written = functional.linear(inner, self.B.weight)
        return written if written.dim() == x.dim() else written.view(*x.shape[:-1], -1)

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """A x of all experts, and the router's scores if they are needed; in one product if that is possible.

        One expert is multiplied alone, so that its numbers are those of a LoRA to the bit. What comes out of
        one product has one axis of tokens: small models spend their time on reshaping and its gradients.
        """
        (mixer,), count = self._mixer, self.settings.n_experts
        if not mixer.asks_routers or self.settings.by_sequence or count == 1:
            read = functional.linear(x, self.A.weight)
            return read, self.scores(x) if mixer.asks_routers else None
        both = functional.linear(x.flatten(0, -2), torch.cat([self.A.weight, self.router.weight]))
        read, scores = both.split([both.shape[-1] - count, count], -1)
        return read, scores if self.settings.temperature == 1 else scores / self.settings.temperature

    def scores(self, x: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_experts"]:
        """The router's scores before the softmax, divided by the temperature."""
        (mixer,) = self._mixer
        return self.router(mixer.mean_read(x) if self.settings.by_sequence else x) / self.settings.temperature
