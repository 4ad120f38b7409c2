"""Whatever mode a model is in, analyses run it in eval mode and leave every module's mode as it was."""

import hooked_models
import pytest
import torch

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.patch import Patch
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.examples import Examples
from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site
from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.graphs.head_graph import head_graph
from ocr_interp.hooked.passes import eval_mode, modules_of, own_run

PROMPT = [3, 4, 5, 3, 9]
TOKENS = torch.tensor([PROMPT, [6, 4, 7, 8, 2]])


def modes(model):
    roots = (model, getattr(model, "original_model", model))
    return [(id(each), each.training) for root in roots for each in root.modules()]


@pytest.fixture(scope="module", params=["GPT2", pytest.param("GPTNeoX", marks=pytest.mark.slow)])
def pair(request):
    """A bridge in training mode with dropout, one module apart, and the same in eval mode."""
    if request.param == "GPT2":
        inner = hooked_models.gpt2()
    else:
        inner = hooked_models.hugging_face_model("GPTNeoX", attention_dropout=0.5, hidden_dropout=0.5)
    training, plain = hooked_models.bridge(inner), hooked_models.bridge(inner)
    training.train()
    training.original_model.train()
    training.ln_final.eval()
    return training, plain.eval()


@pytest.mark.slow
def test_attributions_and_graphs_are_those_of_eval_mode(pair):
    training = pair[0]
    were = modes(training)
    with torch.no_grad():
        drawn = [training(TOKENS) for _ in range(2)]
    assert not torch.equal(*drawn)  # dropout is on
    for call in (attribute_model, head_graph):
        found, wanted = (call(each, PROMPT, 7, 8, layer=1, head=4) for each in pair)
        total = (lambda x: x.total) if call is attribute_model else (lambda x: x.effects[0].total)
        assert total(found) == total(wanted)
    assert modes(training) == were


@pytest.mark.slow
def test_studies_references_and_donors_are_those_of_eval_mode(pair):
    training = pair[0]
    were = modes(training)
    site = Site.at("z", layer=1, heads=[2])
    specs = {
        "zero": Zero().at(site),
        "mean": Mean(TOKENS).at(site),
        "donor": Patch(donor=TOKENS[:1]).at(Path((4,), layer=1, head=2)),
    }
    examples = Examples(TOKENS, [7, 8])
    found, wanted = (run_ablation_study(m, specs, examples=examples, controls=False).table for m in pair)
    assert (found["loss"] == wanted["loss"]).all()
    assert modes(training) == were


def test_inside_ablated_the_mode_is_the_users_but_references_are_run_in_eval_mode(pair):
    training, plain = pair
    name = "blocks.1.attn.hook_z"
    seen = []
    for model in pair:
        with torch.no_grad(), ablated(model, Mean(TOKENS).at(Site(name))):
            assert model.training == (model is training)
            seen.append(model.run_with_cache(TOKENS, names_filter="blocks.1.hook_attn_out")[1])
    del seen
    with torch.no_grad(), ablated(training, Mean(TOKENS).at(Site(name))) as model, eval_mode(model):
        first = model(TOKENS)
    with torch.no_grad(), ablated(plain, Mean(TOKENS).at(Site(name))) as model:
        assert torch.equal(first, model(TOKENS))


def test_modes_come_back_after_an_exception(pair):
    training, _ = pair
    were = modes(training)

    def fail():
        with eval_mode(training):
            assert not any(mode for _, mode in modes(training))
            raise RuntimeError("of the user")

    with pytest.raises(RuntimeError, match="of the user"):
        fail()
    assert modes(training) == were


def test_modules_are_listed_as_torch_lists_them():
    """Each once where it is first met, also if it stands in two places or is a part of several roots."""
    shared, absent = torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.ReLU())
    absent.register_module("none", None)
    model = torch.nn.Sequential(torch.nn.Sequential(shared, absent), shared, torch.nn.Sequential(absent))
    assert modules_of(model) == list(model.modules())
    assert modules_of(absent, None, model) == [*absent.modules(), model, model[0], shared, model[2]]
    assert modules_of("no module") == []


def test_what_modules_remember_of_a_pass_is_put_back():
    module = torch.nn.Linear(2, 2)
    module.kept, module.later, module.count = torch.ones(1), None, 0
    before = module.kept
    with own_run(module):
        module.kept, module.later, module.count = torch.zeros(3), torch.ones(2), 5
        module.new = torch.ones(1)
    assert module.kept is before
    assert module.later is None
    assert module.count == 5, "numbers are settings, which no pass changes"
