"""Equality with TransformerLens on the same models: FactoredMatrix, logit_attrs, decompose_resid, bridges."""

import dataclasses

import hooked_models
import numpy as np
import pytest
import torch
from transformer_lens import FactoredMatrix

from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.circuits.weights.spectra import ov_spectra
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import (
    AttributionError,
    ModelError,
    StaleCircuitError,
    UnknownNameError,
    WeightsError,
)
from ocr_interp.graphs.building import attribution_graph
from ocr_interp.hooked.protocol import (
    LAYER_HOOKS,
    HookedModel,
    check_head,
    check_hook,
    check_layer,
    check_model,
    layer_hook,
)
from ocr_interp.models.hooked39 import build_model
from ocr_interp.task import FactRecallTask
from ocr_interp.training.run import Snapshot

PROMPT = [3, 4, 5, 3, 9]
NORMS = [None, "LN", "RMS", "LNPre", "RMSPre"]


@pytest.fixture(scope="module")
def llama():
    return hooked_models.hugging_face_model("Llama", attention_bias=True)


@pytest.fixture(scope="module")
def llama_bridge(llama):
    return hooked_models.bridge(llama)


# --- the circuit ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kv_heads", [None, 2])
def test_without_norms_the_circuit_is_the_factored_matrix_of_transformer_lens(kv_heads):
    model = hooked_models.hooked_transformer(None, kv_heads=kv_heads)
    for head in range(4):
        circuit = OVCircuit.from_model(model, layer=0, head=head, inputs=range(32), outputs=range(32))
        theirs = model.W_E @ model.OV[0, head] @ model.W_U
        assert isinstance(theirs, FactoredMatrix)
        assert pytest.approx(theirs.AB.numpy(), abs=1e-12) == circuit.W
        S = theirs.svd()[1].numpy()
        assert circuit.singular_values[:3] == pytest.approx(S[:3], rel=1e-10)
        assert np.abs(circuit.singular_values[3:]).max(initial=0) < 1e-10
    assert ov_spectra(model.W_V, model.W_O).numpy() == pytest.approx(model.OV.S.numpy()[..., :3], rel=1e-10)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_entries_are_what_a_token_adds_inside_a_prompt(norm, kv_heads):
    """W[token, answer] · pattern / (ln1 scale · final scale), and the bias, against real activations."""
    model = hooked_models.hooked_transformer(norm, kv_heads=kv_heads)
    model.pos_embed.W_pos.zero_()  # circuits are of token embeddings alone
    layer, head, outputs = 0, 3, [7, 8, 20]
    circuit = OVCircuit.from_model(model, layer=layer, head=head, inputs=range(32), outputs=outputs)
    _, cache = model.run_with_cache(torch.tensor([PROMPT]))
    pattern = cache["blocks.0.attn.hook_pattern"][0, head, -1]
    written = cache["blocks.0.attn.hook_z"][0, -1, head] @ model.W_O[layer, head]
    one = torch.ones(len(PROMPT))
    ln1 = cache["blocks.0.ln1.hook_scale"][0, :, 0] if norm else one
    final = cache["ln_final.hook_scale"][0, -1, 0] if norm else one[0]
    gain = getattr(model.ln_final, "w", torch.ones(12)) if norm else torch.ones(12)
    centred = written - written.mean() if norm in ("LN", "LNPre") else written
    wanted = (centred * gain / final) @ model.W_U[:, outputs]
    weights = (pattern / ln1).numpy()
    found = (weights @ circuit.W[PROMPT] + pattern.sum().item() * circuit.bias) / final.item()
    assert found == pytest.approx(wanted.numpy(), abs=1e-12)


def test_a_bridge_and_its_grouped_heads_inside_a_prompt(llama_bridge):
    circuit = OVCircuit.from_model(
        llama_bridge, layer=0, head=4, inputs=["w1", "w2", "w3", "w7"], outputs=["w5", "w6"]
    )
    assert circuit.provenance.kv_head == 1
    assert circuit.inputs.ids == (3, 4, 5, 9)
    assert "b_V" in " ".join(circuit.provenance.folded)
    assert any("direct path only" in flag for flag in circuit.provenance.flags)
    _, cache = llama_bridge.run_with_cache(torch.tensor([PROMPT]))
    pattern = cache["blocks.0.attn.hook_pattern"][0, 4, -1]
    ln1 = cache["blocks.0.ln1.hook_scale"][0, :, 0]
    final = cache["ln_final.hook_scale"][0, -1, 0]
    found = attribute_model(llama_bridge, PROMPT, "w5", "w6", layer=0, head=4)
    rows = circuit.W[[0, 1, 2, 0, 3]] / ln1.detach().numpy()[:, None] + circuit.bias
    wanted = (pattern.detach().numpy()[:, None] * rows / float(final)) @ [1, -1]
    # The bridge keeps its norms in float32 inside: that is all the difference.
    assert found.contributions[0] == pytest.approx(wanted, rel=1e-5, abs=1e-8)


def test_spectra_of_a_bridge_are_those_of_its_own_factored_matrix(llama_bridge):
    theirs = llama_bridge.OV.S.detach()[..., :4]
    assert ov_spectra(llama_bridge.W_V, llama_bridge.W_O).numpy() == pytest.approx(theirs.numpy(), rel=1e-8)


def test_reading_changes_nothing_and_copies_everything(llama_bridge):
    model = hooked_models.hooked_transformer("LN")
    for each, words in ((model, [3, 4]), (llama_bridge, ["w1", "w2"])):
        before = {name: tensor.clone() for name, tensor in each.state_dict().items()}
        OVCircuit.from_model(each, layer=0, head=0, inputs=words, outputs=words)
        attribute_model(each, PROMPT, 7, **({} if each is model else {"layer": 0, "head": 0}))
        after = each.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
    circuit = OVCircuit.from_model(model, layer=0, head=1, inputs=range(5), outputs=[6])
    circuit.check_fresh(model)
    kept = circuit.W.copy()
    model.blocks[0].attn.W_V[2] += 1  # another head
    circuit.check_fresh(model)
    model.ln_final.w[0] += 0.1
    assert np.array_equal(circuit.left @ circuit.right, kept)
    with pytest.raises(StaleCircuitError, match=r"OVCircuit\.from_model"):
        circuit.check_fresh(model)


def test_the_hooked_transformer_of_a_run_has_the_circuit_of_the_run():
    task = FactRecallTask(3, 1, 2, n_noise=1, seq_len=4)
    for ov in ("factorized", "non_factorized"):
        config = ModelConfig(ov=ov, dtype="float64", attention="softmax" if ov == "factorized" else "linear")
        model = build_model(task, config, device="cpu", seed=3)
        from ocr_interp.models.starts import initial_weights

        run = Snapshot(RunConfig(task, config, TrainConfig(seed=3)), 0, initial_weights(task, config, 3))
        ours = OVCircuit.from_run(run, raw=True)
        theirs = OVCircuit.from_model(
            model, layer=0, head=0, inputs=ours.inputs.labels, outputs=ours.outputs.ids, labels=task.labels
        )
        assert np.array_equal(ours.W, theirs.W) or pytest.approx(theirs.W, abs=1e-14) == ours.W
        ours.check_fresh(model)
        with torch.no_grad():
            model.blocks[0].attn.W_V[0, 0, 0] += 1
        with pytest.raises(StaleCircuitError):
            ours.check_fresh(model)


def test_groups_of_tokens_give_energy_by_group():
    model = hooked_models.hooked_transformer("RMS")
    circuit = OVCircuit.from_model(
        model, layer=0, head=0, inputs={"low": [2, 3], "high": [9]}, outputs={"x": [4], "y": [5, 6]}
    )
    energy = circuit.energy
    assert (energy.rows, energy.columns) == (("low", "high"), ("x", "y"))
    assert energy.norm("low", "y") == pytest.approx(np.linalg.norm(circuit.W[:2, 1:]))
    assert energy.shares.sum() == pytest.approx(1)


# --- attribution ---------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_one_layer_decomposes_exactly_and_as_transformer_lens_does(norm, kv_heads):
    model = hooked_models.hooked_transformer(norm, kv_heads=kv_heads)
    found = attribute_model(model, PROMPT, 7, 8)
    logits, cache = model.run_with_cache(torch.tensor([PROMPT]))
    assert found.total == float(logits[0, -1, 7] - logits[0, -1, 8])
    whole = found.contributions.sum() + found.direct + found.bias
    assert abs(whole - found.total) < 1e-10
    assert found.contributions.shape == (4, len(PROMPT))
    # TransformerLens scales the stack by the cached norm and leaves centring of W_U and biases to the user.
    stack, labels = cache.decompose_resid(layer=1, pos_slice=-1, apply_ln=False, return_labels=True)
    direction = model.W_U[:, 7] - model.W_U[:, 8]
    if norm in ("LN", "RMS"):
        direction = direction * model.ln_final.w
    scaled = cache.apply_ln_to_stack(stack, layer=-1, pos_slice=-1) if norm else stack
    theirs = dict(zip(labels, (scaled @ direction)[:, 0].tolist(), strict=True))
    ours = {"embed": found.direct, "0_attn_out": found.contributions.sum()}
    b_O = cache.apply_ln_to_stack(model.b_O[0].expand_as(stack[:1]), layer=-1, pos_slice=-1)[0, 0]
    attention_bias = float((b_O if norm else model.b_O[0]) @ direction)
    assert theirs["0_attn_out"] - attention_bias == pytest.approx(ours["0_attn_out"], abs=1e-12)
    assert theirs["embed"] + theirs["pos_embed"] == pytest.approx(found.direct, abs=1e-12)


@pytest.mark.parametrize("norm", [None, "LNPre", "RMSPre"])
def test_heads_agree_with_logit_attrs(norm):
    """logit_attrs takes W_U as it is: models without norm gains, as it expects them."""
    model = hooked_models.hooked_transformer(norm, n_layers=2, attn_only=False)
    _, cache = model.run_with_cache(torch.tensor([PROMPT]))
    per_head = cache.stack_head_results(layer=2, pos_slice=-1)
    theirs = cache.logit_attrs(per_head, tokens=7, incorrect_tokens=8, pos_slice=-1, batch_slice=0)
    for layer in range(2):
        for head in range(4):
            found = attribute_model(model, PROMPT, 7, 8, layer=layer, head=head)
            assert found.total == pytest.approx(float(theirs[4 * layer + head]), abs=1e-10)
            assert abs(found.contributions.sum() - found.total) < 1e-10
            assert "held" in found.statement


def test_a_head_of_a_bridge_and_its_graph(llama, llama_bridge):
    ids = torch.tensor([PROMPT])
    assert torch.allclose(llama_bridge(ids), llama(ids).logits, atol=1e-5)
    kinds = ["subject", "relation", "noise", "subject", "EOS"]
    found = attribute_model(
        llama_bridge, ["w1", "w2", "w3", "w1", "w7"], "w5", "w6", layer=1, head=2, kinds=kinds
    )
    assert found.tokens == ("w1", "w2", "w3", "w1", "w7")
    assert found.heads == ((1, 2),)
    assert sum(found.of_kind(kind) for kind in found.kind_names) == pytest.approx(found.total)
    graph = attribution_graph(found)
    assert graph.total == pytest.approx(found.total)
    assert {node.kind for node in graph.nodes} == {"token", "attention", "ov_block", "answer"}


def test_a_hook_that_edits_the_model_is_noticed():
    model = hooked_models.hooked_transformer("LN")
    model.blocks[0].hook_attn_out.add_hook(lambda value, hook: 2 * value)
    with pytest.raises(AttributionError, match="hooks that edit it"):
        attribute_model(model, PROMPT, 7, 8)


def test_float32_is_allowed_its_own_precision():
    model = hooked_models.hooked_transformer("LN", dtype=torch.float32)
    found = attribute_model(model, PROMPT, 7, 8)
    assert 0 < abs(found.residual) < 1e-4


# --- names, and what is refused -------------------------------------------------------------------


def test_both_kinds_of_models_have_the_protocol_and_every_hook(llama_bridge):
    model = hooked_models.hooked_transformer("LN", n_layers=2)
    for each in (model, llama_bridge):
        assert isinstance(each, HookedModel)
        assert check_model(each) is each
        for kind in LAYER_HOOKS:
            _, cache = each.run_with_cache(torch.tensor([PROMPT]), names_filter=layer_hook(each, 1, kind))
            assert len(cache) >= 1


@pytest.mark.parametrize("bad", [-1, 2, 1.0, True, "0", None])
def test_layers_and_heads_that_do_not_exist(bad, llama_bridge):
    with pytest.raises(ModelError, match=r"layer must be a whole number in 0\.\.1"):
        check_layer(llama_bridge, bad)
    if bad != 2:
        with pytest.raises(ModelError, match=r"head must be a whole number in 0\.\.5"):
            check_head(llama_bridge, bad)


def test_unknown_hooks_tokens_and_models(llama_bridge):
    with pytest.raises(UnknownNameError, match=r"did you mean 'blocks\.0\.attn\.hook_pattern'"):
        check_hook(llama_bridge, "blocks.0.attn.hook_patern")
    with pytest.raises(UnknownNameError, match="did you mean 'pattern'"):
        layer_hook(llama_bridge, 0, "patern")
    with pytest.raises(ModelError, match=r"got object without .*W_E.*boot_transformers"):
        check_model(object())
    read = {"layer": 0, "head": 0}
    with pytest.raises(UnknownNameError, match="did you mean 'w1"):
        OVCircuit.from_model(llama_bridge, inputs=["w1x"], outputs=["w2"], **read)
    with pytest.raises(ModelError, match=r"one token of the model's tokenizer, got 'w1 w2', which is 2"):
        OVCircuit.from_model(llama_bridge, inputs=["w1 w2"], outputs=["w2"], **read)
    with pytest.raises(ModelError, match=r"id in 0\.\.31, got 32"):
        OVCircuit.from_model(llama_bridge, inputs=[32], outputs=["w2"], **read)
    with pytest.raises(ModelError, match=r"pass \['w1'\]"):
        OVCircuit.from_model(llama_bridge, inputs="w1", outputs=["w2"], **read)
    with pytest.raises(ModelError, match="at least one token"):
        OVCircuit.from_model(llama_bridge, inputs=[], outputs=["w2"], **read)
    with pytest.raises(ModelError, match=r"one entry a token \(32\), got 1"):
        OVCircuit.from_model(llama_bridge, inputs=[1], outputs=[2], labels=["x"], **read)
    with pytest.raises(ModelError, match="layer and head must be given"):
        attribute_model(llama_bridge, PROMPT, 7)
    with pytest.raises(ModelError, match="given together"):
        attribute_model(llama_bridge, PROMPT, 7, layer=0)
    with pytest.raises(ModelError, match=r"one entry a position \(5\), got 1"):
        attribute_model(llama_bridge, PROMPT, 7, layer=0, head=0, kinds=["x"])


def test_token_sets_that_overlap_are_refused(llama_bridge):
    read = {"layer": 0, "head": 0}
    with pytest.raises(ModelError, match="every token once, got 'w1' more than once"):
        OVCircuit.from_model(llama_bridge, inputs=["w1", 3], outputs=["w2"], **read)
    groups = {"subjects": ["w1", "w2"], "relations": ["w2"]}
    with pytest.raises(ModelError, match="got 'w2' in 'subjects' and in 'relations': its energy would count"):
        OVCircuit.from_model(llama_bridge, inputs=groups, outputs=["w3"], **read)


def test_effective_circuits_and_tasks_belong_to_runs(llama_bridge):
    circuit = OVCircuit.from_model(llama_bridge, layer=0, head=0, inputs=[1], outputs=[2])
    with pytest.raises(ModelError, match="depends on the token alone"):
        _ = circuit.effective
    with pytest.raises(ModelError, match="fact-recall task"):
        _ = circuit.subjects_and_relations
    with pytest.raises(ModelError, match="pass task=, a FactRecallTask"):
        circuit.alignment(circuit)


def test_weights_that_are_not_finite_are_refused():
    model = hooked_models.hooked_transformer("LN")
    model.blocks[0].ln1.w[3] = torch.nan
    with pytest.raises(WeightsError, match=r"ln1\.gain of .*layer 0, head 1 must be finite, got 1"):
        OVCircuit.from_model(model, layer=0, head=1, inputs=[1], outputs=[2])
    model = hooked_models.hooked_transformer(None)
    model.embed.W_E[30] = torch.inf
    OVCircuit.from_model(model, layer=0, head=1, inputs=[1], outputs=[2])  # token 30 is not read


def test_norms_after_attention_are_refused():
    bridge = hooked_models.bridge(hooked_models.hugging_face_model("Gemma2"))
    with pytest.raises(ModelError, match="got a norm after attention"):
        OVCircuit.from_model(bridge, layer=0, head=0, inputs=[1], outputs=[2])


def test_gains_that_are_stored_less_one(llama_bridge):
    """Gemma stores gain − 1: the circuit uses the gain, and the embedding's scale is folded in."""
    bridge = hooked_models.bridge(hooked_models.hugging_face_model("Gemma"))
    circuit = OVCircuit.from_model(bridge, layer=0, head=4, inputs=[3, 4], outputs=[7, 8])
    assert any("of the embedding: folded into W_E" in said for said in circuit.provenance.folded)
    _, cache = bridge.run_with_cache(torch.tensor([PROMPT]))
    scale = cache["blocks.0.ln1.hook_scale"][0, :2, 0] * cache["ln_final.hook_scale"][0, -1, 0]
    pattern = cache["blocks.0.attn.hook_pattern"][0, 4, -1, :2]
    wanted = (circuit.W @ [1, -1]) * (pattern / scale).detach().numpy()
    found = attribute_model(bridge, PROMPT, 7, 8, layer=0, head=4)
    assert found.contributions[0, :2] == pytest.approx(wanted, rel=1e-4)


def test_a_matrix_over_the_vocabulary_is_not_formed(monkeypatch):
    circuit = OVCircuit.from_model(
        hooked_models.hooked_transformer(), layer=0, head=0, inputs=range(32), outputs=range(32)
    )
    monkeypatch.setattr("ocr_interp.linalg.spectrum.LARGEST_MATRIX", 1000)
    with pytest.raises(ModelError, match="at most 1,000 entries to be formed, got 32 × 32"):
        _ = circuit.W
    assert circuit.nuclear_norm > 0
    assert dataclasses.is_dataclass(circuit)
