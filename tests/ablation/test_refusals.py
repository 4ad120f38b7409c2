"""What is refused, with the error a user reads."""

import hooked_models
import pytest
import torch
from micro_model import BATCH, TASK

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.patch import Patch
from ocr_interp.ablation.edits.subspace import Subspace
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site, tokens_of_kind
from ocr_interp.errors import (
    ConfigError,
    InterventionNeverFiredError,
    ModelError,
    OcrInterpError,
    UnknownNameError,
)


def test_names_that_do_not_exist(model, llama_bridge):
    attached = pytest.raises(UnknownNameError, match=r"blocks\.0\.attn\.hook_z")
    with attached, ablated(model, Zero().at(Site("blocks.0.attn.hook_zz"))):
        pass
    with pytest.raises(UnknownNameError, match="attn_scores"):
        Site.at("scores", layer=0)
    with pytest.raises(UnknownNameError, match="blocks"), ablated(model, Zero().at(Site.at("z", layer=1))):
        pass
    with (
        pytest.raises(ModelError, match="head must be"),
        ablated(model, Zero().at(Site.at("z", layer=0, heads=[1]))),
    ):
        pass
    for tokens, error in (((12,), ModelError), (("s9",), UnknownNameError)):
        spec = Zero().at(Site.at("v", layer=0, tokens=tokens))
        with pytest.raises(error, match=r"0\.\.11|did you mean"), ablated(model, spec, labels=TASK.labels):
            pass
    with (
        pytest.raises(ModelError, match=r"0\.\.5"),
        ablated(llama_bridge, Zero().at(Site.at("z", layer=0, heads=[6]))),
    ):
        pass
    with pytest.raises(UnknownNameError, match="held-out subjects"):
        tokens_of_kind(TASK, "held out subjects")
    with (
        pytest.raises(ModelError, match="layer must be"),
        ablated(model, Zero().at(Path((0,), layer=1, head=0))),
    ):
        pass
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_specs_that_make_no_sense(model):
    with pytest.raises(ModelError, match="each once"):
        Site.at("z", layer=0, heads=[])
    with pytest.raises(ModelError, match="no head axis"):
        Site.at("resid_pre", layer=0, heads=[0])
    with pytest.raises(ModelError, match="orthonormal"):
        Subspace(torch.ones(3, 1)).at(Site.at("z", layer=0))
    with pytest.raises(ModelError, match="mean pattern"):
        Mean(BATCH).at(Site.at("pattern", layer=0))
    with (
        pytest.raises(InterventionNeverFiredError, match="reference must hold"),
        ablated(model, Mean(BATCH).at(Site.at("v", layer=0, tokens=[2]))),
    ):
        pass
    with pytest.raises(OcrInterpError, match="at least one"), ablated(model):
        pass
    with (
        ablated(model, Subspace(torch.eye(3, 1)).at(Site.at("z", layer=0))),
        pytest.raises(ModelError, match="12 dim"),
    ):
        model(BATCH)
    with ablated(model, Zero().at(Site.at("z", layer=0, positions=[0]))):
        model(BATCH)
    with (
        pytest.raises(ModelError, match="position must be"),
        ablated(model, Zero().at(Site.at("z", layer=0, positions=[9]))),
    ):
        model(BATCH)


def test_sources_with_nan_are_refused():
    with pytest.raises(ModelError, match="1 NaN"):
        Patch(torch.tensor([[float("nan"), 1.0]])).at(Site.at("z", layer=0))
    with pytest.raises(ModelError, match="orthonormal"):
        Subspace(torch.full((3, 1), float("nan"))).at(Site.at("z", layer=0))


def test_nan_weights_are_not_hidden(model):
    """A zeroed part stays zero and the rest is NaN: an intervention multiplies nothing by a mask."""
    bad = hooked_models.hooked_transformer(None)
    bad.blocks[0].attn.W_V[2] = float("nan")
    tokens = torch.tensor([[3, 4]])
    with ablated(bad, Zero().at(Site.at("z", layer=0, heads=[2]))):
        assert bad(tokens).isfinite().all()
    with ablated(bad, Zero().at(Site.at("z", layer=0, heads=[1]))):
        assert bad(tokens).isnan().all()


def test_key_value_heads_are_counted_where_they_are(llama_bridge):
    with ablated(llama_bridge, Zero().at(Site.at("v", layer=0, heads=[1]))):
        llama_bridge(torch.tensor([[3, 4]]))
    spec = Zero().at(Site.at("v", layer=0, heads=[2]))  # six heads, two value heads
    with (
        pytest.raises(ModelError, match=r"head must be in 0\.\.1 .*named by group"),
        ablated(llama_bridge, spec),
    ):
        llama_bridge(torch.tensor([[3, 4]]))


def test_a_site_says_how_other_hooks_are_named():
    with pytest.raises(
        UnknownNameError, match=r'named in full as in model.hook_dict, such as Site\("ln_final'
    ):
        Site.at("mlp_inn", layer=2)
    with pytest.raises(UnknownNameError, match="did you mean 'pattern'"):
        Site.at("patern", layer=0)
    with pytest.raises(ConfigError, match=r"use Site\('blocks.1.attn.hook_v', heads=\(0, 3\)\)"):
        Site.at("blocks.1.attn.hook_v", heads=[0, 3])
    with pytest.raises(ConfigError, match=r"layer must be given, got none: Site.at\('pattern', layer=0\)"):
        Site.at("pattern")
