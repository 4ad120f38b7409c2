"""Models that we did not build: agreement with TransformerLens, grouped heads, half precision."""

import hooked_models
import pytest
import torch
from transformer_lens import patching

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.circuit_parts import singular_block
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.patch import Patch
from ocr_interp.ablation.edits.resample import Resample
from ocr_interp.ablation.edits.subspace import Subspace
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site
from ocr_interp.circuits.circuit import OVCircuit


def test_patching_agrees_with_transformer_lens():
    each = hooked_models.hooked_transformer("LN", n_layers=2, attn_only=False)
    clean, corrupted = torch.tensor([[3, 4, 5, 9]]), torch.tensor([[3, 6, 5, 8]])
    _, cache = each.run_with_cache(clean)

    def metric(logits):
        return logits[0, -1, 7] - logits[0, -1, 8]

    heads = patching.get_act_patch_attn_head_out_all_pos(each, corrupted, cache, metric)
    positions = patching.get_act_patch_attn_out(each, corrupted, cache, metric)
    for layer in range(2):
        for head in range(4):
            z = cache[f"blocks.{layer}.attn.hook_z"]
            with ablated(each, Patch(z).at(Site.at("z", layer=layer, heads=[head]))):
                assert metric(each(corrupted)).float() == heads[layer, head]
        for position in range(4):
            written = cache[f"blocks.{layer}.hook_attn_out"]
            with ablated(each, Patch(written).at(Site.at("attn_out", layer=layer, positions=[position]))):
                assert metric(each(corrupted)).float() == positions[layer, position]


@pytest.mark.parametrize("kind", ["grouped", "bridge"])
def test_tokens_cut_from_a_head_of_grouped_models(kind, llama_bridge):
    grouped = hooked_models.hooked_transformer("RMS", n_layers=2, kv_heads=2)
    each, head = (llama_bridge, 4) if kind == "bridge" else (grouped, 3)
    tokens = torch.tensor([[3, 4, 5, 3, 9]])
    _, cache = each.run_with_cache(tokens)
    pattern = cache["blocks.1.attn.hook_pattern"][0, head]
    v = cache["blocks.1.attn.hook_v"][0]
    v = v[:, head // (each.cfg.n_heads // v.shape[1])]
    wanted = cache["blocks.1.attn.hook_z"][0].clone()
    wanted[:, head] = pattern[:, [1, 2, 4]] @ v[[1, 2, 4]]  # all but token 3
    names = {"labels": [f"w{i}" for i in range(32)]} if kind == "grouped" else {}
    label = "w3" if kind == "grouped" else "w1"
    with ablated(each, Zero().at(Path((label,), layer=1, head=head)), **names):
        _, inside = each.run_with_cache(tokens)
    assert torch.allclose(inside["blocks.1.attn.hook_z"][0], wanted, atol=1e-6)


def test_a_subspace_of_logits_of_a_head_of_any_model():
    each = hooked_models.hooked_transformer(None)
    circuit = OVCircuit.from_model(each, layer=0, head=1, inputs=range(32), outputs=[7, 8, 20, 21])
    block = circuit.spectrum().blocks[0]
    spec = singular_block(circuit, block)
    tokens = torch.tensor([[3, 4, 5]])
    plain, cache = each.run_with_cache(tokens)
    with ablated(each, spec):
        found = each(tokens)
    z = cache["blocks.0.attn.hook_z"][:, :, 1]
    through = z @ each.W_O[0, 1] @ each.W_U[:, [7, 8, 20, 21]]
    wanted = plain[..., [7, 8, 20, 21]] - through @ torch.tensor(block.output_projector)
    assert torch.allclose(found[..., [7, 8, 20, 21]], wanted, atol=1e-12)


@pytest.mark.parametrize("kind", ["hooked", "bridge"])
def test_scores_that_are_masked_stay_masked(kind, llama_bridge):
    """A zero in place of a masked score would let a query see the future."""
    each = llama_bridge if kind == "bridge" else hooked_models.hooked_transformer("LN", n_layers=2)
    tokens, other = torch.tensor([[3, 4, 5, 9], [6, 7, 8, 4]]), torch.tensor([[3, 4, 5, 9], [6, 7, 8, 11]])
    specs = (
        Zero().at(Site.at("attn_scores", layer=0, positions=[3])),
        Resample().at(Site.at("attn_scores", layer=0)),
    )
    for spec in specs:
        with ablated(each, spec):
            pattern = each.run_with_cache(tokens)[1]["blocks.0.attn.hook_pattern"]
            assert not pattern.triu(1).any()
    with ablated(each, specs[0]):
        assert torch.equal(each(tokens)[:, :3], each(other)[:, :3])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(dtype):
    """Every spec keeps the dtype, and errs no more than half precision does without it."""
    exact = hooked_models.hooked_transformer("LN", n_layers=2)
    each = hooked_models.hooked_transformer("LN", n_layers=2, dtype=dtype)
    exact.load_state_dict({name: t.double() for name, t in each.state_dict().items()})
    exact.eval()
    tokens = torch.tensor([[3, 4, 5, 9], [6, 4, 7, 8]])
    basis = torch.linalg.qr(torch.randn(12, 2, generator=torch.Generator().manual_seed(0))).Q
    many = torch.tensor([[3, 4, 5, 9]]).repeat(1500, 1)  # 6,000 values: a count that neither dtype has
    specs = [
        Zero().at(Site.at("z", layer=0, heads=[1])),
        Mean(many).at(Site.at("v", layer=0)),
        Resample().at(Site.at("pattern", layer=0)),
        Subspace(basis).at(Site.at("attn_out", layer=0)),
        Subspace(basis[:, :1], equal_to=basis[:, 1:]).at(Site.at("attn_out", layer=0)),
        Zero().at(Path((4,), layer=0, head=2)),
        Mean(tokens).at(Path((4,), layer=0, head=2)),
        Patch(donor=tokens[:1]).at(Path((4, 3), layer=0, head=2)),
    ]
    scale = float(exact(tokens).abs().max())
    for spec in specs:
        with ablated(each, spec), ablated(exact, spec):
            found, wanted = each(tokens), exact(tokens)
        assert found.dtype == dtype
        assert float((found.double() - wanted).abs().max()) < scale * 20 * torch.finfo(dtype).eps
        assert spec.describe() == spec.describe()
    values = each.run_with_cache(tokens)[1]["v", 0]  # bfloat16 has no numpy
    assert Patch(values).describe() == Patch(values.clone()).describe()
