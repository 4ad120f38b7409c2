"""Compacter's stationary points, by brute force and in closed form."""

import numpy as np
import pytest

from ocr_interp.errors import ConfigError
from ocr_interp.layouts import token_layout
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import aligned_compacter
from ocr_interp.theory.solver.stationary import CompacterProgram, curvature, stationary_points


def test_gradients_of_margins_equal_differences():
    program = CompacterProgram(FactRecallTask(2, 1, 1), token_layout(FactRecallTask(2, 1, 1)), 2, 2)
    theta = np.random.default_rng(0).normal(size=program.size)
    step = 1e-6 * np.eye(program.size)
    numeric = np.stack(
        [(program.margins(theta + e) - program.margins(theta - e)) / 2e-6 for e in step], axis=1
    )
    np.testing.assert_allclose(program.margin_gradients(theta), numeric, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 1, 1), (3, 1, 1), (3, 1, 2)])
def test_pairs_in_A_give_one_term_and_the_beta_of_the_closed_form(sizes):
    task = FactRecallTask(*sizes)
    point = aligned_compacter(task)
    best = stationary_points(task, token_layout(task), terms=sizes[0], starts=4)[0]
    assert best.cost == pytest.approx(point.cost, rel=1e-5)
    assert best.beta == pytest.approx(point.beta, abs=1e-4)
    assert (best.terms, best.stable) == (1, True)
    assert (
        point.beta == pytest.approx(1)
        if sizes[1] == sizes[2]
        else (sizes[1] / sizes[2]) ** 0.25 < point.beta < 1
    )


@pytest.mark.parametrize("sizes", [(2, 1, 1), (3, 1, 2)])
def test_members_and_types_in_A_give_beta_zero(sizes):
    task = FactRecallTask(*sizes)
    found = stationary_points(task, token_layout(task, "transposed"), terms=sizes[0], starts=4)
    assert found
    for point in found:
        assert point.beta == pytest.approx(0, abs=1e-4)
        assert point.kkt_error < 1e-3
        assert point.stable


def test_curvature_by_hand():
    """Lagrangian ½‖θ‖² − ⟨G, W(θ)⟩: 1 at θ = 0 in every direction, far below 0 where θ is large."""
    program = CompacterProgram(FactRecallTask(2, 1, 1), token_layout(FactRecallTask(2, 1, 1)), 2)
    G = np.random.default_rng(0).normal(size=program.problem.shape)
    none_held = np.zeros((1, program.size))

    def gradient(theta):
        return program.pulled_back(theta, G[None])[0]

    assert curvature(gradient, np.zeros(program.size), none_held) == pytest.approx(1)
    assert curvature(gradient, 10 * np.ones(program.size), none_held) < -1
    held = np.eye(program.size)[:-1]
    assert curvature(gradient, 10 * np.ones(program.size), held) == pytest.approx(1)


@pytest.mark.parametrize("sizes", [(8, 3, 1), (5, 2, 2)])
def test_more_told_than_untold_subjects_have_beta_one(sizes):
    assert aligned_compacter(FactRecallTask(*sizes)).beta == pytest.approx(1)


def test_other_tasks_are_sent_to_the_brute_force(mapped_task):
    for task in (mapped_task, FactRecallTask(3, 0, 2), FactRecallTask(3, 2, 0)):
        with pytest.raises(ConfigError, match="stationary_points"):
            aligned_compacter(task)


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        (token_layout(FactRecallTask(3, 1, 1)), {"terms": 1}, "must be of the task's 4 subjects x 4 answers"),
        (token_layout(FactRecallTask(2, 1, 1), shared_phm_rule=False), {"terms": 1}, "a layout of 2 layers"),
        (token_layout(FactRecallTask(2, 1, 1)), {"terms": 0}, "terms must be >= 1, got 0"),
        (token_layout(FactRecallTask(2, 1, 1)), {"terms": 1, "phm_rank": 0}, "phm_rank must be >= 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(layout, options, message):
    with pytest.raises(ConfigError, match=message):
        stationary_points(FactRecallTask(2, 1, 1), layout, **options)
