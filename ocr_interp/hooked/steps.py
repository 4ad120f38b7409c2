"""What a probe of a model found: one step of the way from tokens to logits each, with its relative error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ocr_interp.errors import ModelError

COARSE = 1e-3
"""Where the tolerance is above this, the precision allows no check worth the name."""

POST_NORM = "values read the stream without ln1: the model is post-norm"
"""The note of a step of values that is explained by this."""


@dataclass(frozen=True)
class Step:
    """One step on the way from tokens to logits: what the model did beside what the weights say.

    Attributes:
        what: the equation that was asked.
        error: size of the difference over the size of what is compared; None if it could not be asked.
        tolerance: what the model's dtype allows.
        factor: the number that the model multiplies by, if that is the whole difference; else None.
        grows: whether what the model gives is at least a growing function of what the weights say.
        note: why it could not be asked, or what the difference looks like.
    """

    what: str
    error: float | None
    tolerance: float
    factor: float | None = None
    grows: bool = False
    note: str = ""

    @property
    def tallies(self) -> bool:
        """Whether the model was seen to do what the weights say, as far as its precision tells."""
        return self.error is not None and self.error <= self.tolerance

    @property
    def differs(self) -> bool:
        """Whether the model was seen to do something else."""
        return self.error is not None and not self.error <= self.tolerance

    def describe(self) -> str:
        """One phrase with the error."""
        if self.error is None:
            return f"{self.what}: not checked, {self.note}"
        if self.differs:
            by = f"the model has {self.factor:.6g} times that" if self.factor is not None else self.note
            return f"{self.what}: off by {self.error:.2g} of its size" + (f", {by}" if by else "")
        if self.tolerance > COARSE:
            return (
                f"{self.what}: no real check, the model's precision tells only differences above "
                f"{self.tolerance:.1%} (found {self.error:.1%})"
            )
        return f"{self.what}: to {self.error:.1g}"


@dataclass(frozen=True)
class HeadProbe:
    """What a model was seen to do around one attention head.

    Attributes:
        layer, head: which head.
        values: hook_v = ln1(resid_pre) W_V + b_V.
        attention: sum over keys of pattern × v = z.
        writing: the change of the stream when z is edited = the edit through W_O.
        reading: the last stream through the final norm and W_U, plus b_U = the logits.
        embedding: what enters the first block = the token's row of W_E.
        embeds: "rows" (as W_E has them, positions aside), "tokens" (another function of the token alone),
            "scaled" (rows times `embedding.factor`, positions aside) or "mixed" (token and position).
        limited: whether values a hundred times as large reach z as something else.
    """

    layer: int
    head: int
    values: Step
    attention: Step
    writing: Step
    reading: Step
    embedding: Step
    embeds: str
    limited: bool

    def steps(self, names: Sequence[str] = ("values", "attention", "writing", "reading")) -> dict[str, Step]:
        """Some of the steps by name."""
        return {name: getattr(self, name) for name in names}

    def require(self, names: Sequence[str], purpose: str) -> None:
        """Requires that none of these steps was seen to be something else.

        Raises:
            ModelError: says which step failed, by how much, and what to do.
        """
        for name, step in self.steps(names).items():
            if step.differs:
                raise ModelError(
                    f"{purpose} of layer {self.layer}, head {self.head} needs {step.what}, got a difference "
                    f"of {step.error:.2g} of its size{self._measured(step)}: {_ADVICE[name]}"
                )

    def require_norm_before(self) -> None:
        """Requires that values do not read the stream without ln1.

        Raises:
            ModelError: they do: the norm comes after attention.
        """
        if self.values.note == POST_NORM:
            raise ModelError(f"layer {self.layer} must have its norm before attention, got that {POST_NORM}")

    @staticmethod
    def _measured(step: Step) -> str:
        if step.factor is not None:
            return f" (the model has {step.factor:.6g} times that)"
        return f" ({step.note})" if step.note else ""


_ADVICE = {
    "values": "merge adapters first (merge_and_unload) or pass the PeftModel itself to from_model, undo "
    "parametrisations and quantization; a post-norm model has no OV circuit",
    "attention": "something stands between the values and W_O (a clamp such as clip_qkv, a gate, a norm); "
    "edit or attribute activations at hook_z instead",
    "writing": "something stands between W_O and the residual stream (an unmerged adapter, a norm, a gate, a "
    "multiplier); merge adapters, or attribute activations at hook_attn_out instead",
    "reading": "something stands between the residual stream and the logits (an unmerged adapter, a cap, a "
    "multiplier of logits or another norm); merge adapters or pass the PeftModel itself to from_model, or "
    "measure logits by ablation instead",
}
