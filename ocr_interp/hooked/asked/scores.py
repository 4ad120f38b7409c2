"""What a model's attention scores are made of, asked on a short prompt.

Scores must be a number times q · k, where q and k are what W_Q and W_K make of the normed stream, turned by
rotary embeddings as they say, plus at most something that depends on the distance of the two positions alone
(ALiBi, relative biases). The number, the angles and that bias are measured and not looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.projections import query_key_projections
from ocr_interp.hooked.alone import probe_ids, run_alone
from ocr_interp.hooked.norms import normed, read_norm, working_dtype
from ocr_interp.hooked.protocol import LAYER_HOOKS, HookedModel, attention_of, block_of
from ocr_interp.hooked.steps import Step

WHAT = "attention scores = a number × (ln1(x) W_Q + b_Q) · (ln1(x) W_K + b_K), turned by position"


@dataclass(frozen=True)
class Rotary:
    """How queries and keys are turned by their position.

    Attributes:
        angles: of every plane, in radians per position.
        size: by which each turn also multiplies (as YaRN does); 1 otherwise.
        adjacent: whether a plane is two neighbouring dimensions, or one of each half.
    """

    angles: Float[Tensor, " plane"]
    size: float
    adjacent: bool

    def turned(self, x: Float[Tensor, "*batch d_head"], positions: Any) -> Float[Tensor, "*batch d_head"]:
        """Queries or keys as they stand at a position (one for all), or at positions [pos, ...]."""
        n = len(self.angles)
        angle = torch.as_tensor(positions, dtype=x.dtype, device=x.device)[..., None] * self.angles.to(x)
        cos, sin = self.size * angle.cos(), self.size * angle.sin()
        chosen = torch.arange(2 * n, device=x.device).reshape(-1, 2).T if self.adjacent else None
        if chosen is None:
            chosen = torch.arange(2 * n, device=x.device).reshape(2, -1)
        first, second = x[..., chosen[0]], x[..., chosen[1]]
        out = x.clone()
        out[..., chosen[0]] = first * cos - second * sin
        out[..., chosen[1]] = second * cos + first * sin
        return out


@dataclass(frozen=True)
class LayerScores:
    """What the attention scores of a layer were seen to be.

    Attributes:
        layer: which.
        step: the comparison, over all heads.
        factor: what q · k is multiplied by, such as 1/√d_head.
        rotary: how positions turn q and k; None where they do not.
        distance_bias: whether something that depends on the distance alone is added.
    """

    layer: int
    step: Step
    factor: float
    rotary: Rotary | None
    distance_bias: bool

    def require(self, purpose: str) -> None:
        """Requires that the scores were seen to be this.

        Raises:
            ModelError: they are something else, or could not be seen.
        """
        if self.step.error is None:
            raise ModelError(
                f"{purpose} of layer {self.layer} needs {WHAT}, which could not be asked: {self.step.note}; "
                "load the model with attn_implementation='eager'"
            )
        if self.step.differs:
            raise ModelError(
                f"{purpose} of layer {self.layer} needs {WHAT}, got a difference of {self.step.error:.2g} of "
                "their size: something else acts on queries, keys or scores (norms of queries and keys, a "
                "cap, positions that only they read, an adapter that is not run); there is no W_Q W_K for it"
            )


def ask_scores(model: HookedModel, layers: Sequence[int]) -> dict[int, LayerScores]:
    """What the attention scores of some layers are made of, from one forward pass.

    Raises:
        ModelError: a layer without W_Q and W_K, or a model that does not run on token ids.
    """
    wanted = []
    for layer in layers:
        wanted += [
            LAYER_HOOKS[k].format(layer=layer) for k in ("resid_pre", "ln1_scale", "attn_scores", "pattern")
        ]
        wanted += [f"blocks.{layer}.attn.hook_cos", f"blocks.{layer}.attn.hook_sin"]
    tokens = torch.tensor([probe_ids(model)], device=model.W_E.device)
    logits, seen = run_alone(model, tokens, wanted, {})
    tolerance = max(1e-4, 8 * float(torch.finfo(logits.dtype).eps))
    return {layer: _layer(model, layer, seen, tolerance) for layer in layers}


def _layer(model: HookedModel, layer: int, seen: dict[str, Tensor], tolerance: float) -> LayerScores:
    dtype, device = working_dtype(model.W_U.device), model.W_U.device

    def wide(kind: str) -> Tensor | None:
        found = seen.get(LAYER_HOOKS.get(kind, f"blocks.{{layer}}.attn.hook_{kind}").format(layer=layer))
        return None if found is None else found.to(device, dtype)

    stream = wide("resid_pre")
    theirs = _scores(wide("attn_scores"), wide("pattern"))
    if stream is None or theirs is None or stream.shape[1] < 3:
        note = "fused attention hides scores and pattern, or the prompt is too short"
        return LayerScores(layer, Step(WHAT, None, tolerance, note=note), 1.0, None, False)
    W_Q, W_K, b_Q, b_K = query_key_projections(model, layer)
    norm = read_norm(getattr(block_of(model, layer), "ln1", None), model.cfg, dtype)
    scale = wide("ln1_scale")
    read = normed(norm, stream[0], None if scale is None else scale[0], float(model.cfg.eps))
    q, k = (
        torch.einsum("pm,hmd->hpd", read, W.to(read)) + (0 if b is None else b.to(read)[:, None])
        for W, b in ((W_Q, b_Q), (W_K, b_K))
    )
    if not bool(theirs.isfinite().tril().any()) or not bool(read.isfinite().all()):
        return LayerScores(layer, Step(WHAT, None, tolerance, note=_NOT_FINITE), 1.0, None, False)
    heads = int(model.cfg.n_heads)
    q, k = (each.repeat_interleave(heads // len(each), 0) for each in (q, k))
    if len(theirs) != heads or len(q) != heads:
        note = f"scores have {len(theirs)} heads"
        return LayerScores(layer, Step(WHAT, None, tolerance, note=note), 1.0, None, False)
    places = torch.arange(q.shape[1])
    best: LayerScores | None = None
    for rotary in _ways_to_turn(model, layer, wide("cos"), wide("sin")):
        turned = [x if rotary is None else rotary.turned(x, places) for x in (q, k)]
        found = _compared(layer, turned[0] @ turned[1].mT, theirs, tolerance, rotary)
        if best is None or (found.step.error or 0.0) < (best.step.error or 0.0):
            best = found
    assert best is not None
    return best


_NOT_FINITE = "the model gives numbers that are not finite"


def _scores(scores: Tensor | None, pattern: Tensor | None) -> Float[Tensor, "head query key"] | None:
    """Scores of the first prompt; if there are none the pattern's logarithms, up to a number per row."""
    if scores is not None and scores.ndim == 4:
        return scores[0]
    if pattern is None or pattern.ndim != 4:
        return None
    return pattern[0].clamp(min=1e-30).log()


def _ways_to_turn(
    model: HookedModel, layer: int, cos: Tensor | None, sin: Tensor | None
) -> list[Rotary | None]:
    """No turn, and those that the model's own cosines and sines at position 1 allow."""
    attention = attention_of(model, layer)
    if cos is None or sin is None:
        cos, sin = getattr(attention, "rotary_cos", None), getattr(attention, "rotary_sin", None)
    if not isinstance(cos, Tensor) or not isinstance(sin, Tensor):
        return [None]
    dtype, device = working_dtype(model.W_U.device), model.W_U.device
    cos, sin = (each.detach().to(device, dtype).reshape(-1, each.shape[-1])[1] for each in (cos, sin))
    n = len(cos) // 2
    found: list[Rotary | None] = [None]
    for adjacent in (False, True):
        for of_plane in (slice(None, n), slice(0, None, 2)):
            angles = torch.atan2(sin[of_plane], cos[of_plane])
            found.append(Rotary(angles, float((cos**2 + sin**2).mean().sqrt()), adjacent))
    return found


def _compared(
    layer: int,
    ours: Float[Tensor, "head query key"],
    theirs: Float[Tensor, "head query key"],
    tolerance: float,
    rotary: Rotary | None,
) -> LayerScores:
    """The factor and the bias of distances that fit best, and what is left over.

    Of every row, only differences are compared: a softmax sees no others.
    """
    n = ours.shape[-1]
    below = torch.ones(n, n, dtype=torch.bool, device=ours.device).tril()
    ours, theirs = (x.where(below, 0) for x in (ours, theirs))
    rows = below.sum(-1, keepdim=True)
    ours, theirs = ((x - x.sum(-1, keepdim=True) / rows).where(below, 0) for x in (ours, theirs))
    plain = _fit(ours, theirs, torch.zeros_like(theirs))
    if plain[0] <= tolerance:
        return LayerScores(layer, Step(WHAT, plain[0], tolerance), plain[1], rotary, False)
    biased = _fit(ours, theirs, _of_distance(theirs, below), _of_distance(ours, below))
    return LayerScores(layer, Step(WHAT, biased[0], tolerance), biased[1], rotary, biased[0] <= tolerance)


def _fit(ours: Tensor, theirs: Tensor, bias: Tensor, of_ours: Tensor | None = None) -> tuple[float, float]:
    x, y = ours if of_ours is None else ours - of_ours, theirs - bias
    factor = float((x * y).sum()) / max(float((x * x).sum()), 1e-300)
    size = max(float(theirs.norm()), 1e-300)
    return float((y - factor * x).norm()) / size, factor


def _of_distance(scores: Float[Tensor, "head query key"], below: Tensor) -> Tensor:
    """The part of row-centred scores that is a function of the distance, by least squares, for each head."""
    n = scores.shape[-1]
    places = torch.arange(n, device=scores.device)
    distance = (places[:, None] - places[None]).clamp(min=0)
    columns = torch.nn.functional.one_hot(distance, n).to(scores).permute(2, 0, 1)
    columns = columns.where(below, 0)
    columns = (columns - columns.sum(-1, keepdim=True) / below.sum(-1, keepdim=True)).where(below, 0)
    basis = columns.flatten(1).mT  # [pair, distance]
    fitted = torch.linalg.lstsq(basis, scores.flatten(1).mT, driver="gelsd").solution
    return (basis @ fitted).mT.reshape(scores.shape)
