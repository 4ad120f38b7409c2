"""Prompts longer than a model's context are refused wherever they enter, with their length and the limit."""

import hooked_models
import pytest
import torch
from snapshots import random_snapshot
from transformer_lens import HookedTransformer, HookedTransformerConfig

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.patch import Patch
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.examples import Examples
from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site
from ocr_interp.circuits.attribution.attribute import attribute
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.discovery import Contrast, attribute_edges
from ocr_interp.errors import ModelError, OcrInterpError
from ocr_interp.graphs.building import prompt_graph
from ocr_interp.task import FactRecallTask
from ocr_interp.training.loop import train

TASK = FactRecallTask(2, 1, 1, n_noise=2, seq_len=6)
LONG = ["noise1"] * 4 + ["s1", "r2", "EOS"]
REFUSED = r"prompt must have at most 6 tokens, the model's context \(seq_len of its task\), got 7"
OF_MODEL = r"must have at most 16 tokens, the model's context, got 17"


@pytest.fixture(scope="module")
def model():
    return hooked_models.hooked_transformer(n_layers=2, attn_only=False, kv_heads=2)


def test_a_run_that_could_not_be_run_on_a_prompt_does_not_explain_it():
    run = random_snapshot(TASK)
    found = attribute(run, LONG[1:], "c1", "c0")
    with torch.no_grad():
        logits = run.model(torch.from_numpy(TASK.tokens(*LONG[1:]))[None])[0, -1]
    assert found.total == pytest.approx(float(logits[TASK.token("c1")] - logits[TASK.token("c0")]))
    with pytest.raises(ModelError, match=REFUSED):
        attribute(run, LONG, "c1", "c0")
    with pytest.raises(ModelError, match=REFUSED):
        prompt_graph(run, LONG)
    with pytest.raises(ModelError, match=REFUSED):
        prompt_graph(run, LONG, "c1", "c0")


SITE = Site.at("z", layer=1, heads=[2])


def _entered(model, spec, tokens=None):
    with ablated(model, spec):
        model(torch.tensor([[3, 4, 5]]) if tokens is None else tokens)


@pytest.mark.parametrize(
    "asked",
    [
        lambda model, long: _entered(model, Zero().at(SITE), long),
        lambda model, long: _entered(model, Mean(long).at(SITE)),
        lambda model, long: _entered(model, Patch(donor=long).at(SITE)),
        lambda model, long: _entered(model, Mean(long).at(Path([4], layer=0, head=1))),
        lambda model, long: run_ablation_study(model, {"z": Zero().at(SITE)}, examples=Examples(long, [5])),
        lambda model, long: attribute(model, long, 5, layer=0, head=1),
        lambda model, long: attribute_edges(model, Contrast.of(model, long, long + 1, answer=5, against=6)),
        lambda model, long: attribute_edges(model, Contrast.of(model, long, None, 5), ablation="zero"),
    ],
    ids=["run", "mean", "patch", "path", "study", "attribution", "donors", "zero"],
)
def test_every_door_of_a_model_tells_length_and_limit(model, asked):
    long = torch.arange(17)[None] + 2
    with pytest.raises(ModelError, match=OF_MODEL):
        asked(model, long)


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated:DeprecationWarning")
def test_models_that_go_on_beyond_their_context_are_not_refused():
    sizes = {"n_layers": 2, "n_heads": 4, "d_model": 16, "d_head": 4, "n_ctx": 6, "d_vocab": 20, "seed": 0}
    config = HookedTransformerConfig(**sizes, attn_only=True, positional_embedding_type="alibi")
    model = HookedTransformer(config)
    long = torch.arange(9)[None] + 2
    spec = Zero().at(Site.at("z", layer=0, heads=[1]))
    _entered(model, spec, long)
    study = run_ablation_study(model, {"z": spec}, examples=Examples(long, [5]), controls=False)
    assert study.table["touched"].tolist() == [0, 9]
    rotary = hooked_models.bridge(hooked_models.hugging_face_model("Llama"))
    _entered(rotary, spec, torch.arange(40)[None] % 30)


def test_other_errors_inside_the_block_stay_what_they_are(model):
    with pytest.raises(RuntimeError, match="size of tensor") as error, ablated(model, Zero().at(SITE)):
        model(torch.tensor([[3, 4, 5]])) + torch.ones(7)
    assert not isinstance(error.value, OcrInterpError)


def test_a_routed_run_has_no_mixture_for_a_prompt_that_is_too_long():
    config = ModelConfig(ov="routed", ov_options={"by": "sequence", "n_experts": 2}, d_head=4)
    run = train(TASK, config, TrainConfig(steps=2), progress=False)
    assert run.mixture(LONG[1:]).sum() == pytest.approx(1)
    for asked in (run.mixture, lambda prompt: OVCircuit.from_run(run, prompt=prompt)):
        with pytest.raises(ModelError, match=REFUSED):
            asked(LONG)
