"""The weights of a one-layer model in token space, and as the state_dict of its HookedTransformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.data import token_counts
from ocr_interp.errors import ConfigError, ModelError, OcrInterpError
from ocr_interp.hooked.tokens.task_tokens import check_prompt_length
from ocr_interp.maps.base import LinearMap
from ocr_interp.maps.factorized import Factorized
from ocr_interp.maps.non_factorized import NonFactorized
from ocr_interp.maps.routed import ROUTER, Routed
from ocr_interp.task import FactRecallTask

SCORES = "W_QK"
"""Name of the scores among named weights; no parameter of W_OV may have it."""


@dataclass(frozen=True)
class TokenWeights:
    """The weights of a one-layer, one-head model with one-hot embeddings, in token space.

    Attributes:
        linear_map: the parameterisation of W_OV.
        ov: its parameters by name, for the whole vocabulary.
        W_QK: score that a query token gives a key token, W_Q W_K^T. Only the row of EOS is ever used.
    """

    linear_map: LinearMap
    ov: Mapping[str, Tensor] = field(repr=False)
    W_QK: Float[Tensor, "query_token key_token"] = field(repr=False)

    @classmethod
    def of_factors(
        cls,
        W_V: Float[Tensor, "token d_head"],
        W_O: Float[Tensor, "d_head token"] | None,
        W_QK: Float[Tensor, "query_token key_token"],
    ) -> TokenWeights:
        """Weights of a factorized model, or with W_O = None of a non-factorized one whose W_OV is W_V."""
        if W_O is None:
            return cls(NonFactorized(), {"W_OV": W_V}, W_QK)
        return cls(Factorized(W_V.shape[1]), {"W_V": W_V, "W_O": W_O}, W_QK)

    @property
    def W_OV(self) -> Float[Tensor, "token output_token"]:
        """The OV circuit [input, output] in token space.

        Raises:
            ModelError: a model that routes prompts to experts.
        """
        if self.linear_map.n_routes is not None:
            raise ModelError(
                f"prompts of this model are routed to {self.linear_map.n_routes} experts, so that no single "
                "W_OV is its own: read one per expert, OVCircuit.from_run(run, expert=0), or that of a "
                "prompt, OVCircuit.from_run(run, prompt=['s0', 'r2', 'EOS']); run.mixture(prompt) has the "
                "weights of the experts"
            )
        return self.linear_map.product(self.ov)

    def of_expert(self, expert: int) -> TokenWeights:
        """The factorized weights of one expert of routed experts.

        Raises:
            ModelError: an expert that there is not.
        """
        if not isinstance(self.linear_map, Routed):
            raise ModelError(
                f"only routed experts have an expert, got a {self.linear_map.name} model: leave expert out"
            )
        if isinstance(expert, bool) or not 0 <= expert < self.linear_map.size:
            raise ModelError(f"expert must be 0..{self.linear_map.size - 1}, got {expert}")
        return TokenWeights.of_factors(*self.linear_map.expert_factors(self.ov, expert), self.W_QK)

    def mixture(self, task: FactRecallTask, prompt: Sequence[str]) -> Float[Tensor, " expert"]:
        """Weight of every expert for a prompt of a model that routes prompts.

        Args:
            task: the task of the model.
            prompt: labels of its tokens; the last is EOS.

        Raises:
            ModelError: a model that does not route prompts, or a prompt that says no expert or is longer than
                the task's seq_len.
        """
        linear_map = self.linear_map
        if not isinstance(linear_map, Routed) or linear_map.n_routes is None:
            raise ModelError(
                "a mixture per prompt needs a model that routes prompts (ov='routed' by relation or "
                f"sequence), got one W_OV for all prompts ({linear_map.name}): use run.circuit"
            )
        check_prompt_length(task, len(prompt))
        tokens = torch.from_numpy(task.tokens(*prompt))[None]
        counts = token_counts(task, tokens, self.W_QK.dtype)
        unused = torch.zeros(1, task.d_vocab - task.n_inputs, dtype=counts.dtype)
        counts = torch.cat([counts, unused], dim=1).to(self.W_QK.device)
        found = linear_map.routing(self.ov, counts).mixture[0]
        if abs(float(found.sum()) - 1) > 1e-3:
            raise ModelError(
                f"the prompt must hold one relation, which says its expert, got {' '.join(prompt)!r}"
            )
        return found

    def of_prompt(self, task: FactRecallTask, prompt: Sequence[str]) -> TokenWeights:
        """The non-factorized weights Σ_e mixture_e W^e of a prompt (see `mixture`), mixed in float64."""
        exact = self.to(torch.float64)  # else a circuit and an attribution would differ by rounding
        mixture, experts = exact.mixture(task, prompt), exact.linear_map.product(exact.ov)
        return TokenWeights.of_factors(torch.einsum("e,eio->io", mixture, experts), None, exact.W_QK)

    @property
    def W_V(self) -> Float[Tensor, "token d_head"]:
        """Value of every token; of a map without factors this is W_OV itself."""
        return self.linear_map.factors(self.ov)[0] if self.linear_map.has_factors else self.W_OV

    @property
    def W_O(self) -> Float[Tensor, "d_head token"] | None:
        """From the head to the logits of every token; None (the identity) of a map without factors."""
        return self.linear_map.factors(self.ov)[1] if self.linear_map.has_factors else None

    def to(self, *args: Any, **kwargs: Any) -> TokenWeights:
        """The same weights on another device or in another dtype, as Tensor.to."""
        ov = {name: tensor.to(*args, **kwargs) for name, tensor in self.ov.items()}
        return TokenWeights(self.linear_map, ov, self.W_QK.to(*args, **kwargs))

    def tensors(self) -> dict[str, Tensor]:
        """All weights by name, for a file; `from_tensors` restores them."""
        return {name: t.detach().contiguous() for name, t in {**self.ov, SCORES: self.W_QK}.items()}

    @classmethod
    def from_tensors(cls, linear_map: LinearMap, tensors: Mapping[str, Tensor]) -> TokenWeights:
        """The weights from the result of `tensors`."""
        ov = {name: tensor for name, tensor in tensors.items() if name != SCORES}
        return cls(linear_map, ov, tensors[SCORES])

    def used(self, task: FactRecallTask, outputs: list[int] | slice, of: str = "merged") -> dict[str, Tensor]:
        """The weights behind a circuit to some outputs: rows of inputs, columns of outputs, scores of EOS.

        Args:
            task: the task of the model.
            outputs: token ids of the columns.
            of: "merged", or of a map with a frozen base the "base" or the "update".

        Returns: "W_V" and, of a map with factors, "W_O"; "scores". Of a map without factors W_V is W_OV.

        Raises:
            ConfigError: a side of a map without a base.
        """
        n = task.n_inputs
        W_V, W_O = (self.W_V, self.W_O) if of == "merged" else self.linear_map.side(self.ov, of)
        found = {"W_V": W_V[:n], "scores": self.W_QK[task.eos_token, :n]}
        return found if W_O is None else found | {"W_O": W_O[:, outputs]}


def effective_circuit(
    attention: str, scores: Float[Tensor, " input"], W_OV: Float[Tensor, "*expert input output"]
) -> Float[Tensor, "*expert input output"]:
    """diag(a) W_OV, input tokens by the whole vocabulary.

    Logits, margins and norms of a model with trained attention are those of this matrix: the attention a
    absorbs any scale of W_OV (docs/theory.md §6). With softmax attention a = exp(score), which leaves out the
    normalisation of each sequence.
    """
    return (scores if attention == "linear" else torch.exp(scores)).unsqueeze(-1) * W_OV


def factorize_ov(
    W_OV: Float[Tensor, "input output"], d_head: int
) -> tuple[Float[Tensor, "input d_head"], Float[Tensor, "d_head output"]]:
    """Factors W_V, W_O of an OV matrix by its balanced SVD: W_V^T W_V = W_O W_O^T (Proposition 1).

    Raises:
        OcrInterpError: d_head is smaller than the rank of W_OV.
    """
    U, S, Vh = torch.linalg.svd(W_OV, full_matrices=False)
    tolerance = S.max() * max(W_OV.shape) * torch.finfo(W_OV.dtype).eps
    rank = int((tolerance < S).sum())
    if d_head < rank:
        raise OcrInterpError(
            f"d_head must be >= the rank of W_OV ({rank}) to write it as W_V W_O exactly, got {d_head}: pass "
            "a larger d_head or a truncated W_OV"
        )
    kept = min(d_head, len(S))
    root = S[:kept].sqrt()
    W_V, W_O = W_OV.new_zeros(W_OV.shape[0], d_head), W_OV.new_zeros(d_head, W_OV.shape[1])
    W_V[:, :kept], W_O[:kept] = U[:, :kept] * root, root[:, None] * Vh[:kept]
    return W_V, W_O


def heads_of(weights: TokenWeights) -> list[TokenWeights]:
    """The weights of every head of the HookedTransformer: one, or of routed prompts one per expert."""
    n_routes = weights.linear_map.n_routes
    return [weights] if n_routes is None else [weights.of_expert(expert) for expert in range(n_routes)]


def gate_tensors(weights: TokenWeights) -> dict[str, Tensor]:
    """What the gate of routed prompts computes with, by the name that it has in the attention."""
    if weights.linear_map.n_routes is None:
        return {}
    router = weights.ov.get(ROUTER)
    return {"gated": torch.tensor(True, device=weights.W_QK.device)} | (
        {} if router is None else {f"gate_{ROUTER}": router}
    )


def hooked_state_dict(task: FactRecallTask, weights: TokenWeights, attention: str) -> dict[str, Tensor]:
    """The state_dict of the HookedTransformer with these weights (see `ocr_interp.models.hooked39`).

    Tokens are read from the first half of the residual stream and answers are written to the second
    (d_model = 2 d_vocab), so that W_E W_U = 0: no path leads from the embedding straight to the logits.

    Args:
        task: the task of the model.
        weights: what it computes with.
        attention: "linear" or "softmax". A model with linear attention has one entry more,
            `blocks.0.attn.linear`, so that a HookedTransformer that would take a softmax of its scores
            refuses the weights instead of giving other logits.
    """
    heads = heads_of(weights)
    W_V, d_vocab, n_heads = heads[0].W_V, task.d_vocab, len(heads)
    d_head = W_V.shape[1]
    if W_V.shape[0] != d_vocab:
        raise ConfigError(f"W_V must have {d_vocab} rows, one per token, got {tuple(W_V.shape)}")
    options = {"dtype": W_V.dtype, "device": W_V.device}
    one, zero = torch.eye(d_vocab, **options), torch.zeros(d_vocab, d_vocab, **options)
    W_O = [one if head.W_O is None else head.W_O for head in heads]
    nothing = torch.zeros(d_vocab, d_head, **options)
    attn = {
        "W_Q": torch.cat([weights.W_QK, zero]).repeat(n_heads, 1, 1),
        "W_K": torch.cat([one, zero]).repeat(n_heads, 1, 1),
        "W_V": torch.stack([torch.cat([head.W_V, nothing]) for head in heads]),
        "W_O": torch.stack([torch.cat([nothing.mT, write], dim=1) for write in W_O]),
        "b_Q": torch.zeros(n_heads, d_vocab, **options),
        "b_K": torch.zeros(n_heads, d_vocab, **options),
        "b_V": torch.zeros(n_heads, d_head, **options),
        "b_O": torch.zeros(2 * d_vocab, **options),
        "mask": torch.empty((0, 0), dtype=torch.bool, device=options["device"]),
        "IGNORE": torch.tensor(-torch.inf, device=options["device"]),
        **({"linear": torch.tensor(True, device=options["device"])} if attention == "linear" else {}),
        **gate_tensors(weights),
    }
    return {
        "embed.W_E": torch.cat([one, zero], dim=1),
        "pos_embed.W_pos": torch.zeros(task.seq_len, 2 * d_vocab, **options),
        "unembed.W_U": torch.cat([zero, one]),
        "unembed.b_U": torch.zeros(d_vocab, **options),
        **{f"blocks.0.attn.{name}": tensor.clone() for name, tensor in attn.items()},
    }


def weights_of_state_dict(
    task: FactRecallTask, state: Mapping[str, Tensor], has_factors: bool, head: int = 0
) -> TokenWeights:
    """The token weights inside a HookedTransformer's state_dict: the inverse of `hooked_state_dict`.

    Args:
        task: the task of the model.
        state: the state_dict.
        has_factors: whether W_V and W_O are both weights; False where W_O is the identity. The parameters of
            other parameterisations cannot be recovered from their product.
        head: the head; of routed prompts the expert.
    """
    d = task.d_vocab
    W_O = state["blocks.0.attn.W_O"][head, :, d:]
    return TokenWeights.of_factors(
        W_V=state["blocks.0.attn.W_V"][head, :d],
        W_O=W_O if has_factors else None,
        W_QK=state["blocks.0.attn.W_Q"][head, :d] @ state["blocks.0.attn.W_K"][head, :d].mT,
    )
