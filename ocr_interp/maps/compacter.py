"""W_OV from Kronecker products whose second factor has low rank, Σ_k A_k ⊗ s_k t_kᵀ: Compacter's layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float

from ocr_interp.checks import check_count
from ocr_interp.maps.base import LinearMap, Parameters
from ocr_interp.maps.kronecker import Kronecker


@dataclass(frozen=True)
class Compacter(Kronecker):
    """Subjects x answers are Σ_k A_k ⊗ s_k t_k, s_k t_k of rank phm_rank; all other rows are D_V D_M D_O.

    Every entry of W_OV is of degree 3 in what is trained. Small parameters make Σ (‖A_k‖ ‖s_k‖ ‖t_k‖)^(2/3)
    small, which is no norm: `norm` is None, and `theory.stationary_points` finds the stationary
    points and says which are stable. The linear relative of Compacter's adapter, whose bottleneck is no W.

    Attributes:
        phm_rank: rank of each s_k t_k.

    Source: Karimi Mahabadi et al. 2021 (arXiv 2106.04647); docs/theory.md, "Kronecker products".
    """

    name: ClassVar[str] = "compacter"
    label: ClassVar[str] = r"Compacter $\sum A_k \otimes s_k t_k^T$"
    colour: ClassVar[str] = "#cc78bc"

    phm_rank: int = 1

    @classmethod
    def of(cls, d_head: int | None, options: Mapping[str, Any], init: str) -> LinearMap:
        """As `Kronecker.of`; requires phm_rank >= 1."""
        found = super().of(d_head, options, init)
        assert isinstance(found, Compacter)
        check_count("phm_rank", found.phm_rank, 1)
        return found

    @property
    def norm(self) -> None:  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
        """None: a quasi-norm that is not convex has no certificate."""
        return

    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """A [term, row, column], s [term, row, rank], t [term, rank, column]; D_V, D_M, D_O multiply."""
        (a_in, a_out), (b_in, b_out) = self.token_layout.a_shape, self.token_layout.b_shape
        grid = {
            "A": (self._terms, a_in, a_out),
            "s": (self._terms, b_in, self.phm_rank),
            "t": (self._terms, self.phm_rank, b_out),
        }
        return {**grid, **self._dense_shapes(n_in, n_out, ("D_V", "D_M", "D_O"))}

    def product(self, parameters: Parameters) -> Float[Any, "*run input output"]:
        """The grid from A and s t, 0 beside it, and the dense rows below."""
        dense = parameters["D_V"] @ parameters["D_M"] @ parameters["D_O"]
        return self._whole(parameters["A"], parameters["s"] @ parameters["t"], dense)

    def gradients(
        self, parameters: Parameters, grad: Float[Any, "*run input output"]
    ) -> dict[str, Float[Any, "..."]]:
        """Products of the rearranged gradient with the other factors."""
        s, t = parameters["s"], parameters["t"]
        D_V, D_M, D_O = (parameters[name] for name in ("D_V", "D_M", "D_O"))
        of_A, of_B, dense = self._pulled(parameters["A"], s @ t, grad)
        return {
            "A": of_A,
            "s": of_B @ t.mT,
            "t": s.mT @ of_B,
            "D_V": dense @ (D_M @ D_O).mT,
            "D_M": D_V.mT @ dense @ D_O.mT,
            "D_O": (D_V @ D_M).mT @ dense,
        }


MAP = Compacter
