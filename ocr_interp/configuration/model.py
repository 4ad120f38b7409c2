"""The configuration of a model: a plain dataclass that imports neither torch nor transformer_lens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ocr_interp.checks import (
    Option,
    Options,
    as_options,
    as_plain,
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_text,
    typed_options,
)
from ocr_interp.maps import maps
from ocr_interp.naming import MOST_ENTRIES

if TYPE_CHECKING:
    from ocr_interp.maps.base import LinearMap
    from ocr_interp.task import FactRecallTask

ATTENTIONS = ("linear", "softmax")


@dataclass(frozen=True)
class ModelConfig:
    """A one-layer, one-head, attention-only transformer with one-hot embeddings.

    Attributes:
        ov: the parameterisation of W_OV, a name in `ocr_interp.maps`. A "factorized" model trains W_V and
            W_O, a "non_factorized" one trains W_OV as one matrix; "deep": three factors or more; "low_rank":
            an update of a frozen W_0 (LoRA); "kronecker", "compacter": sums of Kronecker products; "routed":
            experts chosen by relation, subject or a router.
        d_head: width of the OV circuit; None: the vocabulary size, the only width of a non-factorized model.
        ov_options: further options of the parameterisation, as (name, value) pairs or a dict. "low_rank" has
            rank, routed experts have by ("relation", "subject", "token" or "sequence"), routed_side,
            n_experts, or by relation experts, such as "r1+r2|r3"; an unknown name is refused with the list of
            all.
        attention: "linear" weights each token by its score, as in the paper's experiments; "softmax"
            normalises the scores.
        train_attention: whether W_Q W_K^T is trained. Frozen attention is uniform over tokens: every score
            is 1 with linear attention and 0 before a softmax.
        init: how the weights are initialised.
            "product": W_V and W_O normal; a non-factorized model starts at exactly W_V W_O.
            "entries": W_V and W_O normal; a non-factorized W_OV has normal entries of the same size.
            "constant": every entry 1e-4 (the released non-factorized script); only non-factorized.
            "symmetric": symmetric under permuting pairs, for Theorem 3; see
                `ocr_interp.models.starts.symmetric_factors`.
        init_scale: factor on the size of the initial entries: on their standard deviation d_vocab^-1/2,
            on the 1e-4 of "constant", or on the 0.1 of "symmetric".
        attention_init: initial scores of trained attention: "random" draws them like the entries, "uniform"
            takes those of frozen attention. The inits "constant" and "symmetric" set their own scores.
        dtype: "float32" or "float64".

    Raises:
        ConfigError: a value that is not allowed; the message names the field.

    Source: Huang et al. 2025, section 3; docs/theory.md §9.
    """

    ov: str = "factorized"
    d_head: int | None = None
    ov_options: Options | dict[str, Option] = ()
    attention: Literal["linear", "softmax"] = "linear"
    train_attention: bool = True
    init: str = "product"
    init_scale: float = 1.0
    attention_init: Literal["random", "uniform"] = "random"
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        maps.check("ov", self.ov)
        if self.d_head is not None:
            check_count("d_head", self.d_head, 1, MOST_ENTRIES)
        object.__setattr__(self, "ov_options", as_options("ov_options", self.ov_options))
        check_text("init", self.init)
        check_choice("attention", self.attention, ATTENTIONS)
        check_flag("train_attention", self.train_attention)
        check_number("init_scale", self.init_scale, above=0)
        check_choice("attention_init", self.attention_init, ("random", "uniform"))
        check_choice("dtype", self.dtype, ("float32", "float64"))
        as_plain(self)
        if self.ov_options or self.init != "product":  # checking these imports torch
            of_map = typed_options(
                f"ov={self.ov!r}", dict(self.ov_options), maps[self.ov].options(), maps[self.ov].hints()
            )
            object.__setattr__(self, "ov_options", maps[self.ov].settled(of_map))
            _ = self.linear_map

    @cached_property
    def linear_map(self) -> LinearMap:
        """The parameterisation of W_OV with its options."""
        return maps[self.ov].of(self.d_head, dict(self.ov_options), self.init)

    def placed_map(self, task: FactRecallTask) -> LinearMap:
        """The parameterisation for the vocabulary of a task, with the task's tokens as its rows and columns.

        Raises:
            ConfigError: options that do not go with the task.
        """
        from ocr_interp.maps.axes import TokenAxes

        return self.linear_map.placed(TokenAxes.of_vocabulary(task))

    def resolved_d_head(self, d_vocab: int) -> int:
        """The width for a vocabulary of this size.

        Raises:
            ConfigError: a d_head that the parameterisation cannot have.
        """
        return self.linear_map.width(d_vocab)
