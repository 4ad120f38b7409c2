"""The smallest norm at a given rank: the saddle's small program for any task, and κ of any weights.

Gradient descent from a small start makes as many modes as it needs and no more. Factors of width k with
W_V W_O = W and the smallest ½(‖W_V‖² + ‖W_O‖²) at margin 1 are a KKT point of the same problem at any width.
With k = n on a balanced task it is `saddle_solution`. The program is not convex: the point found is the one
next to a start of blocks of rank one, τ⁴ = untold / told.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize, nnls

from analyses.elsewhere.criteria import MODE, Groups
from ocr_interp import FactRecallTask
from ocr_interp.errors import SolverError


def task_of(groups: Groups, implications: tuple[int, ...] | None = None) -> FactRecallTask:
    """A task with these (told, untold) subjects per fact and this implication of each; None: its own."""
    fact = [k for k, (told, untold) in enumerate(groups) for _ in range(told + untold)]
    trained = [told for a, b in groups for told in [True] * a + [False] * b]
    own = tuple(range(len(groups))) if implications is None else implications
    return FactRecallTask.from_mapping(fact, own, trained, n_noise=0, seq_len=3)


RESTARTS, STATIONARITY = 8, 1e-6


@dataclass(frozen=True)
class FixedRankPoint:
    """A KKT point of ½(‖W_V‖² + ‖W_O‖²) at margin 1 with factors of a given width.

    Attributes:
        task: the task.
        W: the product at full size.
        objective: its nuclear norm.
        stationarity: distance of the factors from what the constraints' multipliers make of them, relative.
        kappa: largest singular value of the multipliers' matrix, less 1; above 0 the point is a strict saddle
            once the factors may be wider.
    """

    task: FactRecallTask
    W: Float[np.ndarray, "input output"]
    objective: float
    stationarity: float
    kappa: float


@dataclass(frozen=True)
class GroupedRows:
    """Subjects of one fact and status as one row, scaled by the root of their number; then r1, r2."""

    task: FactRecallTask
    fact: Int[np.ndarray, " row"]
    told: np.ndarray
    count: Int[np.ndarray, " row"]

    @classmethod
    def of(cls, task: FactRecallTask) -> GroupedRows:
        """The groups that have subjects."""
        pairs, count = np.unique(
            np.stack([task.subject_fact, task.subject_trained], axis=1), axis=0, return_counts=True
        )
        return cls(task, pairs[:, 0], pairs[:, 1].astype(bool), count)

    def constraints(self) -> Float[np.ndarray, "constraint row output"]:
        """A_k with margin k = ⟨A_k, W⟩, W in grouped rows."""
        task, found = self.task, []
        columns, size = task.n_facts + task.n_implications, 1 / np.sqrt(self.count)
        for k, (fact, told) in enumerate(zip(self.fact, self.told, strict=True)):
            answers = {0: fact} | ({1: task.n_facts + task.fact_implication[fact]} if told else {})
            for relation, answer in answers.items():
                x = np.zeros(len(self.fact) + 2)
                x[k], x[len(self.fact) + relation] = size[k], 1.0
                for wrong in np.delete(np.arange(columns), answer):
                    A = np.zeros((len(x), columns))
                    A[:, answer], A[:, wrong] = x, -x
                    found.append(A)
        return np.array(found)

    def start(self) -> Float[np.ndarray, "row output"]:
        """Blocks of rank one with τ⁴ = untold / told (1 if more are told, 2 if none), and the relations."""
        task = self.task
        own = task.fact_implication[self.fact]
        b, c = np.arange(task.n_facts), np.arange(task.n_implications)
        facts = (b == self.fact[:, None]) - 1 / len(b)
        implications = (c == own[:, None]) - 1 / len(c)
        tau = np.array([_tau(task, fact) for fact in self.fact])[:, None]
        rows = np.where(
            self.told[:, None], np.hstack([tau * facts, implications]), np.hstack([facts, implications / tau])
        )
        relation = np.r_[np.full(len(b), 0.5), np.full(len(c), -0.5)]
        return np.vstack([np.sqrt(self.count)[:, None] * rows, relation, -relation])

    def lift(self, W: Float[np.ndarray, "row output"]) -> Float[np.ndarray, "input output"]:
        """One row per subject, then r1, r2."""
        rows = {(fact, told): k for k, (fact, told) in enumerate(zip(self.fact, self.told, strict=True))}
        row = [rows[key] for key in zip(self.task.subject_fact, self.task.subject_trained, strict=True)]
        each = W[: len(self.fact)] / np.sqrt(self.count)[:, None]
        return np.vstack([each[row], W[len(self.fact) :]])


def _tau(task: FactRecallTask, fact: int) -> float:
    told = int((task.subject_trained & (task.subject_fact == fact)).sum())
    untold = int((task.subject_fact == fact).sum()) - told
    return max(1.0, (untold / told) ** 0.25) if told else 2.0


def fixed_rank_point(task: FactRecallTask, rank: int | None = None) -> FixedRankPoint:
    """The point with the smallest norm at this rank, next to the start of rank-one blocks.

    Args:
        task: any task.
        rank: width of the factors; None: the number of facts.

    Raises:
        SolverError: no KKT point was found.
    """
    groups, rank = GroupedRows.of(task), task.n_facts if rank is None else rank
    A = groups.constraints()
    left, values, right = np.linalg.svd(groups.start(), full_matrices=False)
    W_V, W_O = left[:, :rank] * np.sqrt(values[:rank]), np.sqrt(values[:rank])[:, None] * right[:rank]
    split, shapes = W_V.size, (W_V.shape, W_O.shape)

    def factors(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x[:split].reshape(shapes[0]), x[split:].reshape(shapes[1])

    def margins(x: np.ndarray) -> np.ndarray:
        W_V, W_O = factors(x)
        return np.einsum("kij,ij->k", A, W_V @ W_O) - 1

    def slopes(x: np.ndarray) -> np.ndarray:
        W_V, W_O = factors(x)
        by_O = np.einsum("ir,kij->krj", W_V, A).reshape(len(A), -1)
        return np.hstack([(A @ W_O.T).reshape(len(A), -1), by_O])

    x = np.r_[W_V.ravel(), W_O.ravel()]
    x /= np.sqrt(max(0.2, 1 + margins(x).min()))
    stationarity, tight, multipliers = np.inf, np.zeros(len(A), dtype=bool), np.zeros(0)
    for _ in range(RESTARTS):  # the line search may give up; it goes on with a fresh Hessian
        x = minimize(
            lambda x: 0.5 * float(x @ x),
            x,
            jac=lambda x: x,
            constraints={"type": "ineq", "fun": margins, "jac": slopes},
            method="SLSQP",
            options={"maxiter": 2_000, "ftol": 1e-13},
        ).x
        tight = margins(x) < 1e-6
        multipliers, distance = nnls(slopes(x)[tight].T, x, maxiter=100_000)
        stationarity = float(distance / np.linalg.norm(x))
        if stationarity < STATIONARITY and margins(x).min() > -1e-8:
            break
    else:
        raise SolverError(
            f"no KKT point of rank {rank} was found: stationarity {stationarity:.2g}, smallest margin "
            f"{1 + margins(x).min():.6g}; required {STATIONARITY:g} and 1: try another rank"
        )
    W_V, W_O = factors(x)
    G = np.tensordot(multipliers, A[tight], 1)
    kappa = float(np.linalg.svd(G, compute_uv=False)[0]) - 1
    return FixedRankPoint(task, groups.lift(W_V @ W_O), 0.5 * float(x @ x), stationarity, kappa)


def beta_by_fact(W: Float[np.ndarray, "input output"], task: FactRecallTask) -> Float[np.ndarray, " fact"]:
    """Coefficient of each fact's untold implication entries over the told ones'.

    Told entries are those of the fact itself; of facts with the same implication if it has none; of all
    facts if there is none of these. NaN without untold subjects.
    """
    own = task.fact_implication[task.subject_fact]
    block = W[: task.n_subjects, -task.n_implications :]
    entry = block[np.arange(task.n_subjects), own]
    aligned = entry - (block.sum(axis=1) - entry) / (task.n_implications - 1)
    told, found = task.subject_trained, np.full(task.n_facts, np.nan)
    for fact in range(task.n_facts):
        mine = task.subject_fact == fact
        if not (mine & ~told).any():
            continue
        sisters = own == task.fact_implication[fact]
        reference = next(group for group in (mine & told, sisters & told, told) if group.any())
        found[fact] = aligned[mine & ~told].mean() / aligned[reference].mean()
    return found


def rank_of(W: Float[np.ndarray, "input output"]) -> int:
    """Number of modes above MODE of the largest."""
    values = np.linalg.svd(W, compute_uv=False)
    return int((values > MODE * values[0]).sum())


def kappa_of(W: Float[np.ndarray, "input output"], G: Float[np.ndarray, "input output"], rank: int) -> float:
    """How much faster than W's modes the fastest direction that W lacks grows: ‖G‖ there, less 1.

    Args:
        W: the weights.
        G: their negative gradient, whose size does not matter.
        rank: number of modes that W has.
    """
    left, values, right = np.linalg.svd(W)
    gain = float(np.vdot(G, W)) / values.sum()  # of the modes of W, all alike at a KKT point
    absent = left[:, rank:].T @ G @ right[rank:].T
    return float(np.linalg.norm(absent, 2)) / gain - 1
