"""The study of the saddle elsewhere: programs against known points, descents, claims that can fail."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from analyses.elsewhere import depth, softmax, unbalanced
from analyses.elsewhere.criteria import DEPTH_STARTS, DEPTH_UNTOLD, LARGE, SOFTMAX_TASKS, TASKS
from analyses.elsewhere.fixed_rank import beta_by_fact, fixed_rank_point, kappa_of, rank_of, task_of
from analyses.elsewhere.rank_one import LINEAR, PROMPTS, free_softmax_point, rank_one_point, softmax_attention
from analyses.elsewhere.softmax_descent import SoftmaxModel, softmax_descent
from analyses.saddle.runs import noise_free
from ocr_interp import solve
from ocr_interp.errors import SolverError
from ocr_interp.theory import saddle_solution


def test_the_point_of_fixed_rank_is_the_saddle_of_a_balanced_task():
    point, saddle = fixed_rank_point(task_of(((1, 3),) * 4)), saddle_solution(noise_free((4, 1, 3)))
    assert point.objective == pytest.approx(saddle.objective, rel=1e-9)
    assert point.kappa == pytest.approx(saddle.kappa, abs=1e-5)
    assert beta_by_fact(point.W, point.task) == pytest.approx([saddle.beta] * 4, abs=1e-5)
    np.testing.assert_allclose(np.abs(point.W), np.abs(saddle.W), atol=1e-5)
    assert rank_of(point.W) == 4


@pytest.mark.slow
def test_the_point_of_fixed_rank_of_an_unbalanced_task():
    task = task_of(((1, 2), (1, 5), (2, 3)))
    point, best = fixed_rank_point(task), solve(task)
    assert point.objective > best.objective + 1e-3
    assert point.kappa > 0.01
    wide = fixed_rank_point(task, rank=4)  # wide enough for the max-margin solution
    assert wide.objective == pytest.approx(best.objective, rel=1e-4)
    with pytest.raises(SolverError, match="rank 1"):
        fixed_rank_point(task, rank=1)


def test_beta_by_fact_by_hand():
    """b: told entries 2, untold 1 or 3; the last fact is told to nobody, its sister's entries are 2."""
    task = task_of(((1, 1), (1, 1), (0, 1)), (0, 1, 1))
    W = np.zeros((7, 5))
    entries = [2.0, 1.0, 2.0, 3.0, 0.5]
    own = [0, 0, 1, 1, 1]
    for subject, (entry, answer) in enumerate(zip(entries, own, strict=True)):
        W[subject, 3 + answer] = entry
    assert beta_by_fact(W, task) == pytest.approx([0.5, 1.5, 0.25])
    balanced = saddle_solution(noise_free((3, 1, 2)))
    assert beta_by_fact(balanced.W, balanced.task) == pytest.approx([balanced.beta] * 3)


def test_kappa_by_hand():
    """W has one mode of G of value 2; the direction that it lacks has 3, so it grows half as fast again."""
    W, G = np.diag([5.0, 0.0]), np.diag([2.0, 3.0])
    assert kappa_of(W, G, 1) == pytest.approx(0.5)


@pytest.mark.parametrize("sizes", [(5, 1, 4), (20, 1, 3), (4, 2, 2)])
def test_the_rank_one_program_is_that_of_the_saddle(sizes):
    saddle, found = saddle_solution(noise_free(sizes)), rank_one_point(sizes)
    assert (found.beta, found.objective) == pytest.approx((saddle.beta, saddle.objective), abs=1e-6)
    with_eos = rank_one_point(sizes, dict.fromkeys(PROMPTS, (1.0, 1.0, 1.0)))
    assert with_eos.beta == pytest.approx(saddle_solution(noise_free(sizes), inputs="eos").beta, abs=1e-6)


@pytest.mark.slow
def test_attention_that_costs_nothing_lowers_the_norm_below_uniform_attention():
    uniform = rank_one_point((5, 1, 3), softmax_attention(np.zeros(5)))
    assert uniform.beta == pytest.approx(saddle_solution(noise_free((5, 1, 3)), inputs="eos").beta, abs=1e-6)
    free = free_softmax_point((5, 1, 3))
    assert free.objective < 0.8 * uniform.objective
    assert all(sum(weights) == pytest.approx(1) for weights in free.attention.values())


def test_told_facts_above_one_make_the_quasi_norm_smaller_than_equal_told_entries():
    """The block of rank one with τ⁴ = b has the value √1 + √b; equal entries never get below it."""
    values = np.array([1.0, 1.0]), 2 / 3
    for b in (3, 32):
        y = depth.completion(b)
        block = np.array([[1, 1], [math.sqrt(b), math.sqrt(b) * y]])
        assert (np.linalg.svd(block, compute_uv=False) ** values[1]).sum() > (1 + math.sqrt(b)) ** values[1]
    assert depth.completion(32) == pytest.approx(1.0, abs=1e-3)
    assert depth.completion(33) == pytest.approx(0.5, abs=0.02)


def test_gradients_of_the_softmax_model_are_those_of_autograd():
    model = SoftmaxModel(noise_free((3, 1, 2)))
    parameters = {name: value.requires_grad_() for name, value in model.start(0.7, 1).items()}
    loss = torch.nn.functional.cross_entropy(model.logits(parameters), model.correct)
    expected = torch.autograd.grad(loss, list(parameters.values()))
    plain = {name: value.detach() for name, value in parameters.items()}
    push, top, _ = model.residuals(model.logits(plain))
    for found, wanted in zip(model.moves(plain, push).values(), expected, strict=True):
        torch.testing.assert_close(-found * top.exp(), wanted)


def test_uniform_attention_is_the_mean_of_the_rows_and_beta_that_of_the_circuit():
    model = SoftmaxModel(noise_free((3, 1, 2)))
    parameters = model.start(0.7, 1)
    W = parameters["W_V"] @ parameters["W_O"]
    torch.testing.assert_close(model.logits(parameters), model.x @ W / 3)
    descent = softmax_descent(noise_free((3, 1, 2)), log10_time=3, entries=0.01, seed=0)
    assert descent.history["margin"].iloc[-1] > 0
    assert 0 < descent.history["beta"].iloc[-1] < 1.2
    assert descent.history["log10_time"].iloc[-1] >= 3


@pytest.mark.parametrize("good", [True, False])
def test_depth_claims_can_hold_and_fail(good):
    ends = dict.fromkeys(DEPTH_UNTOLD, 0.95 if good else 0.3)
    points = [depth.DepthPoint(b, e, 0, ends[b], 4 if good else 5, 1.0) for b in ends for e in DEPTH_STARTS]
    measured = depth.Measured(points, ends, dict.fromkeys(ends, 0.95), ends)
    assert {claim.holds for claim in depth.claims(measured)} == {good}


@pytest.mark.parametrize("good", [True, False])
def test_softmax_claims_can_hold_and_fail(good):
    paths = [
        softmax.SoftmaxPath(
            sizes=sizes,
            seed=0,
            log10_time=[0.0, 20.0, 100.0],
            beta=[0.5, 0.8, 0.8 if good else 0.5],
            norm_at_margin_1=[9.0, 8.0, 7.0 if good else 8.0],
            point_at=[0.8],
            attention=[0.5] * 4,
            rank=sizes[0],
            kappa=0.1,
        )
        for sizes in SOFTMAX_TASKS
    ]
    lines = dict.fromkeys(SOFTMAX_TASKS, 0.6)
    measured = softmax.Measured(paths, cube_root=lines, frozen=lines, end=lines)
    assert {claim.holds for claim in softmax.claims(measured)} == {good}


@pytest.mark.parametrize("good", [True, False])
def test_unbalanced_claims_can_hold_and_fail(good):
    def case(name: str) -> unbalanced.Case:
        groups = TASKS[name][0]
        point = [0.6 if untold else math.nan for _, untold in groups]
        minimal = name in unbalanced.MINIMAL
        minimum = point if minimal else [value - 0.3 for value in point]
        end = unbalanced.End(
            seed=0,
            beta=[value if good else value - 0.2 for value in point],
            rank=len(groups) if good else len(groups) + 1,
            kappa=0.1,
            excess=0.01,
            held_out_margin=0.1 if good else -0.1,
            right_from=8.0,
        )
        return unbalanced.Case(name, groups, [end], point, minimum, 0.1, 0.0, 9, -0.1)

    large = case("two ratios").ends[0]
    large = dataclasses.replace(large, beta=list(unbalanced.law(LARGE) - (0.0 if good else 0.1)))
    measured = unbalanced.Measured([case(name) for name in TASKS], [large])
    assert {claim.holds for claim in unbalanced.claims(measured)} == {good}
    assert LINEAR["told", 1] == (1.0, 1.0, 0.0)
