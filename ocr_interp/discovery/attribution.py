"""Edge attribution: gradients estimate, and single ablations measure, what each edge does for a measure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import check_count
from ocr_interp.discovery.contrast import Contrast
from ocr_interp.discovery.runner import CircuitRunner
from ocr_interp.discovery.scores import EdgeScores
from ocr_interp.hooked.norms import wide
from ocr_interp.hooked.passes import own_run
from ocr_interp.hooked.protocol import model_name
from ocr_interp.stream.checks import fingerprint
from ocr_interp.stream.nodes import PARTS
from ocr_interp.stream.reading import Written, hooked, read_writers
from ocr_interp.stream.stream import Stream, logits_of


def attribute_edges(
    model: Any,
    contrast: Contrast,
    *,
    steps: int | None = 5,
    ablation: str = "donor",
    seed: int = 0,
) -> EdgeScores:
    """Edge attribution patching with integrated gradients (EAP-IG), of every edge in a few passes.

    The score of an edge (w, r) is Σ over positions (written − other) · g: what the writer writes for the
    prompt minus what an ablated edge carries, times the gradient of the measure by the reader's input, the
    norm before it included; mean over prompts. With steps the gradient is the mean over inputs on the
    straight line from the ablated to the prompt's own, at the middles of `steps` equal parts; so the scores
    of the input's edges sum to the measure's whole change, up to an error that falls as 1/steps². Without
    steps (EAP) it is the gradient at the prompt.

    Args:
        model: a HookedTransformer, TransformerBridge or PeftModel; it is left as it is.
        contrast: prompts, donors, answers and measure.
        steps: number of points on the line; None is plain EAP.
        ablation: what an ablated edge carries, an entry of `runner.ABLATIONS`. With "zero" the line starts
            where a norm is steep, and takes some hundred steps.
        seed: of "resample".

    Raises:
        ModelError: a model whose stream is not the sum of what heads and MLPs write.
        ConfigError: no donors for "donor", no difference between prompts and donors, or a measure without
            gradient.

    Source: Syed, Rager and Conmy 2023 (arXiv 2310.10348); Hanna, Pezzelle and Belinkov 2024 (2403.17806).
    """
    if steps is not None:
        check_count("steps", steps, 1)
    runner = CircuitRunner(model, contrast, ablation, seed)
    stream, total = runner.stream, len(contrast)
    found, fulls = np.zeros(stream.nodes.allowed.shape), []
    points = [1.0] if steps is None else [(k + 0.5) / steps for k in range(steps)]
    for start in range(0, total, runner.rows):
        chosen = slice(start, min(start + runner.rows, total))
        part, other = contrast.rows(chosen), runner.other[chosen]
        gradients, written, full = None, None, None
        if steps is not None:
            written, logits = read_writers(stream, part.prompts)
            full = part.values(logits)
        for point in points:
            one, seen, values = _gradients(stream, part, other, point, reading=steps is None)
            gradients = one if gradients is None else gradients.add_(one)
            written, full = (seen, values) if steps is None else (written, full)
        assert gradients is not None
        assert written is not None
        assert full is not None
        fulls.append(full)
        change = (written - other).permute(2, 0, 1, 3).flatten(1)  # [writer, batch · pos · d_model]
        found += _products(stream, change, gradients).double().cpu().numpy() / (total * len(points))
    runner.know(torch.cat(fulls))
    method = "EAP" if steps is None else f"EAP-IG, {steps} steps"
    return _scores(runner, found, method)


def patch_every_edge(model: Any, contrast: Contrast, *, ablation: str = "donor", seed: int = 0) -> EdgeScores:
    """The exact effect of every single edge: each is ablated by itself, many in a pass.

    It takes one row of a forward pass for each edge and prompt: for models with up to some thousand edges.

    Args:
        model, contrast, ablation, seed: as for `attribute_edges`.
    """
    runner = CircuitRunner(model, contrast, ablation, seed)
    every = runner.stream.nodes.allowed
    places = np.argwhere(every)
    kept = []
    found = np.zeros(every.shape)
    full = float(runner.full.double().mean())
    several = max(1, 4 * runner.rows)
    for start in range(0, len(places), several):
        chosen = places[start : start + several]
        kept = [every.copy() for _ in chosen]
        for mask, (writer, reader) in zip(kept, chosen, strict=True):
            mask[writer, reader] = False
        means = runner.measured(kept).double().mean(1).cpu().numpy()
        found[chosen[:, 0], chosen[:, 1]] = full - means
    return _scores(runner, found, "exact")


def _scores(runner: CircuitRunner, found: Float[np.ndarray, "writer reader"], method: str) -> EdgeScores:
    model = runner.stream.model
    return EdgeScores(
        runner.stream.nodes,
        np.where(runner.stream.nodes.allowed, found, 0.0),
        method,
        runner.ablation,
        float(runner.full.double().mean()),
        float(runner.empty.double().mean()),
        model_name(model),
        fingerprint(model),
        runner.at_query,
    )


def _products(
    stream: Stream, change: Float[Tensor, "writer entry"], gradients: Float[Tensor, "reader entry"]
) -> Float[Tensor, "writer reader"]:
    """change gradientsᵀ, of the writers before each reader alone."""
    nodes = stream.nodes
    found = change.new_zeros(len(nodes.writers), len(nodes.readers))
    for layer in range(nodes.n_layers):
        heads = slice(nodes.readers_of(layer, "q").start, nodes.readers_of(layer, "v").stop)
        before = nodes.written_before(layer)
        found[:before, heads] = change[:before] @ gradients[heads].T
        if nodes.mlps[layer]:
            mlp, before = nodes.readers_of(layer, "mlp"), nodes.written_before(layer, mlp=True)
            found[:before, mlp] = change[:before] @ gradients[mlp].T
    found[:, -1] = change @ gradients[-1]
    return found


def _gradients(
    stream: Stream,
    contrast: Contrast,
    other: Float[Tensor, "batch pos writer d_model"],
    point: float,
    reading: bool,
) -> tuple[Float[Tensor, "reader entry"], Tensor | None, Float[Tensor, " batch"]]:
    """Gradients of the summed measure by every reader's input, [reader, batch · pos · d_model], what was
    written if `reading`, and the measure; for inputs at a point between the ablated (0) and the prompts' own
    (1)."""
    nodes, model = stream.nodes, stream.model
    asked: list[tuple[int, str, Tensor]] = []
    streams: dict[tuple[int, str], Tensor] = {}

    def start(value: Tensor, hook: Any) -> Tensor:
        x = value.detach()
        if point != 1.0:
            x = (other[:, :, 0] + point * (wide(x) - other[:, :, 0])).to(x.dtype)
        return x.requires_grad_()

    def keep_stream(layer: int) -> Callable[[Tensor, Any], None]:
        return lambda value, hook: streams.__setitem__((layer, "heads"), value.detach())

    def keep(layer: int, kind: str) -> Callable[[Tensor, Any], None]:
        return lambda value, hook: asked.append((layer, kind, value))

    def keep_mlp(layer: int) -> Callable[..., Any]:
        def kept(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            x = args[0].clone()  # its gradient is the MLP's alone
            asked.append((layer, "mlp", x))
            return (x, *args[1:])

        return kept

    hooks: list[tuple[str, Any]] = [(stream.first, start)]
    for layer in range(nodes.n_layers):
        hooks.append((stream.hook("resid_pre", layer), keep_stream(layer)))
        hooks += [(stream.hook(part, layer), keep(layer, part)) for part in PARTS]
    hooks.append((stream.last, keep(nodes.n_layers, "logits")))
    written = Written(stream)
    run: Any = model
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(own_run(model))
        stack.enter_context(hooked(model, hooks))
        if reading:
            stack.enter_context(written.reading())
        for layer in range(nodes.n_layers):
            if nodes.mlps[layer]:
                stack.callback(stream.ln2(layer).register_forward_pre_hook(keep_mlp(layer)).remove)
        values = contrast.values(logits_of(run(contrast.prompts.to(stream.device))))
        found = torch.autograd.grad(values.sum(), [tensor for _, _, tensor in asked], materialize_grads=True)
    table = other.new_empty(len(nodes.readers), other[:, :, 0].numel())
    for (layer, kind, _tensor), gradient in zip(asked, found, strict=True):
        gradient = wide(gradient)
        if kind in PARTS:
            x, weights = wide(streams[layer, "heads"]), stream.layer(layer, gradient.dtype)
            by_head = torch.einsum("bpne,nde->nbpd", gradient, weights.reads[kind])
            table[nodes.readers_of(layer, kind)] = stream.pulled_back(weights.ln1, x, by_head).flatten(1)
        elif kind == "mlp":
            table[nodes.readers_of(layer, "mlp")] = gradient.flatten()[None]
        else:
            table[-1] = gradient.flatten()
    return table, written.values if reading else None, values.detach()
