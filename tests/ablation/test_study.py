"""The study: a tidy table with controls, resumed from its file."""

import numpy as np
import pandas as pd
import pytest
import torch

from ocr_interp import solve
from ocr_interp.ablation import study as study_module
from ocr_interp.ablation.circuit_parts import output_subspace
from ocr_interp.ablation.controls import EQUAL_NORM, RANDOM, Draw
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.resample import Resample
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.examples import task_examples
from ocr_interp.ablation.metrics import METRICS, split_metrics
from ocr_interp.ablation.random_positions import RandomPositions
from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site, tokens_of_kind
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import (
    InterventionNeverFiredError,
    ModelError,
    OcrInterpError,
    RunError,
    UnknownNameError,
)
from ocr_interp.models.weights import TokenWeights
from ocr_interp.task import SPLITS, FactRecallTask
from ocr_interp.training.run import Snapshot

TASK = FactRecallTask(3, 1, 2, n_noise=1, seq_len=4)


def snapshot(data="noise_free", step=0):
    """The predicted solution as a model with frozen uniform attention."""
    config = ModelConfig(ov="non_factorized", dtype="float64", train_attention=False)
    W = torch.zeros(TASK.d_vocab, TASK.d_vocab, dtype=torch.float64)
    W[: TASK.n_subjects + 2, TASK.n_inputs :] = torch.tensor(solve(TASK).W)
    train = TrainConfig(data=data, eval_draws=2)
    return Snapshot(
        RunConfig(TASK, config, train), step, TokenWeights.of_factors(W, None, torch.ones_like(W))
    )


@pytest.fixture(scope="module")
def run():
    return snapshot()


@pytest.fixture(scope="module")
def specs(run):
    circuit = OVCircuit.from_run(run).subjects_and_relations
    held_out, implications = (tokens_of_kind(TASK, k) for k in ("held-out subjects", "implications"))
    return {
        "path": Zero().at(Path(held_out, implications, layer=0, head=0)),
        "facts": output_subspace(circuit, np.eye(6)[:, :3]),
        "r1": Zero().at(Site.at("v", layer=0, tokens=["r1"])),
        "both": (
            Zero().at(Path(held_out, layer=0, head=0)),
            Resample().at(Site.at("v", layer=0, positions=[1])),
        ),
    }


def test_metrics_of_the_prediction_are_the_predicted_ones(run):
    found = run_ablation_study(run, {"path": Zero().at(Path((0,), layer=0, head=0))}, controls=False)
    row = found.table[found.table["spec"] == "none"].set_index("split")
    predicted = solve(TASK)
    margins = [1, 1, 1, predicted.held_out_margin]
    assert row["margin"].loc[list(SPLITS)].to_numpy() == pytest.approx(margins)
    assert row["logit_difference"].loc[list(SPLITS)].to_numpy() == pytest.approx(margins)
    own = predicted.held_out_margin_own_fact
    assert row["other_answer_difference"].loc["held_out_implication"] == pytest.approx(own)
    assert (row["accuracy"] == 1).all()


def test_metrics_by_hand():
    task = FactRecallTask(2, 1, 0, n_noise=0, seq_len=3)  # s0 s1 r1 r2 EOS b0 b1 c0 c1
    logits = torch.zeros(4, 9, dtype=torch.float64)
    logits[:, 5:] = torch.tensor([[3.0, 1, 2, 0], [0, 1, 0, 5], [1, 0, 4, 1], [2, 0, 0, -1]])
    found = split_metrics(task, logits, np.arange(4))  # s0 b0, s1 b1, s0 c0, s1 c1
    assert found["training_fact"]["accuracy"] == 0.5
    assert found["training_fact"]["margin"] == 1  # against the facts alone
    assert found["training_fact"]["other_answer_difference"] == -4
    assert found["training_implication"]["margin"] == -1
    assert found["training_implication"]["logit_difference"] == pytest.approx((3 - 1) / 2)
    wanted = torch.logsumexp(logits, 1) - logits[range(4), [5, 6, 7, 8]]
    assert found["training_fact"]["loss"] == pytest.approx(float(wanted[:2].mean()))


def test_examples_are_the_triples():
    plain = task_examples(TASK)
    assert plain.tokens.shape == (len(TASK.triples), 3)
    assert plain.splits == SPLITS
    noisy = task_examples(TASK, True, 1, 3)
    assert noisy.tokens.shape == (3 * len(TASK.triples), 4)
    assert torch.equal(plain.answer.repeat_interleave(3), noisy.answer)
    assert torch.equal(noisy.tokens, task_examples(TASK, True, 1, 3).tokens)
    assert not torch.equal(noisy.tokens, task_examples(TASK, True, 2, 3).tokens)
    assert noisy.fingerprint == task_examples(TASK, True, 1, 3).fingerprint != plain.fingerprint


@pytest.mark.slow
def test_one_tidy_row_for_each_spec_control_seed_and_split(run, specs):
    found = run_ablation_study(run, specs, seeds=(0, 1))
    table = found.table
    assert list(table.columns) == [*study_module.KEYS, "touched", *METRICS]
    assert not table.duplicated(list(study_module.KEYS)).any()
    counts = table.groupby(["spec", "control"]).size()
    assert counts[("none", "intervention")] == 2 * 4
    assert counts[("facts", EQUAL_NORM)] == 2 * 4
    assert ("path", RANDOM) in counts.index
    assert ("path", EQUAL_NORM) not in counts.index
    margins = found.by_split("margin")
    assert list(margins.columns) == list(SPLITS)
    assert margins.loc["path", "held_out_implication"] == pytest.approx(0)
    assert margins.loc["path", "held_out_fact"] == pytest.approx(1)
    assert margins.loc["facts", "training_implication"] == pytest.approx(1)
    assert margins.loc["facts", "training_fact"] == pytest.approx(0)
    again = run_ablation_study(run, specs, seeds=(0, 1)).table
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["noisy", "noise_free"])
def test_a_study_that_was_cut_off_goes_on_where_it_was(data, specs, tmp_path, monkeypatch):
    run, path = snapshot(data), tmp_path / "studies" / "a.csv"
    whole = run_ablation_study(run, specs).table
    evaluate, done = study_module._evaluate, []

    def fails_late(*args):
        done.append(args[2]["spec"])
        if len(done) == 4:
            raise KeyboardInterrupt
        return evaluate(*args)

    monkeypatch.setattr(study_module, "_evaluate", fails_late)
    with pytest.raises(KeyboardInterrupt):
        run_ablation_study(run, specs, path=path)
    assert len(pd.read_csv(path)) == 3 * 4
    resumed = run_ablation_study(run, specs, path=path, progress=True)
    assert len(done) == 1 + whole.groupby(["spec", "control"]).ngroups
    pd.testing.assert_frame_equal(resumed.table, whole)
    before = path.read_bytes()
    run_ablation_study(run, specs, path=path)
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".tmp*"))


def test_files_of_other_studies_are_refused(run, specs, tmp_path):
    path = tmp_path / "a.csv"
    run_ablation_study(run, {"r1": specs["r1"]}, path=path, controls=False)
    with pytest.raises(RunError, match="other weights"):
        run_ablation_study(snapshot(step=1), {"r1": specs["r1"]}, path=path)
    path.write_text("spec,loss\n")
    with pytest.raises(RunError, match="must begin with the columns"):
        run_ablation_study(run, specs, path=path)
    path.write_bytes(b"\xff\xfe\x00 no table")
    with pytest.raises(RunError, match=r"a\.csv"):
        run_ablation_study(run, specs, path=path)


def test_metrics_may_be_added_and_left_out_later(run, specs, tmp_path, monkeypatch):
    path, done, evaluate = tmp_path / "a.csv", [], study_module._evaluate

    def counting(studied, parts, key, *rest):
        done.append(key["spec"])
        return evaluate(studied, parts, key, *rest)

    monkeypatch.setattr(study_module, "_evaluate", counting)
    chosen = {name: specs[name] for name in ("r1", "path")}
    both = ("loss", "margin")
    run_ablation_study(run, {"r1": specs["r1"]}, ("loss",), path=path, controls=False)
    run_ablation_study(run, {"path": specs["path"]}, both, path=path, controls=False)
    assert done == ["none", "r1", "none", "path"], "the baseline had no margin yet"
    assert path.read_text().splitlines()[0].endswith("split,touched,loss,margin,seal")
    only_loss = run_ablation_study(run, chosen, ("loss",), path=path, controls=False)
    assert done[4:] == [], "all of it was there"
    assert list(only_loss.table.columns[-2:]) == ["touched", "loss"]
    whole = run_ablation_study(run, chosen, both, path=path, controls=False)
    assert done[4:] == ["r1"]
    fresh = run_ablation_study(run, chosen, both, controls=False)
    order = ["spec", "split"]
    pd.testing.assert_frame_equal(
        whole.table.sort_values(order, ignore_index=True),
        fresh.table.sort_values(order, ignore_index=True),
        check_exact=True,
    )


def test_controls_match_in_size_and_differ_by_seed(run, specs):
    def drawn(spec, seed=0):
        return spec.controls(Draw.seeded(seed, run.model, range(TASK.n_inputs), TASK.answer_tokens, 3))

    path = drawn(specs["path"])[RANDOM].where
    assert (path.inputs, len(path.outputs)) == (specs["path"].where.inputs, 3)
    facts = drawn(specs["facts"])
    assert facts[RANDOM].what.basis.shape == (6, 3)
    assert facts[EQUAL_NORM].what.equal_to is specs["facts"].what.basis
    assert not torch.equal(facts[RANDOM].what.basis, drawn(specs["facts"], 1)[RANDOM].what.basis)
    assert drawn(specs["r1"])[RANDOM].where.elsewhere != drawn(specs["r1"], 1)[RANDOM].where.elsewhere
    everything = Zero().at(Site.at("v", layer=0, tokens=range(TASK.n_inputs)))
    assert drawn(everything) == {}
    assert drawn(Zero().at(Site.at("z", layer=0, heads=[0]))) == {}
    assert len(drawn(Zero().at(Site.at("z", layer=0, positions=[-1])))[RANDOM].where.positions) == 1


@pytest.mark.parametrize("data", ["noisy", "noise_free"])
def test_controls_of_tokens_touch_as_many_positions_of_each_prompt(data):
    specs = {
        "r2": Zero().at(Site.at("v", layer=0, tokens=["r2"])),
        "subjects": Zero().at(Path(tokens_of_kind(TASK, "training subjects"), (12, 13, 14), layer=0, head=0)),
    }
    table = run_ablation_study(snapshot(data), specs, ("loss",), seeds=range(3)).table
    touched = table.pivot_table(index=["spec", "seed", "split"], columns="control", values="touched")
    spec = touched["intervention"].drop("none")
    assert (touched[RANDOM].drop("none") == spec).all()
    assert spec["r2", 0].to_dict() == {s: float(s.endswith("implication")) for s in SPLITS}
    assert spec["subjects", 0].to_dict() == {s: float(s.startswith("training")) for s in SPLITS}
    assert (touched["intervention"]["none"] == 0).all()
    assert table[table["control"] == RANDOM].groupby(["spec", "split"])["loss"].nunique().max() > 1


def test_random_positions_depend_on_seed_and_prompt_alone():
    ids = torch.randint(0, 50, (400, 6), generator=torch.Generator().manual_seed(0))
    chosen = ids < 15
    drawn = RandomPositions(3, tuple(range(50))).like(chosen, ids)
    assert torch.equal(drawn.sum(1), chosen.sum(1))
    parts = [RandomPositions(3, tuple(range(50))).like(chosen[k::7], ids[k::7]) for k in range(7)]
    assert all(torch.equal(part, drawn[k::7]) for k, part in enumerate(parts))
    assert not torch.equal(RandomPositions(4, tuple(range(50))).like(chosen, ids), drawn)
    one = torch.arange(6).expand(400, 6) == 0  # one a prompt: every position is drawn about equally often
    counts = RandomPositions(0, tuple(range(50))).like(one, ids).sum(0)
    assert counts.sum() == 400
    assert counts.min() > 400 / 6 - 4 * 7.5
    assert counts.max() < 400 / 6 + 4 * 7.5
    few = RandomPositions(3, (0, 1)).like(torch.ones_like(chosen), ids)
    assert torch.equal(few, ids < 2)  # all there are to draw
    with pytest.raises(ModelError, match="elsewhere needs tokens"):
        Site("blocks.0.attn.hook_v", elsewhere=RandomPositions(0, (1,)))


def test_bad_input(run, specs):
    with pytest.raises(UnknownNameError, match="margin"):
        run_ablation_study(run, specs, ("margins",))
    with pytest.raises(OcrInterpError, match="specs and seeds"):
        run_ablation_study(run, {})
    with pytest.raises(OcrInterpError, match="another name"):
        run_ablation_study(run, {"none": specs["r1"]})
    with pytest.raises(InterventionNeverFiredError):
        run_ablation_study(run, {"noise": Zero().at(Site.at("v", layer=0, tokens=["noise0"]))})
    with pytest.raises(UnknownNameError, match="noise0"):
        run_ablation_study(run, {"noise": Zero().at(Site.at("v", layer=0, tokens=["noise"]))})


def test_a_control_that_was_not_measured_has_no_table(run, specs):
    alone = run_ablation_study(run, {"r1": specs["r1"]}, controls=False)
    for name in (RANDOM, EQUAL_NORM, "randm"):
        with pytest.raises(UnknownNameError, match=r"allowed: 'intervention'; .*controls=False") as error:
            alone.by_split("margin", name)
        assert f"unknown control that this study measured {name!r}" in str(error.value)
    some = run_ablation_study(run, {"path": specs["path"]})
    assert some.controls == (RANDOM,)
    with pytest.raises(UnknownNameError, match=r"did you mean 'random'.* allowed: 'intervention', 'random'$"):
        some.by_split("margin", EQUAL_NORM)
    assert len(some.by_split("margin", RANDOM)) == 1


def test_a_mean_over_the_task_leaves_chance(run):
    tokens = task_examples(TASK).tokens
    subjects = tokens_of_kind(TASK, "subjects")
    found = run_ablation_study(run, {"mean": Mean(tokens).at(Site.at("v", layer=0, tokens=subjects))})
    assert found.by_split("logit_difference").loc["mean"].to_numpy() == pytest.approx(0)
    assert found.by_split("margin").loc["mean"].to_numpy() == pytest.approx(0)
