"""Whether attention and MLPs of all layers do what their weights say, asked in one short forward pass.

`probe_head` asks more (it edits heads one by one) and takes a pass for each layer; this is for questions
about all layers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.projections import projections
from ocr_interp.hooked.alone import probe_ids, run_alone
from ocr_interp.hooked.norms import normed, read_norm, working_dtype
from ocr_interp.hooked.protocol import LAYER_HOOKS, HookedModel, block_of
from ocr_interp.hooked.steps import Step

VALUES = "hook_v = ln1(resid_pre) W_V + b_V"
WRITING = "what attention adds to the stream = a number × (sum over heads of z W_O, + b_O)"
MLP_IN = "what enters the MLP's neurons = ln2(stream) W_in + b_in, or that of W_gate"
MLP_OUT = "what the MLP adds to the stream = a number × (hook_post W_out + b_out)"


@dataclass(frozen=True)
class LayerSteps:
    """What a layer was seen to do.

    Attributes:
        layer: which.
        attention: of values, and of what attention writes.
        mlp: of what the MLP reads and writes; None for a layer without one, or if it was not asked.
        parallel: whether the MLP reads the stream from before attention.
    """

    layer: int
    attention: tuple[Step, ...]
    mlp: tuple[Step, ...] | None
    parallel: bool

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps."""
        return (*self.attention, *(self.mlp or ()))

    def require(self, purpose: str) -> None:
        """Requires that every step was seen to be what the weights say.

        Raises:
            ModelError: says which is not, by how much, or why it could not be seen.
        """
        for step in self.steps:
            if step.tallies:
                continue
            got = (
                f"which could not be asked ({step.note})"
                if step.error is None
                else f"got a difference of {step.error:.2g} of its size"
            )
            raise ModelError(
                f"{purpose} needs {step.what} in layer {self.layer}, {got}: something stands between the "
                "weights and the stream (a norm, a gate, experts, an adapter that is not run)"
                + ("; leave MLPs out with mlps=False" if step.what in (MLP_IN, MLP_OUT) else "")
            )


def ask_layers(model: HookedModel, layers: Sequence[int], *, mlps: bool) -> dict[int, LayerSteps]:
    """What some layers do on a short prompt, from one forward pass.

    Raises:
        ModelError: a layer without W_V and W_O, or a model that does not run on token ids.
    """
    wanted = [_name(kind, layer) for layer in layers for kind in (*LAYER_HOOKS, *_MORE)]
    tokens = torch.tensor([probe_ids(model)], device=model.W_E.device)
    logits, seen = run_alone(model, tokens, wanted, {})
    return {layer: _Layer(model, layer, seen, logits).steps(mlps) for layer in layers}


_MORE = {
    "mid": "blocks.{layer}.hook_resid_mid",
    "mlp_out": "blocks.{layer}.hook_mlp_out",
    "pre": "blocks.{layer}.mlp.hook_pre",
    "post": "blocks.{layer}.mlp.hook_post",
    "ln2_scale": "blocks.{layer}.ln2.hook_scale",
}


def _name(kind: str, layer: int) -> str:
    return {**LAYER_HOOKS, **_MORE}[kind].format(layer=layer)


class _Layer:
    """One layer of the pass."""

    def __init__(self, model: HookedModel, layer: int, seen: dict[str, Tensor], logits: Tensor) -> None:
        self.model, self.layer, self.seen = model, layer, seen
        self.device, self.dtype = logits.device, working_dtype(logits.device)
        self.eps = float(torch.finfo(logits.dtype).eps)
        self.tolerance = max(1e-4, 8 * self.eps)
        self.block: Any = block_of(model, layer)

    def get(self, kind: str) -> Tensor | None:
        """An activation of the prompt, without the batch; None if the pass does not come by it."""
        found = self.seen.get(_name(kind, self.layer))
        return None if found is None else found[0].to(self.device, self.dtype)

    def steps(self, mlps: bool) -> LayerSteps:
        """Everything that was asked."""
        parallel = self.get("mid") is None
        attention = (self._values(), self._writing())
        has_mlp = mlps and getattr(self.block, "mlp", None) is not None
        found = self._mlp(parallel) if has_mlp else None
        return LayerSteps(self.layer, attention, found, parallel)

    def _compare(self, what: str, ours: Tensor | None, theirs: Tensor | None, scaled: bool) -> Step:
        if ours is None or theirs is None or ours.shape != theirs.shape:
            return Step(what, None, self.tolerance, note="the forward pass does not come by it")
        if scaled:
            ours = ours * float((ours * theirs).sum()) / max(float((ours * ours).sum()), 1e-300)
        size = max(float(ours.norm()), float(theirs.norm()))
        if size == 0:
            return Step(what, 0.0, self.tolerance)
        stream = self.get("resid_post")
        lost = 0.0 if stream is None or not scaled else 8 * self.eps * float(stream.norm()) / size
        return Step(what, float((ours - theirs).norm()) / size, max(self.tolerance, lost))

    def _read(self, norm_name: str, x: Tensor, scale: str) -> Tensor:
        norm = read_norm(getattr(self.block, norm_name, None), self.model.cfg, self.dtype)
        return normed(norm, x, self.get(scale), float(self.model.cfg.eps))

    def _values(self) -> Step:
        x, v = self.get("resid_pre"), self.get("v")
        if x is None or v is None or v.ndim != 3:
            return self._compare(VALUES, None, None, False)
        W_V, _, b_V = projections(self.model, self.layer)
        ours = torch.einsum("pm,hmd->phd", self._read("ln1", x, "ln1_scale"), W_V.to(x))
        if b_V is not None:
            ours = ours + b_V.to(x).reshape(len(W_V), -1)
        if len(W_V) != v.shape[1] and len(W_V) % v.shape[1] == 0:
            ours = ours[:, :: len(W_V) // v.shape[1]]
        return self._compare(VALUES, ours, v, False)

    def _writing(self) -> Step:
        z, before, middle = self.get("z"), self.get("resid_pre"), self.get("mid")
        theirs = self.get("attn_out") if middle is None or before is None else middle - before
        if z is None or z.ndim != 3:
            return self._compare(WRITING, None, None, True)
        W_O = projections(self.model, self.layer)[1].to(z)
        if z.shape[1:] != W_O.shape[:2]:
            return self._compare(WRITING, None, None, True)
        b_O = getattr(self.block.attn, "b_O", None)
        ours = torch.einsum("phd,hdm->pm", z, W_O)
        return self._compare(
            WRITING, ours + b_O.detach().to(z) if isinstance(b_O, Tensor) else ours, theirs, True
        )

    def _mlp(self, parallel: bool) -> tuple[Step, ...]:
        mlp: Any = self.block.mlp
        W = {name: getattr(mlp, name, None) for name in ("W_in", "W_gate", "W_out")}
        x = self.get("resid_pre") if parallel else self.get("mid")
        pre, post, after = self.get("pre"), self.get("post"), self.get("resid_post")
        if not isinstance(W["W_in"], Tensor) or not isinstance(W["W_out"], Tensor) or x is None:
            note = "no W_in and W_out of one MLP, as in a mixture of experts"
            return (Step(MLP_IN, None, self.tolerance, note=note),)
        has_own = getattr(self.block, "ln2", None) is not None
        read = self._read("ln2" if has_own else "ln1", x, "ln2_scale" if has_own else "ln1_scale")
        tried = []
        for name, bias in (("W_in", "b_in"), ("W_gate", "b_gate")):
            if isinstance(matrix := W[name], Tensor):
                b = getattr(mlp, bias, None)
                ours = read @ matrix.detach().to(read)
                tried.append(ours + b.detach().to(read) if isinstance(b, Tensor) else ours)
        steps = [self._compare(MLP_IN, ours, pre, False) for ours in tried]
        reading = min(steps, key=lambda step: 1.0 if step.error is None else step.error)
        written = None
        if post is not None and post.ndim == 2 and post.shape[1] == W["W_out"].shape[0]:
            b_out = getattr(mlp, "b_out", None)
            written = post @ W["W_out"].detach().to(post)
            written = written + b_out.detach().to(post) if isinstance(b_out, Tensor) else written
        theirs = self.get("mlp_out") if parallel or after is None else after - x
        return reading, self._compare(MLP_OUT, written, theirs, True)
