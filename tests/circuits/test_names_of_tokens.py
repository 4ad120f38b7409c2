"""Strings and labels mean one token or are refused; inputs and outputs may be two vocabularies."""

import hooked_models
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import PreTrainedTokenizerFast

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.examples import Examples
from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site
from ocr_interp.circuits.attribution.attribute import attribute
from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ModelError, UnknownNameError
from ocr_interp.graphs.circuit_graph import circuit_graph
from ocr_interp.graphs.head_graph import head_graph
from ocr_interp.hooked.tokens.labels import name_tokens
from ocr_interp.models.hooked39 import build_model

HEAD = {"layer": 1, "head": 2}


def byte_level():
    """A byte-level tokenizer with the merge "cat"."""
    vocab = {"<eos>": 0, "c": 1, "a": 2, "t": 3, "ca": 4, "cat": 5, "Ġ": 6, "Ġcat": 7, "b": 8}
    merges = [("c", "a"), ("ca", "t"), ("Ġ", "cat")]
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")


def sentence_piece():
    """A tokenizer that puts ▁ before a text, as SentencePiece does."""
    vocab = {"<unk>": 0, "Paris": 1, "▁Paris": 2, "▁": 3, "x": 4}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


@pytest.fixture
def hooked():
    return hooked_models.hooked_transformer("LN", n_layers=2)


@pytest.fixture
def cats(hooked):
    hooked.tokenizer = byte_level()
    return hooked


@pytest.mark.slow
def test_a_text_is_what_the_tokenizer_makes_of_it(cats):
    assert attribute_model(cats, "cat", "a", **HEAD).tokens == ("cat",)
    assert attribute(cats, "cat", "a", **HEAD).tokens == ("cat",)
    found = attribute_model(cats, "cat cat", "a", "b", **HEAD)
    assert found.tokens == ("cat", "Ġcat")
    assert found.total == attribute_model(cats, [5, 7], 2, 8, **HEAD).total
    graph = head_graph(cats, "cat cat", "a", "b", **HEAD)
    assert [node.label for node in graph.nodes if node.kind == "token"] == ["cat", "Ġcat"]
    assert attribute_model(cats, ["c", " cat"], "a", **HEAD).tokens == ("c", "Ġcat")
    for inputs in ("cat", "c"):
        with pytest.raises(ModelError, match="pass"):
            OVCircuit.from_model(cats, inputs=inputs, outputs=["a"], **HEAD)
    with pytest.raises(ModelError, match="text of the model's tokenizer"):
        attribute_model(cats, "", "a", **HEAD)


def test_a_text_without_a_tokenizer_is_refused(hooked):
    with pytest.raises(ModelError, match=r"no tokenizer, got the string 'token 3'"):
        attribute_model(hooked, "token 3", 7, **HEAD)
    with pytest.raises(ModelError, match=r"pass \['ab'\]"):
        OVCircuit.from_model(hooked, inputs=[1, 2], outputs=[3], **HEAD).restrict("ab")


def test_a_string_that_is_a_label_and_as_a_text_another_token_is_refused_with_both(hooked):
    hooked.tokenizer = sentence_piece()
    for call in (
        lambda: attribute_model(hooked, ["Paris", "x"], 4, **HEAD),
        lambda: attribute_model(hooked, [3, 4], "Paris", **HEAD),
        lambda: OVCircuit.from_model(hooked, inputs=["Paris"], outputs=[4], **HEAD),
    ):
        with pytest.raises(ModelError, match="may mean the ids 1, 2"):
            call()
    with pytest.raises(ModelError, match=r"as a text it is the ids \[2\], as a label \[1\]"):
        attribute_model(hooked, "Paris", 4, **HEAD)
    assert attribute_model(hooked, ["▁Paris"], 4, labels=None, **HEAD).tokens == ("▁Paris",)


@pytest.mark.parametrize("places", [(3, 5), (0, 31)])
def test_duplicate_labels_are_refused_with_both_ids_everywhere(places, hooked):
    labels = [f"w{k}" for k in range(32)]
    for place in places:
        labels[place] = "x"
    told = f"may mean the ids {places[0]}, {places[1]}"
    both = OVCircuit.from_model(hooked, inputs=range(32), outputs=[7, *places], labels=labels, **HEAD)
    prompt = torch.tensor([[places[0], 9]])
    for call in (
        lambda: OVCircuit.from_model(hooked, inputs=["x"], outputs=[7], labels=labels, **HEAD),
        lambda: OVCircuit.from_model(hooked, inputs=[7], outputs=["x"], labels=labels, **HEAD),
        lambda: both.restrict(["x"]),
        lambda: both.restrict(None, ["x"]),
        lambda: attribute_model(hooked, ["x", 4], 7, labels=labels, **HEAD),
        lambda: attribute_model(hooked, [3, 4], "x", labels=labels, **HEAD),
        lambda: head_graph(hooked, [3, 4], "x", labels=labels, **HEAD),
        lambda: Zero().at(Site.at("v", layer=0, tokens=["x"])).touched(hooked, prompt, labels),
        lambda: ablated(hooked, Zero().at(Path(["x"], **HEAD)), labels=labels).__enter__(),
    ):
        with pytest.raises(ModelError, match=told):
            call()
    np.testing.assert_allclose(both.restrict([places[1]]).W, both.W[[places[1]]], rtol=1e-12)
    assert both.restrict(["w9"]).inputs.ids == (9,)  # the others keep their names


def test_strings_mean_the_same_in_ablations_and_restrictions(cats):
    circuit = OVCircuit.from_model(cats, inputs=[" cat", "c", 2], outputs=[3, 8], **HEAD)
    assert circuit.inputs.labels == ("Ġcat", "c", "a")
    assert circuit.restrict([" cat", "a"]).inputs.ids == (7, 2)
    assert circuit.restrict([np.int64(1)]).inputs.ids == (1,)
    with pytest.raises(UnknownNameError, match="token of the circuit"):
        circuit.restrict(["b"])
    with pytest.raises(ModelError, match="must be one token"):
        circuit.restrict(["catcat"])
    prompt = torch.tensor([[5, 7, 2]])
    for named in ([" cat"], [7]):
        assert Zero().at(Site.at("v", layer=1, tokens=named)).touched(cats, prompt, None).tolist() == [1]
        with ablated(cats, Zero().at(Path(named, **HEAD))):
            assert torch.equal(cats(prompt), cats(prompt))
    cats.tokenizer = sentence_piece()
    both = OVCircuit.from_model(cats, inputs=[1, 2, 4], outputs=[3], **HEAD)
    for call in (
        lambda: both.restrict(["Paris"]),
        lambda: Zero().at(Site.at("v", layer=1, tokens=["Paris"])).touched(cats, prompt, None),
        lambda: ablated(cats, Zero().at(Path(["Paris"], **HEAD))).__enter__(),
    ):
        with pytest.raises(ModelError, match="may mean the ids 1, 2"):
            call()


def test_labels_are_attached_once_and_known_everywhere(hooked):
    labels = [f"w{k}" for k in range(32)]
    outputs = [f"out{k}" for k in range(32)]
    prompt = torch.tensor([[5, 9]])
    try:
        name_tokens(hooked, labels, outputs)
        circuit = OVCircuit.from_model(hooked, inputs=["w5", 9], outputs=["out7"], **HEAD)
        assert (circuit.inputs.labels, circuit.outputs.labels) == (("w5", "w9"), ("out7",))
        found = attribute(hooked, ["w5", "w9"], "out7", "out8", **HEAD)
        assert (found.tokens, found.answer) == (("w5", "w9"), "out7")
        assert head_graph(hooked, ["w5", "w9"], "out7", **HEAD).nodes[-1].label == "out7"
        with ablated(hooked, Zero().at(Path(["w5"], **HEAD))):
            hooked(prompt)
        spec = {"word": Zero().at(Site.at("v", layer=1, tokens=["w5"]))}
        assert len(run_ablation_study(hooked, spec, examples=Examples(prompt, [7])).table)
        with pytest.raises(UnknownNameError):
            attribute(hooked, ["w5"], "w7", **HEAD)  # outputs have names of their own
        # Labels of one call go before those attached.
        given = OVCircuit.from_model(
            hooked, inputs=["x5"], outputs=["out7"], labels=["x5", *labels[1:]], **HEAD
        )
        assert given.inputs.ids == (0,)
        name_tokens(hooked, labels)  # replaces both
        assert attribute(hooked, [5], 7, **HEAD).answer == "w7"
        name_tokens(hooked, tokenizer=byte_level())
        assert attribute(hooked, "cat cat", "a", **HEAD).tokens == ("cat", "Ġcat")
        name_tokens(hooked)
        assert attribute(hooked, [5], 7, **HEAD).tokens == ("token 5",)
        labels[5] = "w9"
        name_tokens(hooked, labels)
        with pytest.raises(ModelError, match="may mean the ids 5, 9"):
            OVCircuit.from_model(hooked, inputs=["w9"], outputs=[7], **HEAD)
        for wrong in ({"labels": ["x"]}, {"output_labels": ["x"]}):
            with pytest.raises(ModelError, match=rf"{next(iter(wrong))} must have one entry a token \(32\)"):
                name_tokens(hooked, **wrong)
    finally:
        name_tokens(hooked)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_and_a_peft_model_know_their_labels(tiny_task):
    model = build_model(tiny_task, device="cpu")
    with ablated(model, Zero().at(Site.at("v", layer=0, tokens=["s0"]))):
        model(torch.as_tensor(tiny_task.tokens("noise0", "noise1", "s0", "r1", "EOS"))[None])
    assert attribute(model, ["s0", "r1", "EOS"], "b0").tokens == ("s0", "r1", "EOS")
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(hooked_models.gpt2().train(), peft.LoraConfig(target_modules=["c_attn"]))
    adapted = adapted.double()
    name_tokens(adapted, hooked_models.WORDS)
    circuit = OVCircuit.from_model(adapted, layer=1, head=2, inputs=["w3"], outputs=["w4", "<eos>"])
    assert (circuit.inputs.ids, circuit.outputs.ids) == ((5,), (6, 1))
    name_tokens(adapted, tokenizer=hooked_models.tokenizer())
    assert attribute(adapted, "w3 w4", "w5", layer=1, head=2).tokens == ("w3", "w4")


# --- two vocabularies ------------------------------------------------------------------------------


def two_vocabularies(d_vocab, d_vocab_out, n_layers=1, attn_only=True, norm=None):
    cfg = HookedTransformerConfig(
        n_layers=n_layers,
        n_heads=4,
        d_model=128 if norm is None else 16,
        d_head=4,
        d_mlp=None if attn_only else 16,
        act_fn=None if attn_only else "relu",
        d_vocab=d_vocab,
        d_vocab_out=d_vocab_out,
        n_ctx=8,
        attn_only=attn_only,
        normalization_type=norm,
        dtype=torch.float64,
        device="cpu",
        seed=0,
    )
    model = HookedTransformer(cfg)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.copy_(0.4 * torch.randn_like(parameter) + (parameter.ndim == 1))
    return model.eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
@pytest.mark.parametrize(
    ("d_vocab", "d_vocab_out", "form"),
    [
        (114, 113, {}),  # modular addition
        (10, 2, {"n_layers": 2, "attn_only": False, "norm": "LN"}),  # a classifier
        (5, 40, {"n_layers": 2, "norm": "RMS"}),
    ],
)
def test_inputs_and_outputs_may_be_two_vocabularies(d_vocab, d_vocab_out, form):
    model = two_vocabularies(d_vocab, d_vocab_out, **form)
    at = {"layer": len(model.blocks) - 1, "head": 1}
    inputs, outputs = [f"in{k}" for k in range(d_vocab)], [f"class{k}" for k in range(d_vocab_out)]
    names = {"labels": inputs, "output_labels": outputs}
    last, answer, other = d_vocab - 1, d_vocab_out - 1, 0
    prompt = [3, 1, last]
    # from_model: the dense product
    circuit = OVCircuit.from_model(
        model, inputs=[f"in{last}", 2], outputs=[f"class{answer}", 0], **names, **at
    )
    block = model.blocks[at["layer"]]
    W_V, W_O = block.attn.W_V[1], block.attn.W_O[1]
    if not form:
        wanted = model.W_E[[last, 2]] @ W_V @ W_O @ model.W_U[:, [answer, 0]]
        np.testing.assert_allclose(circuit.W, wanted.numpy(), atol=1e-10)
    assert circuit.outputs.labels == (f"class{answer}", "class0")
    assert circuit_graph(circuit).nodes
    # attribution: the model's own logits
    found = attribute_model(model, prompt, outputs[answer], outputs[other], **names, **at)
    _, cache = model.run_with_cache(torch.tensor([prompt]))
    written = cache["z", at["layer"]][0, -1, 1] @ W_O
    if form.get("norm") == "LN":
        written = written - written.mean()
    gain = model.ln_final.w if form else 1.0
    scale = cache["ln_final.hook_scale"][0, -1] if form else 1.0
    wanted = (written * gain / scale) @ (model.W_U[:, answer] - model.W_U[:, other])
    assert found.total == pytest.approx(float(wanted), rel=1e-9)
    assert (found.answer, found.tokens[-1]) == (outputs[answer], inputs[last])
    if not form:
        logits = model(torch.tensor([prompt]))[0, -1]
        assert attribute(model, prompt, answer).total == pytest.approx(float(logits[answer]))
    graph = head_graph(model, prompt, outputs[answer], **names, **at)
    assert graph.nodes[-1].label == outputs[answer]
    # ablations
    specs = {"word": Zero().at(Site.at("v", layer=at["layer"], tokens=[inputs[last]]))}
    specs["path"] = Zero().at(Path([inputs[last]], **at))
    if not form:
        specs["onto"] = Zero().at(Path([inputs[last]], [outputs[answer]], **at))
    examples = Examples(
        [prompt, [1, 2, last]], [answer, 0], labels=tuple(inputs), output_labels=tuple(outputs)
    )
    table = run_ablation_study(model, specs, examples=examples).table
    assert table["loss"].notna().all()
    if not form:
        before = model(torch.tensor([prompt]))[0, -1]
        with ablated(model, specs["onto"], **names):
            change = model(torch.tensor([prompt]))[0, -1] - before
        part = attribute_model(model, prompt, answer, **at).contributions[0, -1]
        assert float(change[answer]) == pytest.approx(-part)
        assert float(change[:answer].abs().max()) < 1e-9
    # attached once
    name_tokens(model, inputs, outputs)
    again = OVCircuit.from_model(model, inputs=[f"in{last}", 2], outputs=[f"class{answer}", 0], **at)
    assert again.outputs.labels == circuit.outputs.labels
    assert attribute_model(model, prompt, outputs[answer], outputs[other], **at).total == found.total
    with ablated(model, specs["path"]):
        model(torch.tensor([prompt]))
    unnamed = Examples([prompt, [1, 2, last]], [answer, 0])
    assert run_ablation_study(model, specs, examples=unnamed).table["loss"].tolist() == table["loss"].tolist()
    name_tokens(model)
    # what is no token of a side
    with pytest.raises(UnknownNameError):
        OVCircuit.from_model(model, inputs=["class0"], outputs=[0], **names, **at)
    with pytest.raises(ModelError, match=f"0..{d_vocab_out - 1}"):
        attribute_model(model, prompt, d_vocab_out, **at)
    with pytest.raises(ModelError, match=rf"output_labels must have one entry a token \({d_vocab_out}\)"):
        attribute_model(model, prompt, 0, output_labels=["x"], **at)
    plain = attribute_model(model, prompt, 1, **at)
    assert (plain.answer, plain.tokens[0]) == ("output 1", "token 3")
