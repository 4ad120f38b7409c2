"""What every part of a model adds to the residual stream at the last position, as the model itself has it.

One forward pass of a batch of prompts, of which only the last position is kept. The stream is a sum: what
enters the first block, and what each layer changes. Whether that change is what attention and the MLP give,
and whether the former is z W_O of the heads plus b_O, is compared on these very prompts, as whole vectors.
Where a norm or a multiplier stands between, the change is one part that is not split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.projections import projections
from ocr_interp.hooked.alone import failures_told
from ocr_interp.hooked.norms import Norm, final_norm, read_norm, working_dtype
from ocr_interp.hooked.passes import own_run
from ocr_interp.hooked.protocol import HOOK_FINAL_SCALE, HookedModel, block_of
from ocr_interp.hooked.provenance import check_finite

LAYER_KINDS = {
    "pre": "hook_resid_pre",
    "mid": "hook_resid_mid",
    "post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "z": "attn.hook_z",
}
"""What is kept of every layer, where the model has it."""


@dataclass(frozen=True)
class Writing:
    """Vectors that a layer adds to the stream at the last position of every prompt.

    Attributes:
        change: all that it adds.
        attention: what attention adds; None where the layer's change is not the sum of two known parts.
        mlp: what else the layer adds; None for a layer without an MLP.
        factor: attention is this times the sum over heads of z W_O, plus b_O; None where it is not.
        note: what was seen where something is not split, or a factor other than 1; empty otherwise.
    """

    change: Float[Tensor, "prompt d_model"]
    attention: Float[Tensor, "prompt d_model"] | None
    mlp: Float[Tensor, "prompt d_model"] | None
    factor: float | None
    note: str


class LastPosition:
    """One forward pass of prompts of one length: activations of the last position, and logits.

    Args:
        model: any hooked model; hooks of users act.
        ids: token ids.
        extra: further hooks by name, each with what is kept of its value.
    """

    def __init__(
        self,
        model: HookedModel,
        ids: Int[Tensor, "prompt pos"],
        extra: dict[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        self.model, self.n_layers = model, int(model.cfg.n_layers)
        self.seen: dict[str, Tensor] = {}
        names = [self.name(layer, kind) for layer in range(self.n_layers) for kind in LAYER_KINDS]
        known = model.hook_dict  # which a bridge makes anew at every call
        kept: dict[str, Callable[[Tensor], Tensor]] = {
            name: _last
            for name in (*names, "hook_embed", "hook_pos_embed", HOOK_FINAL_SCALE)
            if name in known
        }
        kept |= extra or {}
        tokens = ids.to(model.W_E.device)
        with torch.no_grad(), own_run(model), failures_told(tokens, model):
            logits = model.run_with_hooks(tokens, fwd_hooks=[(n, self._keep(n, k)) for n, k in kept.items()])
        logits = getattr(logits, "logits", logits)
        self.logits: Float[Tensor, "prompt output"] = logits[:, -1].detach()
        check_finite({"the logits": self.logits}, "these prompts")
        self.dtype = working_dtype(self.logits.device)
        self.eps = float(torch.finfo(self.logits.dtype).eps)
        self.allowed = max(1e-4, 8 * self.eps)
        for layer in range(self.n_layers):
            for kind in ("pre", "post"):
                if self.name(layer, kind) not in self.seen:
                    raise ModelError(
                        f"the forward pass must come by {self.name(layer, kind)}, got nothing there: this "
                        "bridge does not run it, so nothing can be attributed; ablations at hooks that it "
                        "runs still work"
                    )

    def name(self, layer: int, kind: str) -> str:
        """The name of a hook of a layer."""
        return f"blocks.{layer}.{LAYER_KINDS[kind]}"

    def _keep(self, name: str, part: Callable[[Tensor], Tensor]) -> Callable[[Any, Any], None]:
        def run(value: Any, hook: Any) -> None:
            if isinstance(value, Tensor) and value.ndim >= 3:
                self.seen[name] = part(value.detach())

        return run

    def wide(self, name: str) -> Tensor | None:
        """What was kept at a hook, in double precision; None if the model does not come by it."""
        found = self.seen.get(name)
        return None if found is None else found.to(self.logits.device, self.dtype)

    def stream(self, layer: int, kind: str) -> Float[Tensor, "prompt d_model"]:
        """The stream before ("pre") or after ("post") a layer."""
        found = self.wide(self.name(layer, kind))
        assert found is not None
        return found

    # --- what the layers write --------------------------------------------------------------------

    def embedded(self) -> dict[str, Float[Tensor, "prompt d_model"]]:
        """What enters the first block: of token and position apart where it is the sum of the two."""
        start = self.stream(0, "pre")
        token, position = self.wide("hook_embed"), self.wide("hook_pos_embed")
        if token is None or token.shape != start.shape:
            return {"embedding": start}
        if not _differ(token, start, self.allowed):
            return {"token embedding": start}
        if position is not None and position.shape[-1:] == start.shape[-1:]:
            position = position.expand_as(start)
            if not _differ(token + position, start, self.allowed):
                return {"token embedding": start - position, "position embedding": position}
        return {"embedding": start}

    def writing(self, layer: int) -> Writing:
        """What a layer adds to the stream, split as far as the model's own activations allow."""
        before, after = self.stream(layer, "pre"), self.stream(layer, "post")
        change = after - before
        lost = 8 * self.eps * float(torch.maximum(before.norm(), after.norm()))
        attention, mlp = self._two_parts(layer, change, lost)
        if attention is None:
            return Writing(change, None, None, None, f"layer {layer}: {UNSPLIT}")
        by_heads = self.by_heads(layer)
        if by_heads is None:
            return Writing(change, attention, mlp, None, f"attention of layer {layer}: {NO_HEADS}")
        z, W_O, b_O = by_heads
        ours = torch.einsum("bhd,hdm->bm", z, W_O) + b_O
        error = float((ours - attention).norm())
        size = max(float(ours.norm()), float(attention.norm()))
        if error <= self.allowed * size + lost:
            return Writing(change, attention, mlp, 1.0, "")
        factor = float((ours * attention).sum()) / max(float(ours.pow(2).sum()), 1e-300)
        if factor > 0 and float((factor * ours - attention).norm()) <= self.allowed * size + lost:
            note = f"attention of layer {layer}: the model adds {factor:.6g} times z W_O + b_O to the stream"
            return Writing(change, attention, mlp, factor, note)
        said = f"{BETWEEN} (off by {error / size:.2g} of its size)"
        return Writing(change, attention, mlp, None, f"attention of layer {layer}: {said}")

    def _two_parts(self, layer: int, change: Tensor, lost: float) -> tuple[Tensor | None, Tensor | None]:
        """What attention and the MLP add to the stream, as the stream or, in parallel blocks, hooks say."""
        middle = self.wide(self.name(layer, "mid"))
        if middle is not None:
            before, after = self.stream(layer, "pre"), self.stream(layer, "post")
            return middle - before, after - middle
        attention = self.wide(self.name(layer, "attn_out"))
        mlp = self.wide(self.name(layer, "mlp_out"))
        if attention is None or attention.shape != change.shape:
            return None, None
        together = attention if mlp is None else attention + mlp
        if _differ(together, change, self.allowed, lost):
            return None, None
        return attention, mlp

    def by_heads(self, layer: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """z [prompt, head, d_head], W_O [head, d_head, d_model] and b_O of a layer, if it has them."""
        z = self.wide(self.name(layer, "z"))
        try:
            W_O = projections(self.model, layer)[1]
        except ModelError:
            return None
        if z is None or z.ndim != 3 or W_O.ndim != 3 or z.shape[1:] != W_O.shape[:2]:
            return None
        b_O = getattr(block_of(self.model, layer).attn, "b_O", None)
        bias = b_O.detach().to(z) if isinstance(b_O, Tensor) else z.new_zeros(W_O.shape[2])
        return z, W_O.to(z), bias

    # --- the way to the logits -------------------------------------------------------------------

    def directions(
        self, columns: Sequence[int], weights: Float[Tensor, "prompt column"]
    ) -> Float[Tensor, "prompt d_model"]:
        """For every prompt the vector whose product with the stream is what that adds to a sum of logits.

        The final norm's scale is held at what it is in this prompt.

        Args:
            columns: ids of outputs.
            weights: of these outputs in the sum of each prompt.
        """
        norm = self._norm()
        read = weights @ self._W_U(columns).mT
        if norm.gain is not None:
            read = read * norm.gain
        if norm.centred:
            read = read - read.mean(-1, keepdim=True)
        return read / self.scale()

    def scale(self) -> Float[Tensor, "prompt 1"]:
        """The final norm's scale at the last position; from the stream where its hook does not run."""
        norm = self._norm()
        if not norm.exists:
            return self.logits.new_ones(len(self.logits), 1, dtype=self.dtype)
        kept = self.wide(HOOK_FINAL_SCALE)
        if kept is not None:
            return kept.reshape(len(self.logits), -1)[:, :1]
        x = self.stream(self.n_layers - 1, "post")
        x = x - x.mean(-1, keepdim=True) if norm.centred else x
        return (x.pow(2).mean(-1, keepdim=True) + float(self.model.cfg.eps)).sqrt()

    def constants(
        self, columns: Sequence[int], weights: Float[Tensor, "prompt column"]
    ) -> dict[str, Float[Tensor, " prompt"]]:
        """What the final norm's bias and b_U add to a sum of logits; see `directions`."""
        found, norm, b_U = {}, self._norm(), self.model.b_U
        if norm.bias is not None:
            found["bias of the final norm"] = weights @ (norm.bias @ self._W_U(columns))
        if isinstance(b_U, Tensor) and bool(b_U.any()):
            found["b_U"] = weights @ b_U.detach().to(weights)[list(columns)]
        return found

    def check_reading(self, columns: Sequence[int]) -> float:
        """Requires that the last stream through the final norm and W_U is the logits.

        Compared as whole vectors of at most 1,024 outputs, `columns` among them.

        Returns: the difference, relative to their size.

        Raises:
            ModelError: it is not: a logit cap, a multiplier, another norm.
        """
        width = min(self.logits.shape[-1], self.model.W_U.shape[1])
        some = torch.linspace(0, width - 1, min(width, 1024)).long().tolist()
        chosen = sorted({*some, *columns})
        W_U = self._W_U(chosen)
        norm = self._norm()
        ours = norm.reads(self.stream(self.n_layers - 1, "post")) / self.scale()
        ours = (ours if norm.bias is None else ours + norm.bias) @ W_U
        if isinstance(self.model.b_U, Tensor):
            ours = ours + self.model.b_U.detach().to(ours)[chosen]
        theirs = self.logits[:, chosen].to(ours)
        finite = theirs.isfinite()
        ours, theirs = ours.where(finite, 0), theirs.where(finite, 0)
        size = max(float(ours.norm()), float(theirs.norm()))
        error = float((ours - theirs).norm())
        if error > self.allowed * size:
            raise ModelError(
                "a direct attribution needs the last stream through the final norm and W_U to be the logits, "
                f"got a difference of {error / size:.2g} of their size: something stands between them (a "
                "logit cap, a multiplier of logits, another norm, an unmerged adapter); merge adapters, or "
                "measure logits by ablation instead"
            )
        return error / size if size else 0.0

    def _norm(self) -> Norm:
        return read_norm(final_norm(self.model), self.model.cfg, self.dtype)

    def _W_U(self, columns: Sequence[int]) -> Float[Tensor, "d_model column"]:
        return self.model.W_U.detach()[:, list(columns)].to(self.logits.device, self.dtype)


UNSPLIT = "its change of the stream is not hook_attn_out and hook_mlp_out, and the model has no hook between"
NO_HEADS = "no z by head, or no W_O"
BETWEEN = "a norm, gate, multiplier or adapter stands between z W_O + b_O and the stream"


def _last(value: Tensor) -> Tensor:
    """The last position of an activation [prompt, position, ...]; copied, since the rest may be large."""
    return value[:, -1].clone()


def _differ(ours: Tensor, theirs: Tensor, allowed: float, lost: float = 0.0) -> bool:
    size = max(float(ours.norm()), float(theirs.norm()))
    return float((ours - theirs).norm()) > allowed * size + lost
