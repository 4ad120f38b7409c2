"""Studies of models that we did not train: examples, metrics by hand, controls, resuming."""

from dataclasses import replace
from functools import partial

import hooked_models
import jaxtyping
import micro_model
import numpy as np
import pandas as pd
import pytest
import torch

from ocr_interp.ablation import study as study_module
from ocr_interp.ablation.controls import EQUAL_NORM, RANDOM
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.resample import Resample
from ocr_interp.ablation.edits.subspace import Subspace
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.examples import Examples, task_examples
from ocr_interp.ablation.metrics import identity_of
from ocr_interp.ablation.studied import ids_up_to_query
from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site
from ocr_interp.errors import (
    ConfigError,
    InterventionNeverFiredError,
    ModelError,
    OcrInterpError,
    RunError,
    UnknownNameError,
    WeightsError,
)

TOKENS = torch.tensor([[3, 4, 5, 9], [6, 4, 7, 8], [10, 5, 4, 8], [3, 3, 11, 9]])
QUESTIONS = Examples(
    TOKENS,
    torch.tensor([12, 13, 14, 12]),
    ("seen", "seen", "new", "new"),
    candidates=torch.tensor([12, 13, 14]),
)
SPECS = {
    "head": Zero().at(Site.at("z", layer=0, heads=[1])),
    "word": Zero().at(Site.at("v", layer=1, tokens=[4])),
    "first": Resample().at(Site.at("resid_pre", layer=1, positions=[0])),
    "path": Zero().at(Path((4, 3), layer=1, head=2)),
    "both": (
        Zero().at(Site.at("z", layer=0, heads=[0])),
        Subspace(torch.eye(12, 2)).at(Site.at("resid_post", layer=0)),
    ),
}


@pytest.fixture(scope="module")
def hooked():
    return hooked_models.hooked_transformer("LN", n_layers=2)


def test_a_bare_model_is_measured_as_its_run_is():
    """The same numbers to the bit, whether the examples come from the run's task or from the caller."""
    run = micro_model.snapshot()
    specs = {
        "subject": Zero().at(Site.at("v", layer=0, tokens=["s0"])),
        "path": Zero().at(Path((1, 3), (10, 11), layer=0, head=0)),
    }
    noisy = run.config.train.data != "noise_free"
    examples = task_examples(run.task, noisy, 0, 4)
    ours = run_ablation_study(run, specs, controls=False).table
    bare = run_ablation_study(run.model, specs, examples=examples, controls=False)
    pd.testing.assert_frame_equal(ours.drop(columns="study"), bare.table.drop(columns="study"))
    assert bare.step is None
    assert bare.splits == examples.splits
    unlabelled = replace(examples, labels=None)  # a run's tokens have the labels of its task
    again = run_ablation_study(run, specs, examples=unlabelled, controls=False).table
    pd.testing.assert_frame_equal(ours.drop(columns="study"), again.drop(columns="study"))


@pytest.mark.parametrize("kind", ["hooked", "bridge"])
def test_metrics_are_those_of_the_logits(kind, hooked, llama_bridge):
    model = hooked if kind == "hooked" else llama_bridge
    rivals = torch.tensor([[13, 14], [12, 14], [12, 12], [14, 12]])  # the last is padded with its answer
    other = torch.tensor([13, 12, 12, 20])
    examples = Examples(TOKENS, QUESTIONS.answer, QUESTIONS.split, QUESTIONS.candidates, rivals, other)
    found = run_ablation_study(model, {"head": SPECS["head"]}, examples=examples, controls=False)
    logits = model(TOKENS)[:, -1].detach().double().numpy()
    row = found.table[found.table["spec"] == "none"].set_index("split")
    x, y = logits[2], logits[3]
    right = (x[14] > max(x[12], x[13]), y[12] > max(y[13], y[14]))
    assert row["accuracy"]["new"] == np.mean(right)
    assert row["margin"]["new"] == pytest.approx(min(x[14] - x[12], y[12] - y[14]))
    assert row["logit_difference"]["new"] == pytest.approx((x[14] - x[12] + y[12] - y[14]) / 2)
    assert row["other_answer_difference"]["new"] == pytest.approx(min(x[14] - x[12], y[12] - y[20]))
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits), QUESTIONS.answer, reduction="none")
    assert row["loss"]["seen"] == pytest.approx(float(loss[:2].mean()))
    free = Examples(TOKENS, QUESTIONS.answer)  # candidates are the whole vocabulary
    found = run_ablation_study(model, {"head": SPECS["head"]}, examples=free, controls=False).by_split(
        "margin"
    )
    own = logits[range(4), QUESTIONS.answer]
    logits[range(4), QUESTIONS.answer] = -np.inf
    assert found.loc["none", "all"] == pytest.approx(min(own - logits.max(1)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hooked", "bridge"])
def test_every_kind_of_control_is_drawn(kind, hooked, llama_bridge):
    model = hooked if kind == "hooked" else llama_bridge
    specs = dict(SPECS)
    if kind == "bridge":
        specs["both"] = (SPECS["head"], Subspace(torch.eye(24, 2)).at(Site.at("resid_post", layer=0)))
        specs["values"] = Zero().at(Site.at("v", layer=0, heads=[1]))  # one of two value heads
    table = run_ablation_study(model, specs, examples=QUESTIONS, seeds=range(3)).table
    controls = table[table["control"] != "intervention"].groupby(["spec", "control"]).size()
    assert (controls == 3 * 2).all()
    assert set(controls.index) == {(name, RANDOM) for name in specs} | {("both", EQUAL_NORM)}
    assert table[table["control"] == RANDOM]["margin"].notna().all()  # tokens are drawn from the prompts


@pytest.mark.slow
def test_controls_whose_reference_lacks_the_draw_are_nan(hooked):
    """Of a control; the intervention itself raises."""
    reference = TOKENS[:1]
    specs = {
        "mean": Mean(reference).at(Site.at("v", layer=0, tokens=[3])),
        "path": Mean(torch.tensor([[3, 7, 8, 9]])).at(Path((3,), layer=0, head=0)),
    }
    table = run_ablation_study(hooked, specs, examples=QUESTIONS, seeds=range(6)).table
    assert table[table["control"] == "intervention"]["margin"].notna().all()
    control = table[table["control"] == RANDOM].set_index("spec")["margin"]
    assert control["mean"].notna().all()
    assert control["path"].isna().any()
    absent = {"mean": Mean(reference).at(Site.at("v", layer=0, tokens=[6]))}
    with pytest.raises(InterventionNeverFiredError, match="reference"):
        run_ablation_study(hooked, absent, examples=QUESTIONS)


@pytest.mark.slow
def test_prompts_may_be_padded_and_batched(hooked):
    padded = torch.tensor([[3, 4, 5, 9, 1], [6, 4, 7, 8, 1], [10, 5, 4, 1, 1], [3, 3, 1, 1, 1]])
    last = torch.tensor([3, 3, 2, 1])
    specs = {"word": SPECS["word"], "head": SPECS["head"]}
    examples = Examples(padded, QUESTIONS.answer, ("a", "b", "c", "d"), query=last)
    found = run_ablation_study(hooked, specs, examples=examples, controls=False).table
    halves = run_ablation_study(hooked, specs, examples=examples, controls=False, batch_size=3).table
    columns = ["accuracy", "loss", "margin", "logit_difference"]
    np.testing.assert_allclose(found[columns], halves[columns], atol=1e-12)
    drawn = run_ablation_study(hooked, specs, ("loss",), examples=examples, seeds=range(8), batch_size=3)
    touched = drawn.table[drawn.table["spec"] == "word"].groupby(["control", "split"])["touched"].mean()
    assert (
        touched["random"].to_dict() == touched["intervention"].to_dict() == {"a": 1, "b": 1, "c": 1, "d": 0}
    )
    assert 1 not in ids_up_to_query(examples)  # controls are not drawn in the padding
    for k, name in enumerate("abc"):
        alone = Examples(padded[k : k + 1, : last[k] + 1], QUESTIONS.answer[k : k + 1])
        one = run_ablation_study(hooked, specs, examples=alone, controls=False).table
        np.testing.assert_allclose(one[columns], found[found["split"] == name][columns], atol=1e-12)


# --- custom metrics --------------------------------------------------------------------------------


def probability(logits, examples, temperature=1.0):
    return (logits / temperature).softmax(-1).gather(1, examples.answer[:, None])[:, 0]


def test_custom_metrics_are_averaged_and_part_of_the_identity(hooked, tmp_path):
    path, specs = tmp_path / "a.csv", {"head": SPECS["head"]}

    def study(metric, name="p"):
        custom = {name: metric}
        return run_ablation_study(
            hooked, specs, ("loss",), examples=QUESTIONS, custom_metrics=custom, path=path
        )

    found = study(probability)
    assert found.metrics == ("loss", "p")
    p = hooked(TOKENS)[:, -1].softmax(-1)[range(4), QUESTIONS.answer]
    assert found.by_split("p").loc["none", "seen"] == pytest.approx(float(p[:2].mean()))
    pd.testing.assert_frame_equal(study(probability).table, found.table)
    for other in (partial(probability, temperature=2.0), lambda logits, examples: logits[:, 0]):
        with pytest.raises(RunError, match="custom metrics"):
            study(other)
    with pytest.raises(RunError, match="custom metrics"):
        study(probability, "q")
    path.unlink()
    with pytest.raises(ConfigError, match="a value for each of 4"):
        study(lambda logits, examples: logits)
    with pytest.raises(ConfigError, match="name of its own"):
        study(probability, "margin")


def test_the_identity_of_a_metric_is_what_it_computes():
    def scaled(by):
        return lambda logits, examples: logits[:, 0] * by

    assert identity_of(scaled(2)) == identity_of(scaled(2)) != identity_of(scaled(3))
    one, two = torch.ones(3), torch.zeros(3)
    assert identity_of(scaled(one)) == identity_of(scaled(one.clone())) != identity_of(scaled(two))
    assert identity_of(partial(probability)) != identity_of(partial(probability, temperature=2.0))
    assert identity_of({"a": {1, 2}}) == identity_of({"a": {2, 1}})


# --- resuming --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hooked", "bridge"])
def test_a_study_of_a_bare_model_goes_on_where_it_was_killed(
    kind, hooked, llama_bridge, tmp_path, monkeypatch
):
    model = hooked if kind == "hooked" else llama_bridge
    specs = {name: SPECS[name] for name in ("head", "word", "first", "path")}
    study = partial(run_ablation_study, model, specs, examples=QUESTIONS)
    whole, path = study().table, tmp_path / "a.csv"
    evaluate, done = study_module._evaluate, []

    def killed(*args):
        done.append(args[2])
        if len(done) == 5:
            raise KeyboardInterrupt
        return evaluate(*args)

    monkeypatch.setattr(study_module, "_evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        study(path=path)
    assert len(pd.read_csv(path)) == 4 * 2
    pd.testing.assert_frame_equal(study(path=path).table, whole)
    assert len(done) == 1 + len(whole) // 2


def test_other_weights_and_other_examples_are_refused(hooked, tmp_path):
    path, specs = tmp_path / "a.csv", {"head": SPECS["head"]}
    run_ablation_study(hooked, specs, examples=QUESTIONS, path=path)
    other = hooked_models.hooked_transformer("LN", n_layers=2, seed=1)
    answer = QUESTIONS.answer.flip(0)
    for model, examples in (
        (other, QUESTIONS),
        (hooked, Examples(TOKENS, answer, QUESTIONS.split, QUESTIONS.candidates)),
        (hooked, Examples(TOKENS, QUESTIONS.answer, QUESTIONS.split)),
    ):
        with pytest.raises(RunError, match="other weights"):
            run_ablation_study(model, specs, examples=examples, path=path)
    with pytest.raises(RunError, match="batch_size"):
        run_ablation_study(hooked, specs, examples=QUESTIONS, path=path, batch_size=2)
    run_ablation_study(hooked, specs, examples=QUESTIONS, path=path)


# --- what is refused -------------------------------------------------------------------------------


def test_models_and_metrics_that_do_not_go_together(hooked):
    specs = {"head": SPECS["head"]}
    with pytest.raises(ConfigError, match="examples=Examples"):
        run_ablation_study(hooked, specs)
    with pytest.raises(ConfigError, match="other_answer"):
        run_ablation_study(hooked, specs, ("other_answer_difference",), examples=QUESTIONS)
    with pytest.raises(ConfigError, match=r"0\.\.31"):
        run_ablation_study(hooked, specs, examples=Examples(TOKENS, torch.tensor([1, 2, 3, 32])))
    with pytest.raises(UnknownNameError, match="did you mean"):
        run_ablation_study(hooked, specs, ("accurracy",), examples=QUESTIONS)
    drawn = {"resample": Resample(torch.Generator()).at(Site.at("z", layer=0))}
    with pytest.raises(OcrInterpError, match="seed"):
        run_ablation_study(hooked, drawn, examples=QUESTIONS)
    with pytest.raises(ModelError, match="outputs=None"):
        run_ablation_study(
            hooked, {"path": Zero().at(Path((3,), (12,), layer=0, head=0))}, examples=QUESTIONS
        )


def test_nan_weights_are_refused():
    model = hooked_models.hooked_transformer(None)
    model.blocks[0].attn.W_V[0, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"W_V .* 1 NaN"):
        run_ablation_study(model, {"head": SPECS["head"]}, examples=QUESTIONS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answer": torch.tensor([1, 2])}, "answer must have one entry a prompt"),
        ({"split": ("a", "b")}, "split must have one entry"),
        ({"answer": torch.tensor([1, 2, 3, -1])}, "answer must be token ids >= 0"),
        ({"tokens": torch.zeros(0, 4, dtype=torch.long)}, "not empty"),
        ({"candidates": torch.tensor([[1, 2]])}, "a row for each of 4"),
        ({"candidates": torch.tensor([12])}, "other than the right answer, got none for 2 of 4"),
        ({"rivals": torch.zeros(4, 0, dtype=torch.long)}, "at least one"),
        ({"query": torch.tensor([0, 1, 2, 4])}, r"-4\.\.3"),
    ],
)
def test_examples_that_make_no_sense(fields, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as a user has it
    whole = {"tokens": TOKENS, "answer": QUESTIONS.answer}
    with pytest.raises(ConfigError, match=message):
        Examples(**{**whole, **fields})
