"""Ablation of a path: what some tokens, through one head, add to some answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocr_interp.ablation.interventions import Bound
from ocr_interp.ablation.sites import Site, TokenReader
from ocr_interp.circuits.protocol import (
    HookedModel,
    attention_of,
    check_head,
    check_layer,
    check_tokens,
    layer_hook,
)
from ocr_interp.circuits.token_sets import labels_of
from ocr_interp.errors import ModelError


@dataclass(frozen=True)
class PathAblation:
    """Cuts the path from some input tokens through one head, to all it feeds or to some answers alone.

    With c[q] = Σ over keys k that hold a token of `inputs` of pattern[q, k] v[k], read in the same
    forward pass at hook_pattern and hook_v:

    - outputs None: hook_z of the head loses c. Works in any model; pattern and biases stay.
    - outputs given: hook_attn_out loses c W_O W_U[:, outputs] pinv(W_U)[outputs]. This takes
      c W_O W_U from the logits of `outputs` and nothing from any other logit, exactly. It needs a
      one-layer attention-only model without norms, whose unembedding has independent columns.

    What an enclosing edit of hook_z or hook_attn_out did is not undone and not known here: cut paths
    together with edits of values or patterns, not of what the head wrote.

    Attributes:
        inputs: ids or labels of input tokens.
        outputs: ids or labels of answers; None is everything that the head feeds.
        layer, head: which head (of the queries, if key-value heads are grouped).

    Raises:
        ModelError: an unknown layer, head or id, or a model in which the path to single answers does not
            exist by itself.
        UnknownNameError: an unknown label, with the close matches.
    """

    inputs: tuple[int | str, ...]
    outputs: tuple[int | str, ...] | None = None
    layer: int = 0
    head: int = 0

    def describe(self) -> str:
        """One phrase, the same for the same spec."""
        to = "" if self.outputs is None else f" to {','.join(map(str, self.outputs))}"
        return f"PathAblation layer {self.layer} head {self.head} {','.join(map(str, self.inputs))}{to}"

    def bind(self, model: HookedModel, reader: TokenReader, labels: Sequence[str] | None) -> Bound:
        """Checks the path against the model and gives its three hooks."""
        layer, head = check_layer(model, self.layer), check_head(model, self.head)
        names = labels_of(model, labels)
        inputs = frozenset(check_tokens(self.inputs, names, "inputs"))
        onto = (
            None if self.outputs is None else self._onto(model, check_tokens(self.outputs, names, "outputs"))
        )
        W_O = attention_of(model, layer).W_O.detach()[head]
        site = Site.at("v", layer, tokens=tuple(sorted(inputs)))
        bound, seen = Bound(self.describe()), {}

        def keep_pattern(value: Tensor, hook: Any) -> None:
            seen["pattern"] = value[:, head]

        def keep_values(value: Tensor, hook: Any) -> None:
            group = int(model.cfg.n_heads) // value.shape[2]
            chosen = site.mask(value, reader.ids(), inputs)
            seen["any"] = bool(chosen.any())
            seen["values"] = torch.where(chosen, value, 0)[:, :, head // group]

        def cut(value: Tensor, hook: Any) -> Tensor | None:
            pattern, values, any_chosen = seen.pop("pattern"), seen.pop("values"), seen.pop("any")
            if not any_chosen:
                return None
            bound.fired += 1
            carried = pattern.to(values) @ values
            if onto is not None:
                return value - carried @ (W_O @ onto).to(value)
            only = torch.arange(value.shape[2], device=value.device)[:, None] == head
            return torch.where(only, value - carried.unsqueeze(2), value)

        last = layer_hook(model, layer, "z" if onto is None else "attn_out")
        bound.hooks = (
            (layer_hook(model, layer, "pattern"), keep_pattern),
            (layer_hook(model, layer, "v"), keep_values),
            (last, cut),
        )
        return bound

    @staticmethod
    def _onto(model: HookedModel, outputs: tuple[int, ...]) -> Tensor:
        """The map of the residual stream that keeps the logits of some tokens and drops all others."""
        cfg, W_U = model.cfg, model.W_U.detach()
        normed = getattr(cfg, "normalization_type", None) is not None
        if int(cfg.n_layers) > 1 or not getattr(cfg, "attn_only", False) or normed:
            raise ModelError(
                f"a path to single answers needs one attention-only layer without norms, got "
                f"{cfg.n_layers} layer(s), attn_only={getattr(cfg, 'attn_only', False)}, norms "
                f"{cfg.normalization_type}: pass outputs=None to cut the tokens from the head"
            )
        if int(torch.linalg.matrix_rank(W_U)) < W_U.shape[1]:
            raise ModelError(
                f"W_U {tuple(W_U.shape)} must have independent columns for single logits to be edited: pass "
                "outputs=None to cut the tokens from the head"
            )
        columns = list(outputs)
        return W_U[:, columns] @ torch.linalg.pinv(W_U)[columns]
