"""What a model does between tokens, values, heads, stream and logits, asked on a short prompt.

Lists of names know some architectures; a probe knows the model at hand. One forward pass for each layer, in
eval mode and without gradients or the hooks that a user added, has these rows: the prompt as it is; rows in
which the z of one head is edited at each position, while the MLP's output is held; one with values a hundred
times as large, which shows whether something limits them; and one with the prompt's tokens in another order,
which shows what the embedding does with tokens and with positions. Errors are relative, on vectors, computed
in float32 or better.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ocr_interp.hooked.adapted.projections import projections
from ocr_interp.hooked.alone import by_itself, probe_ids, run_alone, state_of
from ocr_interp.hooked.norms import Norm, final_norm, normed, read_norm, working_dtype
from ocr_interp.hooked.protocol import (
    HOOK_FINAL_SCALE,
    LAYER_HOOKS,
    HookedModel,
    attention_of,
    block_of,
    check_head,
    check_layer,
)
from ocr_interp.hooked.steps import POST_NORM, HeadProbe, Step

LIMITED = 100.0
"""Values of one row are multiplied by this, so that a clamp acts whatever the prompt."""

COLUMNS = 1024
"""At most so many columns of W_U are compared with the logits."""

_COARSE = 1e-3
"""Machine precision from which on a first token alone does not tell a gate: that of bfloat16."""

UNCHECKABLE = 0.5
"""Where rounding alone may be this share of what is compared, the step counts as not checked."""

VALUES = "hook_v = ln1(resid_pre) W_V + b_V"

_CACHE: weakref.WeakKeyDictionary[Any, list[tuple[Any, dict[int, tuple[HeadProbe, ...]]]]] = (
    weakref.WeakKeyDictionary()
)
"""What was found in the last two states of a model, newest first: with its adapters and without them."""


def probe_head(model: HookedModel, layer: int, head: int) -> HeadProbe:
    """What the model does around a head, asked once for each state of its weights and settings.

    Raises:
        ModelError: an unknown layer or head, or a model that does not run on token ids.
    """
    layer, head = check_layer(model, layer), check_head(model, head)
    kept, now = _CACHE.get(model, []), state_of(model)
    layers = next((found for state, found in kept if state == now), {})
    if layer not in layers:
        layers[layer] = _LayerProbe(model, layer).heads()
        # After the pass: transformers attaches hooks of its own in the first one.
        others = [entry for entry in kept if entry[1] is not layers]
        _CACHE[model] = [(state_of(model), layers), *others][:2]
    return layers[layer][head]


def embedded_rows(model: HookedModel, probe: HeadProbe, ids: Sequence[int]) -> Tensor | None:
    """What the model makes of tokens before the first block, where W_E's rows are not that; else None.

    A norm or a scale of the embedding depends on the token alone and is folded in exactly.
    """
    rows = torch.as_tensor(list(ids), device=model.W_E.device)
    if probe.embeds == "scaled":
        assert probe.embedding.factor is not None
        wide = model.W_E.detach()[rows].to(working_dtype(model.W_E.device))
        return wide * probe.embedding.factor
    if probe.embeds != "tokens":
        return None
    name, found = LAYER_HOOKS["resid_pre"].format(layer=0), []
    for batch in rows[:, None].split(256):
        seen = run_alone(model, batch, (name,), {})[1]
        found.append(seen[name][:, 0])
    return torch.cat(found)


class _LayerProbe:
    """One forward pass that asks everything about one layer."""

    def __init__(self, model: HookedModel, layer: int) -> None:
        self.model, self.layer = model, layer
        self.n_heads = int(model.cfg.n_heads)
        self.dtype = working_dtype(model.W_U.device)
        self.device = model.W_U.device
        W_V, W_O, b_V = projections(model, layer)
        self.W_V, self.W_O = self.to(W_V), self.to(W_O)
        self.b_V = None if b_V is None else self.to(b_V).reshape(len(W_V), -1)
        self.ids = probe_ids(model)
        self.n_rows = 3 + -(-self.n_heads // len(self.ids))
        self.change: dict[int, Tensor] = {}
        self.logits, self.seen = self._look()
        self.eps = float(torch.finfo(self.logits.dtype).eps)
        self.tolerance = max(1e-4, 8 * self.eps)

    def to(self, tensor: Tensor) -> Tensor:
        """A tensor in at least single precision, where the unembedding is."""
        return tensor.detach().to(device=self.device, dtype=self.dtype)

    def name(self, kind: str, layer: int | None = None) -> str:
        """The name of a hook of this layer, or of another one."""
        return LAYER_HOOKS[kind].format(layer=self.layer if layer is None else layer)

    def _look(self) -> tuple[Tensor, dict[str, Tensor]]:
        kinds = ("resid_pre", "ln1_scale", "v", "pattern", "z", "resid_post")
        last = int(self.model.cfg.n_layers) - 1
        wanted = [self.name(kind) for kind in kinds]
        wanted += [self.name("resid_pre", 0), self.name("resid_post", last), HOOK_FINAL_SCALE]
        rows = torch.tensor([self.ids]).repeat(self.n_rows, 1)
        rows[-1] = torch.roll(rows[-1], 1)
        edits = {
            self.name("v"): self._enlarge,
            self.name("z"): self._edit_heads,
            f"blocks.{self.layer}.hook_mlp_out": _hold_first_row,
        }
        return run_alone(self.model, rows.to(self.model.W_E.device), wanted, edits)

    def _enlarge(self, v: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        v = v.clone()
        v[-2] *= LIMITED
        return v

    def _edit_heads(self, z: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        """Every head at a place of its own, as much as the stream is large: no change is lost in rounding."""
        if z.ndim != 4 or z.shape[2] != self.n_heads:
            return z
        edited = z.clone()
        direction = torch.cos(torch.arange(1.0, z.shape[3] + 1)).to(z.device)
        sizes = self.to(seen[self.name("resid_pre")][0]).norm(dim=-1).tolist()
        written = (self.to(direction) @ self.W_O).norm(dim=-1).tolist()
        for head in range(self.n_heads):
            row, position = self._place(head)
            is_seen = written[head] > 0 and sizes[position] > 0
            edit = direction * (sizes[position] / written[head] if is_seen else 1.0)
            edited[row, position, head] += edit.to(z)
            self.change[head] = self.to(edited[row, position, head]) - self.to(z[row, position, head])
        return edited

    def _place(self, head: int) -> tuple[int, int]:
        """The row and the position where a head's z is edited."""
        return 1 + head // len(self.ids), head % len(self.ids)

    # --- what was seen ------------------------------------------------------------------------------

    def heads(self) -> tuple[HeadProbe, ...]:
        """Every head of the layer."""
        reading, (embedding, embeds) = self._reading(), self._embedding()
        found = []
        for head in range(self.n_heads):
            attention, limited = self._attention(head)
            found.append(
                HeadProbe(
                    layer=self.layer,
                    head=head,
                    values=self._values(head),
                    attention=attention,
                    writing=self._writing(head),
                    reading=reading,
                    embedding=embedding,
                    embeds=embeds,
                    limited=limited,
                )
            )
        return tuple(found)

    def _missing(self, what: str, *names: str) -> Step | None:
        silent = [name for name in names if name not in self.seen]
        if not silent:
            return None
        return Step(what, None, self.tolerance, note=f"the forward pass does not come by {', '.join(silent)}")

    def _values(self, head: int) -> Step:
        what = VALUES
        missing = self._missing(what, self.name("resid_pre"), self.name("v"))
        if missing is not None:
            return missing
        v = self.seen[self.name("v")]
        if v.ndim != 4 or self.n_heads % v.shape[2]:
            return Step(what, None, self.tolerance, note=f"hook_v has the shape {tuple(v.shape)}")
        x = self.to(self.seen[self.name("resid_pre")][0])
        entry = head // (self.n_heads // len(self.W_V))
        bias = 0.0 if self.b_V is None else self.b_V[entry]
        theirs = self.to(v[0, :, head // (self.n_heads // v.shape[2])])
        norm = read_norm(getattr(block_of(self.model, self.layer), "ln1", None), self.model.cfg, self.dtype)
        read = self._normed(norm, x, self.seen.get(self.name("ln1_scale")))
        step = self._compare(what, read @ self.W_V[entry] + bias, theirs)
        if step.tallies and self._split is not None:
            return self._split
        if step.differs and not self._compare(what, x @ self.W_V[entry] + bias, theirs).differs:
            return replace(step, factor=None, note=POST_NORM)
        return step

    @cached_property
    def _split(self) -> Step | None:
        """Whether a bridge that runs split copies of one joint projection leaves out what was added to that.

        Which output belongs to what differs by family, so all outputs are compared in order of size.
        """
        attention = attention_of(self.model, self.layer)
        parts = [getattr(attention, name, None) for name in ("qkv", "q", "k", "v")]
        inside = [getattr(part, "original_component", None) for part in parts]
        if not all(isinstance(module, torch.nn.Module) for module in inside):
            return None
        x = self.seen[self.name("resid_pre")][:1, -1:]
        try:
            with torch.no_grad(), by_itself(self.model):
                joint, *split = (module(x).flatten() for module in inside if module is not None)
        except (RuntimeError, TypeError, ValueError, AttributeError):
            return None
        ours, theirs = self.to(torch.cat(split)).sort().values, self.to(joint).sort().values
        if len(ours) != len(theirs):
            return None
        note = "the bridge runs split copies of the joint projection, without what was added to that since"
        step = replace(self._compare(VALUES, ours, theirs), factor=None, note=note)
        return step if step.differs else None

    def _normed(self, norm: Norm, x: Tensor, scale: Tensor | None) -> Tensor:
        # With split inputs (use_split_qkv_input) every head has its copy of the stream, and of the scale.
        scale = None if scale is None else self.to(scale)[0]
        return normed(norm, x, scale, float(self.model.cfg.eps))

    def _attention(self, head: int) -> tuple[Step, bool]:
        what = "sum over keys of pattern × v = z"
        missing = self._missing(what, self.name("v"), self.name("z"))
        if missing is not None:
            return missing, False
        v, z = self.seen[self.name("v")], self.seen[self.name("z")]
        pattern = self.seen.get(self.name("pattern"))
        if v.ndim != 4 or z.ndim != 4 or self.n_heads % v.shape[2]:
            return Step(what, None, self.tolerance, note=f"hook_z has the shape {tuple(z.shape)}"), False
        if pattern is None:
            return self._alone(head, v, z), False
        if pattern.ndim != 4:
            return Step(what, None, self.tolerance, note=f"the pattern is {tuple(pattern.shape)}"), False
        group = self.n_heads // v.shape[2]

        def compared(row: int, enlarged: float) -> Step:
            ours = self.to(pattern[row, head]) @ (enlarged * self.to(v[row, :, head // group]))
            return self._compare(what, ours, self.to(z[row, :, head]))

        enlarged = compared(self.n_rows - 2, LIMITED)
        return compared(0, 1.0), bool(enlarged.differs and enlarged.factor is None)

    def _alone(self, head: int, v: Tensor, z: Tensor) -> Step:
        """The same where attention is fused, of the first tokens, each of which attends to itself alone."""
        group = self.n_heads // v.shape[2]
        steps = [
            self._compare("v = z of a first token", *(self.to(each) for each in pair))
            for pair in ((v[row, 0, head // group], z[row, 0, head]) for row in (0, -1))
        ]
        step = max(steps, key=lambda each: each.error or 0.0)
        if not step.differs and self.eps > _COARSE:
            note = (
                "fused attention hides the pattern, and this precision does not tell a gate near 1 from none"
            )
            return replace(step, error=None, note=note)
        if not step.differs:
            return step
        return replace(
            step, factor=None, note="fused attention hides the pattern: try attn_implementation='eager'"
        )

    def _writing(self, head: int) -> Step:
        what = "change of the residual stream = change of z W_O"
        missing = self._missing(what, self.name("resid_post"))
        if missing is not None or head not in self.change:
            return missing or Step(what, None, self.tolerance, note="hook_z does not run or has no heads")
        stream = self.seen[self.name("resid_post")]
        row, position = self._place(head)
        before = self.to(stream[0, position])
        ours = self.change[head] @ self.W_O[head]
        step = self._compare(what, ours, self.to(stream[row, position]) - before)
        # Two numbers as large as the stream are subtracted: their rounding is that of the stream.
        lost = 8 * self.eps * float(before.norm()) / max(float(ours.norm()), 1e-300)
        if lost > UNCHECKABLE:
            note = f"the stream is so large that its rounding may be {lost:.1%} of what the head writes"
            return Step(what, None, self.tolerance, note=note)
        return replace(step, tolerance=max(self.tolerance, lost))

    def _reading(self) -> Step:
        what = "the final norm, W_U and b_U make the logits of the last stream"
        model = self.model
        end = self.name("resid_post", int(model.cfg.n_layers) - 1)
        missing = self._missing(what, end)
        if missing is not None:
            return missing
        width = min(self.logits.shape[-1], model.W_U.shape[1])
        columns = torch.linspace(0, width - 1, min(width, COLUMNS), device=self.device).long()
        norm = read_norm(final_norm(model), model.cfg, self.dtype)
        read = self._normed(norm, self.to(self.seen[end][0]), self.seen.get(HOOK_FINAL_SCALE))
        ours = read @ self.to(model.W_U[:, columns.to(model.W_U.device)])
        if isinstance(model.b_U, Tensor):
            ours = ours + self.to(model.b_U)[columns]
        return self._compare(what, ours, self.to(self.logits[0])[:, columns])

    def _embedding(self) -> tuple[Step, str]:
        what = "what enters the first block = the token's row of W_E"
        name = self.name("resid_pre", 0)
        missing = self._missing(what, name)
        if missing is not None:
            return missing, "rows"
        here, there = self.to(self.seen[name][0]), self.to(self.seen[name][-1])
        ids = torch.tensor(self.ids, device=self.model.W_E.device)
        rows = self.to(self.model.W_E[ids])
        step = self._compare(what, rows, here)
        if step.tallies:
            return step, "rows"
        again = [self.ids.index(token) for token in self.ids]
        if len(set(again)) < len(again) and not self._compare(what, here[again], here).differs:
            return step, "tokens"
        moved = self._compare(what, rows - rows.roll(1, 0), here - there)
        if moved.tallies:
            return replace(step, note="positions are added"), "rows"
        if moved.factor is not None:
            return replace(step, factor=moved.factor, note="positions are added"), "scaled"
        return replace(step, factor=None), "mixed"

    def _compare(self, what: str, ours: Tensor, theirs: Tensor) -> Step:
        """The relative error of vectors, and whether a factor or a growing function is all of it."""
        finite = ours.isfinite() & theirs.isfinite()
        if not bool(finite.any()):
            return Step(what, None, self.tolerance, note="the model gives no finite numbers")
        ours, theirs = ours[finite], theirs[finite]
        size = max(float(ours.norm()), float(theirs.norm()))
        if size == 0:
            return Step(what, 0.0, self.tolerance)
        error = float((ours - theirs).norm()) / size
        if error <= self.tolerance:
            return Step(what, error, self.tolerance)
        factor = float(ours @ theirs) / max(float(ours @ ours), 1e-300)
        scaled = factor > 0 and float((factor * ours - theirs).norm()) <= self.tolerance * size
        ordered = theirs[ours.argsort()]
        drop = float((ordered.cummax(0).values - ordered).max())
        grows = drop <= self.tolerance * float(theirs.abs().max()) and float(theirs.std()) > 0
        return Step(what, error, self.tolerance, factor if scaled else None, grows)


def _hold_first_row(value: Any, seen: Mapping[str, Tensor]) -> Any:
    """What the MLP gives the unedited prompt, in all rows."""
    if not isinstance(value, Tensor):
        return value
    if value.ndim == 3:
        return torch.cat([value[:1].expand(len(value) - 1, *value.shape[1:]), value[-1:]])
    return value
