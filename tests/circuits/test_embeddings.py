"""Balanced embeddings against the closed form; nothing depends on how W is factored."""

import dataclasses

import numpy as np
import pytest
from snapshots import predicted, random_snapshot, snapshot

from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.circuits.geometry.cosine_groups import (
    GROUPS,
    all_cosines,
    cosine_groups,
    group_masks,
    vector_labels,
)
from ocr_interp.circuits.geometry.embeddings import held_out_span
from ocr_interp.errors import ConfigError, ModelError, UnknownNameError
from ocr_interp.linalg.vectors import factor_imbalance
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve

SIZES = [(2, 1, 1), (3, 1, 2), (4, 2, 1)]


def closed_form(sizes, norm="nuclear"):
    task = FactRecallTask(*sizes, n_noise=1, seq_len=4)
    solution = solve(task, norm)
    return task, solution, OVCircuit.from_run(predicted(task, solution.W)).subjects_and_relations


@pytest.mark.parametrize("sizes", SIZES)
def test_gram_matrices_are_those_of_the_closed_form(sizes):
    task, solution, circuit = closed_form(sizes)
    found = circuit.embeddings()
    assert found.input @ found.output.T == pytest.approx(solution.W, abs=1e-12)
    inputs, outputs = solution.input_embeddings(), solution.output_embeddings()
    assert found.gram(circuit.inputs.labels) == pytest.approx(inputs @ inputs.T, abs=1e-12)
    assert found.gram(circuit.outputs.labels) == pytest.approx(outputs @ outputs.T, abs=1e-12)
    assert found.gram(["s0"], ["b0"])[0, 0] == pytest.approx(solution.W[0, 0], abs=1e-12)
    n, m_train, m_test = sizes
    if m_train <= m_test:
        squared = (1 - 1 / n) * np.sqrt(m_train) + 1 / (2 * np.sqrt(n))
        assert found.gram(["c0"])[0, 0] == pytest.approx(squared)
        assert found.cosines(["s0"], ["s1"])[0, 0] == pytest.approx((m_train / m_test) ** 0.25)
    assert found.cosines(["r1"], ["r2"])[0, 0] == pytest.approx(-1)
    own = found.cosines(["s0+r1"], ["b0"])[0, 0]
    status = "fact_train" if task.subject_trained[0] else "fact_held_out"
    assert own == pytest.approx(getattr(solution.cosines, status))


@pytest.mark.parametrize("sizes", [*SIZES, (20, 1, 3)])
@pytest.mark.parametrize("norm", ["nuclear", "frobenius"])
def test_cosines_by_kind_of_pair_are_those_of_the_closed_form(sizes, norm):
    task = FactRecallTask(*sizes)
    solution = solve(task, norm)
    cosines = all_cosines(solution.W, task)
    wanted = dataclasses.asdict(solution.cosines)
    groups = cosine_groups(cosines, cosines, group_masks(task))
    assert tuple(g.name for g in groups) == GROUPS
    for group in groups:
        if group.count:
            assert group.mean == pytest.approx(wanted[group.name], abs=1e-9), group.name
            assert group.largest - group.smallest < 1e-7
            assert group.deviation == 0
    assert len(vector_labels(task)) == len(cosines)


def test_any_invertible_matrix_between_the_factors_leaves_everything_as_it_is():
    task = FactRecallTask(3, 1, 2, n_noise=1, seq_len=4)
    run = random_snapshot(task, d_head=4)
    M = np.random.default_rng(3).standard_normal((4, 4))
    W_V, W_O = run.weights.W_V.numpy(), run.weights.W_O.numpy()
    other = snapshot(task, W_V @ M, np.linalg.inv(M) @ W_O)
    first, second = (
        OVCircuit.from_run(run, raw=True).embeddings(),
        OVCircuit.from_run(other, raw=True).embeddings(),
    )
    labels = ["r1", "s0", "s1", "b0", "c2", "noise0"]
    assert first.cosines(labels) == pytest.approx(second.cosines(labels), abs=1e-8)
    ours, theirs = first.coordinates(labels, 3), second.coordinates(labels, 3)
    assert ours.values == pytest.approx(theirs.values, abs=1e-8)
    assert first.imbalance != pytest.approx(second.imbalance)


def test_coordinates_follow_the_stated_rule():
    _, _, circuit = closed_form((3, 1, 2))
    found = circuit.embeddings()
    labels = ["r1", "r2", "s0", "b0", "b1"]
    place = found.coordinates(labels, 3)
    assert place.anchors == ("r1", "s0", "b0"), "r2 is antipodal to r1 and sets no axis"
    assert place.values[0] == pytest.approx([np.sqrt(found.gram(["r1"])[0, 0]), 0, 0], abs=1e-12)
    assert place.values[1] == pytest.approx(-place.values[0], abs=1e-12)
    assert place.values[2, 1] > 0
    assert abs(place.values[2, 2]) < 1e-12
    assert place.values[:4] @ place.values[:4].T == pytest.approx(found.gram(labels[:4]), abs=1e-12)
    assert place.explained[:4] == pytest.approx(1)
    chosen = found.coordinates(labels, 2, anchors=["b0", "b1"])
    assert chosen.anchors == ("b0", "b1")
    flat = found.coordinates(["r1", "r2"], 2)
    assert flat.anchors == ("r1",)
    assert (flat.values[:, 1] == 0).all()
    with pytest.raises(ConfigError, match="dimensions must be 2 or 3, got 4"):
        found.coordinates(labels, 4)


def test_projections_into_spans():
    task, _, circuit = closed_form((3, 1, 2))
    found = circuit.embeddings()
    subjects = task.labels[: task.n_subjects]
    on_relations = found.projection(["r1", "s0", "b0"], onto=["r1", "r2"])
    assert on_relations.rank == 1
    assert on_relations.shares[:2].tolist() == pytest.approx([1, 0], abs=1e-12)
    rest = found.projection(["b0"], onto=subjects).shares[0]
    assert on_relations.shares[2] + rest == pytest.approx(1), "relations and subjects fill the space"
    assert on_relations.random_share == pytest.approx(1 / circuit.spectrum().rank)


def test_the_image_of_held_out_subjects_in_the_span_of_training_ones():
    # s: own fact 1 − 1/n etc.; the training row is (p, p), the held-out one (p, beta p) on pair patterns.
    _, solution, circuit = closed_form((3, 1, 2))
    beta = solution.beta
    found = held_out_span(circuit)
    assert found.shares == pytest.approx(np.full(6, (1 + beta) ** 2 / (2 * (1 + beta**2))))
    assert (found.rank, found.dimension) == (2, 6)
    assert found.random_share == pytest.approx(1 / 3)
    frobenius = held_out_span(closed_form((3, 1, 2), "frobenius")[2])
    assert frobenius.mean == pytest.approx(0.5)
    none_held_out = OVCircuit.from_run(random_snapshot(FactRecallTask(2, 1, 0, n_noise=1, seq_len=4)))
    with pytest.raises(ModelError, match="training and held-out subjects"):
        held_out_span(none_held_out)


def test_imbalance_of_factors():
    task, solution, _ = closed_form((3, 1, 2))
    balanced = OVCircuit.from_run(predicted(task, solution.W), outputs="vocabulary", raw=True)
    assert balanced.embeddings().imbalance == pytest.approx(0, abs=1e-12)
    assert OVCircuit.from_run(predicted(task, solution.W, factorized=False)).embeddings().imbalance is None
    assert factor_imbalance(np.eye(2), np.zeros((2, 3))) == pytest.approx(2)
    assert factor_imbalance(2 * np.eye(2), np.eye(2)) == pytest.approx(3 / 2.5)


def test_unknown_tokens_of_embeddings():
    found = closed_form((2, 1, 1))[2].embeddings()
    with pytest.raises(UnknownNameError, match="did you mean 's3'"):
        found.vectors(["s33"])
    with pytest.raises(UnknownNameError, match="'r9'"):
        found.vectors(["s0+r9"])
