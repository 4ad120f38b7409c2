"""How far every part of every layer moved from the start of training: size, spectral size and rank of ΔW.

One tensor of the start is in memory at a time. Products are accumulated in float64 over blocks of rows, so
that no second copy of a large matrix is made; a Gram matrix loses only what is below 1e-7 of the largest
singular value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.errors import WeightsError
from ocr_interp.llm.layers.layout import MLP, Layout, layout_of
from ocr_interp.llm.layers.parts import weights_by_part

MOVED_PARTS = {
    "embeddings": "embeddings, position embeddings and unembedding",
    "norms": "gains and biases of norms",
    "qk": "projections to queries and keys",
    "ov": "projections to values, and output projections",
    "qkv": "one matrix that makes values and queries or keys",
    "o": "output projections beside such a matrix",
    "attention": "what else mixes positions: Mamba, convolutions, gates",
    "mlp_in": "linear maps of the MLP that read what enters it: up, gate, routers",
    "mlp_out": "linear maps of the MLP behind them: down",
    "mlp": "other weights of MLPs, such as stacks of experts",
    "other": "weights that belong to no branch",
}
"""Part -> what belongs to it; no weight is in two."""

OUTSIDE = -1
"""Layer of what stands outside the blocks."""

_ROWS = 4096
_NUMBERS = ("start", "change", "relative", "nuclear_to_frobenius", "spectral")


@dataclass(frozen=True)
class Movement:
    """How far the weights moved, one row per part and layer: its weights as one block-diagonal matrix.

    Attributes:
        part: a name in MOVED_PARTS.
        layer: number of the block; OUTSIDE for embeddings and the last norm.
        start: ‖W‖_F before training, vectors (gains, biases) included.
        change: ‖ΔW‖_F, likewise.
        relative: change / start; NaN where the start is 0.
        nuclear_to_frobenius: ‖ΔW‖_* / ‖ΔW‖_F of the matrices: 1 for one matrix of rank one, √r for r equal
            singular values; NaN for a part without matrices, or whose matrices did not move.
        spectral: largest singular value of the matrices' ΔW, in the unit of the weights; NaN without any.
    """

    part: tuple[str, ...]
    layer: Int[np.ndarray, " row"]
    start: Float[np.ndarray, " row"]
    change: Float[np.ndarray, " row"]
    relative: Float[np.ndarray, " row"]
    nuclear_to_frobenius: Float[np.ndarray, " row"]
    spectral: Float[np.ndarray, " row"]

    def of_parts(self) -> dict[str, float]:
        """Relative change of every part over all layers, and of "all" weights."""
        parts = np.array(self.part)
        masks = {p: parts == p for p in MOVED_PARTS if p in self.part}
        masks["all"] = np.ones(len(parts), dtype=bool)
        found = {}
        for name, rows in masks.items():
            start = float(np.linalg.norm(self.start[rows]))
            found[name] = float(np.linalg.norm(self.change[rows])) / start if start else float("nan")
        return found

    def row(self) -> dict[str, float]:
        """`of_parts` as columns of a history."""
        return {f"movement/{part}": value for part, value in self.of_parts().items()}

    def summary(self) -> str:
        """One line."""
        shares = ", ".join(f"{part} {value:.2g}" for part, value in self.of_parts().items())
        return f"moved, ‖ΔW‖_F / ‖W‖_F: {shares}"

    def table(self) -> str:
        """Every part of every layer as aligned text."""
        lines = [f"{'part':12}{'layer':>6}{'‖ΔW‖/‖W‖':>11}{'nuclear/Frobenius':>19}{'spectral':>10}"]
        for k, part in enumerate(self.part):
            layer = "-" if self.layer[k] == OUTSIDE else str(self.layer[k])
            lines.append(
                f"{part:12}{layer:>6}{self.relative[k]:11.4f}{self.nuclear_to_frobenius[k]:19.2f}"
                f"{self.spectral[k]:10.3g}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: columns."""
        return {
            "part": list(self.part),
            "layer": self.layer.tolist(),
            **{name: getattr(self, name).tolist() for name in _NUMBERS},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Movement | str:
        """The movement from the values in a result.json; a text if they say why there is none.

        Raises:
            KeyError, TypeError, ValueError: the values are no movement.
        """
        if "why_not" in values:
            return str(values["why_not"])
        numbers = {name: np.array(values[name], dtype=np.float64) for name in _NUMBERS}
        if any(len(column) != len(values["part"]) for column in (*numbers.values(), values["layer"])):
            raise ValueError("the columns of movement differ in length")
        layer = np.array(values["layer"], dtype=np.int64)
        return cls(tuple(map(str, values["part"])), layer, **numbers)


@dataclass
class _Sums:
    start: float = 0.0
    change: float = 0.0
    of_matrices: float = 0.0
    nuclear: float = 0.0
    spectral: float = float("nan")


def movement(model: Any, start: Callable[[str], Tensor]) -> Movement:
    """Compares a model with its start.

    Args:
        model: a causal language model of transformers, with updates merged.
        start: gives the tensor that a parameter started as, by its name.

    Raises:
        ModelError: a model that cannot be asked for its parts.
        WeightsError: a start of another shape.
    """
    places = places_of(model)
    sums: dict[tuple[str, int], _Sums] = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _add(sums.setdefault(places[name], _Sums()), name, start(name), parameter)
    order = sorted(sums, key=lambda place: (place[1], list(MOVED_PARTS).index(place[0])))
    rows = [sums[place] for place in order]
    return Movement(
        part=tuple(part for part, _ in order),
        layer=np.array([layer for _, layer in order], dtype=np.int64),
        start=np.array([one.start**0.5 for one in rows]),
        change=np.array([one.change**0.5 for one in rows]),
        relative=np.array([_ratio(one.change**0.5, one.start**0.5) for one in rows]),
        nuclear_to_frobenius=np.array([_ratio(one.nuclear, one.of_matrices**0.5) for one in rows]),
        spectral=np.array([one.spectral for one in rows]),
    )


def places_of(model: Any) -> dict[str, tuple[str, int]]:
    """(part, layer) of every parameter.

    Raises:
        ModelError: a model that cannot be asked for its parts.
    """
    layout = layout_of(model)
    own = weights_by_part(model, layout)
    kinds = [(p, own.get(p, frozenset())) for p in ("norms", "embeddings", "qk", "ov", "qkv", "o", "v")]
    kinds += [(part, _of_mlp(layout, part.replace("_", " "))) for part in ("mlp_in", "mlp_out")]
    kinds += [(p, own.get(p, frozenset())) for p in ("mlp", "attention")]
    blocks = list(dict.fromkeys(branch.block for branch in layout.branches if branch.block))
    found = {}
    for name, _ in model.named_parameters():
        part = next((part for part, names in kinds if name in names), "other")
        block = next((k for k, path in enumerate(blocks) if name.startswith(f"{path}.")), OUTSIDE)
        found[name] = ("ov" if part == "v" else part, block)
    return found


def _of_mlp(layout: Layout, role: str) -> frozenset[str]:
    """Names of the weights and biases of an MLP's linear maps with a role."""
    paths = [path for b in layout.branches if b.kind == MLP for path, own in b.roles.items() if own == role]
    return frozenset(f"{path}.{name}" for path in paths for name in ("weight", "bias"))


def _add(sums: _Sums, name: str, start: Tensor, now: Tensor) -> None:
    """Adds one parameter to the sums of its part."""
    if start.shape != now.shape:
        raise WeightsError(f"{name} must start as {tuple(now.shape)}, got {tuple(start.shape)}")
    # Apple's GPUs have no float64.
    where = now.device if now.device.type != "mps" else torch.device("cpu")
    now, start = now.detach().to(where), start.to(where, now.dtype)
    for w, v in zip(_matrices(start), _matrices(now), strict=True):
        sums.start += float(sum(part.double().square().sum() for part in w.split(_ROWS)))
        if now.ndim == 1:
            sums.change += float((v.double() - w.double()).square().sum())
            continue
        values = change_spectrum(w, v)
        squared = float(values.square().sum())
        sums.change += squared
        sums.of_matrices += squared
        sums.nuclear += float(values.sum())
        sums.spectral = float(np.fmax(sums.spectral, float(values.max())))


def _matrices(weight: Tensor) -> list[Tensor]:
    """A parameter as matrices: a vector is one column, a stack of experts is one matrix each."""
    if weight.ndim < 2:
        return [weight.reshape(-1, 1)]
    if weight.ndim > 2 and 1 in weight.shape[1:-1]:  # kernels of convolutions over single channels
        return [weight.reshape(weight.shape[0], -1)]
    return list(weight.reshape(-1, *weight.shape[-2:]))


def change_spectrum(start: Float[Tensor, "a b"], now: Float[Tensor, "a b"]) -> Float[Tensor, " value"]:
    """Singular values of now - start, smallest first, float64; those below 1e-7 of the largest are 0."""
    if start.shape[0] < start.shape[1]:
        start, now = start.T, now.T
    size = start.shape[1]
    gram = torch.zeros(size, size, dtype=torch.float64, device=start.device)
    if torch.equal(start, now):
        return gram.diagonal()
    for old, new in zip(start.split(_ROWS), now.split(_ROWS), strict=True):
        change = new.double() - old.double()
        gram += change.T @ change
    squares = torch.linalg.eigvalsh(gram)
    rounding = size * torch.finfo(torch.float64).eps * squares[-1]
    return torch.where(squares > rounding, squares, 0).sqrt()


def _ratio(one: float, other: float) -> float:
    return one / other if other else float("nan")
