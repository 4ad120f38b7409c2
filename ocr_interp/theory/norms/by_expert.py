"""Sums of nuclear norms over experts: what small factors make small where experts share nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from ocr_interp.errors import ConfigError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.norms.base import Norm
from ocr_interp.theory.norms.nuclear import NORM as NUCLEAR


@dataclass(frozen=True)
class NuclearByExpert(Norm):
    """Σ_e ‖rows of expert e‖_*: every row of W belongs to one expert.

    Attributes:
        expert_of_row: the expert of every row; a W may have fewer rows.
    """

    name: ClassVar[str] = "nuclear_by_expert"
    label: ClassVar[str] = "sum of the experts' nuclear norms"

    expert_of_row: tuple[int, ...]

    def check_fits(self, task: FactRecallTask, n_inputs: int, n_outputs: int) -> None:
        if len(self.expert_of_row) < n_inputs:
            raise ConfigError(
                f"expert_of_row must name the expert of each of {n_inputs} rows, got "
                f"{len(self.expert_of_row)}: rows without one would cost nothing"
            )

    def _rows(self, n_rows: int) -> list[np.ndarray]:
        experts = np.array(self.expert_of_row[:n_rows])
        return [np.flatnonzero(experts == expert) for expert in np.unique(experts)]

    def value(self, W: Float[np.ndarray, "row column"]) -> float:
        return sum(NUCLEAR.value(W[rows]) for rows in self._rows(len(W)))

    def dual_value(self, G: Float[np.ndarray, "row column"]) -> float:
        return max(NUCLEAR.dual_value(G[rows]) for rows in self._rows(len(G)))

    def ball_point(self, G: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        groups = self._rows(len(G))
        duals = np.array([NUCLEAR.dual_value(G[rows]) for rows in groups])
        top = duals >= duals.max() * (1 - 1e-9)
        point = np.zeros_like(G)
        for rows, is_top in zip(groups, top, strict=True):
            if is_top:
                point[rows] = NUCLEAR.ball_point(G[rows]) / top.sum()
        return point

    def atom(self, W: Any) -> Any:
        import cvxpy as cp

        return sum(cp.normNuc(W[rows]) for rows in self._rows(W.shape[0]))


@dataclass(frozen=True)
class NuclearBeside(Norm):
    """‖[W^1, W^2, ...]‖_* of experts that stand one below the other in W [expert x input, output].

    Attributes:
        n_experts: how many.
    """

    name: ClassVar[str] = "nuclear_beside"
    label: ClassVar[str] = "nuclear norm of the experts side by side"

    n_experts: int

    def _beside(self, W: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "input beside"]:
        return np.concatenate(np.split(W, self.n_experts), axis=1)

    def value(self, W: Float[np.ndarray, "row column"]) -> float:
        return NUCLEAR.value(self._beside(W))

    def dual_value(self, G: Float[np.ndarray, "row column"]) -> float:
        return NUCLEAR.dual_value(self._beside(G))

    def ball_point(self, G: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        return np.concatenate(np.split(NUCLEAR.ball_point(self._beside(G)), self.n_experts, axis=1))

    def atom(self, W: Any) -> Any:
        import cvxpy as cp

        n = W.shape[0] // self.n_experts
        return cp.normNuc(cp.hstack([W[n * k : n * (k + 1)] for k in range(self.n_experts)]))
