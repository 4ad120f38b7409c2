"""`with ablated(model, spec):` applies interventions while the block runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ocr_interp.ablation.binding import Bound
from ocr_interp.ablation.edits.base import Intervention
from ocr_interp.errors import InterventionNeverFiredError, ModelError, OcrInterpError
from ocr_interp.hooked.alone import length_told
from ocr_interp.hooked.asked.decoder import check_decoder
from ocr_interp.hooked.asked.used_hooks import uses_hook
from ocr_interp.hooked.asked.wrapped import require_wrapped
from ocr_interp.hooked.padding import Padding, check_unpadded
from ocr_interp.hooked.passes import reading_tokens
from ocr_interp.hooked.protocol import HookedModel, check_model
from ocr_interp.hooked.tokens.ids import Ids, id_tensor
from ocr_interp.stream.editing import remove_hook


@contextmanager
def ablated(
    model: HookedModel,
    *interventions: Intervention,
    tokens: Ids = None,
    labels: Sequence[str] | None = None,
    attention_mask: Any = None,
    output_labels: Sequence[str] | None = None,
) -> Iterator[Any]:
    """Applies interventions to a HookedTransformer or TransformerBridge while the block runs.

    They act on model(tokens), run_with_cache, run_with_hooks and everything else that runs the model, in
    order, each on the result of the one before. They run after hooks that are already attached and before
    hooks that the block adds; model.reset_hooks() inside the block does not remove them. Blocks can be
    nested. Weights are never changed. After the block the hooks are removed, and logits are the same as
    before to the bit. Gradients flow through the interventions. model.generate works with
    use_past_kv_cache=False: a forward pass that continues a key-value cache is refused. The weights are not
    checked, and an ablation can hide a NaN (`run_ablation_study` refuses such a model).

    Args:
        model: any `hooked.protocol.HookedModel`.
        interventions: what to apply, in order, e.g. Zero().at(Site.at("z", layer=0, heads=[3])).
        tokens: ids of the batch, if the model does not get ids itself (inputs_embeds, start_at_layer).
        labels: a label for every token id, e.g. task.labels, for interventions that name tokens by label.
        attention_mask: of padded prompts, 1 at tokens and 0 at padding; pass it to the model too. Padding is
            then never acted on, and positions are counted within each prompt. Prompts are edited by length:
            resampling takes values of another prompt of the same length.
        output_labels: a label for every logit, where the outputs are another vocabulary.

    Returns: the model, inside the block.

    Raises:
        UnknownNameError, ModelError: a hook, head, layer or token that does not exist, a model that is not
            decoder-only, or a bridge that gives other logits than the model inside it; nothing is attached.
        ModelError: in a forward pass, a key-value cache that already has positions; at the end, hooks that
            were removed inside the block, or padding that only the model or only this function was told of.
        ModelError: a forward pass inside the block that failed on prompts longer than the model's context.
        InterventionNeverFiredError: at the end, an intervention that changed no forward pass (forward passes
            of the reference or donor of an inner block do not count), or one at a hook whose value the model
            does not use (native attention; see `hooked.asked.used_hooks`). If the block raises, its own
            exception is raised instead.
    """
    model = check_model(model)
    if not interventions:
        raise OcrInterpError("ablated needs at least one intervention, got none: pass Zero().at(site)")
    for each in interventions:
        if not isinstance(each, Intervention):
            raise OcrInterpError(f"ablated takes interventions such as Zero().at(site), got {each!r}")
    ids = None if tokens is None else id_tensor(tokens, "tokens")
    padding = None if attention_mask is None else Padding.of(attention_mask, ids)
    if ids is not None and padding is None:
        check_unpadded(model, ids, "tokens")
    check_decoder(model)
    require_wrapped(model, "an intervention")
    with reading_tokens(model, ids, padding) as reader:
        reader.output_labels = output_labels
        bound = [each.bind(model, reader, labels) for each in interventions]
        known = model.hook_dict  # which a bridge makes anew at every call
        hooks = [(known[name], function) for each in bound for name, function in each.hooks]
        try:
            with ExitStack() as stack, length_told(model, lambda: reader.longest):
                for module, function in (pair for each in bound for pair in each.modules):
                    stack.callback(module.register_forward_pre_hook(function).remove)
                for point, function in hooks:
                    # Permanent, because reset_hooks and the end of run_with_hooks remove all other hooks.
                    point.add_hook(function, is_permanent=True)
                yield model
        finally:
            removed = [remove_hook(point, function) for point, function in hooks]
    if not all(removed):
        raise ModelError(
            f"{removed.count(False)} of {len(removed)} hooks of the interventions were taken away inside the "
            "block: call reset_hooks without including_permanent=True there"
        )
    reader.check_padding()
    _check_fired(bound)
    _check_used(model, bound)


def _check_fired(bound: Sequence[Bound]) -> None:
    silent = [each.what for each in bound if not each.fired]
    if silent:
        raise InterventionNeverFiredError(
            f"{len(silent)} of {len(bound)} interventions never fired: "
            f"{'; '.join(text[:160] for text in silent)}. Every one must change at least one forward pass "
            "inside the block: run the model there, on prompts that hold its tokens, and see that the hook "
            "is used (hook_result needs cfg.use_attn_result)"
        )


def _check_used(model: HookedModel, bound: Sequence[Bound]) -> None:
    """Requires that the model goes on with what the edits returned; asked once per model and hook."""
    for each in bound:
        name = each.hooks[-1][0]  # those before it only read
        if not uses_hook(model, name):
            raise InterventionNeverFiredError(
                f"an intervention changed nothing: {each.what[:160]}. This model calls {name} and does not "
                "use what it returns (its attention is native): intervene at hook_z or hook_attn_out, or "
                "load the model so that its attention goes through the hook"
            )
