"""The stream of a model, if it is what its weights and hooks say: asked on a short prompt, not read off
names.

One forward pass. Its first row is the prompt as it is: what heads and MLPs write must be what the stream
gains, layer by layer, and queries, keys and values must be what the norm and the weights make of the stream.
Each other row has one kind of input of one layer edited, which must change what is computed of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ocr_interp.errors import ModelError, WeightsError
from ocr_interp.hooked.adapted.copies import as_hooked
from ocr_interp.hooked.alone import probe_ids, run_alone, state_of
from ocr_interp.hooked.asked.decoder import check_decoder
from ocr_interp.hooked.asked.wrapped import require_wrapped
from ocr_interp.hooked.norms import working_dtype
from ocr_interp.hooked.protocol import HookedModel, attention_of, block_of, check_model
from ocr_interp.hooked.provenance import fingerprint_of
from ocr_interp.stream.nodes import PARTS, StreamNodes
from ocr_interp.stream.stream import Stream

_CACHE: WeakKeyDictionary[Any, list[tuple[Any, StreamNodes]]] = WeakKeyDictionary()
"""What was found in the last two states of a model, newest first."""

FAULT = (
    "edges need a residual stream that is the sum of what heads and MLPs write, each read through one norm"
)
_UNCHECKABLE = 0.05


_FINGERPRINTS: WeakKeyDictionary[Any, tuple[Any, str]] = WeakKeyDictionary()


def fingerprint(model: HookedModel) -> str:
    """The fingerprint of all weights of a model, taken once for each state of them."""
    now = state_of(model)
    known = _FINGERPRINTS.get(model)
    if known is None or known[0] != now:
        named = model.named_parameters() if isinstance(model, torch.nn.Module) else ()
        known = now, fingerprint_of({name: parameter.detach() for name, parameter in named})
        _FINGERPRINTS[model] = known
    return known[1]


def stream_of(model: Any) -> Stream:
    """The stream of a model, checked once for each state of its weights and settings.

    Args:
        model: a HookedTransformer, a TransformerBridge or a PeftModel.

    Raises:
        ModelError: a model that is not decoder-only, or one in which something stands between what is written
            and the stream, or between the stream and what reads it (norms after attention, multipliers,
            adapters of queries and keys that are not merged, native attention that does not use its hooks).
    """
    model = check_model(as_hooked(model))
    kept, now = _CACHE.get(model, []), state_of(model)
    nodes = next((found for state, found in kept if state == now), None)
    if nodes is None:
        check_decoder(model)
        require_wrapped(model, "edges")
        nodes = _Probe(model).checked()
        _CACHE[model] = [(state_of(model), nodes), *kept][:2]
    return Stream(model, nodes)


class _Probe:
    """One forward pass on a short prompt, with a row for every kind of input of every layer."""

    def __init__(self, model: HookedModel) -> None:
        self.model = model
        self.n_layers, self.n_heads = int(model.cfg.n_layers), int(model.cfg.n_heads)
        for layer in range(self.n_layers):
            attention = attention_of(model, layer)
            missing = [name for name in ("W_Q", "W_K") if getattr(attention, name, None) is None]
            if missing:
                raise ModelError(f"{FAULT}, got layer {layer} without {', '.join(missing)}")
        self.mlps = tuple(hasattr(block_of(model, layer), "mlp") for layer in range(self.n_layers))
        for layer in range(self.n_layers):
            if self.mlps[layer] and not isinstance(_ln2(model, layer), torch.nn.Module):
                raise ModelError(f"{FAULT}, got layer {layer}, whose MLP has no norm (ln2) of its own")
        draft = StreamNodes(self.n_layers, self.n_heads, self.n_heads, self.mlps)
        self.stream = Stream(model, draft)  # only its names of hooks are used before the nodes are known
        self.rows = [
            (layer, kind)
            for layer in range(self.n_layers)
            for kind in (*PARTS, *(("mlp",) if self.mlps[layer] else ()))
        ]
        self.rows.append((self.n_layers, "logits"))
        self.read: dict[int, Tensor] = {}
        self.logits, self.seen = self._look()
        self.dtype = working_dtype(self.logits.device)
        self.eps = float(torch.finfo(self.logits.dtype).eps)

    def _look(self) -> tuple[Tensor, dict[str, Tensor]]:
        ids = probe_ids(self.model)
        tokens = torch.tensor([ids]).repeat(1 + len(self.rows), 1).to(self.model.W_E.device)
        hook, every = self.stream.hook, range(self.n_layers)
        kinds = ("resid_pre", "resid_post", "attn_out", "q", "k", "v", "z")
        wanted = [hook(kind, layer) for kind in kinds for layer in every]
        wanted += [hook("mlp_out", layer) for layer in every if self.mlps[layer]]
        edits: dict[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {}
        for row, (layer, kind) in enumerate(self.rows, start=1):
            if kind != "mlp":
                edits[self.stream.last if kind == "logits" else hook(kind, layer)] = _edit(row)
        with ExitStack() as stack:
            for row, (layer, kind) in enumerate(self.rows, start=1):
                if kind == "mlp":
                    function = self._edit_module(layer, row)
                    stack.callback(_ln2(self.model, layer).register_forward_pre_hook(function).remove)
            return run_alone(self.model, tokens, wanted, edits)

    def _edit_module(self, layer: int, row: int) -> Callable[..., Any]:
        def edit(module: Any, args: tuple[Any, ...]) -> Any:
            if not args or not isinstance(args[0], Tensor) or args[0].ndim != 3:
                return None
            self.read[layer] = args[0].detach()
            return (_edit(row)(args[0], {}), *args[1:])

        return edit

    def checked(self) -> StreamNodes:
        """The nodes, after all checks."""
        for layer in range(self.n_layers):
            names = [
                self.stream.hook(kind, layer) for kind in ("resid_pre", "resid_post", "q", "k", "v", "z")
            ]
            names += [self.stream.hook("mlp_out", layer)] if self.mlps[layer] else []
            silent = [name for name in names if name not in self.seen]
            if silent:
                raise ModelError(
                    f"{FAULT}, got a forward pass that does not come by {', '.join(silent[:4])}: for a "
                    "bridge try attn_implementation='eager'"
                )
        kv_heads = {self.seen[self.stream.hook(part, 0)].shape[2:3] for part in ("k", "v")}
        shapes = {self.seen[self.stream.hook(part, 0)].ndim for part in (*PARTS, "z")}
        if shapes != {4} or len(kv_heads) > 1 or self.n_heads % next(iter(kv_heads))[0]:
            raise ModelError(f"{FAULT}, got queries, keys, values or z that are not split into heads")
        self._check_used()
        nodes = StreamNodes(
            self.n_layers, self.n_heads, next(iter(kv_heads))[0], self.mlps, parallel=self._is_parallel()
        )
        self.stream = Stream(self.model, nodes)
        for layer in range(self.n_layers):
            self._check_layer(layer)
        return nodes

    def of(self, kind: str, layer: int, row: int = 0) -> Tensor:
        """What was seen at a hook, in one row, in at least single precision."""
        return self.seen[self.stream.hook(kind, layer)][row].to(self.dtype)

    def _check_used(self) -> None:
        results = {"q": "z", "k": "z", "v": "z", "mlp": "mlp_out"}
        for row, (layer, kind) in enumerate(self.rows, start=1):
            if kind == "logits":
                same = torch.equal(self.logits[row], self.logits[0])
            elif kind in ("q", "k") and self.of("z", layer).shape[0] < 2:
                continue  # one token attends to itself, whatever its scores
            else:
                same = torch.equal(self.of(results[kind], layer, row), self.of(results[kind], layer))
            if same:
                raise ModelError(
                    f"edges need a model that uses its hooks, got one that computes the same after its "
                    f"{kind} input of layer {layer} was changed: load a bridge so that its attention goes "
                    "through the hooks (attn_implementation='eager'), or pass a HookedTransformer"
                )

    def _is_parallel(self) -> bool:
        """Whether MLPs read the stream as it was before the heads of their layer wrote."""
        layers = [layer for layer in range(self.n_layers) if self.mlps[layer]]
        found = {self._distance(layer, False) > self._distance(layer, True) for layer in layers}
        return found == {True}

    def _distance(self, layer: int, parallel: bool) -> float:
        written = 0.0 if parallel else self.of("attn_out", layer)
        wanted = self.of("resid_pre", layer) + written
        return _error(wanted, self.read[layer][0].to(self.dtype), wanted) if layer in self.read else 1.0

    def _check_layer(self, layer: int) -> None:
        x, after = self.of("resid_pre", layer), self.of("resid_post", layer)
        weights = self.stream.layer(layer, self.dtype)
        written = self.stream.written(self.of("z", layer)[None], layer)[0].sum(1)
        if self.mlps[layer]:
            mlp = self.of("mlp_out", layer)
            self._require(
                self._distance(layer, self.stream.nodes.parallel), layer, "its MLP reads the stream"
            )
        else:
            mlp = torch.zeros_like(x)
        # The difference of two streams is rounded as they are.
        noise = 8 * self.eps * float(x.norm()) / max(float(_centred(written + mlp).norm()), 1e-300)
        self._require(_error(written + mlp, after - x), layer, "heads and MLP write to the stream", noise)
        self._require(
            _error(written, after - x - mlp, written + mlp), layer, "heads write through W_O", noise
        )
        if layer + 1 < self.n_layers:
            later = self.of("resid_pre", layer + 1)
            self._require(_error(after, later, after), layer, "the next layer reads the stream")
        normed = self.stream.normed(weights.ln1, x)
        for part in PARTS:
            ours = torch.einsum("pd,nde->pne", normed, weights.reads[part])
            self._require(_error(ours, self.of(part, layer)), layer, f"{part} = ln1(stream) W_{part.upper()}")

    def _require(self, error: float, layer: int, what: str, noise: float = 0.0) -> None:
        if math.isnan(error):
            raise WeightsError(
                f"the model must have finite activations, got NaN or infinite ones in layer {layer}: load "
                "another checkpoint, or a wider dtype"
            )
        tolerance = max(1e-4, 8 * self.eps, min(noise, _UNCHECKABLE))
        if not error <= tolerance:
            raise ModelError(
                f"{FAULT}; on a probe it must hold that {what}, got layer {layer} off by {error:.2g} of its "
                f"size (allowed {tolerance:.1g}). A norm after attention, a multiplier, an adapter that is "
                "not merged or a shared norm does this: merge adapters, or ablate sites (ablation.Site)"
            )


def _ln2(model: HookedModel, layer: int) -> Any:
    return getattr(block_of(model, layer), "ln2", None)


def _edit(row: int) -> Callable[[Any, Mapping[str, Tensor]], Any]:
    """Changes one row of a value by as much as it is large, in all entries."""

    def edit(value: Any, seen: Mapping[str, Tensor]) -> Any:
        if not isinstance(value, Tensor) or len(value) <= row:
            return value
        edited = value.clone()
        wave = torch.cos(torch.arange(1.0, value[row].numel() + 1, device=value.device)).reshape(
            value[row].shape
        )
        edited[row] += (value[row].abs().amax().clamp(min=1e-3) * wave).to(value.dtype)
        return edited

    return edit


def _centred(value: Tensor) -> Tensor:
    """Without its mean over positions, which takes biases out."""
    return value - value.mean(0, keepdim=True) if len(value) > 1 else value


def _error(ours: Tensor, theirs: Tensor, size: Tensor | None = None) -> float:
    """The relative difference, but for what is the same at every position."""
    size = ours if size is None else size
    return float((_centred(ours) - _centred(theirs)).norm()) / max(float(_centred(size).norm()), 1e-300)
