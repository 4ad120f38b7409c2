"""Stationary points of the smallest ½‖θ‖² at margin 1 for Compacter's layer, with their stability.

Σ_k A_k ⊗ s_k t_kᵀ is of degree 3 in what is trained, so no convex program stands behind it: there are many
stationary points (KKT points), and gradient descent goes to one of them. They are found by brute force, from
random starts, on small tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_count
from ocr_interp.errors import ConfigError
from ocr_interp.layouts import KroneckerLayout
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.certificate import held_out_beta
from ocr_interp.theory.norms.kronecker import KroneckerNorm
from ocr_interp.theory.problem import MaxMarginProblem, fitting_problem

_TIGHT = 1e-5
"""Margins up to 1 + this are active."""

_KKT = 1e-3
"""Largest relative distance of θ from Σ μ_k ∇h_k of what is called a stationary point."""


@dataclass(frozen=True)
class StationaryPoint:
    """One stationary point.

    Attributes:
        W: [input, output], smallest training margin 1.
        cost: ½‖θ‖².
        beta: held-out coefficient (`held_out_beta`, projection).
        kkt_error: ‖θ − Σ μ_k ∇h_k‖ / ‖θ‖ with the best μ >= 0 on active margins.
        curvature: smallest eigenvalue of the Lagrangian's Hessian among directions that keep the margins with
            μ > 0. Below 0 the point is a saddle; rotations of D_V, D_M, D_O have curvature 0.
        terms: number of products A_k ⊗ s_k t_kᵀ that are not 0.
        found: number of starts that ended here.
    """

    W: Float[np.ndarray, "input output"] = field(repr=False)
    cost: float
    beta: float
    kkt_error: float
    curvature: float
    terms: int
    found: int

    @property
    def stable(self) -> bool:
        """Whether no direction lowers the cost to second order at fixed margins."""
        return self.curvature > -1e-4


class CompacterProgram:
    """½‖θ‖² and the margins of a task, as functions of θ = (A, s, t, D_V, D_M, D_O).

    Args:
        task: the task.
        layout: places of subjects and answers, one layer.
        terms: number of products A_k ⊗ s_k t_kᵀ.
        phm_rank: rank of each s_k t_k.

    Raises:
        ConfigError: a layout of another task or of several layers, or a number below 1.
    """

    def __init__(self, task: FactRecallTask, layout: KroneckerLayout, terms: int, phm_rank: int = 1) -> None:
        check_count("terms", terms, 1)
        check_count("phm_rank", phm_rank, 1)
        if layout.layers != 1:
            raise ConfigError(
                f"stationary points are of one sum for all answers, got a layout of {layout.layers} layers: "
                "make it with shared_phm_rule=True"
            )
        self.problem: MaxMarginProblem = fitting_problem(
            task, KroneckerNorm(layout), "answers", "subject_relation"
        )
        self.layout, (n_in, n_out) = layout, self.problem.shape
        dense = n_in - layout.shape[0]
        self._shapes = {
            "A": (terms, *layout.a_shape),
            "s": (terms, layout.b_shape[0], phm_rank),
            "t": (terms, phm_rank, layout.b_shape[1]),
            "D_V": (dense, dense),
            "D_M": (dense, dense),
            "D_O": (dense, n_out),
        }
        wrong = np.isfinite(self.problem.constraint_margins(np.zeros(self.problem.shape)))
        example, output = np.nonzero(wrong)
        x = self.problem.x.toarray()[example]
        sign = np.zeros((len(example), n_out))
        sign[np.arange(len(example)), self.problem.correct[example]] = 1
        sign[np.arange(len(example)), output] = -1
        self.constraints: Float[np.ndarray, "margin input output"] = x[:, :, None] * sign[:, None, :]

    @property
    def size(self) -> int:
        """Number of entries of θ."""
        return sum(int(np.prod(shape)) for shape in self._shapes.values())

    def parts(self, theta: Float[np.ndarray, " parameter"]) -> dict[str, np.ndarray]:
        """θ by name."""
        found, start = {}, 0
        for name, shape in self._shapes.items():
            found[name] = theta[start : start + int(np.prod(shape))].reshape(shape)
            start += int(np.prod(shape))
        return found

    def W(self, theta: Float[np.ndarray, " parameter"]) -> Float[np.ndarray, "input output"]:
        """W_OV of θ."""
        p, terms = self.parts(theta), self._shapes["A"][0]
        R = p["A"].reshape(terms, -1).T @ (p["s"] @ p["t"]).reshape(terms, -1)
        return np.concatenate([self.layout.restored(R[None]), p["D_V"] @ p["D_M"] @ p["D_O"]])

    def pulled_back(
        self, theta: Float[np.ndarray, " parameter"], G: Float[np.ndarray, "many input output"]
    ) -> Float[np.ndarray, "many parameter"]:
        """Gradients of ⟨G, W(θ)⟩ for many G."""
        p, n = self.parts(theta), self.layout.shape[0]
        many, terms, dense = len(G), self._shapes["A"][0], G[:, n:]
        grid = G[:, :n].reshape(many, -1)[:, self.layout.inverse]
        R, s, t = grid.reshape(many, *self.layout.rearranged_shape[1:]), p["s"], p["t"]
        of_A = (s @ t).reshape(terms, -1) @ R.transpose(0, 2, 1)
        of_B = (p["A"].reshape(terms, -1) @ R).reshape(many, terms, *self.layout.b_shape)
        found = (
            of_A,
            of_B @ t.transpose(0, 2, 1),
            s.transpose(0, 2, 1) @ of_B,
            dense @ (p["D_M"] @ p["D_O"]).T,
            p["D_V"].T @ dense @ p["D_O"].T,
            (p["D_V"] @ p["D_M"]).T @ dense,
        )
        return np.concatenate([value.reshape(many, -1) for value in found], axis=1)

    def margins(self, theta: Float[np.ndarray, " parameter"]) -> Float[np.ndarray, " margin"]:
        """All training margins, in logits."""
        return np.tensordot(self.constraints, self.W(theta), 2)

    def margin_gradients(
        self, theta: Float[np.ndarray, " parameter"]
    ) -> Float[np.ndarray, "margin parameter"]:
        """Their gradients."""
        return self.pulled_back(theta, self.constraints)


def stationary_points(
    task: FactRecallTask,
    layout: KroneckerLayout,
    *,
    terms: int,
    phm_rank: int = 1,
    starts: int = 20,
    size: float = 0.5,
    seed: int = 0,
    same: float = 1e-3,
) -> tuple[StationaryPoint, ...]:
    """Stationary points reached from random starts, the smallest cost first.

    Args:
        task: a small one: a start takes about a second at (3, 1, 2).
        layout: places of subjects and answers, one layer.
        terms, phm_rank: as in `CompacterProgram`.
        starts: number of starts.
        size: standard deviation of the entries at the start.
        seed: of the starts.
        same: points whose cost and β differ by less are counted as one.

    Returns: the points; starts that end in none are left out.
    """
    check_count("starts", starts, 1)
    program, rng = CompacterProgram(task, layout, terms, phm_rank), np.random.default_rng(seed)
    found: list[StationaryPoint] = []
    for _ in range(starts):
        theta = _descended(program, size * rng.standard_normal(program.size))
        point = None if theta is None else _point(program, theta, task)
        if point is None or point.kkt_error > _KKT:
            continue
        for k, other in enumerate(found):
            if abs(other.cost - point.cost) < same * other.cost and abs(other.beta - point.beta) < 10 * same:
                found[k] = _counted(other, other.found + 1)
                break
        else:
            found.append(point)
    return tuple(sorted(found, key=lambda point: point.cost))


def _counted(point: StationaryPoint, found: int) -> StationaryPoint:
    return StationaryPoint(**{**vars(point), "found": found})


def _descended(
    program: CompacterProgram, theta: Float[np.ndarray, " parameter"]
) -> Float[np.ndarray, " parameter"] | None:
    """Sequential quadratic programming from a start; None if it did not end."""
    from scipy.optimize import minimize

    found = minimize(
        lambda t: t @ t / 2,
        theta,
        jac=lambda t: t,
        method="SLSQP",
        constraints={
            "type": "ineq",
            "fun": lambda t: program.margins(t) - 1,
            "jac": program.margin_gradients,
        },
        options={"maxiter": 500, "ftol": 1e-12},
    )
    return found.x if program.margins(found.x).min() > 1 - 1e-6 else None


def _point(
    program: CompacterProgram, theta: Float[np.ndarray, " parameter"], task: FactRecallTask
) -> StationaryPoint:
    from scipy.optimize import nnls

    margins, gradients = program.margins(theta), program.margin_gradients(theta)
    active = margins <= 1 + _TIGHT
    weights, error = nnls(gradients[active].T, theta)
    W, p = program.W(theta), program.parts(theta)
    G = np.tensordot(weights, program.constraints[active], 1)
    held = gradients[active][weights > 1e-6 * weights.max()]
    sizes = np.linalg.norm(p["A"], axis=(1, 2)) * np.linalg.norm(p["s"] @ p["t"], axis=(1, 2))
    return StationaryPoint(
        W=W,
        cost=float(theta @ theta / 2),
        beta=held_out_beta(W, task).projection,
        kkt_error=float(error / np.linalg.norm(theta)),
        curvature=curvature(lambda t: program.pulled_back(t, G[None])[0], theta, held),
        terms=int((sizes > 1e-3 * sizes.max()).sum()),
        found=1,
    )


def curvature(
    gradient: Callable[[np.ndarray], np.ndarray],
    theta: Float[np.ndarray, " parameter"],
    held: Float[np.ndarray, "margin parameter"],
) -> float:
    """Smallest eigenvalue of 1 − ∇²⟨G, W⟩ across the gradients of the margins that are held.

    ⟨G, W⟩ is a cubic form in θ, so central differences of its gradient are exact.
    """
    size = len(theta)
    steps = np.eye(size)
    hessian = np.stack([(gradient(theta + e) - gradient(theta - e)) / 2 for e in steps])
    _, s, Vt = np.linalg.svd(held, full_matrices=True)
    free = Vt[int((s > 1e-9 * max(float(s[0]), 1e-300)).sum()) :]
    return float(np.linalg.eigvalsh(free @ (np.eye(size) - hessian) @ free.T)[0])
