"""Mixtures of LoRA experts on linear maps: y = W x + Σ_e α_e(x) B_e A_e x (LoRA-Mixer, arXiv 2507.00029)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm.layers.passes import (
    TokensRead,
    by_name,
    checked_labels,
    has_tokens,
    in_backward_pass,
    repeats_without_gradients,
    tokens_read,
)
from ocr_interp.llm.layers.routed_update import MixtureSettings, RoutedUpdate

MIXER = "lora_mixer"
"""Name under which a model holds its `LoRAMixer`."""

_CACHES = ("past_key_values", "cache_params")
"""What models of transformers call the cache that they are given and give back."""

_LABELS = "lora_mixer_labels"
"""Under which name a cache keeps the labels of the passes that filled it."""

COLLAPSED = 0.95
"""A router has collapsed where one expert is first for a larger share of tokens."""


class LoRAMixer(nn.Module):
    """All experts of a model, and how they are routed in the pass that comes.

    Args:
        widths: path of every routed linear map -> (inputs, outputs).
        settings: sizes and routing.
        one_lora: paths of the maps whose tokens all have the same LoRA, without a router.

    Attributes:
        soft, steps, score_sum, entropy_sum, first_sum: the buffers of `add_counts`.
        batch: labels and real tokens of the batch that is trained on, as `loss` takes them.
        labels: the expert of each sequence of the pass, on the device; None where the routers are asked.
    """

    soft: Tensor
    steps: Tensor
    score_sum: Tensor
    entropy_sum: Tensor
    first_sum: Tensor

    def __init__(
        self,
        widths: Mapping[str, tuple[int, int]],
        settings: MixtureSettings,
        one_lora: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.settings, self.asks_routers = settings, True
        alone = replace(settings, n_experts=1)
        self.maps = nn.ModuleDict(
            {
                path.replace(".", "/"): RoutedUpdate(*both, alone if path in one_lora else settings, self)
                for path, both in widths.items()
            }
        )
        for update, (n_in, _) in zip(self.updates, widths.values(), strict=True):
            if update.is_routed:
                update.add_router(n_in)
        self.batch: tuple[Tensor | None, Tensor] | None = None
        self.labels: Tensor | None = None
        self._chosen_experts: Tensor | None = None
        self._training = self._said = False
        self._scores: list[Tensor] = []
        self._size: tuple[int, int] | None = None
        self._read: TokensRead | None = None
        self._passing = False

    @property
    def updates(self) -> tuple[RoutedUpdate, ...]:
        """The routed updates, in the order of the model's linear maps."""
        return tuple(update for update in self.maps.values() if isinstance(update, RoutedUpdate))

    @property
    def routed(self) -> tuple[RoutedUpdate, ...]:
        """The updates that have experts and a router."""
        return tuple(update for update in self.updates if update.is_routed)

    def add_counts(self, device: torch.device) -> None:
        """Adds buffers: whether tokens are routed softly, and sums over steps since the last `counted`."""
        shapes = {
            "soft": (),
            "steps": (),
            "score_sum": (self.settings.n_experts,),
            "entropy_sum": (),
            "first_sum": (len(self.routed), self.settings.n_experts),
        }
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, device=device, dtype=torch.float32)
            self.register_buffer(name, zeros, persistent=False)

    def remember_start(self) -> None:
        """Keeps a copy of the experts, for `distance`."""
        for update in self.updates:
            for name in ("A", "B"):
                for k, matrix in enumerate(getattr(update, name)):
                    update.register_buffer(f"start_{name}{k}", matrix.detach().clone(), persistent=False)

    def distance(self) -> Float[Tensor, ""]:
        """Sum of squares of how far the experts are from where `remember_start` saw them."""
        moved = [
            (matrix - getattr(update, f"start_{name}{k}")).square().sum()
            for update in self.updates
            for name in ("A", "B")
            for k, matrix in enumerate(getattr(update, name))
        ]
        return torch.stack(moved).sum()

    # --- one pass -----------------------------------------------------------------------------------

    def route(self, labels: Any, *, training: bool, scored: bool = True) -> None:
        """Says how the next forward pass is routed, and passes that go on from its cache (`generate`).

        Args:
            labels: the expert of each sequence (hard routing), a tensor [batch] or whole numbers in a list;
                None asks the routers (soft routing).
            training: whether scores are kept for `loss`, and all experts answer and not the top_k alone.
            scored: whether the routers are asked too where there are labels.

        Raises:
            ConfigError: labels that are no experts.
        """
        n = self.settings.n_experts
        self.labels = None if labels is None else checked_labels(labels, n, next(self.parameters()).device)
        self._training, self._scores, self._said = training, [], True
        self._chosen_experts = None if self.labels is None else functional.one_hot(self.labels, n)
        self.asks_routers = labels is None or (scored and training)

    def begins(self, model: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        """The model's forward pre-hook: what `route` said is for one pass, and those that go on from it.

        Raises:
            ConfigError: labels of another number of sequences.
            ModelError: a pass in which the routers cannot see what they need, or that autograd will repeat
                without them.
        """
        given = by_name(model, args, given)
        cache = next((given[name] for name in _CACHES if given.get(name) is not None), None)
        if not self._said:
            self.route(getattr(cache, _LABELS, None), training=False)
        self._said, self._read, self._passing = False, None, True
        tokens = next((given[n] for n in ("input_ids", "inputs_embeds") if given.get(n) is not None), None)
        self._size = None if tokens is None else (int(tokens.shape[0]), int(tokens.shape[1]))
        if self.labels is not None and self._size is not None and len(self.labels) != self._size[0]:
            raise ConfigError(
                f"route() needs the expert of each of {self._size[0]} sequences, got {len(self.labels)}: "
                "pass one for every row of the pass, or None, which asks the routers"
            )
        if self.settings.by_sequence and self.asks_routers:
            if has_tokens(cache, _LABELS):
                raise ModelError(
                    "router='sequence' reads all tokens up to each one, those before this pass are in the "
                    "cache alone: pass use_cache=False, or take router='token'"
                )
            self._read = tokens_read(given, self._size)
        if self._training and self.asks_routers and model.training and repeats_without_gradients(model):
            raise ModelError(
                "gradient checkpointing with use_reentrant=True loses the gradients of the routers: enable "
                "it with use_reentrant=False"
            )

    def done(self, model: nn.Module, args: Any, output: Any) -> None:
        """The model's forward hook: what goes on from the cache of this pass has its labels."""
        self._size, self._passing = None, False
        for cache in (getattr(output, name, None) for name in _CACHES):
            if cache is not None and not isinstance(cache, tuple):
                setattr(cache, _LABELS, self.labels)

    def mean_read(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        """The mean of all tokens that each one reads, padding left out.

        Raises:
            ModelError: a pass that did not begin at the whole model, so that nobody knows what is padding.
        """
        # A block that autograd repeats reads what it has read in the pass.
        if self._read is None or not (self._passing or in_backward_pass()):
            raise ModelError(
                "router='sequence' needs to know which tokens are padding, which the whole model is told "
                "(attention_mask), got a pass of a part of it: call the model that llm.wrap gave, or take "
                "router='token'"
            )
        return self._read.mean(x)

    def of_scores(self, scores: Float[Tensor, "*batch n_experts"]) -> Float[Tensor, "*batch_or_1 n_experts"]:
        """α of every token from the router's scores, unless there are labels."""
        if self._training:
            self._scores.append(scores)
        if self.labels is not None:
            return self.of_labels(scores)
        weights = scores.softmax(-1)
        if self._training or self.settings.top_k >= self.settings.n_experts:
            return weights
        kept, places = weights.topk(self.settings.top_k, dim=-1)
        return torch.zeros_like(weights).scatter(-1, places, kept / kept.sum(-1, keepdim=True))

    def of_labels(self, x: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch_or_1 n_experts"]:
        """α of every token from the labels of the sequences.

        Args:
            x: anything of the map [batch, …, pos, width] or [batch × pos, width].

        Raises:
            ModelError: a map that is given some of the tokens, as an expert of a mixture of experts.
        """
        assert self._chosen_experts is not None
        chosen = self._chosen_experts.to(x.dtype)
        rows, columns = self._size or (len(chosen), len(x) // len(chosen))
        if x.dim() > 2 and len(x) == rows:
            return chosen.view(rows, *(1,) * (x.dim() - 2), -1)
        if x.dim() != 2 or len(x) != rows * columns:
            raise ModelError(
                f"labels are of sequences, and a linear map is given {tuple(x.shape)}, which is not the "
                f"{rows} x {columns} tokens of the pass: leave it out by train_parts, or pass no labels "
                "(hard_share 0)"
            )
        return chosen.repeat_interleave(len(x) // len(chosen), 0)

    # --- after a training pass ----------------------------------------------------------------------

    def loss(
        self,
        labels: Any,
        real: Bool[Tensor, "batch pos"] | Int[Tensor, "batch pos"],
        weights: Mapping[str, float],
    ) -> Float[Tensor, ""]:
        """The routers' loss of the pass that was trained on, mean over routed maps and tokens.

        Soft routing: balance Σ_e p̄_e f̄_e - entropy E[H(p)], where p̄ is the mean score of an expert, f̄ the
        share of tokens that have it among their top_k (their first, if top_k is all), H in nats: a positive
        weight of the entropy spreads the scores, a negative one makes them peaked. Hard routing: label_loss
        times the cross entropy of the scores with the labels, or 0 where they were not asked.

        Args:
            labels: as given to `route`.
            real: which tokens are no padding, as an attention_mask says it.
            weights: of "balance", "entropy" and "label_loss".

        Raises:
            ConfigError: labels that are no experts, or of another number of sequences; real tokens of another
                shape than the pass.
            ModelError: there was no pass.
        """
        if labels is not None and not self._scores:
            return 0 * torch.cat([update.router.weight.flatten() for update in self.routed]).sum()
        if not self._scores:
            raise ModelError("loss() needs a forward pass after route(training=True)")
        scores = torch.stack([one.flatten(0, -2) for one in self._scores]).float()
        self._scores = []
        if real.numel() != scores.shape[1]:
            raise ConfigError(
                f"real must say of each of the {scores.shape[1]} tokens of the pass whether it is no padding "
                f"[batch, pos], got the shape {tuple(real.shape)}: pass the attention_mask of the pass"
            )
        logp = scores.log_softmax(-1)
        share = (real / real.sum()).flatten()
        p = logp.exp()
        mean = share @ p
        with torch.set_grad_enabled(torch.is_grad_enabled() and labels is None and weights["entropy"] != 0):
            entropy = -((p * logp).sum(-1) @ share).mean()
        n, top_k = self.settings.n_experts, self.settings.top_k
        with torch.no_grad():
            # The first of them are the experts that come first; who is among all of them says nothing.
            places = p.topk(top_k if labels is None and top_k < n else 1, dim=-1).indices
            first = _share_of_tokens(places[..., :1], p, share)
            chosen = _share_of_tokens(places, p, share) if places.shape[-1] > 1 else first
            self.steps += 1
            self.score_sum += mean.mean(0)
            self.entropy_sum += entropy
            self.first_sum += first
        if labels is not None:
            if labels is not self.labels:
                labels = checked_labels(labels, n, scores.device)
            if len(labels) != len(real):
                raise ConfigError(
                    f"loss() needs the expert of each of {len(real)} sequences, got {len(labels)}: pass what "
                    "route() was given"
                )
            of_token = labels.repeat_interleave(real.shape[1])
            own = -logp.gather(-1, of_token[None, :, None].expand(len(logp), -1, 1)).squeeze(-1)
            return weights["label_loss"] * (own @ share).mean()
        balance = (mean * chosen).sum(-1).mean()
        return weights["balance"] * balance - weights["entropy"] * entropy

    def counted(self) -> dict[str, float]:
        """Means over the steps since the last call (NaN without one), which are then forgotten."""
        steps = self.steps if float(self.steps) else torch.full_like(self.steps, math.nan)
        first = self.first_sum / steps
        found = {f"score_{e}": float(value) for e, value in enumerate(self.score_sum / steps)}
        found |= {f"first_{e}": float(value) for e, value in enumerate(first.mean(0))}
        found["entropy"] = float(self.entropy_sum / steps)
        collapsed = (first.amax(-1) > COLLAPSED).float().mean()
        found["collapsed"] = math.nan if math.isnan(found["entropy"]) else float(collapsed)
        for name in ("steps", "score_sum", "entropy_sum", "first_sum"):
            getattr(self, name).zero_()
        return found


def expert_updates(model: Any) -> dict[str, tuple[tuple[Tensor, Tensor], ...]]:
    """What can be read of a mixture: the update of each expert, which is a LoRA of its own.

    Args:
        model: a model with a LoRA-Mixer.

    Returns: path of every routed linear map -> (A [rank, n_in], B [n_out, rank] with the scale) of each
        expert, detached; an expert alone adds B A to the map's weight.

    Raises:
        ModelError: a model without one.
    """
    mixer = getattr(model, MIXER, None)
    if not isinstance(mixer, LoRAMixer):
        raise ModelError(
            f"{type(model).__name__} has no LoRA-Mixer: pass what llm.wrap(model, 'lora_mixer') or "
            "load_finetuned gave"
        )
    found = {}
    for path, update in zip(mixer.maps, mixer.updates, strict=True):
        A, B = (_each(tuple(part), mixer.settings.n_experts) for part in (update.A, update.B))
        scaled = [b.detach() * mixer.settings.scaling for b in B]
        found[path.replace("/", ".")] = tuple(zip((a.detach() for a in A), scaled, strict=True))
    return found


def _share_of_tokens(places: Tensor, p: Tensor, share: Tensor) -> Float[Tensor, "map n_experts"]:
    """The share of tokens that have each expert among these places."""
    return share @ torch.zeros_like(p).scatter(-1, places, 1.0)


def _each(matrices: Sequence[Tensor], count: int) -> Sequence[Tensor]:
    return matrices if len(matrices) == count else [*matrices] * count
