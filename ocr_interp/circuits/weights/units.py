"""Heads and MLPs of a model as what they write to the residual stream and what they read from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.projections import projections, query_key_projections
from ocr_interp.hooked.asked.layers import ask_layers
from ocr_interp.hooked.asked.scores import LayerScores, ask_scores
from ocr_interp.hooked.heads import check_architecture
from ocr_interp.hooked.norms import Norm, read_norm, working_dtype
from ocr_interp.hooked.protocol import HookedModel, block_of
from ocr_interp.hooked.provenance import check_finite

READS = ("Q", "K", "V", "in")
"""How a unit reads: a head through its queries, keys or values, an MLP through its input."""


@dataclass(frozen=True)
class Unit:
    """A head or an MLP.

    Attributes:
        name: "L1H4" or "MLP 1".
        layer, head: where it is; head is None for an MLP.
        time: units of a smaller time write before this one reads.
    """

    name: str
    layer: int
    head: int | None
    time: int


@dataclass(frozen=True)
class Matrices:
    """Matrices of one way of reading or of writing, one for each of some units, as thin as they can be.

    Rows are rotated (by QR) where that changes no norm of a product: composition asks for no more.

    Attributes:
        units: the units.
        rows: of each unit [row, d_model], stacked by shape; a head has as many rows as dimensions, an MLP as
            neurons.
    """

    units: tuple[Unit, ...]
    rows: tuple[Float[Tensor, "_ _ d_model"], ...]


@dataclass(frozen=True)
class ModelWeights:
    """All that heads and MLPs write and read.

    Attributes:
        writers: W_V W_O of heads, W_out of MLPs.
        readers: by way of reading: W_Q W_Kᵀ from the side of queries or of keys, W_V W_O, W_in.
        folded, flags, checks: what was folded in, what is left out, and what the model was seen to do.
        tensors: the weights that were read, by name.
    """

    writers: Matrices
    readers: dict[str, Matrices]
    folded: tuple[str, ...]
    flags: tuple[str, ...]
    checks: tuple[str, ...]
    tensors: dict[str, Tensor]


def read_units(model: HookedModel, mlps: bool, qk: bool = True) -> ModelWeights:
    """The weights of all heads, and of all MLPs if asked for, in float64.

    Args:
        model: the model.
        mlps: whether MLPs are read.
        qk: whether queries and keys are.

    Raises:
        ModelError: a layer without W_Q, W_K, W_V and W_O, with a norm after attention, or that was seen to do
            something else than its weights say.
        WeightsError: NaN or infinite weights.
    """
    layers = list(range(int(model.cfg.n_layers)))
    for layer in layers:
        check_architecture(model, layer)
        check_finite(_raw(model, layer), f"layer {layer}")
    scores = ask_scores(model, layers) if qk else {}
    for found in scores.values():
        try:
            found.require("composition")
        except ModelError as error:
            raise ModelError(f"{error}; for values and MLPs alone pass qk=False") from error
    seen = ask_layers(model, layers, mlps=mlps)
    for steps in seen.values():
        steps.require("composition")
    dtype, tensors = working_dtype(model.W_U.device), {}
    writers, readers = _Stack(), {kind: _Stack() for kind in READS}
    for layer in layers:
        after = 1 if seen[layer].parallel else 2
        heads, own = _heads(model, layer, dtype, 3 * layer, qk)
        tensors |= own
        writers.add(heads.units, heads.writes)
        for kind, rows in heads.reads.items():
            readers[kind].add(heads.units, rows)
        if mlps and seen[layer].mlp is not None:
            unit, W_in, W_out, own = _mlp(model, layer, dtype, 3 * layer + after - 1)
            tensors |= own
            readers["in"].add((unit,), W_in[None])
            writers.add((unit,), W_out[None])
    return ModelWeights(
        writers=writers.matrices,
        readers={kind: stack.matrices for kind, stack in readers.items() if stack.units},
        folded=_folded(model),
        flags=_flags(scores, qk),
        checks=tuple(
            f"layer {layer}: {step.describe()}"
            for layer in layers
            for step in (*((scores[layer].step,) if qk else ()), *seen[layer].steps)
        ),
        tensors=tensors,
    )


class _Stack:
    """Collects units and their matrices."""

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self.rows: list[Tensor] = []

    def add(self, units: Sequence[Unit], rows: Float[Tensor, "unit row d_model"]) -> None:
        """Some units with matrices of one shape."""
        self.units += units
        self.rows.append(rows)

    @property
    def matrices(self) -> Matrices:
        """What was collected."""
        return Matrices(tuple(self.units), tuple(self.rows))


@dataclass(frozen=True)
class _Heads:
    units: tuple[Unit, ...]
    writes: Float[Tensor, "head row d_model"]
    reads: dict[str, Float[Tensor, "head row d_model"]]


def _heads(
    model: HookedModel, layer: int, dtype: torch.dtype, time: int, qk: bool
) -> tuple[_Heads, dict[str, Tensor]]:
    """All heads of a layer; W_V W_O is R_V W_O up to a rotation, and so on."""
    raw = _raw(model, layer)
    W_Q, W_K, W_V, W_O = raw.values()
    norm = read_norm(getattr(block_of(model, layer), "ln1", None), model.cfg, dtype)
    heads = int(model.cfg.n_heads)
    reading = []
    for W in (W_Q, W_K, W_V):
        if heads % len(W):
            raise ModelError(f"layer {layer} must have groups of heads of one size, got {len(W)} of {heads}")
        reading.append(_folded_in(norm, W.to(dtype)).repeat_interleave(heads // len(W), 0))
    W_Q, W_K, W_V = reading
    W_O = W_O.to(dtype)
    R_Q, R_K, R_V, R_O = (torch.linalg.qr(W, mode="r").R for W in (W_Q, W_K, W_V, W_O.mT))
    units = tuple(Unit(f"L{layer}H{head}", layer, head, time) for head in range(heads))
    reads = {"Q": R_K @ W_Q.mT, "K": R_Q @ W_K.mT, "V": R_O @ W_V.mT}
    return _Heads(units, R_V @ W_O, reads if qk else {"V": reads["V"]}), raw


def _raw(model: HookedModel, layer: int) -> dict[str, Tensor]:
    """W_Q, W_K, W_V and W_O of a layer, by name."""
    W_Q, W_K, _, _ = query_key_projections(model, layer)
    W_V, W_O, _ = projections(model, layer)
    return {f"{layer} W_{n}": W for n, W in zip("QKVO", (W_Q, W_K, W_V, W_O), strict=True)}


def _mlp(
    model: HookedModel, layer: int, dtype: torch.dtype, time: int
) -> tuple[Unit, Tensor, Tensor, dict[str, Tensor]]:
    """An MLP with what it reads (of gated ones both matrices) and writes."""
    block = block_of(model, layer)
    mlp = block.mlp
    norm = read_norm(getattr(block, "ln2", None) or getattr(block, "ln1", None), model.cfg, dtype)
    matrices = {
        name: W.detach()
        for name in ("W_in", "W_gate", "W_out")
        if isinstance(W := getattr(mlp, name, None), Tensor)
    }
    raw = {f"{layer} {name}": W for name, W in matrices.items()}
    check_finite(raw, f"layer {layer}")
    reading = [
        _folded_in(norm, matrices[name].to(dtype)).mT for name in ("W_in", "W_gate") if name in matrices
    ]
    unit = Unit(f"MLP {layer}", layer, None, time)
    return unit, torch.cat(reading), matrices["W_out"].to(dtype), raw


def _folded_in(norm: Norm, W: Float[Tensor, "*head d_model out"]) -> Float[Tensor, "*head d_model out"]:
    """A reading matrix with the gain and the centring of the norm before it."""
    if norm.gain is not None:
        W = norm.gain[:, None] * W
    return W - W.mean(-2, keepdim=True) if norm.centred else W


def _folded(model: HookedModel) -> tuple[str, ...]:
    norm = getattr(block_of(model, 0), "ln1", None)
    if norm is None or type(norm).__name__ == "Identity":
        return ()
    return ("norms before attention and MLPs: gain and centring folded into what is read, scales left out",)


def _flags(scores: dict[int, LayerScores], qk: bool) -> tuple[str, ...]:
    said = [] if qk else ["queries and keys were not asked for: V-composition and MLPs alone"]
    said += ["biases, attention patterns and activation functions are left out: these are weights alone"]
    if any(found.rotary is not None for found in scores.values()):
        said.append("rotary embeddings: W_Q W_Kᵀ of two tokens at one position, where nothing is turned")
    return tuple(said)
