"""An edit at a hook whose value the model does not use is refused; one that is multiplied by zero is not."""

import hooked_models
import pytest
import torch

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.examples import Examples
from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.ablation.where.site import Site
from ocr_interp.errors import InterventionNeverFiredError
from ocr_interp.hooked.asked.used_hooks import uses_hook

TOKENS = torch.tensor([[3, 4, 5, 3, 9]])
FAMILIES = {
    "GPTJ": {"n_embd": 24, "n_head": 6, "n_inner": 32, "n_layer": 2, "rotary_dim": 4, "n_positions": 32},
    "XGLM": {"d_model": 24, "attention_heads": 6, "ffn_dim": 32, "num_layers": 2},
}


@pytest.mark.parametrize("kind", [*FAMILIES, "GPT2", "Llama", "Bloom", "GPTNeoX", "hooked"])
@pytest.mark.parametrize("hook", ["pattern", "z", "v", "attn_scores", "resid_pre"])
def test_an_edit_changes_the_logits_or_is_refused(kind, hook):
    model = _model(kind)
    name = Site.at(hook, layer=1).hook
    if name not in model.hook_dict:
        pytest.skip(f"{kind} has no {name}")
    with torch.no_grad():
        before = model(TOKENS)
        try:
            with ablated(model, Zero().at(Site(name))):
                change = model(TOKENS) - before
        except InterventionNeverFiredError:
            change = None
        assert torch.equal(model(TOKENS), before)
    if change is not None:
        assert float(change.abs().max()) > 0
    if kind not in FAMILIES:
        assert change is not None or hook == "attn_scores"


_made = {}


def _model(kind):
    if kind not in _made:
        if kind == "hooked":
            _made[kind] = hooked_models.hooked_transformer("LN", n_layers=2)
        elif kind in FAMILIES:
            dtype = torch.float32 if kind == "XGLM" else torch.float64  # XGLM itself fails in float64
            inner = hooked_models.family(kind, **FAMILIES[kind]).to(dtype)
            _made[kind] = hooked_models.bridge(inner, dtype)
        else:
            inner = hooked_models.gpt2() if kind == "GPT2" else hooked_models.hugging_face_model(kind)
            _made[kind] = hooked_models.bridge(inner)
    return _made[kind]


@pytest.mark.parametrize("kind", FAMILIES)
def test_native_attention_is_told(kind):
    model = _model(kind)
    spec = Zero().at(Site.at("pattern", layer=1))
    with pytest.raises(InterventionNeverFiredError, match="does not use"), ablated(model, spec):
        model(TOKENS)
    with pytest.raises(InterventionNeverFiredError, match="does not use"):
        run_ablation_study(model, {"p": spec}, examples=Examples(TOKENS, [7]))


def test_a_weight_of_zero_is_no_unused_hook():
    model = hooked_models.hooked_transformer("LN", n_layers=2)
    model.blocks[1].attn.W_O.zero_()
    before = model(TOKENS)
    for hook in ("z", "v", "pattern", "attn_scores"):
        with ablated(model, Zero().at(Site.at(hook, layer=1))):
            assert torch.equal(model(TOKENS), before)


def test_it_is_asked_once_and_calls_no_hook_of_the_user():
    model = hooked_models.hooked_transformer("LN", n_layers=2)
    name, passes, seen = "blocks.1.attn.hook_z", [], []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    model.hook_dict[name].add_hook(lambda value, hook: seen.append(value.shape))
    assert uses_hook(model, name)
    count = len(passes)
    assert count in (1, 2)
    assert not seen
    for _ in range(3):
        with ablated(model, Zero().at(Site(name))):
            model(TOKENS)
    assert len(passes) == count + 3
    assert len(seen) == 3


def test_an_outer_intervention_does_not_see_the_question():
    model = hooked_models.hooked_transformer("LN", n_layers=2)
    outer = Zero().at(Site.at("z", layer=0, positions=[4]))  # the question has two positions
    inner = Zero().at(Site.at("z", layer=1, tokens=[9]))
    with ablated(model, outer):
        with ablated(model, inner):
            first = model(TOKENS)
        model(TOKENS)
    with ablated(model, outer, inner):
        assert torch.equal(model(TOKENS), first)
