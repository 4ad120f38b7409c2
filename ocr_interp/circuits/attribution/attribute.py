"""attribute(run_or_model, ...): what each token of a prompt adds to an answer's logit."""

from __future__ import annotations

from collections.abc import Sequence

from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.attribution.of_run import Attribution, attribute_run
from ocr_interp.errors import ModelError
from ocr_interp.hooked.protocol import AdaptedModel, HookedModel
from ocr_interp.hooked.tokens.ids import Token, TokenList
from ocr_interp.hooked.tokens.prompts import one_prompt
from ocr_interp.models.trained import TrainedModel


def attribute(
    model: TrainedModel | HookedModel | AdaptedModel,
    prompt: TokenList | Sequence[TokenList] | str,
    answer: Token,
    against: Token | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    kinds: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    output_labels: Sequence[str] | None = None,
) -> Attribution:
    """Contributions of a prompt's positions to an answer's logit, or to a logit difference, at its end.

    Contributions sum to the logit: of a fact-recall run exactly, from its weights; of any hooked model
    checked against a forward pass. `ocr_interp.circuits.direct_attribution` gives every head and MLP of any
    model at once.

    Args:
        model: a Run or Snapshot, or any HookedTransformer, TransformerBridge or PeftModel.
        prompt: token ids, labels or single-token strings, the query last (EOS for a run); of a hooked model
            also a text for its tokenizer; a batch of one is one prompt. Nothing is prepended.
        answer, against: the answer, and the one that is subtracted.
        layer, head: which head of a hooked model; left out for one-layer attention-only models, of which
            all heads, the direct path and the biases are given. A run has one head.
        kinds: of a hooked model, kind of every position; without them each is "token". A run's kinds come
            from its task.
        labels: of a hooked model, a label for every token id; without them the tokenizer's tokens. A run's
            labels are those of its task.
        output_labels: of a hooked model, a label for every logit, where the outputs are another vocabulary.

    Raises:
        UnknownNameError: an unknown token, with the close matches.
        ModelError: a missing or unknown layer or head, options of a hooked model given for a run, or a model
            whose heads have no OV circuit; or several prompts.
        AttributionError: contributions that do not sum to the total.
    """
    one = one_prompt(prompt)
    if not isinstance(model, TrainedModel):
        return attribute_model(
            model,
            one,
            answer,
            against,
            layer=layer,
            head=head,
            kinds=kinds,
            labels=labels,
            output_labels=output_labels,
        )
    named = labels is not None or output_labels is not None
    if (layer, head) not in ((None, None), (0, 0)) or kinds is not None or named:
        raise ModelError(
            f"a fact-recall run has one head and the tokens of its task, got layer={layer}, head={head}"
            f"{', kinds' if kinds is not None else ''}{', labels' if named else ''}: leave them "
            "out, or pass run.model"
        )
    return attribute_run(model, one, answer, against)
