"""Every norm of the registry, by being there; and new ones, written here, where they should work."""

import sys

import numpy as np
import pytest

from ocr_interp import cli
from ocr_interp.errors import ConfigError, SolverError, UnknownNameError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import Norm, UnitarilyInvariantNorm, certify, held_out_beta, norms, solve
from ocr_interp.theory.closed.closed_form import has_closed_form
from ocr_interp.theory.norms import as_norm
from ocr_interp.training.limits import LimitTracker, limit_columns

UNEQUAL = FactRecallTask.from_mapping([0, 0, 1, 1, 1], [0, 1], [True, False, True, False, False])
NAMES = norms.names
INVARIANT = [name for name in NAMES if norms[name].unitarily_invariant]
SIZES = [(3, 1, 2), (3, 2, 1), (2, 0, 2), (3, 2, 0)]


def draws(seed, n=3):
    """Wide, tall and rank-deficient matrices."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield rng.normal(size=(4, 6))
        yield rng.normal(size=(5, 3))
        yield rng.normal(size=(5, 2)) @ rng.normal(size=(2, 4))


def block_diagonal(first, second, count):
    rows, columns = (a + count * b for a, b in zip(first.shape, second.shape, strict=True))
    W = np.zeros((rows, columns))
    W[: first.shape[0], : first.shape[1]] = first
    for k in range(count):
        row, column = (a + k * b for a, b in zip(first.shape, second.shape, strict=True))
        W[row : row + second.shape[0], column : column + second.shape[1]] = second
    return W


# --- conformance: one norm at a time, none of them named ------------------------------------------


def check_pairing(norm):
    """‖·‖ is a norm, and its dual the largest pairing with its ball, which `ball_point` attains."""
    for W, G in zip(draws(0), draws(1), strict=True):
        assert norm.value(-2.5 * W) == pytest.approx(2.5 * norm.value(W))
        assert norm.value(W + G) <= norm.value(W) + norm.value(G) + 1e-12
        assert np.vdot(W, G) <= norm.value(W) * norm.dual_value(G) * (1 + 1e-12)
        point = norm.ball_point(G)
        assert norm.value(point) <= 1 + 1e-12
        assert np.vdot(point, G) == pytest.approx(norm.dual_value(G))
    assert norm.value(np.zeros((2, 3))) == norm.dual_value(np.zeros((2, 3))) == 0


def check_prox(norm):
    """No perturbation lowers what prox minimises; a large step gives 0 for a norm itself."""
    rng = np.random.default_rng(2)
    for W in draws(3, 1):
        for step in (0.3, 2.0):
            X = norm.prox(W, step)

            def cost(V, W=W, step=step):
                return step * norm.objective(norm.value(V)) + np.sum((V - W) ** 2) / 2

            least = cost(X)
            for size in (1e-3, 1e-1, 1.0):
                for _ in range(20):
                    assert cost(X + size * rng.normal(size=W.shape)) >= least - 1e-6
            for share in (0.9, 0.99, 1.01, 1.1):
                assert cost(share * X) >= least - 1e-6


def check_atom(norm):
    """CVXPY minimises a positive multiple of `objective`."""
    import cvxpy as cp

    multiples = []
    for W in draws(4, 1):
        expression = norm.atom(cp.Constant(W))
        assert expression.is_convex()
        multiples.append(float(expression.value) / norm.objective(norm.value(W)))
    assert multiples[0] > 0
    assert multiples == pytest.approx([multiples[0]] * len(multiples), rel=1e-6)


def check_spectrum(norm):
    """Values with multiplicities stand for the matrix that repeats them, also in prox and in CVXPY."""
    import cvxpy as cp

    rng = np.random.default_rng(5)
    A, B = rng.normal(size=(2, 3)), rng.normal(size=(2, 2))
    W, s = block_diagonal(A, B, 3), [np.linalg.svd(part, compute_uv=False) for part in (A, B)]
    values, count = np.concatenate(s), np.array([1.0, 1.0, 3.0, 3.0])
    assert norm.of_spectrum(values, count) == pytest.approx(norm.value(W))
    assert norm.dual_of_spectrum(values, count) == pytest.approx(norm.dual_value(W))
    unseen = np.append(values, 99.0), np.append(count, 0.0)
    assert norm.of_spectrum(*unseen) == pytest.approx(norm.value(W))
    shrunk = norm.shrink(values, count, 0.4)
    repeated = np.sort(np.repeat(shrunk, count.astype(int)))
    expected = np.linalg.svd(norm.prox(W, 0.4), compute_uv=False)
    np.testing.assert_allclose(repeated, np.sort(expected), atol=1e-5)
    combined = norm.combine([norm.atom(cp.Constant(A)), norm.atom(cp.Constant(B))], [1.0, 3.0])
    assert float(combined.value) == pytest.approx(float(norm.atom(cp.Constant(W)).value), rel=1e-6)
    Q = np.linalg.qr(rng.normal(size=(W.shape[0], W.shape[0])))[0]
    assert norm.value(Q @ W) == pytest.approx(norm.value(W))


def check_solutions(norm):
    """What is found is certified, unbalanced too; the closed form, where there is one, is the solver's."""
    for outputs in ("answers", "vocabulary"):
        found = solve(UNEQUAL, norm, 1e-3, outputs=outputs)
        again = certify(found.W, UNEQUAL, norm, found.weights, outputs=outputs)
        assert again.gap == pytest.approx(found.certificate.gap, abs=1e-9)
        assert again.primal == pytest.approx(found.objective, rel=1e-9)
        assert again.min_margin == pytest.approx(1)
        assert certify(found.W, UNEQUAL, norm, outputs=outputs, refine=True).dual <= found.objective
    for sizes in SIZES:
        task = FactRecallTask(*sizes)
        solver = solve(task, norm, 1e-3, method="clarabel")
        exact = solve(task, norm)
        assert solver.certificate.dual <= exact.objective * (1 + 1e-9)
        assert solver.objective >= exact.objective * (1 - 1e-4)
        assert (exact.method == "closed_form") == has_closed_form(task, norm)
        assert exact.certificate.gap <= 1e-4
        if norm.is_unique and sizes[1] and sizes[2]:
            assert solver.beta == pytest.approx(exact.beta, abs=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_norm_of_the_registry(name):
    norm = norms[name]
    assert isinstance(norm, Norm)
    assert (norm.name, as_norm(name)) == (name, norm)
    assert norm.label
    check_pairing(norm)
    check_prox(norm)
    check_atom(norm)
    check_solutions(norm)


@pytest.mark.parametrize("name", INVARIANT)
def test_a_unitarily_invariant_norm_of_the_registry(name):
    check_spectrum(norms[name])


# --- a norm of one's own --------------------------------------------------------------------------


class Entrywise(Norm):
    """Sum of absolute entries: rotations change it, so there are no blocks."""

    name, label = "entrywise", "entrywise l1 norm"

    def value(self, W):
        return float(np.abs(W).sum())

    def dual_value(self, G):
        return float(np.abs(G).max())

    def ball_point(self, G):
        top = np.abs(G) >= np.abs(G).max() * (1 - 1e-9)
        return np.sign(G) * top / top.sum()

    def prox(self, W, step):
        return np.sign(W) * np.maximum(np.abs(W) - step, 0)

    def atom(self, W):
        import cvxpy as cp

        return cp.sum(cp.abs(W))


class Mixed(UnitarilyInvariantNorm):
    """Nuclear plus twice Frobenius: it says of spectra what it must, and no more."""

    name, label = "mixed", "nuclear plus Frobenius norm"

    def of_spectrum(self, values, multiplicity):
        return float(multiplicity @ values + 2 * np.sqrt(multiplicity @ values**2))

    def dual_of_spectrum(self, values, multiplicity):
        low, high = 0.0, float(values[multiplicity > 0].max(initial=0.0))
        for _ in range(200):  # G is in the ball of radius r when soft-thresholding by r leaves 2 r
            radius = (low + high) / 2
            rest = np.maximum(values - radius, 0)
            inside = np.sqrt(multiplicity @ rest**2) <= 2 * radius
            low, high = (low, radius) if inside else (radius, high)
        return high

    def ball_point(self, G):
        U, s, Vt = np.linalg.svd(G, full_matrices=False)
        x = np.maximum(s - self.dual_of_spectrum(s, np.ones_like(s)), 0)
        return (U * (x / self.of_spectrum(x, np.ones_like(x)))) @ Vt

    def shrink(self, values, multiplicity, step):
        rest = np.maximum(values - step, 0)
        length = np.sqrt(multiplicity @ rest**2)
        return rest * max(0.0, 1 - 2 * step / length) if length else rest

    def atom(self, W):
        import cvxpy as cp

        return cp.normNuc(W) + 2 * cp.norm(W, "fro")

    def combine(self, atoms, multiplicity):
        import cvxpy as cp

        nuclear = sum(m * atom.args[0] for m, atom in zip(multiplicity, atoms, strict=True))
        lengths = [np.sqrt(m) * atom.args[1] / 2 for m, atom in zip(multiplicity, atoms, strict=True)]
        return nuclear + 2 * cp.norm(cp.hstack(lengths))


@pytest.fixture(params=[Entrywise, pytest.param(Mixed, marks=pytest.mark.slow)])
def own(request):
    norm = request.param()
    with norms.registered(norm.name, norm):
        yield norm
    assert norm.name not in norms


def test_a_norm_of_ones_own_passes_the_same_suite(own):
    check_pairing(own)
    check_prox(own)
    check_atom(own)
    check_solutions(own)
    if own.unitarily_invariant:
        check_spectrum(own)


def test_a_norm_of_ones_own_is_solved_certified_and_tracked(own):
    solution = solve(UNEQUAL, own.name, outputs="vocabulary", inputs="eos")
    assert solution.norm == solution.certificate.norm == own.name
    assert solution.objective == pytest.approx(own.value(solution.W))
    assert solution.beta == held_out_beta(solution.W, UNEQUAL).projection
    worse = certify(solution.W + 0.05, UNEQUAL, own.name, outputs="vocabulary", inputs="eos")
    assert worse.dual <= solution.objective <= worse.primal
    tracked = ("nuclear", own.name)
    tracker = LimitTracker(FactRecallTask(3, 1, 2), "eos", norms=tracked)
    assert tracker.columns == limit_columns(tracked)
    W = solve(tracker.task, own.name, outputs="vocabulary", inputs="eos").W
    row = tracker.measure(W, "softmax")
    assert set(row) == set(tracker.columns)
    assert 0 <= row[f"gap_{own.name}"] < np.inf
    assert np.isnan([row[f"excess_{own.name}"], row[f"cosine_{own.name}"]]).all()
    assert row["excess_nuclear"] >= 0


def test_a_norm_of_ones_own_on_the_command_line(own, monkeypatch, capsys):
    command = ["solve", "--n-pairs", "3", "--m-test", "1", "--norm", own.name]
    monkeypatch.setattr(sys, "argv", ["ocr-interp", *command])
    cli.main()
    printed = capsys.readouterr().out
    assert printed.startswith(f"{own.name} max-margin solution: 3 facts")
    assert "<= optimum <=" in printed
    monkeypatch.setattr(sys, "argv", ["ocr-interp", *command, "--method", "closed_form"])
    with pytest.raises(SystemExit):
        cli.main()
    assert f"needs a norm with a closed form, got '{own.name}'" in capsys.readouterr().err


def test_the_entrywise_optimum_is_that_of_a_linear_program():
    """Positive and negative parts of W as unknowns, constraints one by one, solved by scipy."""
    from scipy.optimize import linprog

    from ocr_interp.theory.problem import max_margin_problem

    task = FactRecallTask(2, 1, 1)
    problem = max_margin_problem(task)
    x, (rows, columns) = problem.x.toarray(), problem.shape
    constraints = []
    for example, correct in enumerate(problem.correct):
        for wrong in set(range(columns)) - {int(correct)}:
            A = np.zeros((rows, columns))
            A[:, correct], A[:, wrong] = x[example], -x[example]
            constraints.append(A.ravel())
    A = np.array(constraints)
    found = linprog(np.ones(2 * rows * columns), A_ub=np.hstack([-A, A]), b_ub=-np.ones(len(A)))
    assert solve(task, Entrywise()).objective == pytest.approx(found.fun, rel=1e-6)


def test_a_coefficient_without_dual_weights_is_proved_by_a_solver():
    class Bare(type(norms["nuclear"])):
        name = "bare"

        def dual_weights(self, n, m_train, m_test, implied):
            return None

    class Wrong(Bare):
        def held_out_coefficient(self, m_train, m_test, implied):
            return 0.1

    task = FactRecallTask(3, 1, 2)
    solution = solve(task, Bare())
    assert solution.method == "closed_form"
    assert 0 <= solution.certificate.gap < 1e-5
    wrong = solve(task, Wrong())
    with pytest.raises(SolverError, match=r"gap .* is above the tolerance 0.0001 .* closed_form"):
        _ = wrong.certificate


# --- refusals -------------------------------------------------------------------------------------


def test_unknown_names_come_with_close_matches():
    with pytest.raises(UnknownNameError, match="unknown norm 'nuclar': did you mean 'nuclear'"):
        certify(np.ones((3, 2)), UNEQUAL, "nuclar")
    with pytest.raises(UnknownNameError, match="unknown norm"):
        limit_columns(("nuclear", "trace"))


def test_blocks_need_a_unitarily_invariant_norm():
    with pytest.raises(ConfigError, match="unitarily invariant norm, got 'entrywise': solve the full"):
        solve(UNEQUAL, WithoutProx(), method="first_order")


class WithoutProx(Entrywise):
    prox = Norm.prox


def test_a_norm_with_a_prox_of_its_own_is_split_at_full_size():
    split, exact = (solve(UNEQUAL, Entrywise(), 1e-3, method=m) for m in ("first_order", "clarabel"))
    assert split.certificate.gap <= 1e-3
    assert split.objective == pytest.approx(exact.objective, rel=1e-3)


@pytest.mark.slow
def test_what_only_the_closed_form_has_says_so():
    solution = solve(UNEQUAL)
    for name in ("pair_block", "constant_block", "cosines"):
        with pytest.raises(SolverError, match=f"{name} belongs to the closed form, .* by clarabel"):
            getattr(solution, name)
    assert solution.sizes is None
    assert solution.is_unique is True
    assert solve(UNEQUAL, method="first_order").is_unique is None
