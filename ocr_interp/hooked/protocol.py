"""What a model must offer to be analysed, and checks of names inside it.

HookedTransformer (transformer-lens 3.9) and TransformerBridge share these weights and hook names; no
class of transformer_lens is imported, so that its next major version changes only one module here.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ocr_interp.errors import ModelError, unknown_name

HOOK_EMBED = "hook_embed"
HOOK_FINAL_SCALE = "ln_final.hook_scale"
LAYER_HOOKS = {
    "resid_pre": "blocks.{layer}.hook_resid_pre",
    "resid_post": "blocks.{layer}.hook_resid_post",
    "attn_out": "blocks.{layer}.hook_attn_out",
    "ln1_scale": "blocks.{layer}.ln1.hook_scale",
    "v": "blocks.{layer}.attn.hook_v",
    "attn_scores": "blocks.{layer}.attn.hook_attn_scores",
    "pattern": "blocks.{layer}.attn.hook_pattern",
    "z": "blocks.{layer}.attn.hook_z",
}
"""Hook names by layer that both kinds of models have, with the shapes they share:

- resid_pre, resid_post, attn_out: [batch, pos, d_model]; ln1_scale: [batch, pos, 1];
- v: [batch, pos, kv_head, d_head] (with grouped key-value heads: one entry per group or per head);
- attn_scores, pattern: [batch, head, query_pos, key_pos]; z: [batch, pos, head, d_head].
"""


@runtime_checkable
class HookedModel(Protocol):
    """A model with TransformerLens' weights and hooks; HookedTransformer and TransformerBridge are.

    Beside these members, `blocks[layer].attn` has W_V [kv_head, d_model, d_head] and
    W_O [head, d_head, d_model]. They are not part of the protocol: a check of a protocol reads every member,
    and reading the stacked W_V of a large model copies it.

    Attributes:
        cfg: configuration with n_layers, n_heads, d_model, d_head, d_vocab and the kind of norms.
        hook_dict: hook name -> hook point, aliases included.
        W_E: embedding [token, d_model].
        W_U: unembedding [d_model, token].
        b_U: bias of the logits [token].
    """

    cfg: Any

    @property
    def hook_dict(self) -> Mapping[str, Any]: ...
    @property
    def W_E(self) -> Tensor: ...
    @property
    def W_U(self) -> Tensor: ...
    @property
    def b_U(self) -> Tensor: ...
    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any: ...
    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any: ...


@runtime_checkable
class AdaptedModel(Protocol):
    """A transformers model in peft's wrapper (PeftModel), known by what it offers.

    Attributes:
        peft_config: configuration of each adapter by name.
    """

    peft_config: Any

    def get_base_model(self) -> Any: ...


def check_model(model: object) -> HookedModel:
    """The model, if it has the weights and hooks of `HookedModel` and one stack of blocks.

    Raises:
        ModelError: something is missing; the message lists it.
    """
    if isinstance(model, HookedModel):
        check_one_stack(model)
        return model
    if isinstance(model, AdaptedModel):
        raise ModelError(
            f"model must have hooks here, got a {type(model).__name__}, which has none: pass "
            "TransformerBridge.boot_transformers(name, hf_model=copy.deepcopy(model).merge_and_unload(), "
            "tokenizer=tokenizer); OVCircuit.from_model, attribute and head_graph take the PeftModel itself"
        )
    if hasattr(model, "original_model"):
        check_one_stack(model)
        raise ModelError(
            f"the model must be decoder-only, between tokens and logits, got a {name_inside(model)} without "
            "an embedding or unembedding of tokens, such as a model of images or sound: no head of it has "
            "an OV circuit here"
        )
    wanted = ("cfg", "hook_dict", "W_E", "W_U", "b_U", "run_with_cache", "run_with_hooks")
    missing = [name for name in wanted if not hasattr(model, name)]
    raise ModelError(
        f"model must be a HookedTransformer or a TransformerBridge, got {type(model).__name__} without "
        f"{', '.join(missing)}: for a Hugging Face model pass TransformerBridge.boot_transformers(name, "
        "hf_model=copy.deepcopy(model), tokenizer=tokenizer); for a Run pass run.model"
    )


def check_layer(model: HookedModel, layer: object) -> int:
    """The index of a layer; negative ones are refused, since they would hide mistakes."""
    return _check_index("layer", layer, int(model.cfg.n_layers))


def check_head(model: HookedModel, head: object) -> int:
    """The index of an attention head (not of a key-value head)."""
    return _check_index("head", head, int(model.cfg.n_heads))


def _check_index(kind: str, value: object, count: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) < count:
        raise ModelError(
            f"{kind} must be a whole number in 0..{count - 1}, got {value!r}: "
            f"the model has {count} {kind}{'s' if count != 1 else ''}"
        )
    return int(value)


def check_hook(model: HookedModel, name: str) -> str:
    """A hook name of the model; one that it does not have raises with the close matches."""
    if name not in model.hook_dict:
        raise unknown_name("hook", name, model.hook_dict)
    return name


def layer_hook(model: HookedModel, layer: int, kind: str) -> str:
    """The name of a layer's hook, e.g. layer_hook(model, 0, "pattern").

    Raises:
        UnknownNameError: a kind that is not in LAYER_HOOKS, or that this model does not have.
        ModelError: a layer that does not exist.
    """
    if kind not in LAYER_HOOKS:
        raise unknown_name("kind of hook", kind, LAYER_HOOKS)
    return check_hook(model, LAYER_HOOKS[kind].format(layer=check_layer(model, layer)))


def model_name(model: Any) -> str:
    """The name in the configuration; its class where TransformerLens says "custom", its word for none."""
    name = getattr(model.cfg, "model_name", None)
    return name_inside(model) if name in (None, "", "custom") else str(name)


def name_inside(model: Any) -> str:
    """What transformers calls the model inside a bridge; of other models the name of their class."""
    config = getattr(getattr(model, "original_model", None), "config", None)
    return next(iter(getattr(config, "architectures", None) or ()), type(model).__name__)


def check_one_stack(model: object) -> Any:
    """The blocks of a model, if it has one stack of them.

    Raises:
        ModelError: an encoder-decoder model.
    """
    blocks = getattr(model, "blocks", None)
    if blocks is None:
        raise ModelError(
            f"the model must be decoder-only, with one stack of blocks, got a {name_inside(model)} without "
            "`blocks`, such as an encoder-decoder model (T5, BART): no head of it has an OV circuit here"
        )
    return blocks


def block_of(model: HookedModel, layer: int) -> Any:
    """The transformer block of a layer, with ln1, attn and the rest.

    Raises:
        ModelError: an unknown layer, or a model that has no single stack of blocks.
    """
    return check_one_stack(model)[check_layer(model, layer)]


def attention_of(model: HookedModel, layer: int) -> Any:
    """The attention component of a layer.

    Raises:
        ModelError: a layer without attention, or without W_V and W_O (as in some hybrid models, and where
            values are compressed, as in DeepSeek-V3).
    """
    attention = getattr(block_of(model, layer), "attn", None)
    try:
        missing = not _has_weights(attention)
    except _UNREADABLE as error:
        raise ModelError(f"layer {layer} must have attention with W_V and W_O: {error}") from None
    if missing:
        others = [i for i in range(int(model.cfg.n_layers)) if _is_readable(model, i)]
        raise ModelError(
            f"layer {layer} must have attention with W_V and W_O, got "
            f"{'no attention' if attention is None else type(attention).__name__}: "
            + (
                f"choose another layer ({', '.join(map(str, others[:12]))})"
                if others
                else "no layer of this bridge has it"
            )
        )
    return attention


_UNREADABLE = (NotImplementedError, ValueError, RuntimeError)
"""What bridges raise where values are compressed, or layers have heads of other sizes than the model says."""


def _has_weights(attention: Any) -> bool:
    return all(getattr(attention, name, None) is not None for name in ("W_V", "W_O"))


def _is_readable(model: HookedModel, layer: int) -> bool:
    try:
        return _has_weights(getattr(block_of(model, layer), "attn", None))
    except _UNREADABLE:
        return False
