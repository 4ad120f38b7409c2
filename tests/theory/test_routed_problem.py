"""Experts by relation and by subject: which sides isolate, certified; closed forms where there are some."""

import numpy as np
import pytest

from ocr_interp.errors import ConfigError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve
from ocr_interp.theory.norms.by_expert import NuclearBeside, NuclearByExpert
from ocr_interp.theory.solver.routed import solve_routed


@pytest.mark.parametrize("norm", [NuclearBeside(2), NuclearByExpert((0, 1, 1, 0, 0, 1))])
def test_norms_and_their_duals(norm):
    rng = np.random.default_rng(0)
    G, W = rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
    point = norm.ball_point(G)
    assert norm.value(point) == pytest.approx(1)
    assert np.vdot(point, G) == pytest.approx(norm.dual_value(G))
    assert np.vdot(G, W) <= norm.dual_value(G) * norm.value(W)
    import cvxpy as cp

    X = cp.Variable((6, 3))
    X.value = W
    assert norm.atom(X).value == pytest.approx(norm.value(W))


def test_values_by_hand():
    W = np.array([[3.0, 0.0], [0.0, 4.0], [3.0, 0.0]])
    assert NuclearByExpert((0, 1, 0)).value(W) == pytest.approx(np.sqrt(18) + 4)
    assert NuclearByExpert((0, 0, 1)).value(W) == pytest.approx(3 + 4 + 3)
    beside = NuclearBeside(2).value(np.array([[3.0], [0.0], [4.0], [0.0]]))
    assert beside == pytest.approx(5.0)  # one row (3, 4)


@pytest.mark.parametrize("side", ["read", "write", "both"])
def test_one_expert_is_the_plain_problem(side):
    task = FactRecallTask(3, 1, 2)
    found, plain = solve_routed(task, (0, 0), side), solve(task)
    assert found.gap < 1e-6
    assert found.objective == pytest.approx(plain.objective, rel=1e-6)
    assert found.beta == pytest.approx(plain.beta, abs=1e-3)


@pytest.mark.parametrize(("a", "b"), [(1, 2), (2, 1)])
def test_one_expert_for_each_relation(a, b):
    task = FactRecallTask(3, a, b)
    read, write, both = (solve_routed(task, (0, 1), side) for side in ("read", "write", "both"))
    for isolated in (read, both):  # the expert of r2 never saw an untold subject: its rows are 0
        untold = np.flatnonzero(~task.subject_trained)
        np.testing.assert_allclose(isolated.W[1][untold], 0, atol=1e-4)
        np.testing.assert_allclose(isolated.held_out_margins, 0, atol=1e-4)
    lowest, highest = min(np.sqrt(a / b), 1), min((a / b) ** 0.25, 1)
    assert lowest - 1e-3 <= write.beta <= highest + 1e-3
    assert write.objective < read.objective < both.objective


@pytest.mark.parametrize(
    ("experts", "beta"),
    [
        ([0, 1, 0, 1], [1, 1]),  # one told and one untold subject in each expert
        ([0, 0, 1, 1], [0, 0]),  # the untold ones have no told one beside them
        ([0, 1, 0, 0], [np.sqrt(1 / 2)] * 2),
        ([0, 0, 0, 1], [1, 0]),
    ],
)
def test_by_subject_every_expert_is_a_task_of_its_own(experts, beta):
    """Two told and two untold subjects of each of three pairs."""
    task = FactRecallTask(3, 2, 2)
    norm = NuclearByExpert((*experts * 3, 0, 0))
    found = solve(task, norm, margin_tolerance=None)
    assert found.certificate.gap < 1e-6
    np.testing.assert_allclose(found.certificate.held_out_margins, beta * 3, atol=2e-3)


def test_experts_that_are_not_allowed():
    task = FactRecallTask(3, 1, 1)
    for experts in ((0, 2), (1, 1), (0,), (0, 1, 2)):
        with pytest.raises(ConfigError, match="expert_of_relation must name the expert 0, 1"):
            solve_routed(task, experts, "read")
    with pytest.raises(ConfigError, match="side must be one of"):
        solve_routed(task, (0, 1), "left")


def test_rows_without_an_expert_are_refused():
    task = FactRecallTask(3, 1, 2)
    with pytest.raises(
        ConfigError, match="the expert of each of 11 rows, got 9: rows without one would cost"
    ):
        solve(task, NuclearByExpert((0, 1, 0) * 3))
