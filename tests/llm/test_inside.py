"""OV updates against the product itself and TransformerLens; cuts that do what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_facts import SMALL

from ocr_interp.errors import ModelError, WeightsError
from ocr_interp.llm.encoding import asking_batch
from ocr_interp.llm.inside.cuts import USUAL_KINDS, weights_from
from ocr_interp.llm.inside.inside import inspect_models
from ocr_interp.llm.inside.parts import parts_of
from ocr_interp.llm.inside.token_circuits import own_contrast
from ocr_interp.llm.inside.updates import ov_update, ov_weights
from ocr_interp.llm.measuring.measure import Questions, measure
from ocr_interp.llm.models.bridge import as_bridge, bridge_logits, viewed
from ocr_interp.llm.models.forward import answer_logits
from ocr_interp.llm.models.tiny import FAMILIES
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.finetune import finetune

pytestmark = pytest.mark.slow  # importing transformer_lens alone takes seconds


def trained(lm, **values):
    given = {"model": "tiny", "optimizer": "muon", "lr": 1e-2, "steps": 30, "log_every": 30}
    return finetune(LLMRunConfig(SMALL, FinetuneConfig(**{**given, **values}, device="cpu")), lm=lm).lm


def test_an_update_is_that_of_the_product():
    rng = np.random.default_rng(0)
    from ocr_interp.llm.inside.updates import OVWeights

    def weights():
        return OVWeights(rng.standard_normal((1, 2, 9, 3)), rng.standard_normal((1, 4, 3, 9)))

    before, after = weights(), weights()
    update = ov_update(before, after)
    for head in range(4):
        W0, W1 = (w.W_V[0, head // 2] @ w.W_O[0, head] for w in (before, after))
        s = np.linalg.svd(W1 - W0)[1]
        share = s[s > 1e-12] / s.sum()
        assert update.relative[0, head] == pytest.approx(np.linalg.norm(W1 - W0) / np.linalg.norm(W0))
        assert update.nuclear_to_frobenius[0, head] == pytest.approx(s.sum() / np.linalg.norm(s))
        assert update.effective_rank[0, head] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
        assert update.spectral_share[0, head] == pytest.approx(s[0] / s.sum())
    assert update.most_changed(4)[0] == (0, int(update.relative.argmax()))
    same = ov_update(before, before)
    assert same.relative.max() == same.effective_rank.max() == 0
    with pytest.raises(WeightsError, match="of one model"):
        ov_update(before, OVWeights(before.W_V[:, :1], before.W_O))


def read_directly(model):
    """W_V and W_O of a model with Llama's layers from its own weights: the oracle."""
    heads, layers = model.config.num_attention_heads, model.model.layers
    values = [layer.self_attn.v_proj.weight.detach().numpy() for layer in layers]  # [kv_head d_head, d_model]
    outs = [layer.self_attn.o_proj.weight.detach().numpy() for layer in layers]  # [d_model, head d_head]
    d_model, d_head = outs[0].shape[0], outs[0].shape[1] // heads
    W_V = np.stack([v.reshape(-1, d_head, d_model).transpose(0, 2, 1) for v in values])
    return W_V, np.stack([o.T.reshape(heads, d_head, d_model) for o in outs])


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_and_logits_are_those_of_transformer_lens(family, facts, make_model):
    lm = make_model(family)
    kept = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
    found = ov_weights(lm)
    bridge = as_bridge(viewed(lm, torch.device("cpu")), torch.device("cpu"))
    for weights, own in zip((found.W_V, found.W_O), read_directly(lm.model), strict=True):
        np.testing.assert_array_equal(weights, own)
    questions = Questions(facts, lm.tokenizer, lm.pad)
    batch = asking_batch(questions.encoded[:9], lm.pad, "cpu")
    with torch.no_grad():
        torch.testing.assert_close(bridge_logits(bridge)(batch), answer_logits(lm.model, batch))
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, kept[name])
        assert parameter.requires_grad


def test_a_lora_update_has_the_rank_it_was_given(make_model):
    before = ov_weights(make_model())
    lm = trained(make_model(), method="lora", lora_rank=1)
    update = ov_update(before, ov_weights(lm))
    # V and O change by rank one each: their product by rank at most 2.
    assert update.nuclear_to_frobenius.max() <= np.sqrt(2) + 1e-5
    assert update.relative.min() > 0


def test_lora_must_be_merged(make_model):
    from ocr_interp.llm.training.trainable import make_trainable

    lm = make_model()
    wrapped = make_trainable(lm.model, FinetuneConfig(method="lora"))
    with pytest.raises(ModelError, match="merge LoRA"):
        ov_weights(replace(lm, model=wrapped))


def test_parts_cover_all_parameters_and_come_back(make_model):
    a, b = make_model(seed=0), make_model(seed=1).model
    parts, a = parts_of(a), a.model
    kept = {name: p.detach().clone() for name, p in a.named_parameters()}
    assert parts.keys() == kept.keys()
    assert {part: sum(value == part for value in parts.values()) for part in set(parts.values())} == {
        "OV": 4, "QK": 4, "MLP": 6, "embeddings and norms": 2 + 5,
    }  # fmt: skip
    theirs = dict(b.named_parameters())

    def fail_inside():
        with weights_from(a, b, lambda name: parts[name] == "OV"):
            for name, parameter in a.named_parameters():
                assert torch.equal(parameter, theirs[name] if parts[name] == "OV" else kept[name]), name
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    for name, parameter in a.named_parameters():
        assert torch.equal(parameter, kept[name])


def test_cuts_have_the_uncut_models_as_their_ends(facts, make_model):
    before, after = make_model(), trained(make_model())
    kept = {name: p.detach().clone() for name, p in after.model.named_parameters()}
    inside = inspect_models(before, after, facts, n_heads=2, device="cpu")
    cuts = {cut.what: cut for cut in inside.cuts}
    for lm, what in ((before, "before fine-tuning"), (after, "after fine-tuning")):
        found = measure(lm, facts, device="cpu")
        for split, rank in cuts[what].ranks.items():
            assert rank == pytest.approx(found.mean(split, "rank")), (what, split)
    assert {cut.kind for cut in inside.cuts} == {"none", *USUAL_KINDS}
    assert len([w for w in cuts if w.startswith("only ")]) == 4
    assert inside.heads == inside.update.most_changed(2)
    text = inside.summary()
    assert "2 most changed heads zeroed" in text
    assert "only MLP changed" in text
    assert "2 most changed heads past layer 0 zeroed" in text
    assert all(layer == 1 for layer, _ in inside.update.most_changed(4, first_layer=1))
    assert len(inside.to_dict()["cuts"]) == len(inside.cuts)
    assert not isinstance(inside.circuits, str)
    assert inside.circuits.heads[:2] == inside.heads
    assert len(set(inside.circuits.heads)) == 4
    assert "held-out names to implications (" in text
    assert inside.to_dict()["circuits"]["n_chosen"] == 2
    for name, parameter in after.model.named_parameters():
        assert torch.equal(parameter, kept[name])
    with pytest.raises(ModelError, match=r"n_heads must be in 1..7, got 8"):
        inspect_models(before, after, facts, n_heads=8)


def test_circuits_are_those_of_the_weights(facts, make_model):
    """Blocks before, after and of the change, by a product of the weights themselves."""
    before, after = make_model(), trained(make_model())
    with torch.no_grad():
        for lm in (before, after):
            lm.model.model.norm.weight.mul_(torch.linspace(0.5, 2, 32))
    circuits = inspect_models(before, after, facts, n_heads=1, device="cpu").circuits
    assert not isinstance(circuits, str)
    (layer, head), tokens = circuits.heads[0], circuits.tokens
    W = []
    for lm in (before, after):
        W_V, W_O = ov_weights(lm).factors(layer, head)
        inner = lm.model.model
        read = inner.embed_tokens.weight[list(tokens.facts)] * inner.layers[layer].input_layernorm.weight
        written = inner.norm.weight[:, None] * lm.model.lm_head.weight[list(tokens.implications)].T
        W.append(read.detach().double().numpy() @ W_V @ W_O @ written.detach().double().numpy())
    block = circuits.inputs.index("facts"), circuits.outputs.index("implications")
    norms = [np.linalg.norm(w) for w in (*W, W[1] - W[0])]
    assert circuits.norms[(0, *block)].tolist() == pytest.approx(norms, rel=1e-5)
    contrasts = [own_contrast(w, np.arange(3)).value for w in (*W, W[1] - W[0])]
    assert circuits.contrasts[0, 0].tolist() == pytest.approx(contrasts, rel=1e-3)


def test_norms_after_attention_lose_the_circuits_and_nothing_else(facts, make_model):
    inside = inspect_models(make_model("gemma2"), make_model("gemma2", seed=1), facts, 2, device="cpu")
    assert "no OV circuits: layer 0 must write" in inside.summary()
    assert "norm after attention" in inside.to_dict()["circuits"]
    assert {cut.kind for cut in inside.cuts} == {"none", *USUAL_KINDS}


def test_facts_without_token_sets_lose_the_circuits_and_nothing_else(make_model, facts):
    both = replace(facts, implications=(facts.facts[0], *facts.implications[1:]))
    inside = inspect_models(make_model(), make_model(seed=1), both, n_heads=2, device="cpu")
    assert "facts and implications must have different tokens" in str(inside.circuits)
    assert len(inside.cuts) > 10


def test_a_model_of_one_layer_has_no_heads_past_layer_0(make_model, facts):
    a, b = (make_model(seed=seed, num_hidden_layers=1) for seed in (0, 1))
    cuts = inspect_models(a, b, facts, n_heads=2, device="cpu").cuts
    assert sum(cut.kind == "heads" for cut in cuts) == 4
