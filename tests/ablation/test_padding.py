"""Padded prompts: every number is that of each prompt alone, without padding; unsaid padding is refused."""

import hooked_models
import numpy as np
import pytest
import torch

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.patch import Patch
from ocr_interp.ablation.edits.resample import Resample
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.examples import Examples
from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site
from ocr_interp.errors import ConfigError, ModelError

PROMPTS = [[3, 4, 5], [6, 4, 7, 8, 9], [10, 5, 4, 2]]
ANSWERS = [12, 13, 14]
PAD = 1  # the tokenizer's, which is its end of text too
HEAD = Site.at("z", layer=1, heads=[2])


def padded(side, prompts=PROMPTS, pad=PAD):
    longest = max(map(len, prompts))
    rows, mask = [], []
    for prompt in prompts:
        fill, real = [pad] * (longest - len(prompt)), [1] * len(prompt)
        rows.append(fill + prompt if side == "left" else prompt + fill)
        mask.append([0] * len(fill) + real if side == "left" else real + [0] * len(fill))
    return torch.tensor(rows), torch.tensor(mask)


def alone(model, *specs, prompts=PROMPTS, answers=ANSWERS):
    """Mean loss of the prompts, one after the other."""
    losses = []
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            if specs:
                with ablated(model, *specs):
                    logits = model(torch.tensor([prompt]))
            else:
                logits = model(torch.tensor([prompt]))
        losses.append(torch.nn.functional.cross_entropy(logits[0, -1].double(), torch.tensor(answer)))
    return float(torch.stack(losses).mean())


SLOW = pytest.mark.slow


@pytest.fixture(
    scope="module",
    params=["GPT2", "hooked", pytest.param("Bloom", marks=SLOW), pytest.param("Llama", marks=SLOW)],
)
def model(request):
    """Learned positions, alibi, rotations; and a HookedTransformer, which has no tokenizer."""
    if request.param == "hooked":
        return hooked_models.hooked_transformer("LN", n_layers=2)
    if request.param == "GPT2":
        return hooked_models.bridge(hooked_models.gpt2())
    return hooked_models.bridge(hooked_models.hugging_face_model(request.param))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "batch_size", "left_out"),
    [
        ("left", None, ("query", "first", "path", "mean")),
        pytest.param("left", None, ("head", "word", "mean by position", "mean on a path"), marks=SLOW),
        pytest.param("right", 2, (), marks=SLOW),
    ],
)
def test_a_study_measures_each_prompt_as_if_alone(side, batch_size, left_out, model):
    tokens, mask = padded(side)
    specs = {
        "head": Zero().at(HEAD),
        "word": Zero().at(Site.at("v", layer=1, tokens=[4])),
        "query": Zero().at(Site.at("resid_pre", layer=1, positions=[-1])),
        "first": Zero().at(Site.at("pattern", layer=1, positions=[0])),
        "path": Zero().at(Path((4, 3), layer=1, head=2)),
        "mean": Mean(tokens, attention_mask=mask).at(HEAD),
        "mean by position": Mean(tokens, True, attention_mask=mask).at(HEAD),
        "mean on a path": Mean(tokens, attention_mask=mask).at(Path((4,), layer=1, head=2)),
    }
    specs = {name: spec for name, spec in specs.items() if name not in left_out}
    examples = Examples(tokens, ANSWERS, attention_mask=mask)
    study = run_ablation_study(model, specs, examples=examples, batch_size=batch_size)
    table = study.table[study.table["control"] == "intervention"].set_index("spec")
    assert table["loss"]["none"] == pytest.approx(alone(model), rel=1e-9)
    for name, spec in specs.items():
        assert table["loss"][name] == pytest.approx(alone(model, spec), rel=1e-9), name
    controls = study.table[study.table["control"] == "random"].set_index("spec")
    assert controls["loss"].drop("mean on a path", errors="ignore").notna().all()
    if "word" in specs:
        assert table["touched"]["word"] == 1
        assert table["touched"]["head"] == 4  # 3, 5 and 4 tokens
        assert controls["touched"]["word"] == 1  # never at padding


@pytest.mark.parametrize("side", ["left", pytest.param("right", marks=SLOW)])
def test_ablated_edits_a_padded_batch_as_each_prompt_alone(side, model):
    tokens, mask = padded(side)
    with torch.no_grad():
        if model(tokens, attention_mask=mask).isnan().any():
            pytest.skip("this bridge of transformer-lens 3.9 gives NaN for padding on the left by itself")
    places = mask.cumsum(1).argmax(1)
    for spec in (
        Zero().at(Site.at("z", layer=1, positions=[-1])),
        Zero().at(Site.at("resid_pre", layer=0, positions=[0])),
        Zero().at(Site.at("pattern", layer=1, positions=[-2])),
        Zero().at(Path((4, 3), layer=1, head=2)),
        Mean(tokens, True, attention_mask=mask).at(HEAD),
    ):
        with torch.no_grad(), ablated(model, spec, attention_mask=mask):
            found = model(tokens, attention_mask=mask)[range(3), places]
        loss = torch.nn.functional.cross_entropy(found.double(), torch.tensor(ANSWERS))
        assert float(loss) == pytest.approx(alone(model, spec), rel=1e-6), spec.describe()


def test_a_mean_leaves_padding_out(model):
    tokens, mask = padded("right")
    kept = []
    for prompt in PROMPTS:
        with torch.no_grad():
            _, cache = model.run_with_cache(torch.tensor([prompt]))
        kept.append(cache[HEAD.hook][0])
    mean = torch.cat(kept).mean(0)
    source = mean.expand(1, 5, *mean.shape)
    prompt = torch.tensor([PROMPTS[1]])
    with torch.no_grad():
        with ablated(model, Patch(source).at(HEAD)):
            wanted = model(prompt)
        with ablated(model, Mean(tokens, attention_mask=mask).at(HEAD)):
            found = model(prompt)
    torch.testing.assert_close(found, wanted)


def test_resampling_exchanges_prompts_of_one_length(model):
    prompts = [[3, 4, 5], [6, 4, 7, 8], [10, 5, 4], [7, 3, 2, 9]]
    tokens, mask = padded("right", prompts)
    spec = Resample().at(HEAD)
    answers = [12, 13, 14, 12]
    losses = []
    for rows in ([0, 2], [1, 3]):
        batch = torch.tensor([prompts[k] for k in rows])
        with torch.no_grad(), ablated(model, spec):
            logits = model(batch)[:, -1].double()
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor([answers[k] for k in rows])))
    wanted = float(torch.stack(losses).mean())
    examples = Examples(tokens, answers, attention_mask=mask)
    found = run_ablation_study(model, {"r": spec}, examples=examples, controls=False).by_split("loss")
    assert found.loc["r", "all"] == pytest.approx(wanted, rel=1e-9)
    with torch.no_grad(), ablated(model, spec, attention_mask=mask):
        logits = model(tokens, attention_mask=mask)[range(4), mask.sum(1) - 1].double()
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answers))
    assert float(loss) == pytest.approx(wanted, rel=1e-6)
    tokens, mask = padded("left")  # three lengths
    examples = Examples(tokens, ANSWERS, attention_mask=mask)
    with pytest.raises(ModelError, match="of a length in each batch"):
        run_ablation_study(model, {"r": spec}, examples=examples)


def test_donors_may_be_padded(model):
    donor, mask = padded("left", [[3, 4, 5], [6, 4, 7, 8, 9]])
    spec = Patch(donor=donor[:1], attention_mask=mask[:1]).at(HEAD)
    prompt = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        with ablated(model, Patch(donor=PROMPTS[0]).at(HEAD)):
            wanted = model(prompt)
        with ablated(model, spec):
            assert torch.equal(model(prompt), wanted)
    with pytest.raises(ModelError, match="one length"):
        Patch(donor=donor, attention_mask=mask)


@pytest.mark.parametrize("side", ["left", "right"])
def test_unsaid_padding_is_refused(side):
    model = hooked_models.bridge(hooked_models.gpt2())
    tokens, mask = padded(side)
    with pytest.raises(ModelError, match="attention_mask="):
        run_ablation_study(model, {"z": Zero().at(HEAD)}, examples=Examples(tokens, ANSWERS))
    for edit in (Mean(tokens), Patch(donor=tokens)):
        with pytest.raises(ModelError, match="attention_mask="), ablated(model, edit.at(HEAD)):
            pass
    with pytest.raises(ModelError, match="pass the same attention_mask"), ablated(model, Zero().at(HEAD)):
        model(tokens, attention_mask=mask)
    if side == "left":
        with pytest.raises(ModelError, match="must not begin with padding"), ablated(model, Zero().at(HEAD)):
            model(tokens)
        with (
            pytest.raises(ModelError, match="pass it to the model too"),
            ablated(model, Zero().at(HEAD), attention_mask=mask),
        ):
            model(tokens)


def test_a_padding_token_that_is_meant_is_taken():
    """It also begins and ends texts: once in every prompt, or wherever a mask says so."""
    model = hooked_models.bridge(hooked_models.hugging_face_model("Llama"))
    both = [[PAD, 4, 5, PAD], [PAD, 6, 7, PAD]]
    plain = run_ablation_study(
        model, {"z": Zero().at(HEAD)}, examples=Examples(both, [7, 8]), controls=False
    ).by_split("loss")
    assert plain.loc["none", "all"] == pytest.approx(alone(model, prompts=both, answers=[7, 8]))
    some = torch.tensor([[PAD, 4, 5], [6, 7, 8]])
    with pytest.raises(ModelError, match="all 1 if that token is meant"):
        run_ablation_study(model, {"z": Zero().at(HEAD)}, examples=Examples(some, [7, 8]))
    said = Examples(some, [7, 8], attention_mask=torch.ones_like(some))
    found = run_ablation_study(model, {"z": Zero().at(HEAD)}, examples=said, controls=False)
    wanted = alone(model, prompts=some.tolist(), answers=[7, 8])
    assert found.by_split("loss").loc["none", "all"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 1]], "as the tokens"),
        ([[1, 0, 1]], "one piece"),
        ([[0, 0, 0]], "one piece"),
        ([[1, 2, 1]], "1 at tokens"),
    ],
)
def test_masks_that_make_no_sense(mask, message):
    with pytest.raises(ConfigError, match=message):
        Examples([[3, 4, 5]], [7], attention_mask=mask)
    with pytest.raises(ModelError, match=message):
        Mean([[3, 4, 5]], attention_mask=np.array(mask))


def test_queries_are_tokens():
    tokens, mask = padded("right")
    with pytest.raises(ConfigError, match="query must be tokens"):
        Examples(tokens, ANSWERS, query=[4, 4, 4], attention_mask=mask)
    examples = Examples(tokens, ANSWERS, query=[1, -1, 3], attention_mask=mask)
    assert [batch.query.tolist() for batch in examples.batches()] == [[1], [3], [4]]


def test_another_batch_than_that_of_the_mask_is_refused():
    model = hooked_models.hooked_transformer("LN", n_layers=2)
    _, mask = padded("right")
    with (
        pytest.raises(ModelError, match="must be that of the batch"),
        ablated(model, Zero().at(HEAD), attention_mask=mask),
    ):
        model(torch.tensor([[3, 4, 5]]))
