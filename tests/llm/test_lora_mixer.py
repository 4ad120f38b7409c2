"""LoRA-Mixer: one expert is peft's LoRA to the bit, routing by hand, and the routers' loss by hand."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from small_facts import SMALL
from ten_families import IDS, families, tiny

from ocr_interp.errors import ConfigError, ModelError, UnknownNameError
from ocr_interp.llm import FinetuneConfig, LLMRunConfig, finetune, load_update, methods, save_update, wrap
from ocr_interp.llm.encoding import encode, training_batch
from ocr_interp.llm.layers.joined import apart, joined_in
from ocr_interp.llm.layers.layout import layout_of
from ocr_interp.llm.layers.mixture import expert_updates
from ocr_interp.llm.layers.parts import maps_by_part
from ocr_interp.llm.models.forward import answer_logits
from ocr_interp.llm.training import loop as module
from ocr_interp.llm.training.trainable import make_trainable, trained_parameters

MIXER = methods["lora_mixer"]


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def drawn(model, size=0.3, seed=0):
    """The model with its update moved away from the start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


def recipe(**values):
    given = {"model": "tiny", "lr": 1e-2, "steps": 8, "log_every": 4, "batch_size": 6, "device": "cpu"}
    return FinetuneConfig(**{**given, **values})


@pytest.mark.slow
@pytest.mark.parametrize("hard_share", [0.0, 0.5])
def test_one_expert_is_the_lora_of_peft_to_the_bit_over_training(hard_share, make_model, monkeypatch):
    kept = {}
    merge = module.trained_model

    def keep(lm, names, model, recipe):
        kept[recipe.method] = {n: p.detach().clone() for n, p in trained_parameters(model).items()}
        return merge(lm, names, model, recipe)

    monkeypatch.setattr(module, "trained_model", keep)
    options = {"n_experts": 1, "hard_share": hard_share}
    one = recipe(method="lora_mixer", method_options=options, train_parts=("attention",))
    mixed = finetune(LLMRunConfig(SMALL, one), lm=make_model())
    plain = finetune(LLMRunConfig(SMALL, recipe(method="lora", train_parts=("attention",))), lm=make_model())
    assert mixed.history["train_loss"].equals(plain.history["train_loss"])
    for side in "AB":
        own = [p for n, p in kept["lora_mixer"].items() if f".{side}." in n]
        theirs = [p for n, p in kept["lora"].items() if f"lora_{side}." in n]
        assert len(own) == len(theirs) == 8
        assert all(torch.equal(a, b) for a, b in zip(own, theirs, strict=True))
        assert any(a.abs().max() > 0 for a in own)


@pytest.mark.parametrize("name", families("MambaForCausalLM", "JambaForCausalLM"))
def test_every_family_starts_as_itself_trains_what_is_named_and_comes_back(name, tmp_path):
    plain = tiny(name)
    start, layout = logits(plain), layout_of(plain)
    parts = maps_by_part(layout)
    expected = {p for part in ("qk", "v", "o", "qkv", "in", "out") for p in parts.get(part, ())}
    model = wrap(copy.deepcopy(plain), "lora_mixer", lora_rank=2, n_experts=3, top_k=2)
    assert torch.equal(logits(model), start)
    assert {path.replace("/", ".") for path in model.lora_mixer.maps} == expected
    assert all(name.startswith("lora_mixer.") for name in trained_parameters(model))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    real = torch.ones_like(IDS, dtype=torch.bool)
    for _ in range(3):
        model.lora_mixer.route(None, training=True)
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        (
            loss + model.lora_mixer.loss(None, real, {"balance": 0.1, "entropy": 0.1, "label_loss": 0})
        ).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.lora_mixer.route(None, training=False)
    assert (logits(model) - start).abs().max() > 1e-4
    save_update(model, tmp_path / "update")
    assert torch.equal(logits(load_update(plain, tmp_path / "update")), logits(model))


@pytest.mark.parametrize("separate", ["both", "read", "write"])
def test_the_sum_over_experts_by_hand(separate):
    options = {"n_experts": 3, "separate": separate, "top_k": 2, "temperature": 0.7}
    model = drawn(wrap(tiny("LlamaForCausalLM"), "lora_mixer", lora_rank=2, lora_alpha=3.0, **options))
    update = model.lora_mixer.maps["model/layers/0/self_attn/q_proj"]
    assert (len(update.A), len(update.B)) == {"both": (3, 3), "read": (3, 1), "write": (1, 3)}[separate]
    x = torch.randn(2, 4, 24, dtype=torch.float64)
    p = (x @ update.router.weight.T / 0.7).softmax(-1)
    experts = expert_updates(model)["model.layers.0.self_attn.q_proj"]
    outputs = torch.stack([x @ A.T @ B.T for A, B in experts], -1)
    with torch.no_grad():
        model.lora_mixer.route(None, training=True)
        found = 1.5 * update.mixed(x)
        torch.testing.assert_close(found, (outputs * p[..., None, :]).sum(-1), rtol=0, atol=1e-12)
        model.lora_mixer.route(None, training=False)
        kept = p * (p >= p.topk(2, -1).values[..., -1:])
        kept = kept / kept.sum(-1, keepdim=True)
        found = 1.5 * update.mixed(x)
        torch.testing.assert_close(found, (outputs * kept[..., None, :]).sum(-1), rtol=0, atol=1e-12)
        model.lora_mixer.route(torch.tensor([2, 0]), training=False)
        own = torch.stack([outputs[0, ..., 2], outputs[1, ..., 0]])
        torch.testing.assert_close(1.5 * update.mixed(x), own, rtol=0, atol=1e-12)


def test_in_the_hard_stage_an_expert_is_an_independent_lora_of_its_own_examples(make_model, facts):
    """Its gradient is that of a plain LoRA on the sentences of its relation; sums of losses, not means."""
    lm = make_model()
    told = encode(lm.tokenizer, facts.training_examples)
    two = recipe(method="lora_mixer", method_options={"label_loss": 1.0}, lora_rank=4)
    one = recipe(method="lora_mixer", method_options={"n_experts": 1}, lora_rank=4)

    def gradients(config, examples, start=None):
        model = make_trainable(make_model().model, config)
        if start is not None:
            with torch.no_grad():
                for name, matrix in apart(trained_parameters(model), joined_in(model)).items():
                    if "router" not in name:
                        matrix.copy_(start[name])
        batch = training_batch(examples, lm.pad, "cpu")
        MIXER.before_forward(model, config, batch, 0)
        nll = torch.nn.functional.cross_entropy(answer_logits(model, batch), batch.target, reduction="sum")
        nll.backward()
        grads = {n: p.grad for n, p in trained_parameters(model).items() if "router" not in n}
        return model, apart(grads, joined_in(model))

    model, found = gradients(two, told)
    values = apart(dict(model.named_parameters()), joined_in(model))
    for expert in (0, 1):
        own = [e for e in told if e.example.relation == expert]
        assert own
        start = {n.replace(f".{expert}", ".0"): p for n, p in values.items() if n.endswith(f".{expert}")}
        _, alone = gradients(one, own, start)
        for name, grad in alone.items():
            theirs = found[f"{name[:-1]}{expert}"]
            torch.testing.assert_close(theirs, grad, rtol=1e-4, atol=1e-6)
    assert max(float(g.abs().max()) for g in found.values()) > 1e-3


def test_routing_by_sequence_reads_nothing_later():
    model = drawn(wrap(tiny("LlamaForCausalLM"), "lora_mixer", router="sequence", n_experts=3, top_k=1))
    longer = torch.cat([IDS, IDS[:, :2]], 1)
    torch.testing.assert_close(logits(model, longer)[:, :6], logits(model), rtol=0, atol=1e-12)
    update = model.lora_mixer.maps["model/layers/0/self_attn/q_proj"]
    x = torch.randn(1, 4, 24, dtype=torch.float64)
    third = x[:, :3].mean(1) @ update.router.weight.T
    model.lora_mixer.begins(model, (), {"inputs_embeds": x})
    torch.testing.assert_close(update.scores(x)[:, 2], third, rtol=0, atol=1e-12)


def test_the_loss_of_the_routers_by_hand():
    """One map, two sequences of two tokens, the last of them padding."""
    model = wrap(
        tiny("LlamaForCausalLM", num_hidden_layers=1),
        "lora_mixer",
        train_parts=["v"],
        n_experts=3,
        top_k=1,
        lora_rank=2,
    )
    mixer = model.lora_mixer
    p = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], [[0.5, 0.3, 0.2], [0.01, 0.01, 0.98]]])
    real = torch.tensor([[True, True], [True, False]])

    def loss(labels=None, **weights):
        mixer.route(labels, training=True)
        mixer.of_scores(p.log().double())
        return float(mixer.loss(labels, real, {"balance": 0.0, "entropy": 0.0, "label_loss": 0.0, **weights}))

    mean = [(0.7 + 0.1 + 0.5) / 3, (0.2 + 0.6 + 0.3) / 3, (0.1 + 0.3 + 0.2) / 3]
    assert loss(balance=1.0) == pytest.approx(mean[0] * 2 / 3 + mean[1] / 3, rel=1e-6)
    H = [-sum(x * math.log(x) for x in row) for row in ((0.7, 0.2, 0.1), (0.1, 0.6, 0.3), (0.5, 0.3, 0.2))]
    assert loss(entropy=1.0) == pytest.approx(-sum(H) / 3, rel=1e-6)
    assert loss(entropy=-2.0) == pytest.approx(2 * sum(H) / 3, rel=1e-6)
    labels = torch.tensor([1, 0])
    expected = -(math.log(0.2) + math.log(0.6) + math.log(0.5)) / 3
    assert loss(labels, label_loss=1.0, balance=5.0) == pytest.approx(expected, rel=1e-6)
    found = mixer.counted()
    assert [found[f"score_{e}"] for e in range(3)] == pytest.approx(mean, rel=1e-6)
    assert [found[f"first_{e}"] for e in range(3)] == pytest.approx([2 / 3, 1 / 3, 0], rel=1e-6)
    assert found["entropy"] == pytest.approx(sum(H) / 3, rel=1e-6)
    assert found["collapsed"] == 0
    assert math.isnan(mixer.counted()["entropy"])


@pytest.mark.slow
def test_a_history_shows_routing_and_a_collapse_is_said(make_model):
    options = {"n_experts": 3, "label": "subject", "hard_share": 0.5, "label_loss": 1.0, "top_k": 1}
    run = finetune(
        LLMRunConfig(SMALL, recipe(method="lora_mixer", method_options=options, lora_rank=2)), lm=make_model()
    )
    assert list(run.columns) == [
        *(f"lora_mixer/{what}_{e}" for what in ("score", "first") for e in range(3)),
        "lora_mixer/entropy",
        "lora_mixer/collapsed",
    ]
    rows = run.history
    assert rows["lora_mixer/entropy"].isna().tolist() == [True, False, False]
    assert rows[[f"lora_mixer/first_{e}" for e in range(3)]].iloc[1:].sum(axis=1).tolist() == pytest.approx(
        [1, 1]
    )
    config = run.config.train
    assert MIXER.remarks(config, {"lora_mixer/collapsed": 0.0}) == ()
    (said,) = MIXER.remarks(config, {"lora_mixer/collapsed": 0.25})
    assert said.startswith("25% of the routers have collapsed")


def test_labels_are_relations_subjects_or_drawn(facts):
    from ocr_interp.llm.adapters.lora_mixer import _expert

    examples = facts.training_examples

    def experts(seed=0, **options):
        settings = {**MIXER.options, **options}
        return [_expert(example, settings, seed) for example in examples]

    assert experts() == [e.relation for e in examples]
    assert experts(experts_of="1,0") == [1 - e.relation for e in examples]
    assert experts(label="subject", n_experts=3) == [e.subject % 3 for e in examples]
    found = [experts(seed, label="random", n_experts=3) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert set(found[0]) == {0, 1, 2}


def peft_folder(path, seed=0, **options):
    """A LoRA on attention, away from its start, saved by peft; gives its logits."""
    model = wrap(tiny("LlamaForCausalLM"), "lora", train_parts=["attention"], **options)
    drawn(model, seed=seed)
    model.save_pretrained(path)
    return logits(model)


@pytest.mark.slow
def test_loras_of_peft_are_experts_and_the_router_alone_is_trained(tmp_path):
    first = peft_folder(tmp_path / "a", lora_rank=2)
    second = peft_folder(tmp_path / "b", seed=1, lora_rank=4, lora_alpha=2.0)
    folders = f"{tmp_path / 'a'}, {tmp_path / 'b'}"
    options = {"experts_from": folders, "train": "router", "hard_share": 0.0}
    model = wrap(tiny("LlamaForCausalLM"), "lora_mixer", **options)
    for expert, expected in enumerate((first, second)):
        model.lora_mixer.route(torch.full((2,), expert), training=False)
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-12)
    assert {name.split(".")[-2] for name in trained_parameters(model)} == {"router"}
    save_update(model, tmp_path / "update")
    with torch.no_grad():  # what is kept is what was trained with, whatever lies in the folder now
        peft_folder(tmp_path / "a", seed=5, lora_rank=2)
    again = load_update(tiny("LlamaForCausalLM"), tmp_path / "update")
    assert torch.equal(logits(again), logits(model))


def test_the_anchor_is_the_squared_way_from_the_given_experts(tmp_path):
    peft_folder(tmp_path / "a", lora_rank=2)
    options = {"experts_from": str(tmp_path / "a"), "n_experts": 1, "anchor": 0.5}
    model = wrap(tiny("LlamaForCausalLM"), "lora_mixer", **options)
    mixer, real = model.lora_mixer, torch.ones_like(IDS, dtype=torch.bool)
    with torch.no_grad():
        assert float(mixer.distance()) == 0
        mixer.updates[0].A[0].add_(2.0)
        assert float(mixer.distance()) == 4.0 * 2 * 24
    mixer.route(None, training=True)
    model(input_ids=IDS, use_cache=False)
    mixer.batch = (None, real)
    config = recipe(method="lora_mixer", method_options={**options, "balance": 0.0})
    assert float(MIXER.extra_loss(model, config).detach()) == 0.5 * 4.0 * 2 * 24
    assert sum(name.startswith("maps") and ".start_" in name for name in MIXER.state(model)) == 16


@pytest.mark.slow
def test_given_experts_that_do_not_fit_are_refused(tmp_path):
    def mixed(*folders, model=None, **options):
        given = {"experts_from": ",".join(str(tmp_path / f) for f in folders), "n_experts": len(folders)}
        return wrap(model or tiny("LlamaForCausalLM"), "lora_mixer", **{**given, **options})

    with pytest.raises(ModelError, match="must be a folder that peft has saved"):
        mixed("nothing")
    peft_folder(tmp_path / "a", lora_rank=2)
    wrap(tiny("LlamaForCausalLM"), "lora", train_parts=["mlp"]).save_pretrained(tmp_path / "mlp")
    with pytest.raises(
        ModelError, match=r"same linear maps, .*a and .*mlp differ in 14, such as model\.layers"
    ):
        mixed("a", "mlp")
    wrap(tiny("LlamaForCausalLM"), "lora", use_dora=True).save_pretrained(tmp_path / "dora")
    with pytest.raises(
        ModelError, match="must hold a plain LoRA with one rank to be an expert, got use_dora"
    ):
        mixed("dora")
    with pytest.raises(ConfigError, match="must be on the linear maps that are routed, they differ in 4"):
        mixed("a", train_parts=["ov"])
    with pytest.raises(
        ModelError, match=r"is of another model: .* has 24 inputs and 24 outputs there, 12 and"
    ):
        mixed("a", model=tiny("LlamaForCausalLM", hidden_size=12, head_dim=2))
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "IA3"}))
    with pytest.raises(ModelError, match="got peft_type 'IA3'"):
        mixed("a")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_experts": 0}, ConfigError, "n_experts must be >= 1"),
        ({"separate": "reads"}, ConfigError, "separate must be one of 'both', 'read', 'write', got 'reads'"),
        ({"hard_share": 1.5}, ConfigError, "hard_share is a share of the steps, at most 1, got 1.5"),
        ({"temperature": 0.0}, ConfigError, "temperature must be a finite number > 0"),
        ({"experts_of": "0,2"}, ConfigError, "must be an expert, 0 to 1, for every relation, .* got '0,2'"),
        ({"experts_of": "0,1", "label": "random"}, ConfigError, "experts_of is for label='relation'"),
        ({"train": "router"}, ConfigError, "name their folders in experts_from"),
        ({"anchor": 0.1}, ConfigError, "name their folders in experts_from"),
        ({"experts_from": "a,b,c"}, ConfigError, "the number of folders in experts_from, 3, got 2"),
        ({"experts_from": "a,b", "separate": "read"}, ConfigError, "LoRAs from folders share nothing"),
        (
            {"experts_from": "a,b", "train": "router"},
            ConfigError,
            "trains no expert: pass anchor 0 and hard_",
        ),
        ({"balanse": 1.0}, UnknownNameError, "option 'balanse': did you mean 'balance'"),
    ],
)
def test_bad_options_say_what_is_wrong(options, error, message):
    with pytest.raises(error, match=message):
        recipe(method="lora_mixer", method_options=options)


def test_what_cannot_be_routed_is_refused():
    model = wrap(tiny("LlamaForCausalLM"), "lora_mixer")
    model.lora_mixer.route(torch.tensor([0, 1, 0]), training=False)
    with pytest.raises(ConfigError, match="the expert of each of 2 sequences, got 3"):
        logits(model)
    assert torch.isfinite(logits(model)).all()  # what was said was for one pass
    with pytest.raises(ModelError, match=r"loss\(\) needs a forward pass after route"):
        model.lora_mixer.loss(None, torch.ones_like(IDS, dtype=torch.bool), {})
    with pytest.raises(ModelError, match="has no LoRA-Mixer"):
        expert_updates(tiny("LlamaForCausalLM"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "control", "idle"),
    [
        ({"n_experts": 4}, "none", "expert 2, 3 of 4"),
        ({"experts_of": "0,0"}, "none", "expert 1 of 2"),
        ({"n_experts": 2}, "facts_only", "expert 1 of 2"),
    ],
)
def test_an_expert_that_no_example_goes_to_is_refused(options, control, idle, make_model):
    facts = dataclasses.replace(SMALL, control=control)
    one = recipe(method="lora_mixer", method_options=options)
    with pytest.raises(ConfigError, match=rf"{idle} gets no example by its label \(relation\).*hard_share 0"):
        finetune(LLMRunConfig(facts, one), lm=make_model())
    by_routers = recipe(method="lora_mixer", method_options={**options, "hard_share": 0.0})
    assert finetune(LLMRunConfig(facts, by_routers), lm=make_model()).status == "finished"


@pytest.mark.parametrize("separate", ["both", "read", "write"])
def test_layers_without_experts_have_one_lora_for_all_tokens(separate, tmp_path):
    options = {"n_experts": 3, "separate": separate, "layers": "1"}
    plain = tiny("LlamaForCausalLM")
    model = drawn(wrap(copy.deepcopy(plain), "lora_mixer", lora_rank=2, lora_alpha=3.0, **options))
    mixer = model.lora_mixer
    x = torch.randn(2, 4, 24, dtype=torch.float64)
    for path, update in mixer.maps.items():
        outside = "/0/" in path
        assert (len(update.A) == len(update.B) == 1) == outside
        assert hasattr(update, "router") != outside
    update = mixer.maps["model/layers/0/self_attn/q_proj"]
    by_hand = x @ update.A[0].T @ update.B[0].T
    for labels in (None, torch.tensor([2, 0])):
        mixer.route(labels, training=False)
        with torch.no_grad():
            torch.testing.assert_close(update.mixed(x), by_hand, rtol=0, atol=1e-12)
    experts = expert_updates(model)["model.layers.0.self_attn.q_proj"]
    assert len(experts) == 3
    assert all(torch.equal(B @ A, experts[0][1] @ experts[0][0]) for A, B in experts)
    mixer.route(None, training=True)
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    real = torch.ones_like(IDS, dtype=torch.bool)
    (loss + mixer.loss(None, real, {"balance": 0.1, "entropy": 0.1, "label_loss": 0})).backward()
    assert all(p.grad is not None for p in trained_parameters(model).values())
    assert len(mixer.first_sum) == len(mixer.routed) == len(mixer.maps) // 2
    mixer.route(None, training=False)
    save_update(model, tmp_path / "update")
    assert torch.equal(logits(load_update(plain, tmp_path / "update")), logits(model))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": "1-0"}, "numbers or ranges of layers, such as '0-8,12', got '1-0'"),
        ({"layers": "first"}, "numbers or ranges of layers"),
        ({"layers": "0-"}, "numbers or ranges of layers"),
        ({"layers": "0-2"}, r"must lie in 0\.\.1, those of the model, got 2"),
        ({"layers": "0", "n_experts": 1}, "with n_experts=1 leave it out"),
        ({"layers": "0", "experts_from": "a,b"}, "experts on all their maps: leave layers out"),
    ],
)
def test_layers_that_are_not_there_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        wrap(tiny("LlamaForCausalLM"), "lora_mixer", **options)


def test_a_layer_without_a_map_to_update_is_refused():
    model = tiny("JambaForCausalLM")
    with_queries = {path.split(".")[2] for path in maps_by_part(layout_of(model))["qk"]}
    other = next(str(k) for k in range(len(model.model.layers)) if str(k) not in with_queries)
    with pytest.raises(ConfigError, match=f"layer {other} has no linear map among those that are updated"):
        wrap(model, "lora_mixer", train_parts=("qk",), layers=other)
