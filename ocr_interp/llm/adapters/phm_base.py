"""Adapters of PHM layers: what Compacter, Compacter++ and PHM-adapter share. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from ocr_interp.checks import Option, check_count, check_number
from ocr_interp.errors import ConfigError, unknown_name
from ocr_interp.llm.adapters.base import Adapter, Recipe

if TYPE_CHECKING:
    from torch import Tensor

NON_LINEARITIES = ("gelu", "gelu_new", "relu", "silu", "tanh")
_REDUCTIONS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class PhmMethod(Adapter):
    """x + up(activation(down(x))) on what attention and MLPs add to the residual stream, of PHM layers.

    Options, named as in the `adapters` library:
        phm_dim: n, the number of Kronecker products in a layer; divides both widths.
        phm_rank: rank of the B_i.
        shared_phm_rule: whether the A_i are shared by all layers of the model.
        factorized_phm_W: whether B_i = s_i t_i; else it is a free matrix.
        learn_phm: whether the A_i are trained.
        phm_c_init: "normal" or "uniform", what the A_i are drawn from.
        phm_init_range: their standard deviation, or the largest size of a uniform draw.
        phm_bias: whether the layers have biases.
        reduction_factor: width of the stream over that of the bottleneck.
        non_linearity: one of NON_LINEARITIES.
        train_norms: whether all norms of the model are trained too, as in the paper.

    `FinetuneConfig.train_parts` says after what there are adapters: "attention", "mlp" or both.

    Attributes:
        default_parts: after what there are adapters where `train_parts` does not say it.
    """

    default_parts: ClassVar[tuple[str, ...]] = ("attention", "mlp")
    takes_parts = True
    options = MappingProxyType(
        {
            "phm_dim": 4,
            "phm_rank": 1,
            "shared_phm_rule": True,
            "factorized_phm_W": True,
            "learn_phm": True,
            "phm_c_init": "normal",
            "phm_init_range": 1e-4,
            "phm_bias": True,
            "reduction_factor": 8,
            "non_linearity": "gelu",
            "train_norms": True,
        }
    )
    why_not_merged = (
        "a bottleneck is not linear, so there is no change of W and no OV circuit of it; the heads' own W "
        "can be read, and what each adapter reads and writes (llm.layers.phm.read_and_write)"
    )
    start_tolerance = 1e-5
    """The start is near 0 and not at 0: of size phm_init_range squared."""

    def check(self, settings: Mapping[str, Option]) -> None:
        """Raises ConfigError for a size below 1 or a name that is not known."""
        for name in ("phm_dim", "phm_rank", "reduction_factor"):
            check_count(name, settings[name], 1)
        check_number("phm_init_range", settings["phm_init_range"], above=0)
        for name, known in (("non_linearity", NON_LINEARITIES), ("phm_c_init", ("normal", "uniform"))):
            if settings[name] not in known:
                raise unknown_name(name, settings[name], known)

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Puts the adapters behind the branches; they and the norms, if asked, are trained."""
        from ocr_interp.llm.layers.hooking import add_beside
        from ocr_interp.llm.layers.layout import layout_of
        from ocr_interp.llm.layers.parts import chosen_branches
        from ocr_interp.llm.layers.phm import ADAPTERS, Bottleneck, BottleneckAdapters

        settings, layout = self.settings(recipe), layout_of(model)
        chosen = chosen_branches(model, layout, recipe.train_parts or self.default_parts, recipe.method)
        width = int(model.config.get_text_config().hidden_size)
        reduction = checked_sizes(type(model).__name__, width, settings)
        adapters = BottleneckAdapters(dict.fromkeys((path for path, _ in chosen), width), reduction, settings)
        model.requires_grad_(False)
        if settings["train_norms"]:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in layout.norms)
        add_beside(model, ADAPTERS, adapters)
        for path, adapter in adapters.after.items():
            assert isinstance(adapter, Bottleneck)
            model.get_submodule(path.replace("/", ".")).register_forward_hook(adapter.on_output)
        return model

    def state(self, model: Any) -> dict[str, Tensor]:
        """The A_i where they are not trained: they were drawn, and are no parameters that are saved."""
        from ocr_interp.llm.layers.phm import ADAPTERS

        rules = getattr(model, ADAPTERS).rules()
        return {name: A for name, A in rules.items() if not A.requires_grad}

    def activations_per_token(self, model: Any, recipe: Recipe) -> int:
        """The input, the bottleneck before and after its activation, and the sum, for every adapter."""
        from ocr_interp.llm.layers.phm import ADAPTERS

        width = int(model.config.get_text_config().hidden_size)
        inner = width // int(self.settings(recipe)["reduction_factor"])
        return len(getattr(model, ADAPTERS).after) * 2 * (width + inner)


def checked_sizes(name: str, width: int, settings: Mapping[str, Option]) -> int:
    """The reduction factor, if it and phm_dim divide the widths.

    Args:
        name: of the model, for the message.
        width: of the residual stream.
        settings: all options.

    Raises:
        ConfigError: they do not; the message lists what does.
    """
    n, reduction = int(settings["phm_dim"]), int(settings["reduction_factor"])
    if width % (n * reduction) == 0:
        return reduction
    dims = [k for k in range(2, 33) if width % (k * reduction) == 0]
    factors = [k for k in _REDUCTIONS if width % (n * k) == 0]
    ways = [_listed("phm_dim", dims, f"with reduction_factor {reduction}")]
    ways.append(_listed("reduction_factor", factors, f"with phm_dim {n}"))
    raise ConfigError(
        f"phm_dim must divide the width of {name}, {width}, and that of the bottleneck, "
        f"{width}/reduction_factor, got phm_dim {n} and reduction_factor {reduction} "
        f"({width / reduction:g}): {' or '.join(ways)}"
    )


def _listed(option: str, values: Sequence[int], where: str) -> str:
    return f"{where} {option} can be {', '.join(map(str, values))}" if values else f"{where} no {option} fits"
