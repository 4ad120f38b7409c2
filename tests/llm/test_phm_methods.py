"""Compacter, Compacter++ and PHM-adapter: counts of the papers, Kronecker sums, and what is trained."""

import copy
from types import SimpleNamespace

import pytest
import torch
from ten_families import FITTING, IDS, families, tiny
from transformers import LlamaConfig, LlamaForCausalLM

from ocr_interp.errors import ConfigError, ModelError, UnknownNameError
from ocr_interp.llm import FinetuneConfig, load_update, merge_update, methods, save_update, wrap
from ocr_interp.llm.adapters.counts import adapter_counts
from ocr_interp.llm.layers.layout import layout_of
from ocr_interp.llm.layers.phm import PHMLinear, read_and_write
from ocr_interp.llm.training.trainable import make_trainable, trained_parameters

PHM = ("compacter", "compacter_plus", "phm_adapter")
SMOLLM2 = {
    "vocab_size": 64,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}

SMOLLM2_COUNTS = [
    ("compacter", 16, 110_224),
    ("compacter_plus", 16, 55_144),
    ("compacter", 8, 116_704),
    ("compacter_plus", 8, 58_384),
]


COUNTED = ("phm_dim", "phm_rank", "shared_phm_rule", "factorized_phm_W", "learn_phm", "phm_bias")


def settings(method, **options):
    return {**methods[method].options, **options}


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.slow
@pytest.mark.parametrize(("method", "reduction", "expected"), SMOLLM2_COUNTS)
def test_counts_of_smollm2_by_attaching_to_its_shapes(method, reduction, expected):
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SMOLLM2))
        options = {"reduction_factor": reduction, "train_norms": False}
        wrapped = make_trainable(model, FinetuneConfig(method=method, method_options=options))
    assert sum(p.numel() for p in trained_parameters(wrapped).values()) == expected


@pytest.mark.parametrize("factorized", [True, False])
@pytest.mark.parametrize("rank", [1, 2])
def test_a_layer_is_a_sum_of_kronecker_products(rank, factorized):
    torch.manual_seed(0)
    chosen = settings("compacter", phm_dim=3, phm_rank=rank, factorized_phm_W=factorized, phm_init_range=1.0)
    layer = PHMLinear(12, 6, chosen, None).double()
    layer.bias.data.normal_()
    expected = sum(torch.kron(layer.A[i], layer.B[i]) for i in range(3))
    torch.testing.assert_close(layer.matrix(), expected, rtol=0, atol=1e-12)
    x = torch.randn(2, 5, 12).double()
    torch.testing.assert_close(layer(x), x @ expected + layer.bias, rtol=0, atol=1e-12)
    if factorized:
        assert all(torch.linalg.matrix_rank(B) == rank for B in layer.B)
        bound = (2 * 6 / (4 + rank)) ** 0.5
        assert layer.s.abs().max() <= bound
    assert layer.bias.shape == (6,)


@pytest.mark.parametrize("method", PHM)
@pytest.mark.parametrize("name", families())
def test_every_family_starts_near_itself_trains_what_is_named_and_comes_back(name, method, tmp_path):
    plain = tiny(name)
    start = logits(plain)
    model = wrap(copy.deepcopy(plain), method, phm_init_range=1e-4, **FITTING[method])
    assert 0 < float((logits(model) - start).abs().max()) < 1e-4 * float(start.abs().max())
    layout = layout_of(plain)
    trained = set(trained_parameters(model))
    own = {name for name in trained if name.startswith("phm_adapters.")}
    chosen = settings(method, **FITTING[method])
    k, counted = 24 // chosen["reduction_factor"], {name: chosen[name] for name in COUNTED}
    expected = adapter_counts(24, k, len(model.phm_adapters.after), **counted).total
    assert sum(model.get_parameter(name).numel() for name in own) == expected
    assert trained - own == layout.norms
    assert {p.replace("/", ".") for p in model.phm_adapters.after} == {
        b.output for b in layout.branches if b.kind == "mlp" or method != "compacter_plus"
    }
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == trained
    save_update(model, tmp_path / "update")
    again = load_update(plain, tmp_path / "update")
    assert torch.equal(logits(again), logits(model))


def test_what_an_adapter_does_by_hand():
    plain = tiny("LlamaForCausalLM")
    seen = {}

    def keep(module, args, output):
        seen["branch"] = output

    plain.model.layers[1].mlp.register_forward_hook(keep)
    model = wrap(plain, "compacter_plus", reduction_factor=6, phm_init_range=0.5)

    def keep_adapted(module, args, output):
        seen["adapted"] = output

    model.model.layers[1].mlp.register_forward_hook(keep_adapted)
    logits(model)
    down, up = read_and_write(model)["model.layers.1.mlp"]
    assert down.shape == (24, 4)
    assert up.shape == (4, 24)
    x = seen["branch"]
    expected = x + torch.nn.functional.gelu(x @ down) @ up  # the biases are 0
    torch.testing.assert_close(seen["adapted"], expected, rtol=0, atol=1e-12)


def test_the_rule_is_one_for_the_model_and_a_copy_has_its_own():
    model = wrap(tiny("LlamaForCausalLM"), "compacter", reduction_factor=6, phm_init_range=0.5)
    adapters = model.phm_adapters
    assert len(adapters.rules()) == 1
    assert all(each.down.A is adapters.rule.A for each in adapters.after.values())
    copied = copy.deepcopy(model)
    before = logits(model)
    with torch.no_grad():
        for parameter in copied.phm_adapters.parameters():
            parameter.add_(1.0)
    assert torch.equal(logits(model), before)
    assert (logits(copied) - before).abs().max() > 1e-3
    assert copied.phm_adapters.after["model/layers/0/mlp"].down.A is copied.phm_adapters.rule.A
    own = wrap(tiny("LlamaForCausalLM"), "phm_adapter", reduction_factor=2).phm_adapters
    assert len(own.rules()) == 8


def test_a_rule_that_is_not_trained_stays_and_is_kept(tmp_path):
    options = {"reduction_factor": 6, "learn_phm": False, "phm_init_range": 0.5}
    model = wrap(tiny("LlamaForCausalLM"), "compacter", **options)
    rule = model.phm_adapters.rule.A
    assert not rule.requires_grad
    with torch.no_grad():
        rule.add_(1.0)  # as if another version of torch had drawn it
    save_update(model, tmp_path / "update")
    again = load_update(tiny("LlamaForCausalLM"), tmp_path / "update")
    assert torch.equal(again.phm_adapters.rule.A, rule)


def test_parts_choose_where_adapters_are_and_norms_are_a_flag():
    model = wrap(
        tiny("LlamaForCausalLM"),
        "compacter",
        train_parts=["attention"],
        reduction_factor=6,
        train_norms=False,
        phm_bias=False,
    )
    assert [path.rpartition("/")[2] for path in model.phm_adapters.after] == ["self_attn"] * 2
    assert all(name.startswith("phm_adapters.") for name in trained_parameters(model))
    assert not any("bias" in name for name in trained_parameters(model))


def test_there_is_nothing_to_merge_and_the_error_says_what_can_be_read():
    model = wrap(tiny("LlamaForCausalLM"), "compacter", reduction_factor=6)
    with pytest.raises(ModelError, match=r"merging needs .* no OV circuit of it; .*read_and_write"):
        merge_update(model)
    with pytest.raises(ModelError, match="has an update already"):
        wrap(model, "lora")
    with pytest.raises(ModelError, match="has no PHM adapters"):
        read_and_write(tiny("LlamaForCausalLM"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"phm_dim": 5},
            ConfigError,
            r"width of LlamaForCausalLM, 24, .* got phm_dim 5 and reduction_factor 8 \(3\): with "
            "reduction_factor 8 phm_dim can be 3 or with phm_dim 5 no reduction_factor fits",
        ),
        ({"reduction_factor": 7}, ConfigError, "with phm_dim 4 reduction_factor can be 2, 6$"),
        ({"phm_rank": 0}, ConfigError, "phm_rank must be >= 1"),
        ({"phm_init_range": 0.0}, ConfigError, "phm_init_range must be a finite number > 0"),
        ({"phm_c_init": "norm"}, UnknownNameError, "unknown phm_c_init 'norm': did you mean 'normal'"),
        ({"non_linearity": "gleu"}, UnknownNameError, "did you mean 'gelu'"),
        ({"reduction": 4}, UnknownNameError, "option 'reduction': did you mean 'reduction_factor'"),
        ({"phm_bias": 1}, ConfigError, "must be True or False"),
    ],
)
def test_bad_options_say_what_is_wrong(options, error, message):
    with pytest.raises(error, match=message):
        wrap(tiny("LlamaForCausalLM"), "compacter", **options)


def test_other_parts_and_other_models_are_refused():
    with pytest.raises(ConfigError, match=r"adds to what attention and MLPs write, .* no part 'qk'"):
        wrap(tiny("LlamaForCausalLM"), "compacter", train_parts=["qk"])
    with pytest.raises(ModelError, match=r"runs model.L_module.* several times in one pass"):
        wrap(tiny("HrmTextForCausalLM"), "compacter", reduction_factor=6)
    with pytest.raises(ModelError, match="must be a causal language model of transformers, got a SimpleName"):
        wrap(SimpleNamespace(), "compacter")
