"""What a model is: a plain dataclass that imports neither torch nor transformer_lens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ocr_interp.checks import as_plain, check_choice, check_count, check_flag, check_number
from ocr_interp.errors import ConfigError

OV_KINDS = ("factorized", "non_factorized")
ATTENTIONS = ("linear", "softmax")
INITS = ("product", "entries", "constant", "symmetric")


@dataclass(frozen=True)
class ModelConfig:
    """A one-layer, one-head, attention-only transformer with one-hot embeddings.

    Attributes:
        ov: "factorized" trains W_V and W_O, "non_factorized" trains their product W_OV alone.
        d_head: width of the factorized OV circuit; None takes the vocabulary size. A non-factorized
            model has no width to choose.
        attention: "linear" weighs a token by its score, as the paper's experiments do; "softmax"
            normalises the scores.
        train_attention: whether W_Q W_K^T is trained. Frozen attention is uniform over tokens:
            every score 1 (linear) or 0 (softmax).
        init: where training starts.
            "product": W_V and W_O normal; a non-factorized model starts at exactly W_V W_O.
            "entries": W_V and W_O normal; a non-factorized W_OV has normal entries of their size.
            "constant": every entry 1e-4 (the released non-factorized script); only non-factorized.
            "symmetric": symmetric under permuting pairs, for Theorem 3; written out in
                `ocr_interp.models.starts.symmetric_weights`.
        init_scale: multiplies the standard deviation d_vocab^-1/2 of the entries at the start (for
            "constant" the 1e-4, for "symmetric" the entries 0.1).
        attention_init: scores at the start of trained attention: "random" as the entries,
            "uniform" as frozen attention. "constant" and "symmetric" starts have their own.
        dtype: "float32" or "float64".

    Raises:
        ConfigError: a value that is not allowed, by name.

    Source: Huang et al. 2025, section 3; theory.md §2.
    """

    ov: Literal["factorized", "non_factorized"] = "factorized"
    d_head: int | None = None
    attention: Literal["linear", "softmax"] = "linear"
    train_attention: bool = True
    init: Literal["product", "entries", "constant", "symmetric"] = "product"
    init_scale: float = 1.0
    attention_init: Literal["random", "uniform"] = "random"
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        check_choice("ov", self.ov, OV_KINDS)
        if self.d_head is not None:
            check_count("d_head", self.d_head, 1)
        check_choice("attention", self.attention, ATTENTIONS)
        check_flag("train_attention", self.train_attention)
        check_choice("init", self.init, INITS)
        check_number("init_scale", self.init_scale, above=0)
        check_choice("attention_init", self.attention_init, ("random", "uniform"))
        check_choice("dtype", self.dtype, ("float32", "float64"))
        if self.init == "constant" and self.ov == "factorized":
            raise ConfigError(
                "init='constant' is only for ov='non_factorized', got ov='factorized': constant factors are "
                "a saddle that gradient descent never leaves; use init='product'"
            )
        as_plain(self)

    def resolved_d_head(self, d_vocab: int) -> int:
        """The width for a vocabulary of this size.

        Raises:
            ConfigError: a non-factorized model with a d_head other than d_vocab.
        """
        if self.d_head is None:
            return d_vocab
        if self.ov == "non_factorized" and self.d_head != d_vocab:
            raise ConfigError(
                f"d_head must be None or d_vocab = {d_vocab} for ov='non_factorized' (W_OV is one square "
                f"matrix), got {self.d_head}: for a narrow OV circuit use ov='factorized'"
            )
        return self.d_head
