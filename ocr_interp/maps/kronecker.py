"""W_OV from sums of Kronecker products, Σ_k A_k ⊗ B_k: a layer of hypercomplex products, PHM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import check_flag, check_number
from ocr_interp.errors import ConfigError
from ocr_interp.layouts import KroneckerLayout, token_layout
from ocr_interp.maps.axes import TokenAxes
from ocr_interp.maps.base import Draw, LinearMap, Parameters
from ocr_interp.theory.norms.kronecker import KroneckerNorm


@dataclass(frozen=True)
class Kronecker(LinearMap):
    """Subjects x answers are Σ_k A_k ⊗ B_k, k = 1..phm_dim; all other rows are a product D_V D_O.

    So every entry of W_OV is of degree 2 in what is trained, and small parameters make
    `theory.norms.kronecker.KroneckerNorm` small, if the sum has as many terms as the rearrangement's rank.
    Subjects write to answers alone: their columns of other tokens are 0. The rows of D_V are the relations,
    noise, EOS and, without effect, the answers.

    Attributes:
        layout, permuted_share, layout_seed: which tokens stand where, see `layouts.token_layout`.
        phm_dim: number of terms and size of the square factor; 0: the number of pairs.
        shared_phm_rule: one sum for all answers; False: the answers of each type have a layer of their own,
            with A, B and all.
        learn_phm: whether A is trained.
        phm_init_range: standard deviation of A's entries with init="product".

    Source: Zhang et al. 2021 (arXiv 2102.08597); docs/theory.md, "Kronecker products".
    """

    name: ClassVar[str] = "kronecker"
    label: ClassVar[str] = r"PHM $\sum A_k \otimes B_k$"
    colour: ClassVar[str] = "#029e73"
    needs_axes: ClassVar[bool] = True

    layout: str = "aligned"
    permuted_share: float = 0.0
    layout_seed: int = 0
    phm_dim: int = 0
    shared_phm_rule: bool = True
    learn_phm: bool = True
    phm_init_range: float = 1e-4

    @classmethod
    def of(cls, d_head: int | None, options: Mapping[str, Any], init: str) -> LinearMap:
        """As `LinearMap.of`; phm_init_range belongs to init="product"."""
        found = super().of(d_head, options, init)
        assert isinstance(found, Kronecker)
        check_number("phm_init_range", found.phm_init_range, above=0.0)
        check_flag("learn_phm", found.learn_phm)
        if init != "product" and found.phm_init_range != cls.phm_init_range:
            raise ConfigError(
                f"phm_init_range is the size of A with init='product', got init={init!r}, which sets all "
                "sizes by init_scale: leave phm_init_range out"
            )
        return found

    def placed(self, axes: TokenAxes) -> LinearMap:
        """The map for these tokens.

        Raises:
            ConfigError: a layout that does not go with the task, see `layouts.token_layout`.
        """
        found = super().placed(axes)
        assert isinstance(found, Kronecker)
        _ = found.token_layout  # raises here, not at first use
        return found

    @cached_property
    def token_layout(self) -> KroneckerLayout:
        """Places of subjects and answers.

        Raises:
            ConfigError: the map has no tokens yet, or the layout does not go with them.
        """
        return token_layout(
            self._axes.task,
            self.layout,
            phm_dim=self.phm_dim,
            shared_phm_rule=self.shared_phm_rule,
            permuted_share=self.permuted_share,
            layout_seed=self.layout_seed,
        )

    @property
    def norm(self) -> KroneckerNorm | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of its layout; None with a fixed A, which leaves the grid of degree 1 beside rows of degree 2."""
        return KroneckerNorm(self.token_layout) if self.learn_phm else None

    @property
    def frozen(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A, unless it is trained."""
        return frozenset() if self.learn_phm else frozenset({"A"})

    @property
    def _axes(self) -> TokenAxes:
        if self.axes is None:
            raise ConfigError(
                f"ov={self.name!r} needs to know its tokens: ask for placed(TokenAxes.of_vocabulary(task)), "
                "or for ModelConfig.placed_map(task)"
            )
        return self.axes

    @property
    def _terms(self) -> int:
        """Number of terms of all layers together."""
        layout = self.token_layout
        square = layout.b_shape if self.layout == "transposed" else layout.a_shape
        return layout.layers * square[0]

    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """A [term, row, column], B likewise; D_V [row beside the grid, width], D_O [width, output]."""
        layout = self.token_layout
        grid = {"A": (self._terms, *layout.a_shape), "B": (self._terms, *layout.b_shape)}
        return {**grid, **self._dense_shapes(n_in, n_out, ("D_V", "D_O"))}

    def _dense_shapes(self, n_in: int, n_out: int, names: tuple[str, ...]) -> dict[str, tuple[int, int]]:
        """Factors of the rows beside the grid, as wide as there are such rows that act."""
        task = self._axes.task
        width = min(n_in, task.n_inputs) - task.n_subjects
        sizes = [n_in - task.n_subjects, *[width] * (len(names) - 1), n_out]
        return {name: (sizes[k], sizes[k + 1]) for k, name in enumerate(names)}

    def start(self, draw: Draw) -> dict[str, Tensor]:
        """ "product": A normal of size phm_init_range, B Xavier-uniform with gain √2, as for PHM layers; the
        other factors, and all with "entries", normal of size d_vocab^-1/2. All times the scale."""
        shapes = self.shapes(draw.n_tokens, draw.n_tokens)
        found = {name: draw.normal(name, *shape) for name, shape in shapes.items()}
        if draw.init == "product":
            found["A"] *= self.phm_init_range * draw.n_tokens**0.5
            for name in set(shapes) & {"B", "s", "t"}:
                found[name] = _xavier(found[name], draw)
        return found

    def product(self, parameters: Parameters) -> Float[Any, "*run input output"]:
        """The grid from A and B, 0 beside it, and the dense rows below."""
        return self._whole(parameters["A"], parameters["B"], parameters["D_V"] @ parameters["D_O"])

    def gradients(
        self, parameters: Parameters, grad: Float[Any, "*run input output"]
    ) -> dict[str, Float[Any, "..."]]:
        """Products of the rearranged gradient with the other factor."""
        of_A, of_B, dense = self._pulled(parameters["A"], parameters["B"], grad)
        return {
            "A": of_A,
            "B": of_B,
            "D_V": dense @ parameters["D_O"].mT,
            "D_O": parameters["D_V"].mT @ dense,
        }

    # --- shared with Compacter --------------------------------------------------------------------

    def _flat(self, factor: Tensor) -> Float[Tensor, "*run layer term entry"]:
        return factor.flatten(-2).unflatten(-2, (self.token_layout.layers, -1))

    def _whole(self, A: Tensor, B: Tensor, dense: Tensor) -> Float[Tensor, "*run input output"]:
        R = self._flat(A).mT @ self._flat(B)
        grid = R.flatten(-3)[..., self._index(A.device)]
        return torch.cat([torch.nn.functional.pad(grid, (self._axes.first_answer, 0)), dense], dim=-2)

    def _pulled(self, A: Tensor, B: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of A, of B and of the dense rows from that of W_OV."""
        layout, first = self.token_layout, self._axes.first_answer
        n_subjects = layout.shape[0]
        grid = grad[..., :n_subjects, first:].flatten(-2)
        R = grid[..., self._index(A.device, inverse=True)].unflatten(-1, layout.rearranged_shape)
        of_A = (R @ self._flat(B).mT).mT.reshape(A.shape)
        return of_A, (self._flat(A) @ R).reshape(B.shape), grad[..., n_subjects:, :]

    def _index(self, device: torch.device, inverse: bool = False) -> Tensor:
        """Places of the grid's entries in the rearrangement, or the other way round, kept per device."""
        key = (device, inverse)
        if key not in self._indices:
            found = self.token_layout.inverse if inverse else self.token_layout.index
            self._indices[key] = torch.from_numpy(found).to(device)
        return self._indices[key]

    @cached_property
    def _indices(self) -> dict[tuple[torch.device, bool], Tensor]:
        return {}


def _xavier(normal: Tensor, draw: Draw) -> Tensor:
    """Xavier-uniform entries with gain √2 for matrices [.., row, column], from normal draws of `Draw`."""
    uniform = torch.erf(normal / (draw.scale * draw.n_tokens**-0.5) / 2**0.5)
    return draw.scale * (2 * 6 / sum(normal.shape[-2:])) ** 0.5 * uniform


MAP = Kronecker
