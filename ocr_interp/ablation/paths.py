"""Ablation of a path: what some tokens, through one head, add to some answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ocr_interp.ablation.interventions import donors
from ocr_interp.ablation.random_positions import RandomPositions
from ocr_interp.ablation.sites import Site, tokens_of_kind
from ocr_interp.ablation.spec import Bound, digest, reference_run, wide
from ocr_interp.errors import InterventionNeverFiredError, ModelError, unknown_name
from ocr_interp.hooked.passes import TokenReader
from ocr_interp.hooked.protocol import (
    HookedModel,
    attention_of,
    check_head,
    check_layer,
    check_tokens,
    layer_hook,
)
from ocr_interp.hooked.tokens import OUTPUT_KINDS, labels_of
from ocr_interp.task import FactRecallTask


@dataclass(frozen=True)
class Carried:
    """What a path carries in a forward pass.

    Attributes:
        values: c of every query, in the head's d_head dimensions.
        active: queries that attend to a token of the path at all; c is 0 at all others.
    """

    values: Float[Tensor, "batch query d_head"]
    active: Bool[Tensor, "batch query"]


@dataclass(frozen=True)
class PathAblation:
    """Cuts the path from some input tokens through one head, to all it feeds or to some answers alone.

    With c[q] = Σ over keys k that hold a token of `inputs` of pattern[q, k] v[k], read in the same
    forward pass at hook_pattern and hook_v:

    - outputs None: hook_z of the head loses c. Works in any model; pattern and biases stay.
    - outputs given: hook_attn_out loses c W_O W_U[:, outputs] pinv(W_U)[outputs]. This takes
      c W_O W_U from the logits of `outputs` and nothing from any other logit, exactly. It needs a
      one-layer attention-only model without norms, whose unembedding has independent columns.

    PathMean, PathResample and PathPatch put another c in its place. What an enclosing edit of hook_z or
    hook_attn_out did is not undone and not known here: cut paths together with edits of values or
    patterns, not of what the head wrote.

    Attributes:
        inputs: ids or labels of input tokens.
        outputs: ids or labels of answers; None is everything that the head feeds.
        layer, head: which head (of the queries, if key-value heads are grouped).
        elsewhere: of a control: keys at as many random positions of each sequence as hold `inputs`.

    Raises:
        ModelError: an unknown layer, head or id, or a model in which the path to single answers does not
            exist by itself.
        UnknownNameError: an unknown label, with the close matches.
    """

    inputs: tuple[int | str, ...]
    outputs: tuple[int | str, ...] | None = None
    layer: int = 0
    head: int = 0
    elsewhere: RandomPositions | None = field(default=None, kw_only=True)

    def describe(self) -> str:
        """One phrase, the same for the same spec."""
        to = "" if self.outputs is None else f" to {','.join(map(str, self.outputs))}"
        name = type(self).__name__
        text = f"{name} layer {self.layer} head {self.head} {','.join(map(str, self.inputs))}{to}"
        return text if self.elsewhere is None else f"{text} {self.elsewhere.describe()}"

    def bind(self, model: HookedModel, reader: TokenReader, labels: Sequence[str] | None) -> Bound:
        """Checks the path against the model and gives its three hooks."""
        layer, names = check_layer(model, self.layer), labels_of(model, labels)
        inputs = check_tokens(self.inputs, names, "inputs")
        read = _HeadReader(model, layer, self.head, inputs, self.elsewhere)
        onto = None
        if self.outputs is not None:
            onto = _onto(model, check_tokens(self.outputs, names, "outputs"))
        replacement = self._replacement(model, read)
        bound, seen = Bound(self.describe()), {}

        def keep(name: str) -> Callable[[Tensor, Any], None]:
            return lambda value, hook: seen.__setitem__(name, value)

        def cut(value: Tensor, hook: Any) -> Tensor:
            if len(seen) < 2:
                raise ModelError(
                    f"a path needs hook_pattern and hook_v of layer {layer} in the same forward pass, got "
                    f"{sorted(seen) or 'neither'}: this attention does not run them"
                )
            values = seen.pop("v")
            carried = read.carried(seen.pop("pattern"), values, reader.ids(values.shape[1]))
            bound.note(carried.active)
            return self._edited(value, carried, replacement(carried), read, onto)

        last = layer_hook(model, layer, "z" if onto is None else "attn_out")
        bound.hooks = (
            *((layer_hook(model, layer, kind), keep(kind)) for kind in ("pattern", "v")),
            (last, cut),
        )
        return bound

    def _replacement(self, model: HookedModel, read: _HeadReader) -> Callable[[Carried], Tensor]:
        """What takes the place of c: zeros."""
        return lambda carried: torch.zeros_like(carried.values)

    @staticmethod
    def _edited(value: Tensor, c: Carried, other: Tensor, read: _HeadReader, onto: Tensor | None) -> Tensor:
        change = torch.where(c.active.unsqueeze(-1), other.to(c.values) - c.values, 0)
        if onto is not None:
            W_O = wide(attention_of(read.model, read.layer).W_O[read.head]).to(change)
            return (wide(value) + change @ W_O @ onto.to(change)).to(value.dtype)
        only = torch.arange(value.shape[2], device=value.device)[:, None] == read.head
        return torch.where(only, (wide(value) + change.unsqueeze(2)).to(value.dtype), value)


@dataclass(frozen=True, eq=False)
class PathMean(PathAblation):
    """Replaces what a path carries by its mean over a reference batch, at the same query position.

    The mean is over those reference sequences in which the query attends to a token of the path, and
    only queries that do so are changed. The reference is run once when the block is entered.

    Attributes:
        reference: token ids of the reference batch, of the same length as the prompts.

    Raises:
        InterventionNeverFiredError: a reference without any token of the path.
        ModelError: in the forward pass, other lengths, or a query whose position has no mean.
    """

    reference: Int[Tensor, "reference pos"] = field(kw_only=True, repr=False)

    def describe(self) -> str:
        """One phrase, the same for the same spec."""
        return f"{super().describe()} reference {digest(self.reference)}"

    def _replacement(self, model: HookedModel, read: _HeadReader) -> Callable[[Carried], Tensor]:
        found = read.run(self.reference, "reference")
        count = found.active.sum(0)
        mean = (found.values * found.active.unsqueeze(-1)).sum(0) / count.unsqueeze(-1).clamp(min=1)
        lacking = count == 0
        is_lacking = bool(lacking.any())

        def replacement(carried: Carried) -> Tensor:
            _check_shape(carried.values[0], mean, "reference")
            if is_lacking and bool((carried.active & lacking.to(carried.active.device)).any()):
                raise ModelError(
                    f"reference must hold the path wherever a prompt does, got none at query positions "
                    f"{lacking.nonzero().flatten().tolist()}: pass a larger reference, such as the prompts"
                )
            return mean.expand_as(carried.values)

        return replacement


@dataclass(frozen=True)
class PathResample(PathAblation):
    """Replaces what a path carries by what it carries in another sequence of the batch.

    Donors are drawn as in ResampleAblation, among the sequences that hold a token of the path; the value
    is that of the same query position.

    Attributes:
        seed: of the permutations.

    Raises:
        ModelError: in the forward pass, fewer than two sequences with the path.
    """

    seed: int = field(default=0, kw_only=True)

    def describe(self) -> str:
        """One phrase, the same for the same spec."""
        return f"{super().describe()} seed {self.seed}"

    def _replacement(self, model: HookedModel, read: _HeadReader) -> Callable[[Carried], Tensor]:
        generator = torch.Generator().manual_seed(self.seed)

        def replacement(carried: Carried) -> Tensor:
            rows = carried.active.any(1).nonzero().flatten()
            if len(rows) == 1:
                raise ModelError(
                    "resampling needs >= 2 sequences with the path, got 1: pass more prompts, or tokens of "
                    "the others among inputs too"
                )
            other = carried.values.clone()
            if len(rows):
                other[rows] = carried.values[rows[donors(len(rows), generator).to(rows.device)]]
            return other

        return replacement


@dataclass(frozen=True, eq=False)
class PathPatch(PathAblation):
    """Replaces what a path carries by what it carries in a donor prompt: path patching.

    Donors are run once when the block is entered. `inputs` names the tokens of the prompts and of the
    donors: to put another subject in place pass both, or all subjects.

    Attributes:
        donor: token ids of one prompt, or of one for each of the batch, of the same length.

    Raises:
        InterventionNeverFiredError: a donor without any token of the path.
        ModelError: in the forward pass, donors of another shape.
    """

    donor: Int[Tensor, "donor pos"] = field(kw_only=True, repr=False)

    def describe(self) -> str:
        """One phrase, the same for the same spec."""
        return f"{super().describe()} donor {digest(self.donor)}"

    def _replacement(self, model: HookedModel, read: _HeadReader) -> Callable[[Carried], Tensor]:
        found = read.run(self.donor, "donor").values

        def replacement(carried: Carried) -> Tensor:
            if len(found) != 1:
                _check_shape(carried.values, found, "donor")
            _check_shape(carried.values[0], found[0], "donor")
            return found.expand_as(carried.values)

        return replacement


def ov_block(task: FactRecallTask, inputs: str, outputs: str | None = None, *, head: int = 0) -> PathAblation:
    """Cuts one block of the OV circuit in token space, e.g. "held-out subjects" to "implications".

    Args:
        task: the task of the model.
        inputs: a kind of token as in `tokens_of_kind`, what is attended to.
        outputs: "facts" or "implications"; None is everything.
        head: which head.

    Raises:
        UnknownNameError: another kind, with the close matches.
    """
    if outputs not in (None, *OUTPUT_KINDS[:2]):
        raise unknown_name("kind of answer", outputs, OUTPUT_KINDS[:2])
    onto = None if outputs is None else tokens_of_kind(task, outputs)
    return PathAblation(tokens_of_kind(task, inputs), onto, head=head)


class _HeadReader:
    """Reads what some tokens add to one head's z."""

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
        site = Site.at("v", layer, tokens=tuple(sorted(inputs)))
        self._site = replace(site, elsewhere=elsewhere)

    def carried(
        self,
        pattern: Float[Tensor, "batch head query key"],
        v: Float[Tensor, "batch key kv_head d_head"],
        ids: Int[Tensor, "batch pos"],
    ) -> Carried:
        """c of every query, in single precision at least."""
        chosen = self._site.mask(v, ids, self.inputs)
        group = int(self.model.cfg.n_heads) // v.shape[2]
        values = torch.where(chosen, v, 0)[:, :, self.head // group]
        weights = pattern[:, self.head].to(values.device)
        active = ((weights != 0) & chosen.reshape(len(v), 1, -1)).any(-1)
        values = wide(values)
        return Carried(weights.to(values) @ values, active)

    def run(self, tokens: Int[Tensor, "batch pos"], what: str) -> Carried:
        """The same of other prompts, through the model as it is now."""
        names = [layer_hook(self.model, self.layer, kind) for kind in ("pattern", "v")]
        tokens = tokens.to(self.model.W_E.device)
        with torch.no_grad(), reference_run():
            _, cache = self.model.run_with_cache(tokens, names_filter=names)
        found = self.carried(cache[names[0]], cache[names[1]], tokens)
        if not bool(found.active.any()):
            raise InterventionNeverFiredError(
                f"{what} must hold a token of the path's inputs {sorted(self.inputs)[:8]}, got none: pass "
                "prompts that do, or name their tokens among inputs"
            )
        return found


def _check_shape(values: Tensor, given: Tensor, what: str) -> None:
    if values.shape != given.shape:
        raise ModelError(
            f"{what} must give {tuple(values.shape)} as the prompts do, got {tuple(given.shape)}: pass token "
            "ids of the same length, and donors one or as many as prompts"
        )


def _onto(model: HookedModel, outputs: tuple[int, ...]) -> Float[Tensor, "d_model d_model"]:
    """The map of the residual stream that keeps the logits of some tokens and drops all others."""
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
