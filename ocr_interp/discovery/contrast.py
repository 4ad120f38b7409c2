"""What a circuit is found for: prompts with a right answer, donors that differ in it, and a measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.errors import ConfigError, ModelError, unknown_name
from ocr_interp.hooked.adapted.copies import as_hooked
from ocr_interp.hooked.padding import check_unpadded
from ocr_interp.hooked.protocol import check_model
from ocr_interp.hooked.tokens.ids import id_tensor, token_ids
from ocr_interp.hooked.tokens.labels import output_labels_of
from ocr_interp.hooked.tokens.prompts import encode_prompts, prompts_given

MEASURES = ("logit_difference", "log_probability")
"""The answer's logit minus that of `against` (without it, minus the mean of all others); or the answer's log
probability in nats. Both are means over prompts."""

Measure = Callable[[Tensor, "Contrast"], Any]
"""A user's measure: (logits at the query [batch, token], contrast) -> a value per prompt, differentiable."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """Prompts, donors and answers; made by `Contrast.of` from any form that a user has.

    Attributes:
        prompts: token ids [batch, pos], all of one length.
        donors: ids of a donor for each prompt [batch, pos], which differs in what the circuit is to be found
            for; None where nothing is patched (ablation to zero, means, other prompts).
        answer: id of the right answer of each prompt, among the outputs.
        against: id of the wrong answer that is subtracted; None is the mean of all others.
        query: position of the logits of each prompt; None is the last one.
        measure: an entry of MEASURES, or a function (logits at the query, contrast) -> a value per prompt.

    Raises:
        ConfigError: lengths that do not fit, an unknown measure.
    """

    prompts: Int[Tensor, "batch pos"] = field(repr=False)
    donors: Int[Tensor, "donor donor_pos"] | None = field(repr=False)
    answer: Int[Tensor, " answer"] = field(repr=False)
    against: Int[Tensor, " against"] | None = field(default=None, repr=False)
    query: Int[Tensor, " query"] | None = field(default=None, repr=False)
    measure: str | Measure = "logit_difference"

    def __post_init__(self) -> None:
        if not len(self.prompts) or not self.prompts.shape[1]:
            raise ConfigError(f"prompts must be [batch, pos], not empty, got {tuple(self.prompts.shape)}")
        if self.donors is not None and self.donors.shape != self.prompts.shape:
            raise ConfigError(
                f"donors must be one for each prompt and as long, {tuple(self.prompts.shape)}, got "
                f"{tuple(self.donors.shape)}: make donors of the prompts' lengths"
            )
        for name in ("answer", "against", "query"):
            value = getattr(self, name)
            if value is not None and value.shape != (len(self),):
                raise ConfigError(
                    f"{name} must have one entry a prompt ({len(self)}), got {tuple(value.shape)}"
                )
        if self.against is not None and bool((self.answer == self.against).any()):
            row = int((self.answer == self.against).nonzero()[0])
            raise ConfigError(f"against must be another token than the answer, got the same in row {row}")
        length = self.prompts.shape[1]
        if self.query is not None and not bool(((self.query >= -length) & (self.query < length)).all()):
            raise ConfigError(
                f"query must be positions in {-length}..{length - 1}, got {self.query.tolist()}"
            )
        if isinstance(self.measure, str) and self.measure not in MEASURES:
            raise unknown_name("measure", self.measure, MEASURES)
        if not isinstance(self.measure, str) and not callable(self.measure):
            raise ConfigError(f"measure must be one of {MEASURES} or a function, got {self.measure!r}")

    @classmethod
    def of(
        cls,
        model: Any,
        prompts: Any,
        donors: Any,
        answer: Any,
        against: Any = None,
        *,
        query: Any = None,
        measure: str | Measure = "logit_difference",
        labels: Sequence[str] | None = None,
        output_labels: Sequence[str] | None = None,
    ) -> Contrast:
        """A contrast from texts, labels, ids, arrays, tensors or columns of a table.

        Args:
            model: gives tokenizer and labels.
            prompts, donors: as for `ablation.Patch`: ids, lists of labels, texts for the tokenizer, columns.
                One prompt may come without the axis of the batch; donors None for none.
            answer, against: one token for all prompts, or one for each; ids or single-token strings.
            query: position of the logits, for all prompts or for each.
            measure: see `Contrast`.
            labels, output_labels: a label for every token id, and for every logit.

        Raises:
            ModelError: prompts of different lengths, padding, a token that is none.
            UnknownNameError: an unknown label; the message lists close matches.
        """
        model = check_model(as_hooked(model))
        tokens = _encoded(model, prompts, labels, "prompts")
        others = None if donors is None else _encoded(model, donors, labels, "donors")
        if others is not None and len(others) == 1 < len(tokens):
            others = others.expand(len(tokens), -1)
        names, size = output_labels_of(model, labels, output_labels), len(tokens)
        at = None if query is None else id_tensor([query] if isinstance(query, int) else query, "query")
        return cls(
            tokens,
            others,
            _answers(model, answer, names, size, "answer"),
            None if against is None else _answers(model, against, names, size, "against"),
            at if at is None or len(at) == size else at.expand(size),
            measure,
        )

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, chosen: slice) -> Contrast:
        """Some of the prompts."""
        return Contrast(
            self.prompts[chosen],
            None if self.donors is None else self.donors[chosen],
            self.answer[chosen],
            None if self.against is None else self.against[chosen],
            None if self.query is None else self.query[chosen],
            self.measure,
        )

    def at_query(self, logits: Float[Tensor, "batch pos token"]) -> Float[Tensor, "batch token"]:
        """The logits at each prompt's query."""
        if self.query is None:
            return logits[:, -1]
        return logits[torch.arange(len(logits), device=logits.device), self.query.to(logits.device)]

    def values(self, logits: Float[Tensor, "batch pos token"]) -> Float[Tensor, " batch"]:
        """The measure of each prompt, in at least single precision."""
        found = self.at_query(logits)
        found = found if found.dtype == torch.float64 else found.float()
        answer = self.answer.to(found.device)[:, None]
        if callable(self.measure):
            values = torch.as_tensor(self.measure(found, self))
            if values.shape != (len(found),):
                raise ConfigError(
                    f"measure must give one value for each of {len(found)} prompts, got {tuple(values.shape)}"
                )
            return values
        own = found.gather(1, answer)[:, 0]
        if self.measure == "log_probability":
            return own - found.logsumexp(1)
        if self.against is not None:
            return own - found.gather(1, self.against.to(found.device)[:, None])[:, 0]
        return own - (found.sum(1) - own) / (found.shape[1] - 1)


def _encoded(model: Any, given: Any, labels: Sequence[str] | None, what: str) -> Tensor:
    ids = encode_prompts(model, prompts_given(given, what), labels, what)
    check_unpadded(model, ids, what, hint="pass prompts of one length without padding")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= int(model.W_E.shape[0]):
        raise ModelError(f"{what} must be token ids in 0..{int(model.W_E.shape[0]) - 1}, got {low}..{high}")
    return ids


def _answers(model: Any, given: Any, labels: Sequence[str], count: int, what: str) -> Tensor:
    if hasattr(given, "to_list"):
        given = given.to_list()
    single = isinstance(given, str | int) or getattr(given, "ndim", 1) == 0
    ids = token_ids(model, [given] if single else given, labels, what, repeats=True)
    if len(ids) not in (1, count):
        raise ModelError(f"{what} must be one token, or one for each of {count} prompts, got {len(ids)}")
    return torch.tensor(ids * (count if len(ids) == 1 else 1))
