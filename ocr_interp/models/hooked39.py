"""ModelConfig -> HookedTransformer. The only module that imports HookedTransformer."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.components.attention import Attention
from transformer_lens.hook_points import HookPoint

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.devices import DTYPES, resolve_device
from ocr_interp.errors import ModelError, OcrInterpError
from ocr_interp.hooked.tokens.labels import name_tokens
from ocr_interp.maps.routed import ROUTER, Routed
from ocr_interp.models.routed_stacks import routed
from ocr_interp.models.starts import initial_weights
from ocr_interp.models.weights import TokenWeights, gate_tensors, heads_of, hooked_state_dict
from ocr_interp.task import FactRecallTask


class FactRecallAttention(Attention):
    """TransformerLens' attention with scores as wide as the vocabulary and, if asked, no softmax.

    TransformerLens ties the widths of the QK and the OV circuit to one d_head; the paper's W_Q W_K^T is
    a whole matrix whatever the width of the OV circuit. All hook points act: q, k, v, attn_scores,
    pattern, z, and result where cfg.use_attn_result is set. With linear attention the pattern is the
    causally masked scores themselves, so masked scores are 0 and not -inf.

    Of a model that routes prompts every head is an expert, and its pattern is multiplied by the expert's
    weight in the mixture of the tokens up to the query, read from the residual stream. hook_gate [batch, pos,
    head] has these weights. hook_pattern comes after them, so that every decomposition sums to the logits.
    """

    def __init__(
        self, cfg: HookedTransformerConfig, linear: bool, weights: TokenWeights | None = None
    ) -> None:
        super().__init__(cfg, "global", 0)
        self._routing: Routed | None = None
        if weights is not None and weights.linear_map.n_routes is not None:
            self._routing = routed(weights.linear_map)
            self.hook_gate = HookPoint()
            for name, tensor in gate_tensors(weights).items():
                self.register_buffer(name, tensor.clone())
        if linear:  # stands in the state_dict: attention with a softmax refuses it
            self.register_buffer("linear", torch.tensor(True))
        for name in ("W_Q", "W_K"):
            setattr(
                self, name, nn.Parameter(torch.zeros(cfg.n_heads, cfg.d_model, cfg.d_vocab, dtype=cfg.dtype))
            )
        for name in ("b_Q", "b_K"):
            setattr(self, name, nn.Parameter(torch.zeros(cfg.n_heads, cfg.d_vocab, dtype=cfg.dtype)))

    def forward(
        self,
        query_input: Float[Tensor, "..."],
        key_input: Float[Tensor, "..."],
        value_input: Float[Tensor, "..."],
        past_kv_cache_entry: Any = None,
        additive_attention_mask: Any = None,
        attention_mask: Any = None,
        position_bias: Any = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """TransformerLens' attention, except for how scores become a pattern."""
        options = (past_kv_cache_entry, additive_attention_mask, attention_mask, position_bias)
        if any(option is not None for option in options):
            raise OcrInterpError(
                "fact-recall models take whole sequences: no key-value cache and no attention mask"
            )
        q, k, v = self.calculate_qkv_matrices(query_input, key_input, value_input)
        scores = self.calculate_attention_scores(q, k)
        if hasattr(self, "linear"):
            pattern = self.hook_attn_scores(scores.tril())
        else:
            pattern = self.hook_attn_scores(self.apply_causal_mask(scores)).softmax(-1)
        if self._routing is not None:
            mixture = self.hook_gate(self._gate(self._routing, query_input))
            pattern = pattern * mixture.transpose(1, 2).unsqueeze(-1)
        z = self.calculate_z_scores(v, self.hook_pattern(pattern))
        if self.cfg.use_attn_result:
            result = self.hook_result(torch.einsum("bpnh,nhd->bpnd", z, self.W_O))
            return result.sum(2) + self.b_O
        return torch.einsum("bpnh,nhd->bpd", z, self.W_O) + self.b_O

    def _gate(self, routing: Routed, stream: Float[Tensor, "..."]) -> Float[Tensor, "batch pos head"]:
        """Weight of every expert for the tokens up to each position; 0 before the first relation."""
        stream = stream if stream.ndim == 3 else stream[:, :, 0]  # an axis of heads, which all read the same
        counts = stream[..., : self.cfg.d_vocab].cumsum(1)
        router = getattr(self, f"gate_{ROUTER}", None)
        parameters = {} if router is None else {ROUTER: router}
        found = routing.routing(parameters, counts.flatten(0, 1)).mixture
        return found.view(*counts.shape[:2], -1)


def build_model(
    task: FactRecallTask,
    config: ModelConfig | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    weights: TokenWeights | None = None,
) -> HookedTransformer:
    """A HookedTransformer for the task: one layer, attention only, one-hot embeddings.

    It has one head, or of a model that routes prompts one per expert (`FactRecallAttention`).

    Tokens live in the first half of the residual stream and logits in the second (d_model = 2 d_vocab),
    so there is no direct path from the embedding to the logits, and every TransformerLens decomposition sums
    to the logits. Trained parameters: W_V and W_O (factorized) or W_V alone, which is then W_OV (a map
    without factors, W_O is the identity), and W_Q if attention is trained; all others have requires_grad =
    False.

    Args:
        task: the task; its labels are attached to the model (`name_tokens`).
        config: configuration of the model; None: the paper's factorized model.
        seed: random seed of the initial weights (`ocr_interp.models.starts`); not used with `weights`.
        device: "auto", "cpu", "cuda", "mps".
        weights: weights to use instead of initial ones.

    Returns: the model; logits at the last position, EOS, are its answer.

    Raises:
        ConfigError: a d_head that does not go with the OV kind, or a device that is not available.

    Source: Huang et al. 2025, section 3.
    """
    config = config or ModelConfig()
    where = resolve_device(device, config.dtype)
    if weights is None:
        weights = initial_weights(task, config, seed)
    weights = weights.to(device=where, dtype=DTYPES[config.dtype])
    state = hooked_state_dict(task, weights, config.attention)
    cfg = HookedTransformerConfig(
        n_layers=1,
        n_heads=weights.linear_map.n_routes or 1,
        d_model=2 * task.d_vocab,
        d_head=heads_of(weights)[0].W_V.shape[1],
        d_vocab=task.d_vocab,
        n_ctx=task.seq_len,
        attn_only=True,
        normalization_type=None,
        use_attn_scale=False,
        init_weights=False,
        dtype=DTYPES[config.dtype],
        device=str(where),
        model_name=f"fact-recall-{config.ov}",
    )
    with warnings.catch_warnings():
        # 3.9 announces that the class goes away in 4.0; the dependency is capped below 4.
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        model = HookedTransformer(cfg)
    attention = FactRecallAttention(cfg, config.attention == "linear", weights)
    model.blocks[0].attn = attention.to(where)
    model.setup()
    model.load_state_dict(state)
    trained = weights.linear_map.hooked_trained | ({"W_Q"} if config.train_attention else set())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.removeprefix("blocks.0.attn.") in trained)
    name_tokens(model, task.labels)
    return model


def settings_of(model: Any) -> dict[str, Any]:
    """The settings of a HookedTransformer as values that JSON can hold; `hooked_of` takes them.

    Raises:
        ModelError: another model, or attention of its own, which settings do not say.
    """
    if not isinstance(model, HookedTransformer) or any(
        isinstance(block.attn, FactRecallAttention) for block in model.blocks
    ):
        raise ModelError(
            f"a HookedTransformer with TransformerLens' attention is required, got {type(model).__name__}: "
            "a run writes its own (run.export), a bridge's transformers model has save_pretrained"
        )
    kept = {name: value for name, value in model.cfg.to_dict().items() if _is_plain(value)}
    return {**kept, "dtype": str(model.cfg.dtype).removeprefix("torch."), "device": "cpu"}


def hooked_of(settings: dict[str, Any]) -> HookedTransformer:
    """The HookedTransformer of some settings, on the CPU, with random weights."""
    values = {**settings, "dtype": getattr(torch, settings["dtype"]), "tokenizer_name": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        return HookedTransformer(HookedTransformerConfig.from_dict(values))


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, str | int | float | bool)
