"""A path: the contribution of some tokens, through one head, to everything or to some answers only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ocr_interp.ablation.binding import Bound, reference_run
from ocr_interp.ablation.controls import Draw
from ocr_interp.ablation.random_positions import RandomPositions
from ocr_interp.ablation.where.base import Place, Replacement, Where, check_came_by
from ocr_interp.ablation.where.site import Site
from ocr_interp.errors import InterventionNeverFiredError, ModelError
from ocr_interp.hooked.alone import length_told
from ocr_interp.hooked.norms import wide
from ocr_interp.hooked.passes import TokenReader, own_run
from ocr_interp.hooked.probes import probe_head
from ocr_interp.hooked.protocol import (
    HookedModel,
    attention_of,
    check_head,
    check_layer,
    layer_hook,
)
from ocr_interp.hooked.tokens.ids import plain_tokens, token_ids
from ocr_interp.hooked.tokens.labels import labels_of, output_labels_of


@dataclass(frozen=True)
class Carried:
    """The contribution of a path in a forward pass.

    Attributes:
        values: c of every query, in the head's d_head dimensions.
        active: queries that attend to a token of the path; c is 0 at all others.
    """

    values: Float[Tensor, "batch query d_head"]
    active: Bool[Tensor, "batch query 1"]


@dataclass(frozen=True)
class Path(Where):
    """A path from some input tokens through one head, to everything or to some answers only.

    Its contribution to a query q is c[q] = Σ_k pattern[q, k] v[k] over the keys k with a token of `inputs`,
    read in the same forward pass at hook_pattern and hook_v. An edit replaces c by another c', only at
    queries that attend to such a token (`Zero` cuts the path: c' = 0):

    - outputs None: hook_z of the head gains c' - c. Works in any model; pattern and biases do not change.
    - outputs given: hook_attn_out gains (c' - c) W_O W_U[:, outputs] pinv(W_U)[outputs]. This adds
      (c' - c) W_O W_U to the logits of `outputs` and nothing to any other logit, exactly. It needs a
      one-layer attention-only model without norms, whose unembedding has independent columns.

    A path does not see the edits of hook_z or hook_attn_out by an enclosing block: combine paths with edits
    of values or patterns, not with edits of the head's output.

    Its random control has as many random positions per prompt as there are tokens of `inputs`, and as many
    random outputs.

    Attributes:
        inputs: ids or labels of input tokens; kept as a tuple.
        outputs: ids or labels of answers, a tuple too; None is everything downstream of the head.
        layer, head: the head (a query head, if key-value heads are grouped).
        elsewhere: for a control: random key positions that replace those with a token of `inputs`.

    Raises:
        ModelError: when applied, an unknown layer, head or id, a model whose logits of single answers cannot
            be edited separately, or one in which something stands between values and z (a clamp, a gate).
        UnknownNameError: when applied, an unknown label; the message lists close matches.
    """

    inputs: Any
    outputs: Any = None
    layer: int = field(kw_only=True)
    head: int = field(kw_only=True)
    elsewhere: RandomPositions | None = field(default=None, kw_only=True)

    prefix: ClassVar[str] = "Path"

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", plain_tokens(self.inputs, "inputs"))
        if self.outputs is not None:
            object.__setattr__(self, "outputs", plain_tokens(self.outputs, "outputs"))

    def describe(self) -> str:
        """One phrase that identifies the path."""
        to = "" if self.outputs is None else f" to {','.join(map(str, self.outputs))}"
        text = f"layer {self.layer} head {self.head} {','.join(map(str, self.inputs))}{to}"
        return text if self.elsewhere is None else f"{text} {self.elsewhere.describe()}"

    def bind(
        self,
        model: HookedModel,
        reader: TokenReader,
        labels: Sequence[str] | None,
        prepare: Callable[[Place], Replacement],
        described: str,
    ) -> Bound:
        """Checks the path against the model and returns its three hooks."""
        layer, names = check_layer(model, self.layer), labels_of(model, labels)
        inputs = token_ids(model, self.inputs, names, "inputs")
        read = _HeadReader(model, layer, self.head, inputs, self.elsewhere)
        read.labels = labels
        onto = None
        if self.outputs is not None:
            names = output_labels_of(model, labels, reader.output_labels)
            onto = _onto(model, token_ids(model, self.outputs, names, "outputs"))
        probe = probe_head(model, layer, self.head)
        steps = ("attention",) if onto is None else ("attention", "writing", "reading")
        probe.require(steps, "a path")
        replacement = prepare(read)
        bound, seen = Bound(described), {}

        def keep(name: str) -> Callable[[Tensor, Any], None]:
            return lambda value, hook: seen.__setitem__(name, value)

        def cut(value: Tensor, hook: Any) -> Tensor:
            if len(seen) < 2:
                raise ModelError(
                    f"a path needs hook_pattern and hook_v of layer {layer} in the same forward pass, got "
                    f"{sorted(seen) or 'neither'}: this attention does not run them"
                )
            values, pattern = seen.pop("v"), seen.pop("pattern")
            if probe.limited and onto is None:
                read.check_linear(pattern, values, value)
            given = value, values, reader.ids(values.shape[1]), pattern
            return (
                cut_in(*given)
                if reader.padding is None
                else reader.padding.apart(cut_in, *given, patterns=(3,))
            )

        def cut_in(value: Tensor, values: Tensor, ids: Tensor, pattern: Tensor) -> Tensor:
            carried = read.carried(pattern, values, ids)
            bound.note(carried.active)
            return _edited(value, carried, replacement(carried.values, carried.active), read, onto)

        last = layer_hook(model, layer, "z" if onto is None else "attn_out")
        bound.hooks = (
            *((layer_hook(model, layer, kind), keep(kind)) for kind in ("pattern", "v")),
            (last, cut),
        )
        return bound

    def random(self, draw: Draw) -> Path | None:
        """A path from as many random positions to as many random outputs; None if there are none to draw."""
        onto = None if self.outputs is None else draw.some(draw.outputs, len(self.outputs))
        elsewhere = self.elsewhere if len(self.inputs) >= len(draw.inputs) else draw.positions()
        if elsewhere is None and onto is None:
            return None
        return replace(self, outputs=onto, elsewhere=elsewhere)

    def touched(
        self, model: HookedModel, tokens: Int[Tensor, "batch pos"], labels: Sequence[str] | None
    ) -> Float[Tensor, " batch"]:
        """How many keys of each prompt have a token of the path."""
        return Site("keys", tokens=self.inputs, elsewhere=self.elsewhere).touched(model, tokens, labels)


def _edited(value: Tensor, c: Carried, other: Tensor, read: _HeadReader, onto: Tensor | None) -> Tensor:
    change = torch.where(c.active, other.to(c.values) - c.values, 0)
    if onto is not None:
        W_O = wide(attention_of(read.model, read.layer).W_O[read.head]).to(change)
        return (wide(value) + change @ W_O @ onto.to(change)).to(value.dtype)
    only = torch.arange(value.shape[2], device=value.device)[:, None] == read.head
    return torch.where(only, (wide(value) + change.unsqueeze(2)).to(value.dtype), value)


class _HeadReader(Place):
    """A path of one model: reads the contribution of some tokens to one head's z."""

    name, by_query = "the path", True

    def __init__(
        self,
        model: HookedModel,
        layer: int,
        head: int,
        inputs: tuple[int, ...],
        elsewhere: RandomPositions | None,
    ) -> None:
        self.model, self.layer, self.head = model, layer, check_head(model, head)
        self.inputs = frozenset(inputs)
        site = Site.at("v", layer=layer, tokens=tuple(sorted(inputs)))
        self._site = replace(site, elsewhere=elsewhere)

    def carried(
        self,
        pattern: Float[Tensor, "batch head query key"],
        v: Float[Tensor, "batch key kv_head d_head"],
        ids: Int[Tensor, "batch pos"],
    ) -> Carried:
        """c of every query, at least in single precision."""
        chosen = self._site.mask(v, ids, self.inputs)
        group = int(self.model.cfg.n_heads) // v.shape[2]
        values = torch.where(chosen, v, 0)[:, :, self.head // group]
        weights = pattern[:, self.head].to(values.device)
        active = ((weights != 0) & chosen.reshape(len(v), 1, -1)).any(-1, keepdim=True)
        values = wide(values)
        return Carried(weights.to(values) @ values, active)

    def check_linear(self, pattern: Tensor, v: Tensor, z: Tensor) -> None:
        """Requires that nothing limited the values of these prompts, in a model that limits large ones."""
        group = int(self.model.cfg.n_heads) // v.shape[2]
        ours = wide(pattern[:, self.head]) @ wide(v[:, :, self.head // group])
        theirs = wide(z[:, :, self.head])
        error = float((ours - theirs).norm() / theirs.norm().clamp(min=1e-30))
        if error > max(1e-4, 8 * torch.finfo(z.dtype).eps):
            raise ModelError(
                f"a path of layer {self.layer}, head {self.head} needs sum over keys of pattern × v = z, "
                f"got a difference of {error:.2g} of its size on these prompts: the model limits large "
                "values (a clamp such as clip_qkv), or another intervention edits them; edit hook_z instead"
            )

    def read_prompts(self, tokens: Int[Tensor, "batch pos"], what: str) -> tuple[Tensor, Tensor]:
        names = [layer_hook(self.model, self.layer, kind) for kind in ("pattern", "v")]
        tokens = tokens.to(self.model.W_E.device)
        told = length_told(self.model, lambda: tokens.shape[1], f"prompts of the {what}")
        with torch.no_grad(), own_run(self.model), reference_run(), told:
            _, cache = self.model.run_with_cache(tokens, names_filter=names)
        check_came_by(names, cache, what)
        found = self.carried(cache[names[0]], cache[names[1]], tokens)
        if not bool(found.active.any()):
            raise InterventionNeverFiredError(
                f"{what} must hold a token of the path's inputs {sorted(self.inputs)[:8]}, got none: pass "
                "prompts that do, or name their tokens among inputs"
            )
        return found.values, found.active

    def sharing(self, mask: Bool[Tensor, "batch query 1"]) -> Int[Tensor, " row"]:
        return mask.flatten(1).any(1).nonzero().flatten()


def _onto(model: HookedModel, outputs: tuple[int, ...]) -> Float[Tensor, "d_model d_model"]:
    """The map of the residual stream that keeps the logits of some tokens and sets all others to zero."""
    cfg, W_U = model.cfg, wide(model.W_U.detach())
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
