"""A site: a hook, restricted to some of its heads, positions and tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ocr_interp.ablation.binding import Bound, reference_run
from ocr_interp.ablation.controls import Draw
from ocr_interp.ablation.random_positions import RandomPositions
from ocr_interp.ablation.where.base import Place, Replacement, Where, check_came_by
from ocr_interp.checks import check_count
from ocr_interp.errors import ConfigError, ModelError, UnknownNameError, unknown_name
from ocr_interp.hooked.alone import length_told
from ocr_interp.hooked.norms import wide
from ocr_interp.hooked.passes import TokenReader, own_run
from ocr_interp.hooked.protocol import LAYER_HOOKS, HookedModel, check_head, check_hook
from ocr_interp.hooked.tokens.ids import plain_tokens, token_ids
from ocr_interp.hooked.tokens.labels import labels_of
from ocr_interp.hooked.tokens.task_tokens import OUTPUT_KINDS, input_kind_names, task_inputs, task_outputs
from ocr_interp.task import FactRecallTask

_ATTENTION = ("q", "k", "rot_q", "rot_k", "result")
_MLP = ("pre", "post", "mid", "pre_linear")
_BLOCK = ("resid_mid", "mlp_out", "mlp_in", "attn_in", "q_input", "k_input", "v_input")
_ALIASES = {"attn": "pattern", "attn_logits": "attn_scores", "query": "q", "key": "k", "value": "v"}
_ALIASES |= {"mlp_pre": "pre", "mlp_mid": "mid", "mlp_post": "post"}
SITES = {
    **LAYER_HOOKS,
    **{name: f"blocks.{{layer}}.attn.hook_{name}" for name in _ATTENTION},
    **{name: f"blocks.{{layer}}.mlp.hook_{name}" for name in _MLP},
    **{name: f"blocks.{{layer}}.hook_{name}" for name in _BLOCK},
}
SITES |= {alias: SITES[name] for alias, name in _ALIASES.items()}
"""Hook names by the short names of a layer's hooks that transformer_lens.utils.get_act_name knows, and
LAYER_HOOKS. Not every model has every hook; `Site.check` says which are there."""

_BY_HEAD = ("hook_z", "hook_v", "hook_k", "hook_q", "hook_rot_q", "hook_rot_k", "hook_result")
_BY_GROUP = ("hook_v", "hook_k", "hook_rot_k")
_PATTERNS = ("hook_pattern", "hook_attn_scores")


@dataclass(frozen=True)
class Site(Where):
    """An activation, restricted to some heads, positions and tokens; None means no restriction.

    The random control of a site with tokens has as many random positions in each prompt, so it edits the same
    number of prompts and of positions; the tokens at these positions, and the attention to them, are not
    matched. For a site without tokens it has as many random positions, the same ones in every prompt, or,
    without positions, as many random heads.

    Attributes:
        hook: full hook name, e.g. "blocks.0.attn.hook_z"; `Site.at` fills in the layer.
        heads: indices along the head axis of the activation; with grouped key-value heads those of
            hook_v are key-value heads.
        positions: positions of the sequence; negative ones count from its end (-1 is the query, EOS).
        tokens: ids or labels of input tokens; chooses the positions with one of these tokens. The ids of a
            batch are read at the embedding, or given to `ablated`.
        elsewhere: for a control: random positions of each sequence that replace the chosen ones.

    At hook_pattern and hook_attn_scores, positions and tokens are those of the keys; scores that the model
    masks (the future, padding) are never chosen.
    """

    hook: str
    heads: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None
    tokens: tuple[int | str, ...] | None = None
    elsewhere: RandomPositions | None = None

    def __post_init__(self) -> None:
        for name in ("heads", "positions", "tokens"):
            values = getattr(self, name)
            if values is None:
                continue
            values = plain_tokens(values, name)
            object.__setattr__(self, name, values)
            if not values or len(set(values)) < len(values):
                raise ModelError(f"{name} must name at least one and each once, got {values!r}; None is all")
        if self.elsewhere is not None and self.tokens is None:
            raise ModelError(
                "elsewhere needs tokens to be in place of, got None: name other positions instead"
            )
        if self.heads is not None and self.hook.rpartition(".")[2] not in (*_BY_HEAD, *_PATTERNS):
            raise ModelError(
                f"heads must be None at {self.hook}, got {self.heads}: it has no head axis; use hook_z, "
                "hook_v, hook_pattern or hook_attn_scores"
            )

    @classmethod
    def at(
        cls,
        kind: str,
        *,
        layer: int | None = None,
        heads: Any = None,
        positions: Any = None,
        tokens: Any = None,
    ) -> Site:
        """A site by the short name of a layer's hook: Site.at("z", layer=0, heads=[2]).

        Short names are those of `transformer_lens.utils.get_act_name`, such as "q", "mlp_out" and "resid_mid"
        (`SITES`). Any other hook of the model is a site by its full name: Site("ln_final.hook_scale").

        Args:
            kind: of hook.
            layer: required.
            heads, positions, tokens: lists, arrays or tensors.

        Raises:
            UnknownNameError: another kind, with the close matches.
            ConfigError: a full name, or no layer.
        """
        if isinstance(kind, str) and "hook_" in kind:
            heads_too = "" if heads is None else f", heads={tuple(plain_tokens(heads, 'heads'))}"
            raise ConfigError(
                f"kind must be a short name such as {', '.join(list(SITES)[:12])}, got the full name "
                f"{kind!r}: use Site({kind!r}{heads_too})"
            )
        if kind not in SITES:
            found = unknown_name("kind of hook", kind, SITES)
            raise UnknownNameError(
                f"{found}; any other hook is named in full as in model.hook_dict, such as "
                'Site("ln_final.hook_scale")'
            )
        if layer is None:
            raise ConfigError(f"layer must be given, got none: Site.at({kind!r}, layer=0)")
        check_count("layer", layer, 0)
        return cls(
            SITES[kind].format(layer=layer),
            None if heads is None else plain_tokens(heads, "heads"),
            None if positions is None else plain_tokens(positions, "positions"),
            None if tokens is None else plain_tokens(tokens, "tokens"),
        )

    @property
    def is_pattern(self) -> bool:
        """Whether the activation is [batch, head, query_pos, key_pos]."""
        return self.hook.rpartition(".")[2] in _PATTERNS

    def length(self, value: Tensor) -> int:
        """Number of positions of an activation; for a pattern, of keys."""
        return value.shape[3 if self.is_pattern else 1]

    def check(self, model: HookedModel, labels: Sequence[str] | None) -> frozenset[int] | None:
        """Requires that hook, heads and tokens exist; returns the token ids.

        Raises:
            UnknownNameError: an unknown hook or token label; the message lists close matches.
            ModelError: a head or token id that does not exist.
        """
        check_hook(model, self.hook)
        for head in self.heads or ():  # the number of hook_v's heads is only known in the forward pass
            check_head(model, head)
        self._check_groups(model)
        if self.tokens is None:
            return None
        return frozenset(token_ids(model, self.tokens, labels_of(model, labels), "tokens"))

    def _check_groups(self, model: HookedModel) -> None:
        """Requires key-value heads, where the model's own configuration says that heads share them.

        Raises:
            ModelError: a head that has none of its own there, with the one that it reads.
        """
        groups, n_heads = _head_count(self, model), int(model.cfg.n_heads)
        beyond = [head for head in self.heads or () if head >= groups]
        if not beyond or hasattr(model, "original_model"):  # a bridge may repeat them: the forward pass tells
            return
        each = n_heads // groups
        shared = "; ".join(f"{k}: heads {k * each}..{(k + 1) * each - 1}" for k in range(min(groups, 4)))
        raise ModelError(
            f"heads must be in 0..{groups - 1} at {self.hook}, got {beyond[0]}: keys and values have "
            f"{groups} heads, shared by the {n_heads} heads ({shared}{'; …' if groups > 4 else ''}); "
            f"head {beyond[0]} reads {beyond[0] // each}: pass heads=[{beyond[0] // each}], or edit "
            "hook_z or hook_q, which have one for each head"
        )

    def mask(
        self, value: Tensor, ids: Int[Tensor, "batch pos"] | None, wanted: frozenset[int] | None
    ) -> Bool[Tensor, "..."]:
        """Which entries are chosen; broadcasts against the activation."""
        length = self.length(value)
        every = torch.ones(value.shape[0], length, dtype=torch.bool, device=value.device)
        if wanted is not None and ids is not None:
            if ids.shape != every.shape:
                raise ModelError(
                    f"token ids must be {tuple(every.shape)} as the activation at {self.hook}, got "
                    f"{tuple(ids.shape)}: pass tokens= of this batch to `ablated`"
                )
            ids = ids.to(value.device)
        chosen = self.chosen(every, ids, wanted)
        shape = [value.shape[0]] + [1] * (value.ndim - 1)
        shape[3 if self.is_pattern else 1] = length
        found = chosen.reshape(shape)
        if self.heads is not None:
            head_axis = 1 if self.is_pattern else 2
            heads = _named(self.heads, value.shape[head_axis], "head", value.device)
            found = found & heads.reshape([-1 if k == head_axis else 1 for k in range(value.ndim)])
        if self.hook.endswith("hook_attn_scores"):  # a masked score of another value would be seen
            found = found & (value > torch.finfo(value.dtype).min / 2)
        return found

    def chosen(
        self,
        every: Bool[Tensor, "batch pos"],
        ids: Int[Tensor, "batch pos"] | None,
        wanted: frozenset[int] | None,
    ) -> Bool[Tensor, "batch pos"]:
        """Which positions of each sequence are chosen among those in `every`; ignores heads."""
        chosen = every
        if self.positions is not None:
            chosen = chosen & _named(self.positions, every.shape[1], "position", every.device)
        if wanted is None or ids is None:
            return chosen
        chosen = chosen & torch.isin(ids, torch.tensor(sorted(wanted), device=ids.device))
        return chosen if self.elsewhere is None else self.elsewhere.like(chosen, ids)

    def bind(
        self,
        model: HookedModel,
        reader: TokenReader,
        labels: Sequence[str] | None,
        prepare: Callable[[Place], Replacement],
        described: str,
    ) -> Bound:
        """Checks hook, heads and tokens, and returns the hook."""
        wanted = self.check(model, labels)
        place = _Activation(self, model, wanted)
        place.labels = labels
        replacement = prepare(place)
        bound = Bound(described)

        def edited(value: Tensor, ids: Tensor | None) -> Tensor:
            mask = self.mask(value, ids, wanted)
            bound.note(mask)
            return torch.where(mask, replacement(value, mask).to(value.dtype), value)

        def edit(value: Tensor, hook: Any) -> Tensor:
            ids = None if wanted is None else reader.ids(self.length(value))
            if reader.padding is None:
                return edited(value, ids)
            return reader.padding.apart(edited, value, ids, patterns=(0,) if self.is_pattern else ())

        bound.hooks = ((self.hook, edit),)
        return bound

    def random(self, draw: Draw) -> Site | None:
        """A site with as many random positions or heads; None if all of them are already chosen."""
        heads = range(_head_count(self, draw.model))
        if self.tokens is not None and len(self.tokens) < len(draw.inputs):
            return replace(self, elsewhere=draw.positions())
        if self.positions is not None and len(self.positions) < draw.length:
            return replace(self, positions=draw.some(range(draw.length), len(self.positions)))
        if self.heads is not None and len(self.heads) < len(heads):
            return replace(self, heads=draw.some(heads, len(self.heads)))
        return None

    def touched(
        self, model: HookedModel, tokens: Int[Tensor, "batch pos"], labels: Sequence[str] | None
    ) -> Float[Tensor, " batch"]:
        """How many positions of each prompt are chosen; heads are not counted."""
        names = labels_of(model, labels)
        wanted = None if self.tokens is None else frozenset(token_ids(model, self.tokens, names, "tokens"))
        every = torch.ones_like(tokens, dtype=torch.bool)
        return self.chosen(every, tokens, wanted).sum(1).float()

    def describe(self) -> str:
        """One phrase that identifies the site."""
        parts = [self.hook]
        for name in ("heads", "positions", "tokens"):
            values = getattr(self, name)
            if values is not None:
                parts.append(f"{name} {','.join(map(str, values))}")
        if self.elsewhere is not None:
            parts.append(self.elsewhere.describe())
        return " ".join(parts)


class _Activation(Place):
    """A site of one model."""

    by_query = False

    def __init__(self, site: Site, model: HookedModel, wanted: frozenset[int] | None) -> None:
        self.model, self.name = model, site.describe()[:160]
        self._site, self._wanted = site, wanted

    def read_prompts(self, tokens: Int[Tensor, "batch pos"], what: str) -> tuple[Tensor, Tensor]:
        tokens = tokens.to(self.model.W_E.device)
        told = length_told(self.model, lambda: tokens.shape[1], f"prompts of the {what}")
        with torch.no_grad(), own_run(self.model), reference_run(), told:
            _, cache = self.model.run_with_cache(tokens, names_filter=self._site.hook)
        check_came_by([self._site.hook], cache, what)
        value = wide(cache[self._site.hook])
        return value, replace(self._site, heads=None).mask(value, tokens, self._wanted)

    def sharing(self, mask: Bool[Tensor, "batch ..."]) -> Int[Tensor, " row"]:
        return torch.arange(len(mask), device=mask.device)


def _head_count(site: Site, model: HookedModel) -> int:
    """Number of entries on the head axis; values and keys of grouped models have fewer."""
    grouped = getattr(model.cfg, "n_key_value_heads", None)
    by_group = site.hook.endswith(_BY_GROUP)
    return int(grouped if grouped and by_group else model.cfg.n_heads)


def _named(indices: tuple[int, ...], length: int, what: str, device: torch.device) -> Bool[Tensor, " index"]:
    found = torch.zeros(length, dtype=torch.bool, device=device)
    for index in indices:
        if not -length <= index < length:
            low, shared = -length, ""
            if what == "head":
                low, shared = 0, ": keys and values that heads share are named by group"
            raise ModelError(f"{what} must be in {low}..{length - 1} for this batch, got {index}{shared}")
        found[index] = True
    return found


def tokens_of_kind(task: FactRecallTask, kind: str) -> tuple[int, ...]:
    """Token ids of a kind: one of `input_kind_names`, "subjects", "relations", "facts" or "implications".

    Implications are those of all relations, if a fact has several.

    Raises:
        UnknownNameError: another kind; the message lists close matches.
        ModelError: the task has no token of this kind.
    """
    inputs, outputs = task_inputs(task), task_outputs(task, "answers")
    kinds = input_kind_names(task)
    merged = {"subjects": kinds[:2], "relations": kinds[2:-2]}
    allowed = (*kinds, *merged, *OUTPUT_KINDS[:2])
    if kind not in allowed:
        raise unknown_name("kind of token", kind, allowed)
    side = outputs if kind in OUTPUT_KINDS else inputs
    names = merged.get(kind, (kind,))
    found = tuple(int(side.ids[k]) for name in names for k in side.of_group(name))
    if not found:
        raise ModelError(f"the task must have tokens of kind {kind!r}, got none: choose another kind")
    return found
