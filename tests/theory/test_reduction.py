"""The pieces of the solver: reduced linear algebra against the full one, exact proximal steps."""

import numpy as np
import pytest

from ocr_interp.task import FactRecallTask
from ocr_interp.theory import trained_attention_beta_interval
from ocr_interp.theory.norms import norms
from ocr_interp.theory.problem import INPUTS, OUTPUTS, max_margin_problem
from ocr_interp.theory.reduction.bounds import dual_blocks, smallest_margin
from ocr_interp.theory.reduction.certificate import lift_weights
from ocr_interp.theory.reduction.margins import blocks_norm, example_map
from ocr_interp.theory.reduction.symmetry import Blocks, lift, reduce_problem
from ocr_interp.theory.solver.proximal import MarginProjection, NormalEquations, shrink

# Clusters: facts {0, 1} twice, fact 4 alone, facts {5} and {6} alike; subjects in no order.
FACTS = [0, 0, 1, 2, 3, 3, 4, 5, 5, 6, 6, 4, 2, 1, 0, 3]
IMPLICATIONS = [0, 0, 1, 1, 2, 3, 4]
TRAINED = [
    True,
    False,
    True,
    True,
    False,
    True,
    False,
    True,
    False,
    False,
    True,
    True,
    False,
    True,
    False,
    False,
]


def mixed_task():
    return FactRecallTask.from_mapping(FACTS, IMPLICATIONS, TRAINED, n_noise=2, seq_len=5)


def random_blocks(reduced, rng):
    pair = np.zeros(reduced.pair_shape)
    for k in np.flatnonzero(reduced.pair_multiplicity > 0):
        rows, columns = np.sum(reduced.row_type == k), np.sum(reduced.column_type == k)
        pair[k, :rows, :columns] = rng.normal(size=(rows, columns))
    return Blocks(rng.normal(size=reduced.constant_shape), pair)


def inner(reduced, one, other, count):
    return np.sum(one.constant * other.constant) + np.sum(count[:, None, None] * one.pair * other.pair)


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_blocks_stand_for_the_full_matrix(outputs, inputs):
    task, rng = mixed_task(), np.random.default_rng(0)
    reduced, problem = reduce_problem(task, outputs, inputs), max_margin_problem(task, outputs, inputs)
    examples = example_map(reduced)
    blocks = random_blocks(reduced, rng)
    W = lift(reduced, blocks)
    for norm, value in (("nuclear", "nuc"), ("frobenius", "fro"), ("spectral", 2)):
        assert blocks_norm(reduced, blocks, norms[norm]) == pytest.approx(np.linalg.norm(W, value))
    assert smallest_margin(examples, blocks) == pytest.approx(problem.constraint_margins(W).min())
    assert (examples.multiplicity.sum(axis=1) == problem.shape[1] - 1).all()
    weights = rng.random(examples.multiplicity.shape) * (examples.multiplicity > 0)
    full = lift_weights(reduced, weights)
    assert full.sum() == pytest.approx(examples.scale**2 @ (examples.multiplicity * weights).sum(axis=1))
    np.testing.assert_allclose(
        lift(reduced, dual_blocks(examples, weights)), problem.dual_matrix(full), atol=1e-12
    )


@pytest.mark.parametrize("inputs", INPUTS)
def test_normal_equations_and_adjoint(inputs):
    rng = np.random.default_rng(1)
    reduced = reduce_problem(mixed_task(), "vocabulary", inputs)
    examples = example_map(reduced)
    X, Y = random_blocks(reduced, rng), random_blocks(reduced, rng)
    of_type = reduced.pair_multiplicity
    of_example = of_type[reduced.row_type[examples.rows]]
    left = inner(reduced, examples.logits(X), examples.logits(Y), of_example)
    assert left == pytest.approx(inner(reduced, X, examples.adjoint(examples.logits(Y)), of_type))
    solved = NormalEquations(examples, 0.3).solve(X)
    back = solved + examples.adjoint(examples.logits(solved)) * 0.3
    np.testing.assert_allclose(back.constant, X.constant, atol=1e-10)
    np.testing.assert_allclose(back.pair, X.pair, atol=1e-10)
    again = examples.from_values(examples.values(examples.logits(X)))
    np.testing.assert_allclose(again.constant, examples.logits(X).constant, atol=1e-12)
    np.testing.assert_allclose(again.pair, examples.logits(X).pair, atol=1e-12)


def test_projection_is_the_nearest_point():
    examples = example_map(reduce_problem(mixed_task(), "vocabulary"))
    values = np.random.default_rng(2).normal(size=examples.multiplicity.shape)
    projected = MarginProjection(examples.multiplicity, examples.correct)(values)
    assert examples.margins(projected).min() >= 1 - 1e-12
    moved = values - projected
    wrong = examples.multiplicity > 0
    assert moved[wrong].min() >= -1e-12  # multipliers are >= 0,
    tight = np.abs(examples.margins(projected) - 1) < 1e-9
    assert np.abs(moved[wrong & ~tight]).max() < 1e-12  # vanish where a margin is above 1,
    raised = -moved[np.arange(len(moved)), examples.correct]
    np.testing.assert_allclose(raised, (examples.multiplicity * moved).sum(axis=1), atol=1e-12)  # and balance


@pytest.mark.parametrize("norm", ["nuclear", "frobenius", "spectral"])
def test_shrinking_blocks_shrinks_the_full_matrix(norm):
    reduced = reduce_problem(mixed_task())
    blocks = random_blocks(reduced, np.random.default_rng(3))
    W, step = lift(reduced, blocks), 0.7
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    if norm == "nuclear":
        new = np.maximum(s - step, 0)
    elif norm == "frobenius":
        new = s / (1 + step)
    else:  # Moreau: what is cut off is the projection on the nuclear ball of radius step
        cap = s[0] - step / np.arange(1, len(s) + 1)
        caps = (np.cumsum(s) - step) / np.arange(1, len(s) + 1)
        cap = caps[np.flatnonzero(s > caps)[-1]]
        new = np.minimum(s, cap)
    shrunk = shrink(reduced, blocks, norms[norm], step)
    np.testing.assert_allclose(lift(reduced, shrunk), (U * new) @ Vt, atol=1e-8)


def test_size_does_not_depend_on_subjects_or_on_equal_pairs():
    sizes = [(1, 3), (2, 2), (4, 1)]
    facts = [f for f in range(300) for _ in range(sum(sizes[f % 3]))]
    trained = [t for f in range(300) for t in [True] * sizes[f % 3][0] + [False] * sizes[f % 3][1]]
    reduced = reduce_problem(FactRecallTask.from_mapping(facts, list(range(300)), trained))
    assert reduced.constant_shape == (2 * 3 + 2, 2 * 3)
    assert reduced.pair_shape == (3, 2, 2)
    np.testing.assert_array_equal(reduced.pair_multiplicity, 99)


def test_trained_attention_costs_the_same_on_the_whole_interval():
    """docs/theory.md, section 6: rows cost their length, and r1 and r2 share unequally for free."""
    n, a, b = 5, 1, 3
    lower, upper = trained_attention_beta_interval(FactRecallTask(n, a, b))
    q = 1 - 1 / n
    C, B = ((n * m * np.sqrt(q) / (n - 1)) ** (2 / 3) for m in (a, b))
    kappa = C / B
    assert kappa == pytest.approx(lower)

    def cost(tau, beta):
        inverse = np.linalg.inv(np.array([[B, tau * C], [tau * C, C]]))
        train, held_out = np.array([tau, 1.0]), np.array([1.0, beta])
        share = (tau - 1) * q / 2
        relations = np.sqrt(2 * n) * (abs(0.5 - share) + abs(0.5 + share))
        lengths = [np.sqrt(q * row @ inverse @ row) for row in (train, held_out)]
        return n * a * lengths[0] + n * b * lengths[1] + relations + (n - 1) / 2 * (B + C)

    least = cost(1.0, kappa)
    for tau in np.linspace(1.0, 2 / (1 + kappa), 5):
        assert cost(tau, tau * kappa) == pytest.approx(least, rel=1e-12)
    assert 2 / (1 + kappa) * kappa == pytest.approx(upper)
    assert cost(1.0, kappa * 0.9) > least
    assert cost(1.0, kappa * 1.1) > least
