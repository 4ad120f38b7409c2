"""The HookedTransformer against the plain formula, and each of its hooks against its consequences."""

import copy

import numpy as np
import pytest
import torch
from transformer_lens import HookedTransformer

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.errors import ConfigError, OcrInterpError
from ocr_interp.models.hooked39 import build_model
from ocr_interp.models.starts import initial_weights
from ocr_interp.models.weights import TokenWeights, factorize_ov, hooked_state_dict, weights_of_state_dict
from ocr_interp.task import FactRecallTask

ATTN = "blocks.0.attn.hook_"
NODES = {
    "embed": "hook_embed",
    "resid_pre": "blocks.0.hook_resid_pre",
    "q": f"{ATTN}q",
    "k": f"{ATTN}k",
    "v": f"{ATTN}v",
    "attn_scores": f"{ATTN}attn_scores",
    "pattern": f"{ATTN}pattern",
    "z": f"{ATTN}z",
    "result": f"{ATTN}result",
    "attn_out": "blocks.0.hook_attn_out",
    "resid_post": "blocks.0.hook_resid_post",
}
TAIL = {"attn_out", "resid_post"}
CHANGES = {
    "embed": set(NODES),
    "resid_pre": set(NODES) - {"embed"},
    "q": {"q", "attn_scores", "pattern", "z", "result"} | TAIL,
    "k": {"k", "attn_scores", "pattern", "z", "result"} | TAIL,
    "v": {"v", "z", "result"} | TAIL,
    "attn_scores": {"attn_scores", "pattern", "z", "result"} | TAIL,
    "pattern": {"pattern", "z", "result"} | TAIL,
    "z": {"z", "result"} | TAIL,
    "result": {"result"} | TAIL,
    "attn_out": TAIL,
    "resid_post": {"resid_post"},
}
"""What an edit of each hook point must change; all else must stay as it was, to the bit."""

KINDS = [("factorized", 3), ("factorized", 17), ("factorized", 128), ("non_factorized", None)]
CASES = [(*kind, attention) for kind in KINDS for attention in ("linear", "softmax")]
ATTENTIONS = pytest.mark.parametrize("attention", ["linear", "softmax"])
OVS = pytest.mark.parametrize("ov", ["factorized", "non_factorized"])


def config_of(ov="factorized", d_head=None, attention="linear", **fields):
    fields = {"dtype": "float64", "init_scale": 2.0, **fields}
    return ModelConfig(ov=ov, d_head=d_head, attention=attention, **fields)


def sequences(task, n=6, seed=0):
    """Any tokens at all, answers included: the model is defined on them too."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(task.d_vocab, (n, task.seq_len), generator=generator)


def plain_formula(tokens, W_OV, W_QK, attention):
    """Logits at every position, in numpy, token by token."""
    W_OV, W_QK, tokens = np.asarray(W_OV), np.asarray(W_QK), np.asarray(tokens)
    logits = np.zeros((*tokens.shape, W_OV.shape[1]))
    for b, sequence in enumerate(tokens):
        for p, query in enumerate(sequence):
            score = W_QK[query, sequence[: p + 1]]
            if attention == "softmax":
                score = np.exp(score) / np.exp(score).sum()
            logits[b, p] = sum(a * W_OV[token] for a, token in zip(score, sequence[: p + 1], strict=True))
    return logits


def largest(difference):
    return float(torch.as_tensor(difference).detach().abs().max())


@pytest.mark.parametrize(("ov", "d_head", "attention"), CASES)
def test_logits_equal_the_plain_formula(tiny_task, ov, d_head, attention):
    config, tokens = config_of(ov, d_head, attention), sequences(tiny_task)
    model, weights = build_model(tiny_task, config, seed=3), initial_weights(tiny_task, config, 3)
    expected = plain_formula(tokens, weights.W_OV, weights.W_QK, attention)
    assert isinstance(model, HookedTransformer)
    assert model.cfg.d_head == (d_head or tiny_task.d_vocab)
    assert np.abs(expected).max() > 0.1
    assert largest(model(tokens) - torch.as_tensor(expected)) < 1e-12


@pytest.mark.parametrize(("ov", "attention"), [("factorized", "linear"), ("non_factorized", "softmax")])
def test_logits_equal_the_plain_formula_in_the_papers_size(ov, attention):
    task, config = FactRecallTask(), config_of(ov, 128, attention)
    tokens, weights = sequences(task, 2), initial_weights(task, config, 0)
    expected = plain_formula(tokens, weights.W_OV, weights.W_QK, attention)
    assert largest(build_model(task, config)(tokens) - torch.as_tensor(expected)) < 1e-12


@pytest.mark.parametrize(("ov", "d_head", "attention"), CASES)
def test_logits_can_be_rebuilt_from_the_exposed_weights(tiny_task, ov, d_head, attention):
    model, tokens = build_model(tiny_task, config_of(ov, d_head, attention)), sequences(tiny_task)
    x = model.W_E[tokens]
    scores = (x @ model.W_Q[0, 0]) @ (x @ model.W_K[0, 0]).mT
    seen = torch.ones(tiny_task.seq_len, tiny_task.seq_len).tril() > 0
    if attention == "softmax":
        pattern = torch.where(seen, scores, -torch.inf).softmax(-1)
    else:
        pattern = torch.where(seen, scores, 0.0)
    logits = (pattern @ x) @ model.W_V[0, 0] @ model.W_O[0, 0] @ model.W_U
    assert largest(model(tokens) - logits) < 1e-12
    in_token_space = model.W_E @ model.OV.AB[0, 0] @ model.W_U
    weights = initial_weights(tiny_task, config_of(ov, d_head, attention), 0)
    assert largest(in_token_space - weights.W_OV) < 1e-12


# --- hooks -----------------------------------------------------------------------------------------------


def cached(model, tokens, edit=None):
    """Logits and all activations, optionally with noise added at one hook point."""
    hooks = []
    if edit is not None:

        def add_noise(value, hook):
            generator = torch.Generator().manual_seed(9)
            return value + torch.randn(value.shape, generator=generator, dtype=value.dtype)

        hooks = [(NODES[edit], add_noise)]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        logits, cache = model.run_with_cache(tokens)
    return logits, {name: cache[hook] for name, hook in NODES.items()}


def recomputed(model, values, logits, attention):
    """(what stands there, what the values before it make of it) for every step of the model."""
    attn, a = model.blocks[0].attn, values
    raw = torch.einsum("bqhc,bkhc->bhqk", a["q"], a["k"])
    seen = torch.ones(raw.shape[-2:]).tril() > 0
    if attention == "softmax":
        masked, pattern = torch.where(seen, raw, -torch.inf), a["attn_scores"].softmax(-1)
    else:
        masked, pattern = torch.where(seen, raw, 0.0), a["attn_scores"]
    return {
        "resid_pre": (a["resid_pre"], a["embed"]),
        "q": (a["q"], torch.einsum("bpm,hmc->bphc", a["resid_pre"], attn.W_Q)),
        "k": (a["k"], torch.einsum("bpm,hmc->bphc", a["resid_pre"], attn.W_K)),
        "v": (a["v"], torch.einsum("bpm,hmc->bphc", a["resid_pre"], attn.W_V)),
        "attn_scores": (a["attn_scores"], masked),
        "pattern": (a["pattern"], pattern),
        "z": (a["z"], torch.einsum("bhqk,bkhc->bqhc", a["pattern"], a["v"])),
        "result": (a["result"], torch.einsum("bphc,hcm->bphm", a["z"], attn.W_O)),
        "attn_out": (a["attn_out"], a["result"].sum(2)),
        "resid_post": (a["resid_post"], a["resid_pre"] + a["attn_out"]),
        "logits": (logits, a["resid_post"] @ model.W_U),
    }


@pytest.mark.parametrize("edit", list(NODES))
@pytest.mark.parametrize(("ov", "attention"), [("factorized", "linear"), ("non_factorized", "softmax")])
def test_an_edit_changes_what_follows_from_it_and_nothing_else(tiny_task, ov, attention, edit):
    model, tokens = build_model(tiny_task, config_of(ov, None, attention)), sequences(tiny_task)
    model.set_use_attn_result(True)
    clean_logits, clean = cached(model, tokens)
    logits, edited = cached(model, tokens, edit)
    changed = {name for name in NODES if not torch.equal(clean[name], edited[name])}
    assert changed == CHANGES[edit]
    assert largest(clean_logits - logits) > 1e-3
    with torch.no_grad():
        for name, (got, expected) in recomputed(model, edited, logits, attention).items():
            if name != edit:
                torch.testing.assert_close(got, expected, atol=1e-11, rtol=0, msg=name)
    again, _ = cached(model, tokens)
    assert torch.equal(again, clean_logits), "the hook is gone and nothing was written in place"


@ATTENTIONS
def test_a_token_never_sees_what_comes_later(tiny_task, attention):
    model, tokens = build_model(tiny_task, config_of(attention=attention)), sequences(tiny_task)
    other = tokens.clone()
    other[:, 3] = (other[:, 3] + 1) % tiny_task.d_vocab
    assert torch.equal(model(tokens)[:, :3], model(other)[:, :3])
    assert not torch.equal(model(tokens)[:, 3:], model(other)[:, 3:])
    pattern = model.run_with_cache(tokens)[1][NODES["pattern"]]
    assert largest(pattern.triu(1)) == 0


@OVS
def test_logits_are_the_same_with_and_without_attn_result(tiny_task, ov):
    model, tokens = build_model(tiny_task, config_of(ov)), sequences(tiny_task)
    without = model(tokens)
    assert NODES["result"] not in model.run_with_cache(tokens)[1]
    model.set_use_attn_result(True)
    assert largest(model(tokens) - without) < 1e-13


def test_run_with_hooks_can_silence_the_head(tiny_task):
    model, tokens = build_model(tiny_task, config_of()), sequences(tiny_task)
    silenced = model.run_with_hooks(tokens, fwd_hooks=[(NODES["z"], lambda z, hook: torch.zeros_like(z))])
    assert largest(silenced) == 0
    assert largest(model(tokens)) > 0.1


# --- decompositions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ov", "d_head", "attention"), CASES)
def test_decompositions_sum_and_the_head_alone_makes_the_logits(tiny_task, ov, d_head, attention):
    model, tokens = build_model(tiny_task, config_of(ov, d_head, attention)), sequences(tiny_task)
    logits, cache = model.run_with_cache(tokens)
    parts, labels = cache.decompose_resid(return_labels=True)
    assert labels == ["embed", "pos_embed", "0_attn_out"]
    assert largest(parts.sum(0) - cache[NODES["resid_post"]]) < 1e-13
    assert largest(parts[0] @ model.W_U) == 0, "a direct path from the embedding to the logits"
    assert largest(parts[2] @ model.W_U - logits) < 1e-13
    assert largest(model.W_E @ model.W_U) == 0

    answer = torch.tensor([tiny_task.token("c1")] * len(tokens))
    attributed = cache.logit_attrs(parts[:, :, -1], tokens=answer, pos_slice=-1)
    assert largest(attributed.sum(0) - logits[:, -1, answer[0]]) < 1e-12
    assert largest(attributed[:2]) == 0
    heads = cache.stack_head_results(pos_slice=-1)
    assert (
        largest(cache.logit_attrs(heads, tokens=answer, pos_slice=-1)[0] - logits[:, -1, answer[0]]) < 1e-12
    )


# --- parameters ------------------------------------------------------------------------------------------


@OVS
@pytest.mark.parametrize("train_attention", [True, False])
def test_only_the_trained_parameters_require_a_gradient(tiny_task, ov, train_attention):
    model = build_model(tiny_task, config_of(ov, train_attention=train_attention))
    expected = {"blocks.0.attn.W_V"}
    expected |= {"blocks.0.attn.W_O"} if ov == "factorized" else set()
    expected |= {"blocks.0.attn.W_Q"} if train_attention else set()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == expected


@pytest.mark.parametrize(("ov", "d_head", "attention"), CASES)
def test_gradients_outside_the_two_subspaces_are_exactly_0(tiny_task, ov, d_head, attention):
    model, tokens = build_model(tiny_task, config_of(ov, d_head, attention)), sequences(tiny_task)
    model(tokens)[:, -1].logsumexp(-1).sum().backward()
    attn, d = model.blocks[0].attn, tiny_task.d_vocab
    for gradient, outside in ((attn.W_V.grad, np.s_[:, d:]), (attn.W_Q.grad, np.s_[:, d:])):
        assert gradient.abs().max() > 1e-6
        assert gradient[outside].abs().max() == 0
    if ov == "factorized":
        assert attn.W_O.grad.abs().max() > 1e-6
        assert attn.W_O.grad[:, :, :d].abs().max() == 0


@ATTENTIONS
@OVS
def test_frozen_attention_is_uniform(tiny_task, ov, attention):
    model, tokens = build_model(tiny_task, config_of(ov, None, attention, train_attention=False)), None
    tokens = sequences(tiny_task)
    pattern = model.run_with_cache(tokens)[1][NODES["pattern"]]
    seen = torch.ones(tiny_task.seq_len, tiny_task.seq_len, dtype=torch.float64).tril()
    if attention == "softmax":
        seen /= torch.arange(1, tiny_task.seq_len + 1, dtype=torch.float64)[:, None]
    assert largest(pattern - seen) < 1e-15


@OVS
def test_state_dict_has_the_promised_keys_and_gives_the_weights_back(tiny_task, ov):
    weights = initial_weights(tiny_task, config_of(ov, 7 if ov == "factorized" else None), 1)
    promised = hooked_state_dict(tiny_task, weights, "linear")
    state = build_model(tiny_task, config_of(ov), weights=weights, device="cpu").state_dict()
    assert state.keys() == promised.keys()
    for name, tensor in promised.items():
        assert torch.equal(state[name], tensor), name
    again = weights_of_state_dict(tiny_task, state, weights.linear_map.has_factors)
    assert again.tensors().keys() == weights.tensors().keys()
    for name, tensor in weights.tensors().items():
        assert torch.equal(again.tensors()[name], tensor), name


def test_weights_of_another_vocabulary_are_refused(tiny_task):
    weights = initial_weights(FactRecallTask(2, 1, 1), config_of(), 0)
    with pytest.raises(ConfigError, match=rf"W_V must have {tiny_task.d_vocab} rows.*got"):
        build_model(tiny_task, config_of(), weights=weights)


@OVS
def test_save_load_copy_and_move(tiny_task, ov, tmp_path):
    model, tokens = build_model(tiny_task, config_of(ov), seed=1), sequences(tiny_task)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = build_model(tiny_task, config_of(ov), seed=2)
    assert not torch.equal(other(tokens), model(tokens))
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(other(tokens), model(tokens))
    assert torch.equal(copy.deepcopy(model)(tokens), model(tokens))
    assert torch.equal(model.to("cpu")(tokens), other(tokens))


@pytest.mark.parametrize(("ov", "d_head", "attention"), CASES)
def test_float32_is_float64_rounded(tiny_task, ov, d_head, attention):
    tokens = sequences(tiny_task)
    single = build_model(tiny_task, config_of(ov, d_head, attention, dtype="float32"))
    double = build_model(tiny_task, config_of(ov, d_head, attention))
    assert single(tokens).dtype == torch.float32
    assert double(tokens).dtype == torch.float64
    assert {p.dtype for p in single.parameters()} == {torch.float32}
    assert {p.dtype for p in double.parameters()} == {torch.float64}
    scale = largest(double(tokens))
    assert largest(single(tokens).double() - double(tokens)) < scale * 100 * torch.finfo(torch.float32).eps


def test_bad_models_raise(tiny_task):
    with pytest.raises(ConfigError, match=r"d_head must be None or d_vocab = 20 .*got 5"):
        build_model(tiny_task, ModelConfig(ov="non_factorized", d_head=5))
    with pytest.raises(ConfigError, match=r"device must be 'auto' or one of .*got 'gpu'"):
        build_model(tiny_task, device="gpu")
    with pytest.raises(ConfigError, match=r"seed must be >= 0, got -1"):
        build_model(tiny_task, seed=-1)
    with pytest.raises(OcrInterpError, match="no key-value cache and no attention mask"):
        build_model(tiny_task)(sequences(tiny_task), attention_mask=torch.ones(6, 5, dtype=torch.long))


# --- Proposition 1 ---------------------------------------------------------------------------------------


@ATTENTIONS
@pytest.mark.parametrize(("rank", "d_head"), [(None, 20), (None, 33), (4, 4), (4, 9)])
def test_wide_enough_factors_reproduce_a_non_factorized_model(tiny_task, attention, rank, d_head):
    d = tiny_task.d_vocab
    whole = initial_weights(tiny_task, config_of("non_factorized", None, attention), 5)
    if rank is not None:
        generator = torch.Generator().manual_seed(0)
        left, right = (torch.randn(d, rank, generator=generator, dtype=torch.float64) for _ in "lr")
        whole = TokenWeights.of_factors(left @ right.mT, None, whole.W_QK)
    W_V, W_O = factorize_ov(whole.W_V, d_head)
    assert W_V.shape == (d, d_head)
    assert largest(W_V.mT @ W_V - W_O @ W_O.mT) < 1e-12, "balanced"
    tokens, factors = sequences(tiny_task), TokenWeights.of_factors(W_V, W_O, whole.W_QK)
    one = build_model(tiny_task, config_of("non_factorized", None, attention), weights=whole)
    other = build_model(tiny_task, config_of("factorized", d_head, attention), weights=factors)
    assert largest(one(tokens)) > 0.1
    assert largest(one(tokens) - other(tokens)) < 1e-12


def test_too_narrow_factors_are_refused():
    low = torch.outer(torch.arange(1.0, 5.0), torch.ones(4)) + torch.eye(4)  # rank 4
    with pytest.raises(OcrInterpError, match=r"d_head must be >= the rank of W_OV \(4\) .*got 3"):
        factorize_ov(low, 3)
