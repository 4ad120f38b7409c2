"""A parameterisation with constants that this study trains: frozen answer features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.maps.base import Draw, LinearMap, Parameters


@dataclass(frozen=True, eq=False)
class FrozenFeatures(LinearMap):
    """W_OV = V F with frozen answer features F; V one matrix, or V = P Q."""

    name: ClassVar[str] = "frozen_features"
    label: ClassVar[str] = "frozen answer features"

    features: Any = None
    factored: bool = False

    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """V [input, feature], or P [input, feature] and Q [feature, feature]."""
        width = len(self.features)
        square = {"P": (n_in, width), "Q": (width, width)}
        return square if self.factored else {"V": (n_in, width)}

    def start(self, draw: Draw) -> dict[str, Tensor]:
        """Normal entries."""
        shapes = self.shapes(draw.n_tokens, draw.n_tokens)
        return {name: draw.normal(name, *shape) for name, shape in shapes.items()}

    def product(self, parameters: Parameters) -> Float[Any, "*run input output"]:
        """V F."""
        V = parameters["P"] @ parameters["Q"] if self.factored else parameters["V"]
        return V @ self.features


def answer_features(n: int, cosine: float, type_size: float) -> Float[Tensor, "feature answer"]:
    """Features of b_1..b_n, c_1..c_n: those of b_i and c_i have this cosine beside a large type direction.

    Args:
        n: number of pairs.
        cosine: between the pair parts of b_i and c_i, of unit length.
        type_size: ± this length along one more direction tells facts from implications cheaply.
    """
    features = torch.zeros(2 * n + 1, 2 * n, dtype=torch.float64)
    pair = torch.arange(n)
    features[pair, pair] = 1.0
    features[pair, n + pair] = cosine
    features[n + pair, n + pair] = (1 - cosine**2) ** 0.5
    features[2 * n, :n], features[2 * n, n:] = type_size, -type_size
    return features
