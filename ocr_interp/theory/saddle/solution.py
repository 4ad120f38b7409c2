"""The strict saddle that gradient descent goes to from a small start, with its certificate."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_choice
from ocr_interp.errors import ConfigError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.closed.closed_form import ClosedForm, closed_form
from ocr_interp.theory.geometry import Cosines, SpectrumBlock
from ocr_interp.theory.norms import Norm, as_norm
from ocr_interp.theory.norms.nuclear import NORM
from ocr_interp.theory.problem import check_problem, feature_length, max_margin_problem
from ocr_interp.theory.saddle.dual import SaddleCertificate, SaddleDual
from ocr_interp.theory.saddle.flow import saddle_sizes
from ocr_interp.theory.saddle.program import RankOneOptimum, frozen_optimum, trained_optimum

ATTENTION = ("frozen", "trained")


@dataclass(frozen=True)
class SaddleSolution:
    """The KKT point with a pair block of rank one and the smallest norm; made by `saddle_solution`.

    For m_train < m_test it is a strict saddle of the norm, where gradient descent from a small start goes at
    any time that can be written down. For m_train >= m_test it is the max-margin solution itself.

    Attributes:
        task, outputs, inputs: the problem.
        attention: "frozen" or "trained".
        beta: coefficient of the held-out implication block relative to the training one.
        objective: nuclear norm of W_OV at margin 1; with trained attention plus half the squared scores.
        kappa: relative to the others, the mode that W lacks grows like (smallest margin)^kappa. 0 at the
            max-margin solution.
        start_exponent: that mode begins smaller than the first by size^start_exponent when the start has
            isotropic factors of this size; so W leaves the saddle at margins
            R ~ size^(−start_exponent / kappa).
        scores: attention of training subjects, held-out subjects, r1, r2; 1 if frozen.
        found: the effective circuit diag(a) W_OV in blocks.
    """

    task: FactRecallTask
    outputs: str
    inputs: str
    attention: str
    beta: float
    objective: float
    kappa: float
    start_exponent: float
    scores: Float[np.ndarray, " token_kind"] = field(repr=False)
    found: ClosedForm = field(repr=False)
    optimum: RankOneOptimum = field(repr=False)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(n, m_train, m_test)."""
        return self.found.sizes

    @property
    def is_strict_saddle(self) -> bool:
        """Whether the norm can be lowered to second order; else it is the smallest."""
        return self.kappa > 1e-9

    @property
    def norm(self) -> str:
        """The norm of which it is a KKT point."""
        return NORM.name

    @property
    def W(self) -> Float[np.ndarray, "input output"]:
        """The effective circuit diag(a) W_OV at margin 1, in the task's order."""
        return self.found.W

    @property
    def spectrum(self) -> tuple[SpectrumBlock, ...]:
        """Non-zero singular values of W with multiplicities, largest first."""
        return self.found.spectrum

    @property
    def rank(self) -> int:
        """Rank of W: n, against 2n − 1 of the max-margin solution for m_train < m_test.

        With K implications of a fact K − 1 more, in both.
        """
        return sum(block.multiplicity for block in self.spectrum)

    @property
    def pair_block(self) -> Float[np.ndarray, "status kind"]:
        """As in `ClosedForm`."""
        return self.found.pair_block

    @property
    def constant_block(self) -> Float[np.ndarray, "group column_group"]:
        """As in `ClosedForm`."""
        return self.found.constant_block

    @property
    def cosines(self) -> Cosines:
        """Predicted cosines between balanced embeddings of W; see `Cosines`."""
        return self.found.cosines

    @property
    def held_out_margin(self) -> float:
        """Held-out implication against another implication, in logits: β."""
        return self.found.held_out_margin

    @property
    def held_out_margin_own_fact(self) -> float:
        """Held-out implication against the subject's own fact, in logits."""
        return self.found.held_out_margin_own_fact

    @property
    def held_out_margin_overall(self) -> float:
        """Held-out implication against every output, in logits."""
        return self.found.held_out_margin_overall

    def input_embeddings(self) -> Float[np.ndarray, "input component"]:
        """U Σ^½ of W = U Σ Vᵀ for subjects, r1 and r2, up to one rotation of the components."""
        return self.found.input_embeddings()

    def output_embeddings(self) -> Float[np.ndarray, "answer component"]:
        """V Σ^½ for the answers, in the same components."""
        return self.found.output_embeddings()

    @property
    def dual(self) -> SaddleDual:
        """The dual weights in blocks."""
        feature = feature_length(self.task, self.inputs)
        return SaddleDual(self.sizes, feature, self.optimum, self.task.implied_relations)

    @cached_property
    def weights(self) -> Float[np.ndarray, "example output"]:
        """Dual weights at full size, as in task.training_triples, for `certify(..., weights=)`."""
        return self.dual.at_full_size(max_margin_problem(self.task, self.outputs, self.inputs))

    @cached_property
    def certificate(self) -> SaddleCertificate:
        """The KKT conditions and the dual norm, computed from the blocks."""
        return self.dual.certificate

    def summary(self) -> str:
        """Readable text: β, norm against the smallest, rank, escape, certificate."""
        n, a, b = self.sizes
        best, proof = closed_form(self.task, NORM).objective, self.certificate
        lines = [
            f"rank-one KKT point of {n} pairs, {a} training and {b} held-out subjects a pair, "
            f"attention {self.attention}",
            f"  beta              {self.beta:.8g}",
            f"  rank              {self.rank}",
        ]
        if self.attention == "frozen":
            above = self.objective / best - 1
            lines.append(f"  nuclear norm      {self.objective:.8g}, {above:.3%} above the smallest")
        lines += [
            f"  certificate       margin {proof.min_margin:.9g}, smallest dual weight "
            f"{proof.min_multiplier:.1e}, stationarity {proof.stationarity:.1e}",
            f"  dual norm         {proof.dual_norm:.8g}: "
            + ("a strict saddle" if self.is_strict_saddle else "the smallest norm"),
        ]
        if self.is_strict_saddle:
            lines.append(
                f"  escape            missing mode grows like margin^{self.kappa:.4g}; from a start of size "
                f"s it is s^{self.start_exponent:.3g} smaller than the first"
            )
        return "\n".join(lines)


def has_saddle(task: FactRecallTask, norm: str | Norm) -> bool:
    """Whether descent that makes this norm small goes from a small start to a saddle instead of the smallest.

    Known for balanced tasks with 0 < m_train < m_test; with K implications of a fact 0 < m_train < K m_test.
    """
    sizes = task.balanced_sizes
    if not as_norm(norm).has_rank_one_saddle or sizes is None:
        return False
    return 0 < sizes[1] < task.implied_relations * sizes[2] and sizes[2] > 0


def saddle_solution(
    task: FactRecallTask,
    *,
    attention: str = "frozen",
    outputs: str = "answers",
    inputs: str = "subject_relation",
) -> SaddleSolution:
    """The KKT point of rank n that gradient descent goes to from a small start, beside `solve`.

    Its β is near r^¼ with r = m_train / m_test < 1 (trained attention: r^⅓), where the smallest nuclear norm
    has √r; the norms differ by 0.3 % at (20, 1, 3). With K implications of a fact r is m_train / (K m_test).

    Args:
        task: balanced, m_train and m_test >= 1; any number of pairs.
        attention: "frozen" (uniform) or "trained" (from a start as small as that of the factors).
        outputs, inputs: see `theory.problem`. What every example holds (EOS, noise) takes part here, unlike
            in the max-margin solution.

    Raises:
        ConfigError: another task, an unknown name, inputs or several implications with trained attention, or
            outputs="vocabulary" where the other tokens' constraints bind (n = 2).
        SolverError: the small program has not converged.

    Source: docs/theory.md, "Where gradient descent goes".
    """
    check_problem(NORM, outputs, inputs)
    check_choice("attention", attention, ATTENTION)
    sizes = saddle_sizes(task)
    _, a, b = sizes
    if attention == "trained" and inputs != "subject_relation":
        raise ConfigError(
            f"attention='trained' has a saddle for inputs='subject_relation' alone, got {inputs!r}: use "
            "that, or attention='frozen'"
        )
    implied = task.implied_relations
    if attention == "trained" and implied > 1:
        raise ConfigError(
            f"attention='trained' has a known saddle for one implication of a fact, got implied_relations="
            f"{implied}: use attention='frozen', or run the descent itself (ocr_interp.training.long_descent)"
        )
    feature = feature_length(task, inputs)
    optimum = frozen_optimum(sizes, feature, implied) if attention == "frozen" else trained_optimum(sizes)
    found = rank_one_form(task, outputs, inputs, optimum)
    solution = SaddleSolution(
        task=task,
        outputs=outputs,
        inputs=inputs,
        attention=attention,
        beta=found.beta,
        objective=optimum.objective,
        kappa=0.0,
        start_exponent=_start_exponent(a, b, implied),
        scores=optimum.attention,
        found=found,
        optimum=optimum,
    )
    _check_other_tokens(solution)
    kappa = max(0.0, float(np.linalg.svd(solution.dual.pair_block, compute_uv=False)[0]) - 1)
    return replace(solution, kappa=kappa)


def rank_one_form(task: FactRecallTask, outputs: str, inputs: str, optimum: RankOneOptimum) -> ClosedForm:
    """The matrix of the small program's optimum, in blocks; its objective is the nuclear norm."""
    n, a, b = sizes = saddle_sizes(task)
    tau, implied = optimum.tau, task.implied_relations
    told, untold = [np.sqrt(a)] * implied, [np.sqrt(b) / tau] * implied
    pair_block = np.array([[np.sqrt(a) * tau, *told], [np.sqrt(b), *untold]])
    constant_block = _constant_block(sizes, feature_length(task, inputs), optimum, implied)
    norm = float((n - 1) * np.linalg.norm(pair_block))  # the pair block has rank one
    norm += float(np.linalg.svd(constant_block, compute_uv=False).sum())
    return ClosedForm(
        task=task,
        norm=NORM,
        outputs=outputs,
        inputs=inputs,
        sizes=sizes,
        beta=1 / tau,
        objective=norm,
        pair_block=pair_block,
        constant_block=constant_block,
    )


def _constant_block(
    sizes: tuple[int, int, int], feature: float, optimum: RankOneOptimum, implied: int
) -> Float[np.ndarray, "group column_group"]:
    """As in `ClosedForm`: facts against implications, and the implications of two relations apart."""
    n, a, b = sizes
    train, held, r1, r2, constant = optimum.rows
    size = [np.sqrt(n * a), np.sqrt(n * b), *[1.0] * (implied + 1), 1 / feature if feature else 0.0]
    rows = np.array([train, held, r1, *[r2] * implied, constant]) * size
    direction = np.array([implied, *[-1.0] * implied]) / (implied + 1)
    block = np.zeros((implied + 4, implied + 2))
    block[:, :-1] = np.outer(np.sqrt(n) * rows, direction)
    block[3:-1, 1:-1] += np.sqrt(n) * (np.eye(implied) - 1 / implied)
    return block


def _start_exponent(a: int, b: int, implied: int) -> float:
    """2 (1 − s_2 / s_1), with the modes' rates at the start: singular values of [[√a, √(K a)], [√b, 0]]."""
    start = np.array([[np.sqrt(a), np.sqrt(implied * a)], [np.sqrt(b), 0.0]])
    rates = np.linalg.svd(start, compute_uv=False)
    return float(2 * (1 - rates[1] / rates[0]))


def _check_other_tokens(solution: SaddleSolution) -> None:
    """Requires that tokens that are never an answer stay below every correct answer by 1."""
    if solution.outputs != "vocabulary":
        return
    n, implied = solution.sizes[0], solution.task.implied_relations
    q, tau = 1 - 1 / n, solution.optimum.tau
    train, held, r1, r2, constant = solution.optimum.rows / (implied + 1)
    logits = [
        q * tau + implied * (train + r1 + constant),
        q - train - r2 - constant + 1 - 1 / implied,
        q + implied * (held + r1 + constant),
    ]
    if min(logits) < 1 - 1e-12:
        raise ConfigError(
            f"outputs='vocabulary' changes the saddle at {solution.sizes}: a correct answer is only "
            f"{min(logits):.4g} above the other tokens, required 1; use outputs='answers'"
        )
