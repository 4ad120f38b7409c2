"""Bottleneck adapters of PHM layers: maps that are sums of Kronecker products (arXiv 2106.04647)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ocr_interp.checks import Option
from ocr_interp.errors import ModelError
from ocr_interp.llm.layers.hooking import changed_output

ADAPTERS = "phm_adapters"
"""Name under which a model holds its `BottleneckAdapters`."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


class Rule(nn.Module):
    """The matrices A_i of one layer, or of all."""

    def __init__(self, settings: Mapping[str, Option]) -> None:
        super().__init__()
        n, size = int(settings["phm_dim"]), float(settings["phm_init_range"])
        A = torch.empty(n, n, n)
        A = A.normal_(0, size) if settings["phm_c_init"] == "normal" else A.uniform_(-size, size)
        self.A = nn.Parameter(A, requires_grad=bool(settings["learn_phm"]))


class PHMLinear(nn.Module):
    """y = x H + b with H = Σ_i A_i ⊗ B_i, where B_i = s_i t_iᵀ, or free.

    Args:
        n_in, n_out: widths; phm_dim divides both.
        settings: the options of `PhmMethod`.
        rule: A, shared with other layers; None gives the layer its own.
    """

    def __init__(self, n_in: int, n_out: int, settings: Mapping[str, Option], rule: Rule | None) -> None:
        super().__init__()
        n, rank = int(settings["phm_dim"]), int(settings["phm_rank"])
        if rule is None:
            self.rule = Rule(settings)
        # A tuple is not registered: what is shared belongs to the model.
        self._shared = () if rule is None else (rule,)
        if settings["factorized_phm_W"]:
            self.s = nn.Parameter(_xavier(n, n_in // n, rank))
            self.t = nn.Parameter(_xavier(n, rank, n_out // n))
        else:
            self.W = nn.Parameter(_xavier(n, n_in // n, n_out // n))
        self.bias = nn.Parameter(torch.zeros(n_out)) if settings["phm_bias"] else None

    @property
    def A(self) -> Float[Tensor, "n n n"]:
        """The n matrices A_i."""
        return (self._shared[0] if self._shared else self.rule).A

    @property
    def B(self) -> Float[Tensor, "n rows columns"]:
        """The n matrices B_i."""
        return self.s @ self.t if hasattr(self, "s") else self.W

    def matrix(self) -> Float[Tensor, "n_in n_out"]:
        """H, whose block (a, b) is Σ_i A_i[a, b] B_i."""
        A, B = self.A, self.B
        n, rows, columns = B.shape
        blocks = A.reshape(n, n * n).T @ B.reshape(n, rows * columns)
        return blocks.reshape(n, n, rows, columns).transpose(1, 2).reshape(n * rows, n * columns)

    def forward(self, x: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
        """x H + b."""
        return functional.linear(x, self.matrix().T, self.bias)


class Bottleneck(nn.Module):
    """x + up(activation(down(x))), for the output of a branch."""

    def __init__(self, width: int, inner: int, settings: Mapping[str, Option], rule: Rule | None) -> None:
        super().__init__()
        self.down = PHMLinear(width, inner, settings, rule)
        self.up = PHMLinear(inner, width, settings, rule)
        self._activation = str(settings["non_linearity"])

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The branch's output with the adapter's added."""
        own = x.to(self.down.B.dtype)
        return (own + self.up(_ACTIVATIONS[self._activation](self.down(own)))).to(x.dtype)

    def on_output(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The forward hook on the branch."""
        return changed_output(output, self)


class BottleneckAdapters(nn.Module):
    """All adapters of a model.

    Args:
        branches: path of the module that makes what a branch adds -> width of the stream.
        reduction: the width of the stream over that of the bottlenecks.
        settings: the options of `PhmMethod`.
    """

    def __init__(self, branches: Mapping[str, int], reduction: int, settings: Mapping[str, Option]) -> None:
        super().__init__()
        self.rule = Rule(settings) if settings["shared_phm_rule"] else None
        made = {
            path.replace(".", "/"): Bottleneck(width, width // reduction, settings, self.rule)
            for path, width in branches.items()
        }
        self.after = nn.ModuleDict(made)

    def rules(self) -> dict[str, Tensor]:
        """The matrices A by name."""
        return {name: parameter for name, parameter in self.named_parameters() if name.endswith("rule.A")}


def read_and_write(model: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """What can be read of each adapter: it reads by the columns of `down` and writes by the rows of `up`.

    Args:
        model: a model with adapters of Compacter or its relatives.

    Returns: path of the module that an adapter follows -> (down [d_model, k], up [k, d_model]), detached.

    Raises:
        ModelError: a model without such adapters.
    """
    adapters = getattr(model, ADAPTERS, None)
    if not isinstance(adapters, BottleneckAdapters):
        raise ModelError(
            f"{type(model).__name__} has no PHM adapters: pass what llm.wrap(model, 'compacter') or "
            "load_finetuned gave"
        )
    return {
        path.replace("/", "."): (one.down.matrix().detach(), one.up.matrix().detach())
        for path, one in adapters.after.items()
        if isinstance(one, Bottleneck)
    }


def _xavier(n: int, rows: int, columns: int) -> Tensor:
    """n matrices, each Xavier-uniform with gain √2."""
    bound = math.sqrt(2) * math.sqrt(6 / (rows + columns))
    return torch.empty(n, rows, columns).uniform_(-bound, bound)
