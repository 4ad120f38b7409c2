"""Direct attribution of a whole model: every embedding, head, MLP and bias of any hooked model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import check_count
from ocr_interp.circuits.attribution.direct import BlockParts, DirectAttribution, NeuronParts, Part
from ocr_interp.circuits.attribution.positions import by_block, by_position, position_hooks
from ocr_interp.circuits.attribution.prompts import Asked, asked_of
from ocr_interp.circuits.attribution.stream import LastPosition, Writing
from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.copies import as_hooked
from ocr_interp.hooked.adapted.projections import projections
from ocr_interp.hooked.alone import probe_ids, run_alone
from ocr_interp.hooked.asked.decoder import check_decoder
from ocr_interp.hooked.asked.wrapped import require_wrapped
from ocr_interp.hooked.norms import final_norm, read_norm
from ocr_interp.hooked.probes import probe_head
from ocr_interp.hooked.protocol import (
    AdaptedModel,
    HookedModel,
    block_of,
    check_head,
    check_layer,
    model_name,
)
from ocr_interp.hooked.provenance import fingerprint_of
from ocr_interp.hooked.steps import POST_NORM
from ocr_interp.hooked.tokens.ids import Token
from ocr_interp.hooked.tokens.labels import labels_of, output_labels_of
from ocr_interp.linalg.sums import TOLERANCE, checked_residual

STATEMENT = (
    "direct contributions to the logits: what a part adds to the residual stream at the last position, with "
    "the final norm's scale held at what it is in each prompt"
)


def direct_attribution(
    model: HookedModel | AdaptedModel,
    prompts: Any,
    answers: Token | Sequence[Token],
    against: Any = None,
    *,
    by_position: bool = False,
    blocks: Sequence[tuple[int, int]] = (),
    tolerance: float = 0.05,
    neurons: Sequence[int] = (),
    labels: Sequence[str] | None = None,
    output_labels: Sequence[str] | None = None,
    batch_size: int = 64,
) -> DirectAttribution:
    """What every part of a model adds to a logit, or a logit difference, at the end of each prompt.

    Parts are the embedding (token and position apart where the model adds them), every head, every MLP and
    every bias; they sum to the logit of the model, which is checked. Linear through the final norm, whose
    scale is frozen. What each part writes is taken from the model's own residual stream: where a norm or a
    gate stands between z W_O and the stream, attention of that layer is one part, and `notes` says why.

    Args:
        model: any HookedTransformer, TransformerBridge or PeftModel; run once per prompt, in eval mode.
        prompts: one prompt (ids, labels or strings of one token, or a text), or several, of any lengths and
            without padding: a list of them (texts too), ids [prompt, pos], what a tokenizer returned, or a
            column of a table.
        answers: the answer, or one for each prompt.
        against: what is subtracted: None, a token, or several, of which the mean. Of several prompts one
            token for all, or one entry for each prompt, a token or a list of them.
        by_position: whether contributions of heads are also given by position.
        blocks: (layer, head) of heads whose contribution is also given by singular block of W_V W_O.
        tolerance: of these blocks, see `OVCircuit.spectrum`.
        neurons: layers whose MLP's contribution is also given by neuron.
        labels: a label for every token id; else those attached (`name_tokens`) or the tokenizer's.
        output_labels: a label for every logit, where the outputs are another vocabulary.
        batch_size: prompts per forward pass.

    Raises:
        UnknownNameError: an unknown token, with the close matches.
        ModelError: an encoder, a post-norm model, a bridge that computes something else than its model, a
            logit cap, heads or neurons that cannot be told apart where they were asked for.
        AttributionError: contributions that do not sum to the logit, relative to their sizes.

    Source: logit attribution, Elhage et al. 2021, transformer-circuits.pub/2021/framework.
    """
    check_count("batch_size", batch_size, 1)
    model = as_hooked(model)
    check_decoder(model)
    names, output_names = labels_of(model, labels), output_labels_of(model, labels, output_labels)
    asked = asked_of(model, prompts, answers, against, names, output_names)
    chosen = [(check_layer(model, layer), check_head(model, head)) for layer, head in blocks]
    layers = [check_layer(model, layer) for layer in neurons]
    _require_sum(model)
    require_wrapped(model, "a direct attribution")
    wanted = _Wanted(by_position, chosen, tolerance, layers)
    rows: list[_Batch | None] = [None] * len(asked.ids)
    places: list[int] = [0] * len(asked.ids)
    for group in asked.batches(batch_size):
        found = _Batch(model, asked, group, wanted)
        for place, prompt in enumerate(group):
            rows[prompt], places[prompt] = found, place
    return _joined(model, asked, [(b, p) for b, p in zip(rows, places, strict=True) if b], names, wanted)


class _Wanted:
    """What was asked for beyond the parts."""

    def __init__(
        self, by_position: bool, blocks: list[tuple[int, int]], tolerance: float, neurons: list[int]
    ) -> None:
        self.by_position, self.blocks, self.tolerance = by_position, blocks, tolerance
        self.neurons = neurons

    def hooks(self, model: HookedModel) -> dict[str, Callable[[Tensor], Tensor]]:
        """Hooks beyond those of the parts, with what is kept of each."""
        layers = list(range(int(model.cfg.n_layers))) if self.by_position else []
        found = position_hooks(model, layers)
        for layer in self.neurons:
            found[_post(model, layer)] = lambda value: value[:, -1].clone()
        return found


class _Batch:
    """Contributions of all parts for prompts of one length."""

    def __init__(self, model: HookedModel, asked: Asked, group: Sequence[int], wanted: _Wanted) -> None:
        ids = torch.tensor([asked.ids[k] for k in group])
        self.run = LastPosition(model, ids, wanted.hooks(model))
        weights = asked.weights(group).to(self.run.logits.device, self.run.dtype)
        # Bridges compute norms in single precision whatever the dtype of the model.
        coarse = self.run.check_reading(asked.columns) > TOLERANCE
        self.eps = max(self.run.eps, float(torch.finfo(torch.float32).eps)) if coarse else self.run.eps
        self.direction = self.run.directions(asked.columns, weights)
        self.named: dict[Part, Float[Tensor, " prompt"]] = {}
        self.notes: list[str] = []
        self.factors: dict[int, float] = {}
        for name, vector in self.run.embedded().items():
            self._add(Part(name, "embedding"), vector)
        self.mlps: dict[int, Tensor] = {}
        for layer in range(self.run.n_layers):
            self._add_layer(layer, self.run.writing(layer))
        for name, value in self.run.constants(asked.columns, weights).items():
            self.named[Part(name, "bias")] = value
        picked = self.run.logits[:, list(asked.columns)].to(weights)
        self.totals = (picked.where(weights != 0, 0) * weights).sum(-1)
        end = self.run.stream(self.run.n_layers - 1, "post")
        self.sizes = end.norm(dim=-1) * self.direction.norm(dim=-1)
        self.by_position = by_position(self.run, self.factors, self.direction) if wanted.by_position else {}
        self.blocks = [
            by_block(self.run, layer, head, self._factor(layer), self.direction, wanted.tolerance)
            for layer, head in wanted.blocks
        ]
        self.neurons = [self._of_neurons(layer) for layer in wanted.neurons]

    def _add(self, part: Part, vector: Float[Tensor, "prompt d_model"]) -> None:
        self.named[part] = (vector * self.direction).sum(-1)

    def _add_layer(self, layer: int, found: Writing) -> None:
        if found.note:
            self.notes.append(found.note)
        if found.attention is None:
            self._add(Part(f"layer {layer}", "layer", layer), found.change)
            return
        by_heads = self.run.by_heads(layer)
        if found.factor is None or by_heads is None:
            self._add(Part(f"attention {layer}", "attention", layer), found.attention)
        else:
            z, W_O, b_O = by_heads
            self.factors[layer] = found.factor
            # W_O meets the one direction first: no head's vector in the stream is formed.
            through = torch.einsum("hdm,bm->bhd", W_O, self.direction)
            each = found.factor * (z * through).sum(-1)
            for head in range(each.shape[1]):
                self.named[Part(f"L{layer}H{head}", "head", layer, head)] = each[:, head]
            if bool(b_O.any()):
                self._add(Part(f"b_O {layer}", "bias", layer), (found.factor * b_O).expand_as(self.direction))
        if found.mlp is not None:
            self.mlps[layer] = found.mlp
            self._add(Part(f"MLP {layer}", "mlp", layer), found.mlp)

    def _factor(self, layer: int) -> float:
        if layer not in self.factors:
            said = "; ".join(note for note in self.notes if f"layer {layer}:" in note)
            raise ModelError(f"heads of layer {layer} cannot be told apart: {said}")
        return self.factors[layer]

    def _of_neurons(self, layer: int) -> tuple[Tensor, Tensor]:
        """What every neuron and b_out of an MLP add.

        Raises:
            ModelError: the neurons through W_out, and b_out, are not what the MLP adds to the stream.
        """
        acts, mlp = self.run.wide(_post(self.run.model, layer)), self.mlps.get(layer)
        inside = getattr(block_of(self.run.model, layer), "mlp", None)
        W_out, b_out = getattr(inside, "W_out", None), getattr(inside, "b_out", None)
        if acts is None or mlp is None or not isinstance(W_out, Tensor) or acts.ndim != 2:
            raise ModelError(
                f"neurons of layer {layer} need an MLP with W_out whose activations come by hook_post (a "
                "mixture of experts has none of its own): leave it out of neurons"
            )
        W_out = W_out.detach().to(acts)
        bias = b_out.detach().to(acts) if isinstance(b_out, Tensor) else acts.new_zeros(W_out.shape[1])
        ours = acts @ W_out + bias
        error, size = float((ours - mlp).norm()), max(float(ours.norm()), float(mlp.norm()))
        stream = float(self.run.stream(layer, "post").norm())
        if error > self.run.allowed * size + 8 * self.run.eps * stream:
            raise ModelError(
                f"neurons of layer {layer} need hook_post W_out + b_out to be what the MLP adds to the "
                f"stream, got a difference of {error / size:.2g} of its size: leave it out of neurons"
            )
        return acts * (self.direction @ W_out.mT), self.direction @ bias


def _post(model: HookedModel, layer: int) -> str:
    name = f"blocks.{layer}.mlp.hook_post"
    if name not in model.hook_dict:
        raise ModelError(f"layer {layer} must have an MLP with hook_post, got none: leave it out of neurons")
    return name


def _require_sum(model: HookedModel) -> None:
    """Requires that the stream is a sum of what is written, and is not normed itself (post-norm).

    Norms of what attention and MLPs write (OLMo-2) are no hindrance, and look alike in the weights. So the
    first layer with heads is run without its two writers, which must leave the stream as it was.

    Raises:
        ModelError: it does not.
    """
    for layer in range(int(model.cfg.n_layers)):
        try:
            projections(model, layer)
        except ModelError:
            continue
        probe = probe_head(model, layer, 0)
        if probe.values.note != POST_NORM:
            return
        edits = {f"blocks.{layer}.{kind}": _zero for kind in ("hook_attn_out", "hook_mlp_out")}
        wanted = [f"blocks.{layer}.{kind}" for kind in ("hook_resid_pre", "hook_resid_post")]
        tokens = torch.tensor([probe_ids(model)], device=model.W_E.device)
        seen = run_alone(model, tokens, wanted, edits)[1]
        before, after = (seen.get(name) for name in wanted)
        if before is None or after is None or not torch.allclose(before, after, rtol=1e-3, atol=1e-5):
            probe.require_norm_before()
        return


def _zero(value: Any, seen: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, Tensor) else value


def _joined(
    model: HookedModel,
    asked: Asked,
    rows: list[tuple[_Batch, int]],
    names: Sequence[str],
    wanted: _Wanted,
) -> DirectAttribution:
    """All prompts together, each sum checked."""
    parts = list(dict.fromkeys(part for batch, _ in rows for part in batch.named))
    tables = {id(batch): _table(batch, parts) for batch, _ in rows}
    contributions = np.stack([tables[id(batch)][place] for batch, place in rows])
    totals, sizes = (_per_prompt(rows, name) for name in ("totals", "sizes"))
    eps = max(batch.eps for batch, _ in rows)
    shown = [" - ".join((a, *g)) for a, g in zip(asked.answers, asked.against, strict=True)]
    remainders = -np.array(
        [
            checked_residual(part, float(total), eps, what, float(size))
            for part, total, what, size in zip(contributions, totals, shown, sizes, strict=True)
        ]
    )
    first = rows[0][0].run
    coarse = first.allowed >= 1e-3
    said = f"; not really checked, the model's precision tells only differences above {first.allowed:.1%}"
    return DirectAttribution(
        prompts=tuple(tuple(names[i] for i in ids) for ids in asked.ids),
        answers=asked.answers,
        against=asked.against,
        parts=tuple(parts),
        contributions=contributions,
        totals=totals,
        remainders=remainders,
        heads_by_position=_positions(rows, parts, max(map(len, asked.ids))) if wanted.by_position else None,
        blocks=tuple(_blocks(rows, k, *where) for k, where in enumerate(wanted.blocks)),
        neurons=tuple(
            NeuronParts(layer, *(_stack(rows, lambda b, k=k, s=s: b.neurons[k][s]) for s in (0, 1)))
            for k, layer in enumerate(wanted.neurons)
        ),
        statement=STATEMENT + (said if coarse else ""),
        notes=tuple(dict.fromkeys(note for batch, _ in rows for note in batch.notes)),
        model=model_name(model),
        fingerprint=fingerprint_of(_weights(model, asked, list(first_layers(parts)))),
    )


def first_layers(parts: Sequence[Part]) -> dict[int, None]:
    """Layers whose heads were attributed."""
    return dict.fromkeys(part.layer for part in parts if part.kind == "head" and part.layer is not None)


def _weights(model: HookedModel, asked: Asked, layers: list[int]) -> dict[str, Tensor]:
    found = {f"W_O {layer}": projections(model, layer)[1] for layer in layers}
    found["W_U"] = model.W_U.detach()[:, list(asked.columns)]
    norm = read_norm(final_norm(model), model.cfg, model.W_U.dtype)
    found |= {} if norm.gain is None else {"ln_final.gain": norm.gain}
    return found | ({} if norm.bias is None else {"ln_final.bias": norm.bias})


def _array(tensor: Tensor) -> Float[np.ndarray, "..."]:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _table(batch: _Batch, parts: Sequence[Part]) -> Float[np.ndarray, "prompt part"]:
    zero = torch.zeros_like(batch.totals)
    return _array(torch.stack([batch.named.get(part, zero) for part in parts], dim=1))


def _stack(rows: list[tuple[_Batch, int]], of: Callable[[_Batch], Tensor]) -> Float[np.ndarray, "..."]:
    """One row per prompt of what a batch has; batches are few and their tables small."""
    tables = {id(batch): _array(of(batch)) for batch, _ in rows}
    return np.stack([tables[id(batch)][place] for batch, place in rows])


def _per_prompt(rows: list[tuple[_Batch, int]], name: str) -> Float[np.ndarray, " prompt"]:
    return _stack(rows, lambda batch: getattr(batch, name))


def _positions(
    rows: list[tuple[_Batch, int]], parts: Sequence[Part], longest: int
) -> Float[np.ndarray, "prompt head position"]:
    heads = [(part.layer, part.head) for part in parts if part.kind == "head"]
    table = np.full((len(rows), len(heads), longest), np.nan)
    arrays = {id(batch): {k: _array(v) for k, v in batch.by_position.items()} for batch, _ in rows}
    for row, (batch, place) in enumerate(rows):
        for column, (layer, head) in enumerate(heads):
            found = arrays[id(batch)].get(layer) if layer is not None else None
            if found is not None and head is not None:
                table[row, column, : found.shape[2]] = found[place, head]
    return table


def _blocks(rows: list[tuple[_Batch, int]], k: int, layer: int, head: int) -> BlockParts:
    spectrum = rows[0][0].blocks[k].spectrum
    return BlockParts(
        layer=layer,
        head=head,
        values=np.array([block.value for block in spectrum.blocks]),
        multiplicities=spectrum.multiplicities,
        contributions=_stack(rows, lambda batch: batch.blocks[k].contributions),
        outside=_stack(rows, lambda batch: batch.blocks[k].outside),
    )
