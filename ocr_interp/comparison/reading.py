"""What every head and MLP of a model reads of some tokens and writes to some outputs, as factors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.projections import projections, query_key_projections
from ocr_interp.hooked.asked.decoder import check_decoder
from ocr_interp.hooked.asked.layers import LayerSteps, ask_layers
from ocr_interp.hooked.asked.scores import LayerScores, ask_scores
from ocr_interp.hooked.asked.wrapped import require_wrapped
from ocr_interp.hooked.heads import check_architecture
from ocr_interp.hooked.norms import final_norm, read_norm, working_dtype
from ocr_interp.hooked.probes import embedded_rows, probe_head
from ocr_interp.hooked.protocol import HookedModel, block_of, model_name
from ocr_interp.hooked.provenance import check_finite, fingerprint_of
from ocr_interp.hooked.tokens.token_set import TokenSet

SHAPES = (
    ("architecture", "family"),
    ("n_layers", "layers"),
    ("n_heads", "heads of a layer"),
    ("n_key_value_heads", "key-value heads of a layer"),
    ("d_model", "width of the residual stream"),
    ("d_head", "width of a head"),
    ("d_mlp", "neurons of an MLP"),
    ("d_vocab", "tokens"),
    ("d_vocab_out", "outputs"),
    ("normalization_type", "kind of norm"),
    ("act_fn", "activation function"),
    ("positional_embedding_type", "kind of positions"),
)
"""Settings in which two models that are compared must agree, and what they are."""


@dataclass(frozen=True)
class Matrix:
    """One circuit of a head or an MLP between tokens: W = left @ first @ second @ right, without those that
    are None.

    Attributes:
        left: of the tokens that are read, embeddings through the norm; None from an MLP's neurons.
        first, second: the weights; what an MLP reads, or writes, is one matrix.
        right: of the outputs, or of keys; None to an MLP's neurons.
    """

    left: Float[Tensor, "row d"] | None
    first: Float[Tensor, "d inner"]
    second: Float[Tensor, "inner e"] | None
    right: Float[Tensor, "e column"] | None

    def product(self, first: Tensor | None = None, second: Tensor | None = None) -> Tensor:
        """W, also with other weights."""
        W = self.first if first is None else first
        W = W if self.left is None else self.left @ W
        own = self.second if second is None else second
        W = W if own is None else W @ own
        return W if self.right is None else W @ self.right


@dataclass(frozen=True)
class ReadModel:
    """All circuits of a model between tokens.

    Attributes:
        name: of the model.
        circuits: (kind, layer, head) -> the circuit; kinds "OV", "QK", and of MLPs "in" and "out".
        notes: what could not be read and why, one sentence each.
        fingerprint: of all that was read.
        embedding: some rows of W_E.
    """

    name: str
    circuits: dict[tuple[str, int, int | None], Matrix] = field(repr=False)
    notes: tuple[str, ...]
    fingerprint: str
    embedding: Float[Tensor, "row d_model"] = field(repr=False)


UNRELATED = 0.2
"""Cosine of two embeddings below which two models do not look like states of one."""


def relation_of(before: ReadModel, after: ReadModel) -> tuple[str, ...]:
    """A note where both embeddings have nothing in common, as of two models of one shape."""
    A, B = (each.embedding.to(before.embedding.device) for each in (before, after))
    size = float(A.norm() * B.norm())
    cosine = float((A * B).sum()) / size if size else 0.0
    if cosine >= UNRELATED:
        return ()
    return (
        f"embeddings before and after have a cosine of {cosine:.2f}: these look like two models of one "
        "shape, whose heads of one number have nothing to do with each other, and not like two states of "
        "one model",
    )


def check_alike(before: HookedModel, after: HookedModel) -> None:
    """Requires two models of one architecture.

    Raises:
        ModelError: they differ in a setting; names all of them.
    """
    for model in (before, after):
        check_decoder(model)
    differing = []
    for name, what in SHAPES:
        values = [getattr(model.cfg, name, None) for model in (before, after)]
        # HookedTransformers say None where a bridge says the number of heads.
        if name == "n_key_value_heads":
            values = [
                v or getattr(m.cfg, "n_heads", None) for v, m in zip(values, (before, after), strict=True)
            ]
        if name == "architecture" and None in values:
            continue  # only bridges have one
        if values[0] != values[1]:
            differing.append(f"{what} ({name}: {values[0]} and {values[1]})")
    if differing:
        raise ModelError(
            "two models that are compared must have the same architecture and vocabulary, got other "
            f"{'; '.join(differing)}: compare two states of one model"
        )


def read_model(model: HookedModel, inputs: TokenSet, outputs: TokenSet, *, mlps: bool) -> ReadModel:
    """Reads every head and MLP, in float64; queries and keys are the inputs, at one position.

    Raises:
        ModelError: layers without W_V and W_O, norms after attention, weights that the model was seen not to
            use.
        WeightsError: NaN or infinite weights.
    """
    layers = list(range(int(model.cfg.n_layers)))
    for layer in layers:
        check_architecture(model, layer)
    require_wrapped(model, "a comparison of models", weights_alone=True)
    seen = ask_layers(model, layers, mlps=mlps)
    for steps in seen.values():
        LayerSteps(steps.layer, steps.attention, None, steps.parallel).require("a comparison of models")
    scores, notes = _scores(model, layers)
    dtype = working_dtype(model.W_U.device)
    columns = torch.as_tensor(outputs.ids, device=model.W_U.device)
    last = read_norm(final_norm(model), model.cfg, dtype)
    W_U = model.W_U.detach()[:, columns].to(dtype)
    # The linear map "through the final norm, then W_U", once for all heads.
    write = last.reads(torch.eye(len(W_U), dtype=dtype, device=W_U.device)) @ W_U
    embedded = _embedded(model, inputs)
    circuits: dict[tuple[str, int, int | None], Matrix] = {}
    tensors: dict[str, Tensor] = {"inputs": embedded, "outputs": write}
    for layer in layers:
        block: Any = block_of(model, layer)
        norm = read_norm(getattr(block, "ln1", None), model.cfg, dtype)
        left = norm.reads(embedded.to(dtype))
        W_V, W_O, _ = projections(model, layer)
        W_Q, W_K, _, _ = query_key_projections(model, layer)
        tensors |= {f"{layer} W_{n}": W for n, W in zip("QKVO", (W_Q, W_K, W_V, W_O), strict=True)}
        heads = int(model.cfg.n_heads)
        for head in range(heads):
            q, k, v = (W[head // (heads // len(W))].to(dtype) for W in (W_Q, W_K, W_V))
            circuits["OV", layer, head] = Matrix(left, v, W_O[head].to(dtype), write)
            if scores[layer]:
                circuits["QK", layer, head] = Matrix(left, q, k.mT, left.mT)
        steps = seen[layer].mlp
        if steps is None:
            continue
        if not all(step.tallies for step in steps):
            notes.append(f"MLP {layer} was left out: it is more than W_in and W_out (experts, norms, gates)")
            continue
        ln2 = read_norm(getattr(block, "ln2", None) or getattr(block, "ln1", None), model.cfg, dtype)
        reading = [
            W.detach() for n in ("W_in", "W_gate") if isinstance(W := getattr(block.mlp, n, None), Tensor)
        ]
        W_in, W_out = torch.cat(reading, dim=1).to(dtype), block.mlp.W_out.detach().to(dtype)
        tensors |= {f"{layer} W_in": W_in, f"{layer} W_out": W_out}
        circuits["in", layer, None] = Matrix(ln2.reads(embedded.to(dtype)), W_in, None, None)
        circuits["out", layer, None] = Matrix(None, W_out, None, write)
    name = model_name(model)
    check_finite(tensors, name)
    W_E = model.W_E.detach()
    some = torch.linspace(0, len(W_E) - 1, min(len(W_E), 1024), device=W_E.device).long()
    return ReadModel(name, circuits, tuple(notes), fingerprint_of(tensors), W_E[some].to(dtype))


def _embedded(model: HookedModel, inputs: TokenSet) -> Tensor:
    """What the model makes of the tokens before its first block."""
    rows = embedded_rows(model, probe_head(model, 0, 0), inputs.ids)
    own = model.W_E.detach()[torch.as_tensor(inputs.ids, device=model.W_E.device)]
    return own if rows is None else rows


def _scores(model: HookedModel, layers: list[int]) -> tuple[dict[int, bool], list[str]]:
    """Layers whose scores are q · k, and what is said of the others and of positions."""
    found, notes = {}, []
    try:
        asked: dict[int, LayerScores] = ask_scores(model, layers)
    except ModelError as error:
        return dict.fromkeys(layers, False), [f"QK circuits were left out: {error}"]
    for layer, each in asked.items():
        try:
            each.require("the QK circuit")
            found[layer] = True
        except ModelError as error:
            found[layer] = False
            notes.append(f"QK circuits of layer {layer} were left out: {error}")
    if any(each.rotary is not None for each in asked.values()):
        notes.append("rotary embeddings: QK circuits are those of two tokens at one position")
    return found, notes
