"""One class of solution: what a solver found says the same as the closed form, attribute by attribute."""

import numpy as np
import pytest

from ocr_interp.task import FactRecallTask
from ocr_interp.theory import held_out_beta, solve
from ocr_interp.theory.problem import max_margin_problem

PROBLEMS = [("answers", "subject_relation"), ("vocabulary", "noise_eos")]


@pytest.mark.parametrize(("outputs", "inputs"), PROBLEMS)
@pytest.mark.parametrize("sizes", [(4, 1, 3), (3, 2, 0)])
def test_a_solver_and_the_closed_form_agree_on_everything(sizes, outputs, inputs):
    task = FactRecallTask(*sizes, n_noise=2, seq_len=5)
    closed = solve(task, outputs=outputs, inputs=inputs)
    found = solve(task, outputs=outputs, inputs=inputs, method="clarabel")
    assert (closed.method, found.method) == ("closed_form", "clarabel")
    for name in (
        "objective",
        "squared_norm",
        "training_margin",
        "held_out_margin",
        "held_out_margin_own_fact",
        "held_out_margin_overall",
    ):
        expected = pytest.approx(getattr(closed, name), abs=1e-3, nan_ok=True)
        assert getattr(found, name) == expected, name
    if sizes[2]:
        assert found.beta == pytest.approx(closed.beta, abs=1e-3)
    else:
        assert np.isnan([closed.beta, found.beta]).all()
    np.testing.assert_allclose(found.W, closed.W, atol=1e-2)
    assert found.sizes == closed.sizes == sizes
    assert (closed.is_unique, found.is_unique) == (True, True)
    for solution in (closed, found):
        E, F = solution.input_embeddings(), solution.output_embeddings()
        np.testing.assert_allclose(E @ F.T, solution.W, atol=1e-5)
        assert solution.summary().startswith(f"nuclear max-margin solution: {sizes[0]} facts")
        assert "<= optimum <=" in solution.summary()


@pytest.mark.slow
@pytest.mark.parametrize(("outputs", "inputs"), PROBLEMS)
def test_margins_of_an_unbalanced_solution_are_those_of_its_logits(outputs, inputs):
    task = FactRecallTask.from_mapping([0, 0, 1, 1, 1], [1, 0], [True, False, True, False, False], 2, 5)
    solution = solve(task, outputs=outputs, inputs=inputs)
    problem = max_margin_problem(task, outputs, inputs)
    logits, first = problem.x_held_out @ solution.W, problem.shape[1] - task.n_answers
    by_kind = {"own": [], "implication": [], "any": []}
    for row, subject in zip(logits, [1, 3, 4], strict=True):
        fact = task.subject_fact[subject]
        right = first + task.n_facts + task.fact_implication[fact]
        others = [column for column in range(problem.shape[1]) if column != right]
        by_kind["own"].append(row[right] - row[first + fact])
        by_kind["implication"].append(row[right] - max(row[c] for c in others if c >= first + task.n_facts))
        by_kind["any"].append(row[right] - row[others].max())
    assert solution.held_out_margin_own_fact == pytest.approx(min(by_kind["own"]))
    assert solution.held_out_margin == pytest.approx(min(by_kind["implication"]))
    assert solution.held_out_margin_overall == pytest.approx(min(by_kind["any"]))
    assert solution.beta == held_out_beta(solution.W, task).projection


def test_the_closed_form_is_lazy():
    """Neither matrix nor certificate until they are asked for."""
    solution = solve(FactRecallTask(5, 1, 3))
    assert not {"W", "spectrum"} & vars(solution.found).keys()
    assert "_proof" not in vars(solution)
    first = solution.certificate
    assert solution.certificate is first
    assert "W" not in vars(solution.found)
