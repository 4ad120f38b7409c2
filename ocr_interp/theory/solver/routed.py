"""The max-margin problem of experts that are chosen by relation: inputs are (expert, token)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from ocr_interp.checks import check_choice, check_count, check_number
from ocr_interp.errors import ConfigError, SolverError
from ocr_interp.task import FactRecallTask, Triples
from ocr_interp.theory.certificate import held_out_beta
from ocr_interp.theory.norms import Norm, as_norm
from ocr_interp.theory.norms.by_expert import NuclearBeside, NuclearByExpert
from ocr_interp.theory.problem import MaxMarginProblem, max_margin_problem
from ocr_interp.theory.residuals import dual_bound
from ocr_interp.theory.solver.full import solve_full


@dataclass(frozen=True)
class RoutedSolution:
    """The smallest experts that tell everything told, with a certificate.

    Attributes:
        task: the task.
        side: what each expert has of its own: "read", "write" or "both".
        expert_of_relation: the expert of every relation.
        W: circuits of the experts, at smallest training margin 1.
        objective: the norm of W; the dual bound proves that none is below `dual`.
        dual: that bound.
        held_out_margins: smallest margin of every held-out implication against other implications, logits.
    """

    task: FactRecallTask
    side: str
    expert_of_relation: tuple[int, ...]
    W: Float[np.ndarray, "expert input answer"] = field(repr=False)
    objective: float
    dual: float
    held_out_margins: Float[np.ndarray, " held_out"] = field(repr=False)

    @property
    def gap(self) -> float:
        """Certified relative distance from the smallest norm: objective / dual − 1."""
        return self.objective / self.dual - 1

    @property
    def beta(self) -> float:
        """Held-out coefficient in the expert of the implication, relative to the training one.

        Raises:
            ConfigError: a task with several implied relations, which have one each.
        """
        if len(self.expert_of_relation) > 2:
            raise ConfigError("every implied relation has a β of its own: read the experts W, one by one")
        return held_out_beta(self.W[list(self.expert_of_relation)[-1]], self.task).projection


def solve_routed(
    task: FactRecallTask,
    expert_of_relation: Sequence[int],
    side: str,
    *,
    tolerance: float = 1e-4,
    max_seconds: float = 120.0,
) -> RoutedSolution:
    """The max-margin solution of experts that are chosen by relation; a full program, for small tasks.

    Args:
        task: any task, noise-free.
        expert_of_relation: the expert 0, 1, ... of every relation, r1 first.
        side: "read": ‖[W^1; W^2; ...]‖_*, since W_O is shared. "write": ‖[W^1, W^2, ...]‖_*. "both":
            Σ_e ‖W^e‖_*.
        tolerance: relative gap that must be proved.
        max_seconds: time limit of the solver.

    Raises:
        ConfigError: experts that leave one out, or are not one per relation.
        SolverError: the gap reached is above the tolerance.

    Source: docs/theory.md §14.
    """
    check_choice("side", side, ("read", "write", "both"))
    check_number("tolerance", tolerance, above=0.0)
    experts = tuple(expert_of_relation)
    for expert in experts:
        check_count("expert_of_relation", expert, 0)
    if len(experts) != len(task.relation_tokens) or set(experts) != set(range(max(experts) + 1)):
        raise ConfigError(
            f"expert_of_relation must name the expert 0, 1, ... of each of {len(task.relation_tokens)} "
            f"relations and leave none out, got {experts}"
        )
    plain = max_margin_problem(task)
    n_in, n_experts = plain.shape[0], max(experts) + 1
    held_out = task.triples.of_split("held_out_implication")
    problem = replace(
        plain,
        x=_of_experts(plain.x, task.training_triples, experts),
        x_held_out=_of_experts(plain.x_held_out, held_out, experts),
    )
    norm = _norm(side, n_experts, n_in)
    found = solve_full(problem, norm, "clarabel", max_seconds)
    return _certified(problem, norm, found.W, found.weights, experts, side, tolerance)


def _norm(side: str, n_experts: int, n_in: int) -> Norm:
    if side == "read":
        return as_norm("nuclear")
    if side == "write":
        return NuclearBeside(n_experts)
    return NuclearByExpert(tuple(np.repeat(np.arange(n_experts), n_in).tolist()))


def _of_experts(x: Any, triples: Triples, experts: Sequence[int]) -> Any:
    """Examples [example, expert x input]: what an example holds, in the columns of its expert."""
    of_example = np.array(experts, dtype=np.int64)[triples.relation]
    rows, columns = x.nonzero()
    values = np.asarray(x[rows, columns]).ravel()
    shape = (x.shape[0], x.shape[1] * (max(experts) + 1))
    return sp.csr_array((values, (rows, columns + x.shape[1] * of_example[rows])), shape=shape)


def _certified(
    problem: MaxMarginProblem,
    norm: Norm,
    W: Float[np.ndarray, "row answer"],
    weights: Float[np.ndarray, "example answer"],
    experts: tuple[int, ...],
    side: str,
    tolerance: float,
) -> RoutedSolution:
    margin = float(problem.constraint_margins(W).min())
    objective = norm.value(W) / margin if margin > 0 else np.inf
    dual = dual_bound(problem, weights, norm)
    if not objective <= (1 + tolerance) * dual:
        raise SolverError(
            f"the experts' {norm.label} is {objective:.6g}, proved to be at least {dual:.6g}, which leaves "
            f"more than tolerance={tolerance:g}: raise it or max_seconds"
        )
    n_experts = max(experts) + 1
    return RoutedSolution(
        task=problem.task,
        side=side,
        expert_of_relation=experts,
        W=(W / margin).reshape(n_experts, -1, W.shape[1]),
        objective=objective,
        dual=dual,
        held_out_margins=problem.held_out_margins(W / margin),
    )
