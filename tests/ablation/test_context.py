"""The context manager: bit-equal restoration, nesting, gradients, token ids, caches."""

import hooked_models
import pytest
import torch
from micro_model import BATCH, SCORES

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.patch import Patch
from ocr_interp.ablation.edits.resample import Resample
from ocr_interp.ablation.edits.subspace import Subspace
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site
from ocr_interp.errors import InterventionNeverFiredError, ModelError


def all_specs(model, reference):
    _, cache = model.run_with_cache(reference)
    return [
        Zero().at(Site.at("z", layer=0, positions=[-1])),
        Mean(reference).at(Site.at("v", layer=0, tokens=[4, 5, 7])),
        Resample().at(Site.at("pattern", layer=0, heads=[0])),
        Subspace(torch.eye(cache["blocks.0.attn.hook_z"].shape[-1])[:, -2:].double()).at(
            Site.at("z", layer=0)
        ),
        Zero().at(Path((5, 6), layer=0, head=0)),
        Mean(reference).at(Path((5, 6), layer=0, head=0)),
        Resample().at(Path((0, 1, 3, 4, 5), layer=0, head=0)),
        Patch(donor=reference.flip(0)).at(Path((0, 1, 3, 5), layer=0, head=0)),
        Patch(cache["blocks.0.attn.hook_v"].flip(0)).at(Site.at("v", layer=0, positions=[0])),
    ]


def fails_inside(each, specs, batch):
    with ablated(each, *specs):
        each(batch)
        with ablated(each, specs[0]):
            raise RuntimeError("inside")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ours", "norms", "bridge"])
def test_logits_are_the_same_to_the_bit_before_and_after(kind, model, llama_bridge):
    each = {"ours": model, "bridge": llama_bridge}.get(kind)
    each = hooked_models.hooked_transformer("LN", n_layers=2, attn_only=False) if each is None else each
    batch = BATCH.where(BATCH != 1, 2) if kind == "bridge" else BATCH  # 1 is its tokenizer's padding
    before, state = each(batch), {name: t.clone() for name, t in each.state_dict().items()}
    specs = all_specs(each, batch)
    for spec in specs:
        with ablated(each, spec) as same:
            assert same is each
            inside = each(batch)
            assert not torch.equal(inside, before)
            drawn = isinstance(spec.what, Resample)
            assert drawn or torch.equal(each.run_with_cache(batch)[0], inside)
        assert torch.equal(each(batch), before)
    with pytest.raises(RuntimeError, match="inside"):
        fails_inside(each, specs, batch)
    assert torch.equal(each(batch), before)
    assert all(torch.equal(state[name], t) for name, t in each.state_dict().items())
    assert not any(point.fwd_hooks for point in each.hook_dict.values())
    assert not each.embed._forward_pre_hooks


@pytest.mark.parametrize(
    "inner",
    [
        Mean(BATCH).at(Site.at("z", layer=0)),
        Mean(BATCH).at(Path((6,), layer=0, head=0)),
        Patch(donor=BATCH[:1]).at(Path((6,), layer=0, head=0)),
    ],
)
def test_the_reference_of_an_inner_spec_does_not_make_an_outer_one_fire(inner, model):
    """Token 0 stands in the reference alone; what is run in the block holds none."""
    outer = Zero().at(Site.at("v", layer=0, tokens=[0]))
    with (
        pytest.raises(InterventionNeverFiredError, match="1 of 1"),
        ablated(model, outer),
        ablated(model, inner),
    ):
        model(BATCH[1:])
    with ablated(model, outer), ablated(model, inner):
        model(BATCH)


def test_nesting_peels_off_in_order_and_leaves_the_hooks_of_the_user(model):
    calls, name = [], "blocks.0.attn.hook_z"
    model.add_hook(name, lambda value, hook: calls.append("before"))
    model.add_perma_hook(name, lambda value, hook: calls.append("permanent"))
    kept = list(model.hook_dict[name].fwd_hooks)
    try:
        plain = model(BATCH)
        outer, inner = Zero().at(Site.at("v", layer=0, tokens=[7])), Zero().at(Site.at("z", layer=0))
        with ablated(model, outer):
            first = model(BATCH)
            with ablated(model, inner):
                assert not model(BATCH).any()
                double = (name, lambda value, hook: value + 1)
                assert model.run_with_hooks(BATCH, fwd_hooks=[double])[0, -1, 8:].tolist() == [1, 1, 1, 1]
                assert not model.run_with_cache(BATCH)[1][name].any()
            assert torch.equal(model(BATCH), first)
        assert torch.equal(model(BATCH), plain)
        assert model.hook_dict[name].fwd_hooks == kept
        calls.clear()
        model(BATCH)
        assert calls == ["before", "permanent"]
        with ablated(model, outer):
            model.reset_hooks()
            assert torch.equal(model(BATCH), first)
    finally:
        model.reset_hooks(including_permanent=True)


def test_gradients_flow_through_an_ablation(model):
    with ablated(model, Zero().at(Site.at("v", layer=0, tokens=[6]))):
        model(BATCH)[:, -1, 8].sum().backward()
    grad = model.blocks[0].attn.W_V.grad[0]
    model.zero_grad()
    assert not grad[6].any()
    assert grad[0].any()


def test_a_spec_that_never_fires_raises_but_hides_no_exception(model):
    absent = Zero().at(Site.at("v", layer=0, tokens=[2]))
    with (
        pytest.raises(InterventionNeverFiredError, match="1 of 2"),
        ablated(model, Zero().at(Site.at("z", layer=0)), absent),
    ):
        model(BATCH)
    with pytest.raises(InterventionNeverFiredError), ablated(model, Zero().at(Site.at("z", layer=0))):
        pass
    with (
        pytest.raises(InterventionNeverFiredError, match="use_attn_result"),
        ablated(model, Zero().at(Site("blocks.0.attn.hook_result"))),
    ):
        model(BATCH)
    with pytest.raises(InterventionNeverFiredError), ablated(model, Zero().at(Path((2,), layer=0, head=0))):
        model(BATCH)
    with pytest.raises(KeyError, match="mine"), ablated(model, absent):
        raise KeyError("mine")


def test_ids_can_be_given_where_they_do_not_enter_as_ids(model):
    spec, residual = Zero().at(Site.at("v", layer=0, tokens=[6])), model.W_E[BATCH]
    with ablated(model, spec):
        wanted = model(BATCH)
        with pytest.raises(ModelError, match="pass tokens="):
            model(residual, start_at_layer=0)
    with ablated(model, spec, tokens=BATCH):
        assert torch.equal(model(residual, start_at_layer=0), wanted)
        with pytest.raises(ModelError, match="token ids must be"):
            model(BATCH[:2])


def test_gradients_know_that_a_path_is_cut(model):
    """Of the weights on the path too: W_O gets what the head carries without the path."""
    W_O, implications = model.blocks[0].attn.W_O, (10, 11)
    _, cache = model.run_with_cache(BATCH)
    wanted = cache["z", 0][:, -1, 0].sum(0)
    for k, subject in enumerate((0, 3, 1)):  # all stand at position 0
        wanted -= SCORES[subject] * cache["v", 0][k, 0, 0]
    W_O.requires_grad_(True)
    try:
        with ablated(model, Zero().at(Path((0, 1, 2, 3), implications, layer=0, head=0))):
            model(BATCH)[:, -1, 10].sum().backward()
        found = W_O.grad[0, :, 12 + 10]
    finally:
        W_O.requires_grad_(False)
        model.zero_grad()
        W_O.grad = None
    assert torch.allclose(found, wanted, atol=1e-12)


def test_hooks_that_the_block_takes_away_are_missed(model):
    before = model(BATCH)

    def takes_away():
        with ablated(model, Zero().at(Site.at("z", layer=0))):
            model(BATCH)
            model.reset_hooks(including_permanent=True)

    with pytest.raises(ModelError, match="including_permanent"):
        takes_away()
    assert torch.equal(model(BATCH), before)


# --- key-value caches ----------------------------------------------------------------------------


def generated(each, tokens, cached):
    return each.generate(
        tokens,
        max_new_tokens=4,
        do_sample=False,
        use_past_kv_cache=cached,
        verbose=False,
        stop_at_eos=False,
        return_type="tokens",
    )


SPECS = {
    "head": Zero().at(Site.at("z", layer=0, heads=[1])),
    "position": Zero().at(Site.at("z", layer=0, positions=[0])),
    "token": Zero().at(Site.at("v", layer=1, tokens=[4, 21])),
    "key": Zero().at(Site.at("pattern", layer=0, tokens=[4])),
    "path": Zero().at(Path((4, 7), layer=0, head=2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("kind", ["hooked", "bridge"])
def test_generation_without_a_cache_is_ablated_at_every_step(kind, name, llama_bridge):
    each = llama_bridge if kind == "bridge" else hooked_models.hooked_transformer("LN", n_layers=2)
    prompts = torch.tensor([[3, 4, 5, 9], [6, 4, 7, 8]])
    wanted = prompts
    with ablated(each, SPECS[name]):
        for _ in range(4):
            wanted = torch.cat([wanted, each(wanted)[:, -1:].argmax(-1)], 1)
    with ablated(each, SPECS[name]):
        assert torch.equal(generated(each, prompts, False), wanted)
        assert torch.equal(generated(each, prompts, False), wanted)  # a second time in the same block


@pytest.mark.parametrize("kind", ["hooked", "bridge"])
def test_a_cache_is_refused_and_nothing_stays(kind, llama_bridge):
    each = llama_bridge if kind == "bridge" else hooked_models.hooked_transformer("LN", n_layers=2)
    prompts = torch.tensor([[3, 4, 5, 9], [6, 4, 7, 8]])
    before = each(prompts)
    for spec in SPECS.values():
        with pytest.raises(ModelError, match="use_past_kv_cache=False"), ablated(each, spec):
            generated(each, prompts, True)
    assert torch.equal(each(prompts), before)
    assert torch.equal(generated(each, prompts, True)[:, :4], prompts)
    assert not each.blocks[0]._forward_pre_hooks


def test_a_cache_by_hand_is_refused():
    from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

    each, tokens = hooked_models.hooked_transformer("LN", n_layers=2), torch.tensor([[3, 4, 5, 9]])
    cache = TransformerLensKeyValueCache.init_cache(each.cfg, "cpu", 1)
    with ablated(each, SPECS["key"]):
        seen = torch.ones(1, 3, dtype=torch.int)
        first = each(tokens[:, :3], past_kv_cache=cache, attention_mask=seen)
        assert torch.equal(first, each(tokens[:, :3]))
        with pytest.raises(ModelError, match="a cache of 3 positions"):
            each(tokens[:, 3:], past_kv_cache=cache, attention_mask=seen[:, :1])
