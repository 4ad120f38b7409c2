"""What is refused, with the error a user reads."""

import hooked_models
import pytest
import torch
from micro_model import BATCH, TASK

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.interventions import (
    MeanAblation,
    Patch,
    SubspaceAblation,
    ZeroAblation,
)
from ocr_interp.ablation.paths import PathAblation
from ocr_interp.ablation.sites import Site, tokens_of_kind
from ocr_interp.errors import InterventionNeverFiredError, ModelError, OcrInterpError, UnknownNameError


def test_names_that_do_not_exist(model, llama_bridge):
    attached = pytest.raises(UnknownNameError, match=r"blocks\.0\.attn\.hook_z")
    with attached, ablated(model, ZeroAblation(Site("blocks.0.attn.hook_zz"))):
        pass
    with pytest.raises(UnknownNameError, match="attn_scores"):
        Site.at("scores")
    with pytest.raises(UnknownNameError, match="blocks"), ablated(model, ZeroAblation(Site.at("z", 1))):
        pass
    with (
        pytest.raises(ModelError, match="head must be"),
        ablated(model, ZeroAblation(Site.at("z", heads=[1]))),
    ):
        pass
    for tokens, error in (((12,), ModelError), (("s9",), UnknownNameError)):
        spec = ZeroAblation(Site.at("v", tokens=tokens))
        with pytest.raises(error, match=r"0\.\.11|did you mean"), ablated(model, spec, labels=TASK.labels):
            pass
    with (
        pytest.raises(ModelError, match=r"0\.\.5"),
        ablated(llama_bridge, ZeroAblation(Site.at("z", heads=[6]))),
    ):
        pass
    with pytest.raises(UnknownNameError, match="held-out subjects"):
        tokens_of_kind(TASK, "held out subjects")
    with pytest.raises(ModelError, match="layer must be"), ablated(model, PathAblation((0,), layer=1)):
        pass
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_specs_that_make_no_sense(model):
    with pytest.raises(ModelError, match="each once"):
        Site.at("z", heads=[])
    with pytest.raises(ModelError, match="no head axis"):
        Site.at("resid_pre", heads=[0])
    with pytest.raises(ModelError, match="orthonormal"):
        SubspaceAblation(Site.at("z"), torch.ones(3, 1))
    with pytest.raises(ModelError, match="mean pattern"):
        MeanAblation(Site.at("pattern"), BATCH)
    with (
        pytest.raises(InterventionNeverFiredError, match="reference must hold"),
        ablated(model, MeanAblation(Site.at("v", tokens=[2]), BATCH)),
    ):
        pass
    with pytest.raises(OcrInterpError, match="at least one"), ablated(model):
        pass
    with (
        ablated(model, SubspaceAblation(Site.at("z"), torch.eye(3, 1))),
        pytest.raises(ModelError, match="12 dim"),
    ):
        model(BATCH)
    with ablated(model, ZeroAblation(Site.at("z", positions=[0]))):
        model(BATCH)
    with (
        pytest.raises(ModelError, match="position must be"),
        ablated(model, ZeroAblation(Site.at("z", positions=[9]))),
    ):
        model(BATCH)


def test_sources_with_nan_are_refused():
    with pytest.raises(ModelError, match="1 NaN"):
        Patch(Site.at("z"), torch.tensor([[float("nan"), 1.0]]))
    with pytest.raises(ModelError, match="orthonormal"):
        SubspaceAblation(Site.at("z"), torch.full((3, 1), float("nan")))


def test_nan_weights_are_not_hidden(model):
    """A zeroed part stays zero and the rest is NaN: an intervention multiplies nothing by a mask."""
    bad = hooked_models.hooked_transformer(None)
    bad.blocks[0].attn.W_V[2] = float("nan")
    tokens = torch.tensor([[3, 4]])
    with ablated(bad, ZeroAblation(Site.at("z", heads=[2]))):
        assert bad(tokens).isfinite().all()
    with ablated(bad, ZeroAblation(Site.at("z", heads=[1]))):
        assert bad(tokens).isnan().all()


def test_key_value_heads_are_counted_where_they_are(llama_bridge):
    with ablated(llama_bridge, ZeroAblation(Site.at("v", heads=[1]))):
        llama_bridge(torch.tensor([[3, 4]]))
    spec = ZeroAblation(Site.at("v", heads=[2]))  # six heads, two value heads
    with pytest.raises(ModelError, match=r"head must be in -2\.\.1"), ablated(llama_bridge, spec):
        llama_bridge(torch.tensor([[3, 4]]))
