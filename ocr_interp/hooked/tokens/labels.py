"""A label for every token of a model: attached to it once, given with a call, or its tokenizer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from ocr_interp.errors import ModelError
from ocr_interp.hooked.protocol import AdaptedModel, HookedModel


@dataclass(frozen=True)
class Names:
    """What was attached to a model by `name_tokens`; None where nothing was."""

    labels: Sequence[str] | None = None
    output_labels: Sequence[str] | None = None
    tokenizer: Any = None


NAMES: WeakKeyDictionary[Any, Names] = WeakKeyDictionary()
"""Names by model, as long as the model lives."""


def names_of(model: object) -> Names:
    """What was attached to a model."""
    return NAMES.get(model, Names())


def tokenizer_of(model: HookedModel) -> Any:
    """The tokenizer that was attached to a model, or its own, or None."""
    attached = names_of(model).tokenizer
    return getattr(model, "tokenizer", None) if attached is None else attached


def name_tokens(
    model: HookedModel | AdaptedModel,
    labels: Sequence[str] | None = None,
    output_labels: Sequence[str] | None = None,
    *,
    tokenizer: Any = None,
) -> None:
    """Attaches labels to a model once: circuits, attributions, graphs and ablations of it know them then.

    Labels given to one of those calls go before the attached ones, and these before a tokenizer's tokens.
    What was attached before is replaced; without arguments it is taken away. The model is left as it is.

    Args:
        model: a HookedTransformer, a TransformerBridge or a PeftModel; a copy of it has no labels attached.
        labels: a label for every token id.
        output_labels: a label for every logit, where the outputs are another vocabulary.
        tokenizer: makes ids of texts, where the model has none (a PeftModel) or another one is meant.

    Raises:
        ModelError: labels of another length than the vocabulary.
    """
    if isinstance(model, HookedModel):
        labels_of(model, labels)
        if output_labels is not None:
            output_labels_of(model, labels, output_labels)
    given = (None if each is None else tuple(each) for each in (labels, output_labels))
    NAMES[model] = Names(*given, tokenizer=tokenizer)


def labels_of(model: HookedModel, labels: Sequence[str] | None) -> Sequence[str]:
    """A label for every token id that goes in: those given or attached, or the tokenizer's, or "token 17".

    Raises:
        ModelError: labels of another length than the vocabulary.
    """
    labels = names_of(model).labels if labels is None else labels
    return _labels(model, labels, int(model.W_E.shape[0]), "token", "labels")


def output_labels_of(
    model: HookedModel, labels: Sequence[str] | None, output_labels: Sequence[str] | None = None
) -> Sequence[str]:
    """A label for every logit: those given or attached, or where there are none the labels of the inputs.

    A model whose outputs are another vocabulary (d_vocab_out is not d_vocab) has the tokenizer's labels, or
    "output 17".

    Raises:
        ModelError: labels of another length than the vocabulary.
    """
    count = int(model.W_U.shape[1])
    output_labels = names_of(model).output_labels if output_labels is None else output_labels
    if output_labels is None and count == int(model.W_E.shape[0]):
        return labels_of(model, labels)
    return _labels(model, output_labels, count, "output", "output_labels")


def _labels(
    model: HookedModel, labels: Sequence[str] | None, count: int, word: str, what: str
) -> Sequence[str]:
    if labels is not None:
        if len(labels) != count:
            raise ModelError(f"{what} must have one entry a token ({count}), got {len(labels)}")
        return labels
    tokenizer: Any = tokenizer_of(model)
    if tokenizer is None:
        return [f"{word} {index}" for index in range(count)]
    names = tokenizer.convert_ids_to_tokens(list(range(min(count, len(tokenizer)))))
    names += [None] * (count - len(names))
    return [f"{word} {index}" if name is None else name for index, name in enumerate(names)]
