"""What a norm must define for problems to be solved, certified and tracked in it.

Any norm needs `value`, `ball_point` and `atom`: with them `certify` bounds the optimum from any weights, and
`solve` solves the full program with CVXPY. A norm of the singular values alone is a `UnitarilyInvariantNorm`:
it defines the same in terms of a spectrum, and its problems are reduced by their symmetries and solved by the
splitting method. `held_out_coefficient` gives the closed form of balanced tasks, if there is one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from ocr_interp.task import FactRecallTask


@dataclass(frozen=True)
class DualWeights:
    """Dual weights of a balanced task with training implications, per example and wrong output.

    Attributes:
        fact, held_out, implication: against outputs of the correct one's type, for training subjects' facts,
            held-out subjects' facts, and implications.
        own: of a training subject's own fact against its own implication, and of any two of its own answers,
            under both relations.

    Source: docs/theory.md, "Dual weights".
    """

    fact: float
    held_out: float
    implication: float
    own: float


@dataclass(frozen=True)
class ControlDualWeights:
    """Dual weights of a balanced task without training implications.

    Attributes:
        held_out: against the other facts.
        other: against every other output.
    """

    held_out: float
    other: float


class Norm(ABC):
    """A norm of W [input, output]; each file of this folder has a subclass and an object `NORM` of it.

    Attributes:
        name: as in the registry: the name of the file.
        label: in words, for figures, e.g. "nuclear norm".
        is_unique: whether a balanced task has exactly one minimiser.
        stated_squared: whether the problem is often stated with the squared norm, which summaries then show.
        has_rank_one_saddle: whether the parameterisation that makes it small goes from a small start to the
            saddle of `theory.saddle_solution` for m_train < m_test.
        minimisers_share_modes: whether all minimisers lie in the span of the dual's largest modes, as
            `theory.solver.minimisers` uses it.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    is_unique: ClassVar[bool] = False
    stated_squared: ClassVar[bool] = False
    has_rank_one_saddle: ClassVar[bool] = False
    minimisers_share_modes: ClassVar[bool] = False

    @property
    def unitarily_invariant(self) -> bool:
        """Whether rotations of inputs and outputs leave it unchanged.

        If so, it depends on singular values alone and does not grow when a solution is averaged over the
        symmetries of a task: problems are solved in small blocks. Subclass `UnitarilyInvariantNorm` for it.
        """
        return isinstance(self, UnitarilyInvariantNorm)

    @abstractmethod
    def value(self, W: Float[np.ndarray, "row column"]) -> float:
        """‖W‖, the norm itself (not its square)."""

    @abstractmethod
    def ball_point(self, G: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        """A point X of the unit ball, ‖X‖ <= 1, with the largest pairing ⟨G, X⟩; G is not zero.

        If several points attain it, return their mean: a symmetric G then has a symmetric point.
        """

    @abstractmethod
    def atom(self, W: Any) -> Any:
        """The CVXPY expression to minimise: a positive multiple of `objective(‖W‖)`.

        Import cvxpy inside the method: the import takes a second.
        """

    def objective(self, value: float) -> float:
        """f(‖W‖), minimised instead of the norm: convex, increasing, 0 at 0. Default: the norm itself."""
        return value

    def dual_value(self, G: Float[np.ndarray, "row column"]) -> float:
        """The dual norm: the largest pairing ⟨G, X⟩ with ‖X‖ <= 1; 0 for G = 0."""
        return float(np.vdot(self.ball_point(G), G)) if G.any() else 0.0

    def prox(self, W: Float[np.ndarray, "row column"], step: float) -> Float[np.ndarray, "row column"]:
        """argmin over X of step · f(‖X‖) + ½‖X − W‖_F², f as in `objective`.

        Default: by CVXPY, accurate to about 1e-6, for an atom that is `objective` itself.
        """
        import cvxpy as cp

        X = cp.Variable(W.shape)
        program = cp.Problem(cp.Minimize(step * self.atom(X) + cp.sum_squares(X - W) / 2))
        program.solve(solver="CLARABEL")
        return np.asarray(X.value)

    def check_fits(self, task: FactRecallTask, n_inputs: int, n_outputs: int) -> None:  # noqa: B027
        """Requires that the norm can measure a task's matrices [n_inputs, n_outputs]; default: any.

        Raises:
            ConfigError: a norm that was made for rows or columns of another task.
        """

    def allowed(self, W: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        """W without entries that the norm does not allow, which solvers leave slightly off 0; default: W."""
        return W

    def has_closed_solution(self, task: FactRecallTask) -> bool:
        """Whether `closed_solution` gives one; default: no."""
        return False

    def closed_solution(
        self, task: FactRecallTask, n_inputs: int, n_outputs: int
    ) -> tuple[Float[np.ndarray, "input output"], Float[np.ndarray, "example output"]] | None:
        """W and dual weights of a task that the norm solves at full size; None: it does not (default).

        Args:
            task: the task.
            n_inputs, n_outputs: rows and columns of the problem.
        """
        return None

    def beta_with_trained_attention(self, m_train: int, m_test: int) -> tuple[float, float] | None:
        """Smallest and largest β of balanced tasks when attention is trained too; None if it is not known."""
        return None

    def held_out_coefficient(self, m_train: int, m_test: int, implied: int) -> float | None:
        """β of the closed form of balanced tasks, for m_train, m_test >= 1; None: there is none (default).

        The closed form has all training coefficients 1 and completes the pair block with β (docs/theory.md,
        "The missing entry"). It is used for unitarily invariant norms only.

        Args:
            m_train, m_test: subjects of a pair.
            implied: number of implications of a fact; None for those that have no closed form.
        """
        return None

    def dual_weights(self, n: int, m_train: int, m_test: int, implied: int) -> DualWeights | None:
        """Dual weights that prove the closed form for m_train >= 1; None: a solver finds them (default)."""
        return None

    def control_dual_weights(
        self, n: int, m_test: int, others: int, length: float
    ) -> ControlDualWeights | None:
        """The same for m_train = 0; None: a solver finds them (default).

        Args:
            n: number of pairs.
            m_test: subjects of a pair, all held out.
            others: outputs that are not facts.
            length: Euclidean length of what all fact examples share: subjects' mean, r1 and the feature.
        """
        return None


class UnitarilyInvariantNorm(Norm):
    """A norm of the singular values alone, in any order, each with a multiplicity.

    `value`, `dual_value` and `prox` are computed from the spectrum; override them where there is a faster
    way. Values of multiplicity 0 may occur and do not count.
    """

    @abstractmethod
    def of_spectrum(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"]
    ) -> float:
        """The norm of a matrix with these singular values; 0 for an empty spectrum."""

    @abstractmethod
    def dual_of_spectrum(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"]
    ) -> float:
        """The dual norm of a matrix with these singular values; 0 for an empty spectrum."""

    @abstractmethod
    def shrink(
        self, values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"], step: float
    ) -> Float[np.ndarray, " value"]:
        """The singular values of `prox`: they minimise step · f + ½ Σ multiplicity (new − values)²."""

    def shrink_factor(self, step: float) -> float | None:
        """The factor of `prox`, if it only scales matrices; None (default) if it does more."""
        return None

    def combine(self, atoms: Sequence[Any], multiplicity: Sequence[float]) -> Any:
        """The atom of a block-diagonal matrix that has each block at least once.

        Default: the weighted sum, for a norm whose atom adds up over blocks.
        """
        return sum(count * atom for count, atom in zip(multiplicity, atoms, strict=True))

    def value(self, W: Float[np.ndarray, "row column"]) -> float:
        values = np.linalg.svd(W, compute_uv=False)
        return self.of_spectrum(values, np.ones_like(values))

    def dual_value(self, G: Float[np.ndarray, "row column"]) -> float:
        values = np.linalg.svd(G, compute_uv=False)
        return self.dual_of_spectrum(values, np.ones_like(values))

    def prox(self, W: Float[np.ndarray, "row column"], step: float) -> Float[np.ndarray, "row column"]:
        factor = self.shrink_factor(step)
        if factor is not None:
            return W * factor
        U, s, Vt = np.linalg.svd(W, full_matrices=False)
        return (U * self.shrink(s, np.ones_like(s), step)) @ Vt


def largest_singular_value(W: Float[np.ndarray, "row column"]) -> float:
    """From the smaller Gram matrix: several times faster than a singular value decomposition."""
    gram = W @ W.T if W.shape[0] < W.shape[1] else W.T @ W
    return float(np.sqrt(max(float(np.linalg.eigvalsh(gram)[-1]), 0.0)))


def sum_of(values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"]) -> float:
    """Sum of the singular values."""
    return float(np.sum(multiplicity * values))


def largest_of(values: Float[np.ndarray, " value"], multiplicity: Float[np.ndarray, " value"]) -> float:
    """Largest singular value that occurs."""
    return float(np.max(values[multiplicity > 0], initial=0.0))
