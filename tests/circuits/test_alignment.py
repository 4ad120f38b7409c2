"""Alignment: the prediction itself is aligned, baselines are not, and each number has its closed form."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from snapshots import predicted, random_snapshot

from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.circuits.geometry.alignment import MEASURED, OTHER, PREDICTED, RANDOM, SADDLE, UNTRAINED
from ocr_interp.errors import ConfigError, ModelError, UnknownNameError
from ocr_interp.linalg.angles import block_angles
from ocr_interp.linalg.spectrum import spectrum_of
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import saddle_solution, solve

TASK = FactRecallTask(3, 1, 2, n_noise=1, seq_len=4)


def test_a_model_at_the_solution_is_aligned_and_its_baselines_are_not():
    nuclear, frobenius = solve(TASK), solve(TASK, "frobenius")
    scores = np.linspace(0.5, 2, TASK.n_inputs)
    circuit = OVCircuit.from_run(predicted(TASK, 3 * nuclear.W, scores))
    other = predicted(TASK, frobenius.W, factorized=False)
    untrained = dataclasses.replace(random_snapshot(TASK), step=0)
    report = circuit.alignment(nuclear, untrained=untrained, other=other, random_seeds=(0, 1))
    roles = [c.role for c in report.comparisons]
    assert roles == [MEASURED, UNTRAINED, OTHER, RANDOM, RANDOM, SADDLE, PREDICTED]
    ours = report.measured
    assert (ours.cosine, ours.cosine_nuclear) == pytest.approx((1, 1))
    assert ours.scale == pytest.approx(3)
    assert (ours.beta, ours.beta_margin) == pytest.approx((2**-0.5, 2**-0.5))
    assert report.predicted_beta == pytest.approx(2**-0.5)
    for block, wanted in zip(ours.angles, nuclear.spectrum, strict=True):
        assert block.multiplicity == wanted.multiplicity
        assert block.measured_values == pytest.approx(wanted.value)
        assert np.abs([block.input_angles, block.output_angles]).max() < 1e-4
    assert ours.cosines == pytest.approx(report.predicted_cosines, abs=1e-7)
    assert report.of_role(OTHER)[0].beta == pytest.approx(0, abs=1e-12)
    assert report.of_role(OTHER)[0].cosine_frobenius == pytest.approx(1)
    assert report.of_role(OTHER)[0].cosine == pytest.approx(ours.cosine_frobenius), "cosine of the solutions"
    for baseline in (*report.of_role(RANDOM), *report.of_role(UNTRAINED)):
        assert abs(baseline.cosine) < 0.6
        assert max(block.input_angles.max() for block in baseline.angles) > 30
        assert baseline.group("relations").deviation > 0.1
    assert ours.group("implication_held_out").predicted == pytest.approx(nuclear.cosines.implication_held_out)
    assert "held_out_relation" in report.summary()
    assert "score from EOS" in report.provenance.folded[-1]


def test_both_solutions_have_their_known_cosine_at_20_1_3():
    task = FactRecallTask(20, 1, 3)
    nuclear = solve(task)
    report = OVCircuit.from_run(predicted(task, nuclear.W)).alignment(nuclear, random_seeds=())
    assert report.measured.cosine_frobenius == pytest.approx(0.926, abs=5e-4)
    assert report.measured.beta == pytest.approx(3**-0.5)
    assert report.measured.group("implication_held_out").mean == pytest.approx(0.61, abs=5e-3)


@pytest.mark.parametrize("sizes", [(20, 1, 3), (4, 2, 3)])
def test_the_saddle_stands_beside_the_nuclear_solution(sizes):
    task = FactRecallTask(*sizes, n_noise=0, seq_len=3)
    nuclear, saddle = solve(task), saddle_solution(task)
    report = OVCircuit.from_run(predicted(task, 2 * saddle.W)).alignment(nuclear, random_seeds=(0,))
    ours, (theirs,) = report.measured, report.of_role(SADDLE)
    by_hand = np.vdot(saddle.W, nuclear.W) / (np.linalg.norm(saddle.W) * np.linalg.norm(nuclear.W))
    assert by_hand < 0.999
    assert (theirs.cosine, theirs.cosine_nuclear, theirs.cosine_saddle) == pytest.approx(
        (by_hand, by_hand, 1)
    )
    assert report.comparisons[-1].cosine_saddle == pytest.approx(by_hand)
    assert theirs.beta == pytest.approx(saddle.beta)
    assert theirs.beta_margin == pytest.approx(saddle.held_out_margin)
    assert report.predicted_beta == pytest.approx(nuclear.beta), "the prediction stays what was asked for"
    assert ours.scale > 1.5
    assert (ours.beta, ours.cosine_saddle) == pytest.approx((saddle.beta, 1))
    for group in theirs.groups:
        if group.count:
            exact = getattr(saddle.cosines, group.name)
            assert group.mean == pytest.approx(exact, abs=1e-9), group.name
    assert theirs.group("train_held_out_same_pair").deviation > 0.05, "a pair's subjects fall together"
    assert "saddle" in report.summary()


def test_beta_of_the_saddle_is_near_the_fourth_root():
    task = FactRecallTask(20, 1, 3)
    report = OVCircuit.from_run(predicted(task, solve(task).W)).alignment(solve(task), random_seeds=())
    assert report.of_role(SADDLE)[0].beta == pytest.approx(0.7858, abs=5e-5)
    assert report.measured.beta == pytest.approx(3**-0.5)


@pytest.mark.slow
def test_no_saddle_where_there_is_no_other_point(mapped_task):
    for sizes in ((3, 1, 1), (3, 2, 1), (3, 0, 2), (3, 2, 0)):
        task = FactRecallTask(*sizes, n_noise=0, seq_len=3)
        report = OVCircuit.from_run(random_snapshot(task)).alignment(solve(task), random_seeds=())
        assert report.of_role(SADDLE) == ()
        assert np.isnan(report.measured.cosine_saddle)
        assert "saddle" not in report.summary()
    circuit = OVCircuit.from_run(random_snapshot(TASK))
    for norm in ("frobenius", "spectral"):
        assert circuit.alignment(solve(TASK, norm)).of_role(SADDLE) == ()
    unequal = solve(mapped_task)
    assert OVCircuit.from_run(random_snapshot(mapped_task)).alignment(unequal).of_role(SADDLE) == ()
    itself = circuit.alignment(saddle_solution(TASK))
    assert itself.of_role(SADDLE) == (), "it is the prediction then"
    assert itself.prediction == "the saddle of rank n"
    assert itself.predicted_beta == pytest.approx(saddle_solution(TASK).beta)


def test_angles_know_a_rotated_direction_and_do_not_mind_the_order():
    e = np.eye(4)
    target = spectrum_of(e, np.diag([2.0, 2.0, 1.0, 0.0]), 1e-6)
    t = np.radians(20)
    turned = np.array([0, np.cos(t), 0, np.sin(t)])
    W = 5 * np.outer(e[2], e[2]) + 2 * np.outer(e[0], e[0]) + 1 * np.outer(e[1], turned)
    large, small = block_angles(target, spectrum_of(e, W, 0.0), 1.0)
    assert large.input_angles == pytest.approx([0, 0], abs=1e-6)
    assert large.output_angles == pytest.approx([0, 20])
    assert large.measured_values == pytest.approx([2, 1])
    assert small.measured_values == pytest.approx([5]), "matched by direction, not by rank"
    poor = block_angles(target, spectrum_of(e, np.outer(e[0], e[0]), 0.0), 1.0)
    assert poor[0].input_angles == pytest.approx([0, 90])
    assert poor[1].input_angles == pytest.approx([90])


def test_any_object_with_weights_is_a_prediction_also_of_an_unbalanced_task(mapped_task):
    W = np.random.default_rng(0).standard_normal((mapped_task.n_subjects + 2, mapped_task.n_answers))
    report = OVCircuit.from_run(predicted(mapped_task, W)).alignment(SimpleNamespace(W=W))
    assert report.measured.cosine == pytest.approx(1)
    assert np.isnan(report.measured.cosine_nuclear)
    assert report.prediction == "SimpleNamespace"
    assert report.measured.group("fact_implication_same_pair").count == 3


def test_bad_predictions_and_baselines():
    circuit = OVCircuit.from_run(random_snapshot(TASK))
    with pytest.raises(ConfigError, match=r"prediction.W must be .* = \(11, 6\) .*, got \(6, 11\)"):
        circuit.alignment(SimpleNamespace(W=np.zeros((6, 11))))
    with pytest.raises(ConfigError, match=r"got \(11, \d+\)"):
        circuit.alignment(solve(TASK, outputs="vocabulary"))
    other = random_snapshot(FactRecallTask(2, 1, 1, n_noise=1, seq_len=4))
    with pytest.raises(ModelError, match="same task"):
        circuit.alignment(solve(TASK), untrained=other)
    with pytest.raises(ModelError, match="untrained must be a model at step 0, got step"):
        circuit.alignment(solve(TASK), untrained=random_snapshot(TASK))
    with pytest.raises(ModelError, match="other must be another model, got the same weights"):
        circuit.alignment(solve(TASK), other=random_snapshot(TASK))
    swapped = solve(FactRecallTask(3, 2, 1, n_noise=1, seq_len=4))
    with pytest.raises(ConfigError, match="of a task with other groups"):
        circuit.alignment(swapped)
    for value in (0.0, np.nan):
        with pytest.raises(ConfigError, match="finite and not zero"):
            circuit.alignment(SimpleNamespace(W=np.full((11, 6), value)))
    report = circuit.alignment(solve(TASK))
    assert "baselines not given: untrained, other OV kind" in report.summary()
    with pytest.raises(UnknownNameError, match="did you mean 'untrained'"):
        report.of_role("untrain")
    with pytest.raises(UnknownNameError, match="did you mean 'relations'"):
        report.measured.group("relation")
