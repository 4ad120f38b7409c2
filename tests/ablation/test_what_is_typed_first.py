"""Names and forms that users of TransformerLens type first, and what they read where these are not right."""

import hooked_models
import jaxtyping
import pytest
import torch
from transformer_lens.utilities import get_act_name

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import SITES, Site
from ocr_interp.circuits.attribution.attribute import attribute
from ocr_interp.circuits.attribution.whole import direct_attribution
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.discovery import Contrast
from ocr_interp.errors import ModelError, OcrInterpError, UnknownNameError
from ocr_interp.viz.diagram.drawing import draw_circuit
from ocr_interp.viz.diagram.saving import save_diagram

TOKENS = torch.tensor([[3, 4, 5, 6]])


@pytest.fixture
def as_a_user():
    """Without the checks of annotations, which users do not have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def grouped():
    return hooked_models.hooked_transformer(n_layers=2, attn_only=False, kv_heads=2)


def test_short_names_are_those_of_transformer_lens():
    own = {"ln1_scale"}
    assert {name: get_act_name(name, 3) for name in SITES if name not in own} == {
        name: hook.format(layer=3) for name, hook in SITES.items() if name not in own
    }


@pytest.mark.parametrize("name", ["q", "k", "mlp_out", "resid_mid", "mlp_post", "query"])
def test_a_site_by_a_short_name_is_the_one_by_its_full_name(grouped, name):
    answers = []
    for site in (Site.at(name, layer=1), Site(get_act_name(name, 1))):
        with ablated(grouped, Zero().at(site)):
            answers.append(grouped(TOKENS))
    assert torch.equal(*answers)
    assert not torch.equal(answers[0], grouped(TOKENS))


def test_a_name_that_is_none_leads_to_one_that_exists(grouped):
    with pytest.raises(UnknownNameError, match=r"did you mean 'mlp_out'.*Site\(\"ln_final.hook_scale\"\)"):
        Site.at("mlp_ou", layer=0)
    model = hooked_models.hooked_transformer("LN")
    assert "ln_final.hook_scale" in model.hook_dict


def test_heads_that_share_keys_and_values(grouped):
    for name, head in (("v", 3), ("k", 2)):
        said = rf"0..1 at .*hook_{name}, got {head}: keys and values have 2 heads, shared by the 4 heads"
        reads = rf"\(0: heads 0..1; 1: heads 2..3\); head {head} reads 1: pass heads=\[1\]"
        spec = Zero().at(Site.at(name, layer=0, heads=[head]))
        with pytest.raises(ModelError, match=f"{said}.*{reads}"), ablated(grouped, spec):
            pass
    for site in (Site.at("v", layer=0, heads=[1]), Site.at("q", layer=0, heads=[3])):
        with ablated(grouped, Zero().at(site)):
            grouped(TOKENS)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda m: Site.at("z", layer=0, heads=2), r"heads must be a list, .* got 2: pass \[2\]"),
        (lambda m: Site("blocks.0.attn.hook_z", positions=-1), r"positions must be .* got -1: pass \[-1\]"),
        (lambda m: Site.at("z", layer=0, tokens=torch.tensor(4)), r"tokens must be .* got 4: pass \[4\]"),
        (lambda m: Path(5, layer=0, head=1), r"inputs must be a list.* got 5: pass \[5\]"),
        (lambda m: attribute(m, 20, [3, 4], 21, layer=0, head=1), r"prompt must be a list.* got 20"),
        (lambda m: direct_attribution(m, 20, 3), r"prompts must be a list.* got 20"),
        (lambda m: Contrast.of(m, 20, None, 3), r"prompts must be a list.* got 20"),
        (lambda m: run_ablation_study(m, [Zero().at(Site.at("z", layer=0))]), "specs must be a mapping"),
        (
            lambda m: run_ablation_study(m, {"z": Zero().at(Site.at("z", layer=0))}, examples=TOKENS),
            r"examples must be Examples, got Tensor: pass Examples\(tokens, answer\)",
        ),
        (
            lambda m: save_diagram(
                OVCircuit.from_model(m, layer=0, head=0, inputs=[3, 4], outputs=[5]), "x.svg"
            ),
            "diagram is of a CircuitGraph.* got OVCircuit: make a graph first",
        ),
        (lambda m: draw_circuit([{"nodes": []}]), "got dict: make a graph first"),
    ],
)
def test_other_forms_are_refused_with_what_to_pass(grouped, asked, message):
    with pytest.raises(OcrInterpError, match=message):
        asked(grouped)
