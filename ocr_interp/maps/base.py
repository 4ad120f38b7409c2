"""The base class of parameterisations of W_OV."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import Option, Pairs, check_count, typed_options
from ocr_interp.devices import seeded_generator
from ocr_interp.errors import ConfigError, shown

if TYPE_CHECKING:
    from ocr_interp.maps.axes import TokenAxes
    from ocr_interp.theory.norms import Norm

Parameters = Mapping[str, Any]
"""Tensors by name, each with the same leading axes (one per run in a stack, or none)."""

_STREAMS = {"W_V": 0, "W_O": 1, "W_QK": 2, "W_OV": 3}
"""Random streams, one per matrix, so that parameterisations share the draws of matrices of equal names."""


@dataclass(frozen=True)
class Draw:
    """What a parameterisation needs to make its initial parameters. Draws are float64 on the CPU.

    Attributes:
        n_tokens: size of the vocabulary: rows and columns of W_OV.
        d_head: width of the OV circuit (`LinearMap.width`).
        init: kind of initialisation, one of the map's `starts`.
        scale: multiplies the size of all entries.
        seed: random seed of the draws.
        symmetric: makes the initial (W_V, W_O) of Theorem 3, for init="symmetric".
    """

    n_tokens: int
    d_head: int
    init: str
    scale: float
    seed: int
    symmetric: Callable[[], tuple[Tensor, Tensor]]

    def normal(self, name: str, *shape: int) -> Float[Tensor, "..."]:
        """Normal entries of standard deviation scale / √n_tokens.

        Args:
            name: name of the matrix; parameterisations share the draws of equal names.
            shape: of the matrix.
        """
        stream = _STREAMS.get(name)
        if stream is None:
            stream = len(_STREAMS) + int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "little")
        generator = seeded_generator("cpu", self.seed, stream)
        std = self.scale * self.n_tokens**-0.5
        return std * torch.randn(*shape, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class LinearMap(ABC):
    """A parameterisation of W_OV [input, output]; its options are the fields of the dataclass.

    A new parameterisation defines the class attributes, `shapes`, `start` and `product`. Everything else has
    a default: gradients come from autograd, and a map without factors is written into a HookedTransformer as
    its product. `product` takes any leading axes: one per run in a stack, or none.

    Attributes:
        name: as in `ModelConfig.ov`.
        label: name in figures; may hold TeX.
        colour: in figures.
        norm: the norm of W_OV that small parameters make small: a name in `theory.norms` or a Norm (of a map
            whose norm depends on its options or its tokens, a property); None if none is.
        starts: values of `ModelConfig.init` that it supports.
        no_start: for values of `ModelConfig.init` that it does not support, the reason.
        token_rows: parameters with one row per input token, in the order of the tokens. Rows of answer tokens
            have no effect there, and training leaves them out.
        frozen: parameters that are not trained.
        has_factors: whether W_OV is a product W_V W_O of two parameters that `factors` gives.
        array_native: whether `product` and `gradients` use nothing but operators that numpy arrays have too;
            then they are computed without conversion to tensors.
        takes_d_head: whether it has a width that d_head sets; else d_head must be None.
        hooked_trained: which of W_V and W_O require gradients in the HookedTransformer.
        needs_axes: whether its shapes or its product depend on which tokens the rows and columns are; then
            `axes` must be set (`placed`) before they are asked for.
        example: options with which it can be tried on any task, for a map that has no default for one.
        still: parameters that its present stage of training leaves as they are, see `staged`.
        d_head: width of the OV circuit; None: the size of the vocabulary.
        axes: the tokens of its rows and columns; None until it is `placed`, and always of a map that does not
            need them.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    colour: ClassVar[str] = "#949494"
    norm: ClassVar[str | Norm | None] = None
    starts: ClassVar[tuple[str, ...]] = ("product", "entries")
    no_start: ClassVar[Mapping[str, str]] = {}
    token_rows: ClassVar[frozenset[str]] = frozenset()
    frozen: ClassVar[frozenset[str]] = frozenset()
    has_factors: ClassVar[bool] = False
    array_native: ClassVar[bool] = False
    takes_d_head: ClassVar[bool] = False
    hooked_trained: ClassVar[frozenset[str]] = frozenset({"W_V"})
    needs_axes: ClassVar[bool] = False
    example: ClassVar[Mapping[str, Option]] = {}
    still: ClassVar[frozenset[str]] = frozenset()

    d_head: int | None = None
    axes: TokenAxes | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A class with a product of its own inherits nothing that belongs to another product."""
        super().__init_subclass__(**kwargs)
        if "product" in vars(cls):
            for name in ("gradients", "factors", "product_into", "pull_back", "gradient_memory", "side"):
                if name not in vars(cls):
                    setattr(cls, name, getattr(LinearMap, name))
            for name in ("has_factors", "array_native"):
                if name not in vars(cls):
                    setattr(cls, name, False)

    @classmethod
    def of(cls, d_head: int | None, options: Mapping[str, Any], init: str) -> LinearMap:
        """The map of a configuration.

        Raises:
            UnknownNameError: an option that it does not have, with the close matches.
            ConfigError: an option that is not allowed, or an init that it does not support.
        """
        known = cls.options()
        checked = typed_options(f"ov={cls.name!r}", options, known, cls.hints())
        if init not in cls.starts:
            reason = cls.no_start.get(init, f"choose one of {', '.join(map(repr, cls.starts))}")
            raise ConfigError(f"init={shown(init)} is no start of ov={cls.name!r}: {reason}")
        if d_head is not None:
            check_count("d_head", d_head, 1)
            if not cls.takes_d_head:
                raise ConfigError(
                    f"d_head must be None for ov={cls.name!r}, which has no such width, got {d_head}: its "
                    f"options are {', '.join(known) or 'none'} (ov_options)"
                )
        chosen: dict[str, Any] = dict(checked)
        return cls(d_head=d_head, **chosen)

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Names and defaults of its options: the fields of the dataclass beside d_head and axes.

        A field that is no option has `metadata={"option": False}`.
        """
        found: dict[str, Option] = {}
        for field in dataclasses.fields(cls):
            if field.name in ("d_head", "axes") or not field.metadata.get("option", True):
                continue
            if not isinstance(field.default, bool | int | float | str):
                raise ConfigError(
                    f"option {field.name!r} of ov={cls.name!r} must have a default: a number, a text or a "
                    "flag, got none"
                )
            found[field.name] = field.default
        return found

    @classmethod
    def hints(cls) -> dict[str, str]:
        """What to do where an option's value has another type: fields with `metadata={"hint": ...}`."""
        return {
            each.name: each.metadata["hint"] for each in dataclasses.fields(cls) if "hint" in each.metadata
        }

    @classmethod
    def settled(cls, options: Pairs) -> Pairs:
        """The options as a configuration keeps them; a map that reads a file adds the file's digest."""
        return options

    def width(self, n_tokens: int) -> int:
        """Width of the OV circuit for a vocabulary of this size: `d_head`, or the vocabulary's.

        Raises:
            ConfigError: a d_head that the map cannot have.
        """
        return n_tokens if self.d_head is None else self.d_head

    def placed(self, axes: TokenAxes) -> LinearMap:
        """The map for these tokens: itself, unless it needs them.

        Raises:
            ConfigError: options that do not go with them.
        """
        return dataclasses.replace(self, axes=axes) if self.needs_axes else self

    def staged(self, step: int) -> LinearMap:
        """The map as it is after `step` updates: itself, unless it changes in training."""
        return self

    @property
    def n_routes(self) -> int | None:
        """Number of matrices among which a prompt chooses (`maps.routed`); None: there is one W_OV."""
        return None

    # --- what a new map defines -------------------------------------------------------------------

    @abstractmethod
    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters of a matrix [n_in, n_out], by name."""

    @abstractmethod
    def start(self, draw: Draw) -> dict[str, Tensor]:
        """Parameters at step 0 for the whole vocabulary, float64 on the CPU."""

    @abstractmethod
    def product(self, parameters: Parameters) -> Float[Any, "*run input output"]:
        """W_OV from the parameters; may return one of them instead of a copy."""

    # --- what it may override ---------------------------------------------------------------------

    def given(self, n_in: int, n_out: int) -> dict[str, Tensor]:
        """Parameters at step 0 that no start draws: constants, and what starts at 0; float64 on the CPU."""
        return {}

    def gradients(
        self, parameters: Parameters, grad: Float[Any, "*run input output"]
    ) -> dict[str, Float[Any, "..."]]:
        """Gradient of every parameter from the gradient of W_OV; by default through autograd."""
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        with torch.enable_grad():
            W = self.product(leaves)
        found = torch.autograd.grad(W, list(leaves.values()), grad, materialize_grads=True)
        return dict(zip(leaves, found, strict=True))

    def factors(self, parameters: Parameters) -> tuple[Any, Any]:
        """(W_V, W_O) of a map with factors.

        Raises:
            ConfigError: a map without factors.
        """
        raise ConfigError(f"a {self.name} OV circuit has no factors W_V and W_O: use its W_OV")

    def side(self, parameters: Parameters, of: str) -> tuple[Any, Any | None]:
        """Left and right factor of the "base" or the "update" of a map that has them; right None: left is it.

        Raises:
            ConfigError: a map without a base.
        """
        raise ConfigError(
            f"a {self.name} OV circuit has no {of}: leave of out, or use a run of ov='low_rank'"
        )

    # --- numpy arrays ---------------------------------------------------------------------------

    def array_product(
        self, parameters: Mapping[str, Float[np.ndarray, "..."]]
    ) -> Float[np.ndarray, "*run input output"]:
        """`product` of numpy arrays."""
        if self.array_native:
            return self.product(parameters)
        return self.product(_tensors(parameters)).numpy()

    def array_gradients(
        self,
        parameters: Mapping[str, Float[np.ndarray, "..."]],
        grad: Float[np.ndarray, "*run input output"],
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """`gradients` of numpy arrays."""
        if self.array_native:
            return self.gradients(parameters, grad)
        found = self.gradients(_tensors(parameters), torch.from_numpy(grad))
        return {name: value.numpy() for name, value in found.items()}

    # --- memory of a training step ----------------------------------------------------------------

    def product_into(
        self, parameters: Mapping[str, Tensor], out: Float[Tensor, "run input output"]
    ) -> Float[Tensor, "run input output"]:
        """`product`, written to the given memory, or the parameter that is the product."""
        return out.copy_(self.product(parameters))

    def pull_back(
        self,
        parameters: Mapping[str, Tensor],
        grad: Float[Tensor, "*run input output"],
        out: Mapping[str, Tensor],
    ) -> None:
        """`gradients`, written to the given memory; those of frozen parameters are left out."""
        for name, value in self.gradients(parameters, grad).items():
            if name in out:
                out[name].copy_(value)

    def gradient_memory(self, gradients: Mapping[str, Tensor]) -> Tensor | None:
        """The parameter gradient whose memory the gradient of W_OV may use; None: separate memory."""
        return None


def _tensors(parameters: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in parameters.items()}
