"""The update of least norm, against CVXPY written out anew, known cases, weak duality and LoRA's descent."""

import cvxpy as cp
import numpy as np
import pytest
import safetensors.torch
import torch

from ocr_interp.errors import ConfigError, SolverError, WeightsError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve, solve_update
from ocr_interp.theory.norms import as_norm
from ocr_interp.theory.problem import max_margin_problem
from ocr_interp.theory.solver.update import update_bounds
from ocr_interp.training.long_descent import long_descent

TASK = FactRecallTask(3, 1, 2, n_noise=0, seq_len=3)
UNEQUAL = FactRecallTask.from_mapping([0, 0, 1, 2, 2], [0, 1, 0], [True, False, True, True, False], 0, 3)


def drawn(task, size=1.0, seed=0):
    return size * np.random.default_rng(seed).standard_normal((task.n_subjects + 2, task.n_answers))


def written_out(task, W_0, margin, norm):
    """The same program, one constraint at a time."""
    W = cp.Variable(W_0.shape)
    constraints = []
    for s, fact in enumerate(task.subject_fact):
        told = [(task.n_subjects, fact)]
        if task.subject_trained[s]:
            told.append((task.n_subjects + 1, task.n_facts + task.fact_implication[fact]))
        for relation, answer in told:
            logits = W[s] + W[relation]
            wrong = [j for j in range(task.n_answers) if j != answer]
            constraints += [logits[answer] - logits[j] >= margin for j in wrong]
    change = W - W_0
    objective = {"nuclear": cp.normNuc, "frobenius": lambda U: cp.norm(U, "fro"), "spectral": cp.sigma_max}
    program = cp.Problem(cp.Minimize(objective[norm](change)), constraints)
    program.solve(solver="CLARABEL")
    return program.value


@pytest.mark.parametrize("norm", ["nuclear", "frobenius", "spectral"])
@pytest.mark.parametrize(("task", "margin"), [(TASK, 1.0), (TASK, 7.0), (UNEQUAL, 2.0)])
def test_it_is_what_cvxpy_finds_for_the_problem_written_out(task, margin, norm):
    W_0 = drawn(task)
    found = solve_update(task, W_0, norm, margin)
    assert found.objective == pytest.approx(written_out(task, W_0, margin, norm), rel=2e-6)
    assert found.bounds.gap < 1e-6
    margins = max_margin_problem(task).constraint_margins(found.W)
    assert margins.min() >= margin * (1 - 1e-11)
    np.testing.assert_allclose(found.W - W_0, found.update, atol=1e-12)


@pytest.mark.parametrize("norm", ["nuclear", "frobenius"])
def test_without_a_base_it_is_solve_times_the_margin(norm):
    found, wanted = solve_update(TASK, np.zeros((11, 6)), norm, 5.0), solve(TASK, norm)
    assert found.objective == pytest.approx(5 * wanted.objective, rel=1e-7)
    np.testing.assert_allclose(found.W, 5 * wanted.W, atol=1e-3)
    assert found.fading == 0


def test_a_base_on_the_way_is_gone_on_from():
    wanted = solve(TASK)
    found = solve_update(TASK, 2 * wanted.W, margin=5.0)
    assert found.objective == pytest.approx(3 * wanted.objective, rel=1e-7)
    enough = solve_update(TASK, 6 * wanted.W, margin=5.0)
    assert enough.objective == 0
    assert enough.bounds.gap == 0
    assert not enough.update.any()
    assert "gap 0" in enough.summary()


def test_weak_duality():
    """Any weights give a lower bound; those found give the best, and a smaller update has no margins."""
    problem, rng, W_0 = max_margin_problem(TASK), np.random.default_rng(1), drawn(TASK)
    found = solve_update(TASK, W_0, margin=3.0)
    required = 3.0 - problem.constraint_margins(W_0)
    bounds = update_bounds(problem, "nuclear", required, found.update, found.weights)
    assert bounds.primal == pytest.approx(found.objective)
    assert bounds.dual == pytest.approx(found.bounds.dual)
    for _ in range(50):
        weights = np.where(np.isfinite(required), rng.random(required.shape) ** 4, 0)
        other = update_bounds(problem, "nuclear", required, found.update, weights)
        assert other.dual <= found.objective * (1 + 1e-9)
    short = update_bounds(problem, "nuclear", required, 0.99 * found.update, found.weights)
    assert short.primal == np.inf
    with pytest.raises(WeightsError, match="dual weights must be finite, >= 0"):
        update_bounds(problem, "nuclear", required, found.update, -found.weights)


def test_the_base_fades_as_the_margin_grows():
    W_0, least = drawn(TASK), solve(TASK).objective
    excess = []
    for margin in (3.0, 30.0, 3000.0):
        found = solve_update(TASK, W_0, margin=margin)
        reached = max_margin_problem(TASK).constraint_margins(found.W).min()
        excess.append(as_norm("nuclear").value(found.W) / reached / least - 1)
        assert -1e-6 < excess[-1] <= found.fading
        assert found.fading <= 3 * 2 * as_norm("nuclear").value(W_0) / (margin * least)
    assert excess[2] < excess[1] / 10 < excess[0] / 100
    assert found.beta == pytest.approx(solve(TASK).beta, abs=0.01)
    np.testing.assert_allclose(found.W / 3000, solve(TASK).W, atol=0.02)


@pytest.mark.slow
def test_lora_from_a_zero_start_comes_near_it(tmp_path):
    """Descent to t = 1e10: at most 5 % above the least norm at its own margin (measured 3.7)."""
    task = FactRecallTask(4, 1, 1, n_noise=0, seq_len=3)
    W_0 = drawn(task, 0.3)
    file = tmp_path / "base.safetensors"
    whole = np.vstack([W_0, np.zeros((1, task.n_answers))])
    safetensors.torch.save_file({"W_OV": torch.from_numpy(whole)}, file)
    options = {"base": str(file), "rank": 8}
    found = long_descent(task, "low_rank", ov_options=options, log10_time=10, entries=0.001)
    update = found.parameters["A"].numpy() @ found.parameters["B"].numpy()
    np.testing.assert_allclose(found.W, W_0 + update, atol=1e-12)
    least = solve_update(task, W_0, margin=found.history["margin"].iloc[-1])
    ratio = as_norm("nuclear").value(update) / least.objective
    assert 1 - 1e-6 < ratio < 1.05


def test_bad_input_is_refused():
    with pytest.raises(WeightsError, match=r"W_0: W must be \[input, output\] with 11 or 12 or 18 rows"):
        solve_update(TASK, np.zeros((4, 4)))
    with pytest.raises(WeightsError, match="W_0: W must be finite, got 66 entries that are not"):
        solve_update(TASK, np.full((11, 6), np.nan))
    with pytest.raises(ConfigError, match="margin must be a finite number > 0, got 0"):
        solve_update(TASK, drawn(TASK), margin=0.0)
    with pytest.raises(ConfigError, match="method must be one of 'clarabel', 'scs', got 'auto'"):
        solve_update(TASK, drawn(TASK), method="auto")
    with pytest.raises(SolverError, match="is above the tolerance 1e-15"):
        solve_update(TASK, drawn(TASK), tolerance=1e-15)


def test_nothing_to_update_may_have_the_rows_and_columns_of_the_vocabulary():
    d = TASK.d_vocab
    assert solve_update(TASK, np.zeros((d, d))).bounds == solve_update(TASK, np.zeros((11, 6))).bounds
