"""The dual weights of the saddle, and what they prove: a KKT point, and whether the norm can be lowered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from ocr_interp.task import FACT
from ocr_interp.theory.problem import MaxMarginProblem
from ocr_interp.theory.saddle.program import RankOneOptimum


@dataclass(frozen=True)
class SaddleCertificate:
    """What shows that a point is a KKT point of ½(‖W_V‖² + ‖W_O‖²) at margin 1, and whether it is a saddle.

    All are of the blocks, so they hold for any number of pairs; the tests compute them at full size too.

    Attributes:
        min_margin: smallest training margin, 1 up to rounding.
        min_multiplier: smallest dual weight, relative to the largest; >= 0 up to rounding.
        complementarity: largest product of a dual weight with its margin above 1, relative to the largest.
        stationarity: largest distance of G v from u and of Gᵀ u from v over the modes (u, v) of W, where
            G is the matrix of the dual weights; 0 at a KKT point.
        dual_norm: largest singular value of G. 1: W has the smallest norm. Above 1: adding the mode of G that
            W lacks lowers the norm at margin 1 to second order, so the point is a strict saddle.
    """

    min_margin: float
    min_multiplier: float
    complementarity: float
    stationarity: float
    dual_norm: float

    def is_kkt_point(self, tolerance: float = 1e-9) -> bool:
        """Whether all conditions hold to a tolerance."""
        return (
            self.min_margin >= 1 - tolerance
            and self.min_multiplier >= -tolerance
            and self.complementarity <= tolerance
            and self.stationarity <= tolerance
        )


@dataclass(frozen=True)
class SaddleDual:
    """Dual weights of a rank-one optimum, in blocks.

    Attributes:
        sizes: (n, m_train, m_test).
        feature: length of what every example holds beside subject and relation.
        optimum: the optimum of the small program.
        implied: number of implications of a fact.
    """

    sizes: tuple[int, int, int]
    feature: float
    optimum: RankOneOptimum
    implied: int = 1

    @cached_property
    def pair_block(self) -> Float[np.ndarray, "status kind"]:
        """The pair block of G, the matrix of the dual weights of W_OV = diag(1/a) W.

        Its modes are those of W_OV. Held-out implications have no constraint of their own: their entry comes
        from held-out facts, whose own implication is a wrong answer. The columns of several implications are
        equal and stand here as one of √K times the length.
        """
        n, _, b = self.sizes
        left, right = _modes(self.optimum, self.sizes, self.implied)
        held = -self.optimum.multipliers[2] / (n * np.sqrt(b * self.implied)) * self.optimum.attention[1]
        fact = (left[1] - held * right[1]) / right[0]
        implication = (right[1] - held * left[1]) / left[0]
        return np.array([[(left[0] - implication * right[1]) / right[0], implication], [fact, held]])

    @cached_property
    def by_kind(self) -> Float[np.ndarray, "kind example"]:
        """Dual weights of one constraint: [within the kind, own answer of the other kind] by example kind."""
        n, a, b = self.sizes
        own = self.optimum.multipliers / (self.implied * np.array([n * a, n * a, n * b]))
        scale = np.sqrt(np.array([a, a * self.implied, b])) * self.optimum.attention[[0, 0, 1]]
        G = self.pair_block
        direct = np.array([G[0, 0], G[0, 1], G[1, 0]]) / scale
        fact, implication, held = own
        given = np.array([self.implied * (fact - implication), implication - fact, self.implied * held])
        return np.stack([(direct - given) / n, own])

    @cached_property
    def between_implications(self) -> float:
        """Dual weight of an own implication against that of another relation; 0 if there is none.

        What tells the relations of implications apart has the norm (K − 1) √n at margin 1, of which the
        constraints of implications against the own fact carry a share.
        """
        n, a, _ = self.sizes
        if self.implied == 1:
            return 0.0
        carried = self.optimum.multipliers[1] * (1 - 1 / self.implied)
        pairs = n * a * self.implied * (self.implied - 1)
        return float(((self.implied - 1) * np.sqrt(n) - carried) / pairs)

    def at_full_size(self, problem: MaxMarginProblem) -> Float[np.ndarray, "example output"]:
        """The weights of every constraint, in the order of task.training_triples."""
        task, triples = problem.task, problem.task.training_triples
        within, own = self.by_kind
        trained = task.subject_trained[triples.subject]
        kind = np.where(triples.relation != FACT, 1, np.where(trained, 0, 2))
        first = problem.shape[1] - task.n_answers
        found = within[kind][:, None] * (problem.column_relation == triples.relation[:, None])
        example = np.arange(len(found))
        for relation, answers in enumerate(task.right_answer):
            across = np.where(
                (triples.relation != FACT) & (relation != FACT), self.between_implications, own[kind]
            )
            found[example, first + answers[triples.subject]] = np.where(
                triples.relation == relation, 0.0, across
            )
        # Within the kind a weight of rounding size below 0 is 0; a real one is refused by the certificate.
        return np.where(np.abs(found) < 1e-9 * np.abs(found).max(), 0.0, found)

    @cached_property
    def certificate(self) -> SaddleCertificate:
        """The KKT conditions and the dual norm, computed from the blocks."""
        left, right = _modes(self.optimum, self.sizes, self.implied)
        G = self.pair_block
        relation = self._relation_direction()
        within, own = self.by_kind
        scale = float(np.abs(self.by_kind).max())
        coefficients = np.array([self.optimum.tau, 1.0, 1.0])
        margins = np.array([coefficients, self._own_margins()])
        stationarity = max(
            float(np.abs(G @ right - left).max()),
            float(np.abs(G.T @ left - right).max()),
            abs(relation[0] - 1),
            relation[1],
        )
        second = float(np.linalg.svd(G, compute_uv=False)[0])
        return SaddleCertificate(
            min_margin=float(margins.min()),
            min_multiplier=float(min(within.min(), own.min(), self.between_implications)) / scale,
            complementarity=float(np.abs(np.stack([within, own]) * (margins - 1)).max()) / scale,
            stationarity=stationarity,
            dual_norm=max(second, relation[0]),
        )

    def _own_margins(self) -> Float[np.ndarray, " example"]:
        """Own fact against own implication (training and held-out facts), and the reverse under r2."""
        n, apart = self.sizes[0], 1 - 1 / self.implied
        q, tau, rows = 1 - 1 / n, self.optimum.tau, self.optimum.rows
        train, held, r1, r2, constant = rows
        return np.array(
            [
                q * (tau - 1) + train + r1 + constant,
                q * (1 - tau) - train - r2 - constant + apart,
                q * (1 - 1 / tau) + held + r1 + constant,
            ]
        )

    def _relation_direction(self) -> tuple[float, float]:
        """The constant block of G on W's mode: its gain, and what lies across; 1 and 0 at a KKT point."""
        n, a, b = self.sizes
        facts, implications, held = self.optimum.multipliers
        by_row = np.array(
            [facts - implications, held, facts + held, -implications, facts - implications + held]
        )
        of_feature = 1 / self.feature if self.feature else np.inf
        size = np.array([np.sqrt(n * a), np.sqrt(n * b), 1.0, np.sqrt(self.implied), of_feature])
        scores = np.r_[self.optimum.attention, 1.0]
        G = scores * by_row / size * np.sqrt((self.implied + 1) / (self.implied * n))
        W = self.optimum.rows * np.r_[size[:4], 0.0 if np.isinf(size[4]) else size[4]] / scores
        length = float(np.linalg.norm(W))
        gain = float(G @ W) / length
        return gain, float(np.linalg.norm(G - gain * W / length))


def _modes(
    optimum: RankOneOptimum, sizes: tuple[int, int, int], implied: int
) -> tuple[np.ndarray, np.ndarray]:
    """Unit left and right mode of the pair block of W_OV = diag(1/a) W."""
    _, a, b = sizes
    left = np.array([np.sqrt(a) * optimum.tau, np.sqrt(b)]) / optimum.attention[:2]
    right = np.array([1.0, np.sqrt(implied) / optimum.tau])
    return left / np.linalg.norm(left), right / np.linalg.norm(right)
