"""Attribution in any hooked model: all of a one-layer attention-only model, or one head of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.circuits.attribution.of_run import EXACT, Attribution
from ocr_interp.errors import AttributionError, ModelError
from ocr_interp.hooked.adapted.copies import as_hooked
from ocr_interp.hooked.adapted.projections import projections
from ocr_interp.hooked.alone import failures_told
from ocr_interp.hooked.asked.decoder import check_decoder
from ocr_interp.hooked.asked.wrapped import require_wrapped
from ocr_interp.hooked.heads import check_architecture, head_parameters, used_weights
from ocr_interp.hooked.norms import Norm, final_norm, read_norm, working_dtype
from ocr_interp.hooked.padding import check_unpadded
from ocr_interp.hooked.passes import own_run
from ocr_interp.hooked.probes import probe_head
from ocr_interp.hooked.protocol import (
    HOOK_FINAL_SCALE,
    AdaptedModel,
    HookedModel,
    attention_of,
    check_head,
    check_layer,
    layer_hook,
    model_name,
)
from ocr_interp.hooked.provenance import check_finite, fingerprint_of
from ocr_interp.hooked.tokens.ids import Token, TokenList, token_ids
from ocr_interp.hooked.tokens.labels import labels_of, output_labels_of
from ocr_interp.hooked.tokens.prompts import encode_prompt
from ocr_interp.linalg.sums import checked_residual

FROZEN = (
    "one head's direct contribution to the logits: attention pattern, values and the final norm's scale are "
    "held at what this prompt has; values at a position may hold what earlier layers moved there"
)


def attribute_model(
    model: HookedModel | AdaptedModel,
    prompt: TokenList | str,
    answer: Token,
    against: Token | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    kinds: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    output_labels: Sequence[str] | None = None,
) -> Attribution:
    """Contributions of a prompt's positions to a logit (difference) at the last position.

    Of a one-layer attention-only model, without `layer` and `head`, all of it: every head and position,
    the direct path and the biases sum to the logit. Otherwise one head's direct contribution. Biases of
    values (b_V, and that of ln1) are part of each position's contribution; a model whose value biases were
    folded into b_O has them there.

    Args:
        model: any HookedTransformer or TransformerBridge; run once, in eval mode and its own dtype.
        prompt: token ids or single-token strings, or a text for the tokenizer; nothing is prepended.
        answer, against: the answer, and the one that is subtracted.
        layer, head: which head; required for models that are not one-layer attention-only.
        kinds: kind of every position, for `of_kind`; without them each is "token".
        labels: a label for every token id; without them the tokenizer's tokens.
        output_labels: a label for every logit, where the outputs are another vocabulary.

    Raises:
        ModelError: a missing or unknown layer or head, kinds of another length, norms after attention, or
            attention without a pattern.
        ModelError: something stands between the values, z and the residual stream, or a bridge computes
            something else than the model that it wraps (seen by probes).
        AttributionError: contributions that do not sum to the total (relative to their sizes: 1e-10 in
            float64, 1e-4 in float32, 8 machine precisions below), or a model in which heads and logits are
            not joined by W_O, the final norm and W_U alone (compared as vectors, relative to their size).
    """
    model = as_hooked(model)
    names, output_names = labels_of(model, labels), output_labels_of(model, labels, output_labels)
    whole = _is_whole(model, layer, head)
    heads = [(0, h) for h in range(int(model.cfg.n_heads))] if whole else [_one_head(model, layer, head)]
    at = heads[0][0]
    check_architecture(model, at)
    check_decoder(model)
    ids, columns = encoded(
        model, prompt, [answer] if against is None else [answer, against], names, output_names
    )
    if kinds is not None and len(kinds) != len(ids):
        raise ModelError(f"kinds must have one entry a position ({len(ids)}), got {len(kinds)}")
    probe_head(model, at, heads[0][1]).require_norm_before()
    seen = SeenPrompt(model, ids, columns, at)
    for _, h in heads:
        probe_head(model, at, h).require(("attention", "writing"), "an attribution")
    require_wrapped(model, "an attribution")
    parts = np.stack([seen.of_head(h) for _, h in heads])
    direct, bias = (seen.direct(), seen.bias()) if whole else (0.0, 0.0)
    total = seen.logit() if whole else seen.head_total(heads[0][1])
    shown = tuple(output_names[i] for i in columns)
    size = sum(seen.size_of(h) for _, h in heads)
    residual = checked_residual(np.append(parts, [direct, bias]), total, seen.eps, " - ".join(shown), size)
    return Attribution(
        tokens=tuple(names[i] for i in ids),
        kinds=tuple(kinds) if kinds is not None else ("token",) * len(ids),
        answer=shown[0],
        against=shown[1] if len(shown) > 1 else None,
        heads=tuple(heads),
        contributions=parts,
        direct=direct,
        bias=bias,
        total=total,
        residual=residual,
        statement=(EXACT if whole else FROZEN) + seen.precision,
        model=model_name(model),
        fingerprint=fingerprint_of(used_weights(model, at, heads[0][1], sorted(set(ids)), columns)[0]),
    )


def encoded(
    model: HookedModel,
    prompt: TokenList | str,
    answers: Sequence[Token],
    names: Sequence[str],
    output_names: Sequence[str],
) -> tuple[list[int], tuple[int, ...]]:
    """Token ids of a prompt and of its answers; an unknown token raises with the close matches."""
    ids = list(encode_prompt(model, prompt, names))
    check_unpadded(model, [ids], "prompt", hint="leave the padding out")
    return ids, token_ids(model, answers, output_names, "answers")


def _is_whole(model: HookedModel, layer: int | None, head: int | None) -> bool:
    if layer is not None or head is not None:
        return False
    simple = int(model.cfg.n_layers) == 1 and bool(getattr(model.cfg, "attn_only", False))
    if not simple:
        raise ModelError(
            f"layer and head must be given for a model with {model.cfg.n_layers} layers"
            f"{'' if getattr(model.cfg, 'attn_only', False) else ' and MLPs'}: only one-layer "
            "attention-only models decompose exactly; pass layer=, head= for one head's contribution, or ask "
            "ocr_interp.circuits.direct_attribution for every head and MLP"
        )
    return True


def _one_head(model: HookedModel, layer: int | None, head: int | None) -> tuple[int, int]:
    if layer is None or head is None:
        raise ModelError(f"layer and head must be given together, got layer={layer}, head={head}")
    return check_layer(model, layer), check_head(model, head)


def _check_ran(wanted: Sequence[str], cache: Any) -> None:
    """Requires that the forward pass reached every hook; fused attention skips hook_pattern."""
    silent = [name for name in wanted if name not in cache]
    if silent:
        is_fused = all(name.endswith("hook_pattern") for name in silent)
        raise ModelError(
            f"the forward pass must come by {', '.join(wanted[:4])}, got nothing at {', '.join(silent)}: "
            + (
                "fused attention has no pattern; load the model with attn_implementation='eager'"
                if is_fused
                else "this bridge does not run them, so nothing can be attributed; ablations at hooks that "
                "it runs still work"
            )
        )


class SeenPrompt:
    """One forward pass of a prompt, and the linear map from the residual stream to the logit difference."""

    def __init__(self, model: HookedModel, ids: list[int], columns: Sequence[int], layer: int) -> None:
        self.model, self.layer = model, layer
        kinds = ("resid_pre", "v", "pattern", "z", "attn_out")
        names = {kind: layer_hook(model, layer, kind) for kind in kinds}
        end = layer_hook(model, int(model.cfg.n_layers) - 1, "resid_post")
        self.norm: Norm = read_norm(final_norm(model), model.cfg, working_dtype(model.W_U.device))
        scaled = self.norm.exists and HOOK_FINAL_SCALE in model.hook_dict
        wanted = [*names.values(), end, *([HOOK_FINAL_SCALE] if scaled else [])]
        tokens = torch.as_tensor([ids], device=model.W_E.device)
        with torch.no_grad(), own_run(model), failures_told(tokens, model):
            logits, cache = model.run_with_cache(tokens, names_filter=wanted)
        _check_ran(wanted, cache)
        self.dtype = working_dtype(logits.device)
        self.eps = float(torch.finfo(logits.dtype).eps)
        self.cache: dict[str, Tensor] = {k: cache[name][0].to(self.dtype) for k, name in names.items()}
        check_finite({"the logits": logits}, "this prompt")
        sign = torch.ones(len(columns), dtype=self.dtype, device=logits.device)
        sign[1:] = -1
        picked = list(columns)
        self.logits = logits[0, -1, picked].to(self.dtype) @ sign
        self.all_logits = logits[0, -1]
        self.direction = model.W_U.detach()[:, picked].to(self.dtype) @ sign
        b_U = model.b_U.detach() if isinstance(model.b_U, Tensor) else torch.zeros(model.W_U.shape[1])
        self.b_U = float(b_U.to(logits.device)[picked].to(self.dtype) @ sign)
        scale = cache[HOOK_FINAL_SCALE][0, -1].to(self.dtype) if scaled else torch.ones(1, dtype=self.dtype)
        self.scale = float(scale.reshape(-1)[0])
        self._check_writing()
        self._check_reading(cache[end][0, -1].to(self.dtype), picked)

    def _check_writing(self) -> None:
        """The heads and b_O together are what attention adds to the residual stream."""
        W_O = projections(self.model, self.layer)[1].to(self.dtype)
        put_together = torch.einsum("hd,hdm->m", self.cache["z"][-1], W_O) + self.b_O
        self._require_equal(put_together, self.cache["attn_out"][-1], "the heads add to attn_out")

    def _check_reading(self, end: Float[Tensor, " d_model"], picked: list[int]) -> None:
        """The residual stream through the final norm and W_U is the logits, here of at most 1,024 tokens."""
        width = min(self.all_logits.shape[-1], self.model.W_U.shape[1])
        some = torch.linspace(0, width - 1, min(width, 1024)).long().tolist()
        columns = sorted({*some, *picked})
        W_U = self.model.W_U.detach()[:, columns].to(self.dtype)
        ours = self.norm.reads(end) @ W_U / self.scale
        if self.norm.bias is not None:
            ours = ours + self.norm.bias @ W_U
        if isinstance(self.model.b_U, Tensor):
            ours = ours + self.model.b_U.detach().to(ours)[columns]
        theirs = self.all_logits[columns].to(self.dtype)
        self._require_equal(ours, theirs, "the final norm and W_U make of resid_post")

    def _require_equal(self, ours: Tensor, theirs: Tensor, what: str) -> None:
        # Bridges compute norms in float32 whatever the dtype of the model.
        allowed = max(1e-4, 8 * self.eps)
        theirs = theirs.to(ours)
        finite = theirs.isfinite()  # padded vocabularies may have -inf
        ours, theirs = ours[finite], theirs[finite]
        size = max(float(ours.norm()), float(theirs.norm()))
        error = float((ours - theirs).norm())
        if not error <= allowed * size:
            raise AttributionError(
                f"what {what} must be what the model has there, got vectors of size {float(ours.norm()):.6g} "
                f"and {float(theirs.norm()):.6g} with a difference of {error / size:.2g} of that (allowed "
                f"{allowed:.1g}): the model computes something that the decomposition does not know, e.g. "
                "hooks that edit it, a logit cap, or a multiplier of residuals or logits"
            )

    @property
    def precision(self) -> str:
        """What is to be said of a model too coarse for a check; empty for one that is not."""
        allowed = max(1e-4, 8 * self.eps)
        if allowed < 1e-3:
            return ""
        return f"; not really checked, the model's precision tells only differences above {allowed:.1%}"

    def size_of(self, head: int) -> float:
        """How large the products are that a head's contributions are made of, before they cancel."""
        gain = 1.0 if self.norm.gain is None else self.norm.gain.abs()
        written = self.written_by(head).abs().sum(0) * gain
        return float(written.norm() * self.direction.norm() / abs(self.scale))

    @property
    def b_O(self) -> Float[Tensor, " d_model"]:
        """The bias of the attention's output, zeros if there is none."""
        found = getattr(attention_of(self.model, self.layer), "b_O", None)
        like = self.cache["attn_out"][-1]
        return found.detach().to(like) if isinstance(found, Tensor) else torch.zeros_like(like)

    def through(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """What a vector in the residual stream adds to the logit difference at this prompt's scale."""
        return self.norm.reads(x) @ self.direction / self.scale

    def written_by(self, head: int) -> Float[Tensor, "position d_model"]:
        """What a head writes at the last position from every position, attention included."""
        raw, _ = head_parameters(self.model, self.layer, head)
        values = self.cache["v"]  # one entry per head, or one per group of heads
        group = int(self.model.cfg.n_heads) // values.shape[1]
        return self.cache["pattern"][head, -1, :, None] * (
            values[:, head // group] @ raw["W_O"].to(self.dtype)
        )

    def of_head(self, head: int) -> Float[np.ndarray, " position"]:
        """Contributions of all positions through a head."""
        return self.through(self.written_by(head)).cpu().numpy().astype(np.float64)

    def head_total(self, head: int) -> float:
        """The head's whole contribution, computed from hook_z."""
        W_O = head_parameters(self.model, self.layer, head)[0]["W_O"]
        return float(self.through(self.cache["z"][-1, head] @ W_O.to(self.dtype)))

    def direct(self) -> float:
        """The last position's embedding, position included, straight to the logits."""
        return float(self.through(self.cache["resid_pre"][-1]))

    def bias(self) -> float:
        """b_O through the final norm, the final norm's own bias, and b_U."""
        total = self.b_U + float(self.through(self.b_O))
        if self.norm.bias is not None:
            total += float(self.norm.bias @ self.direction)
        return total

    def logit(self) -> float:
        """The logit difference as the model gives it."""
        return float(self.logits)
