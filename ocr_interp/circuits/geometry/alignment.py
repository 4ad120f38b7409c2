"""How a measured circuit compares with a predicted one, every number beside its baselines.

"Aligned" means equal to what is predicted, not large: subject + relation against its answer has cosine
0.61 for held-out implications at (20, 1, 3) in the prediction itself, and the nuclear and the Frobenius
solution have cosine 0.93 with each other there. For m_train < m_test gradient descent from a small start does
not go to the nuclear solution but to a saddle, which stands beside the prediction then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ocr_interp.circuits.baseline import random_circuit
from ocr_interp.circuits.geometry.cosine_groups import (
    CosineGroup,
    all_cosines,
    cosine_groups,
    group_masks,
    vector_labels,
)
from ocr_interp.circuits.matrix import OVMatrix
from ocr_interp.errors import ConfigError, ModelError, unknown_name
from ocr_interp.hooked.provenance import Provenance
from ocr_interp.linalg.angles import BlockAngles, block_angles
from ocr_interp.linalg.spectrum import Spectrum, spectrum_of
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import SaddleSolution, has_saddle, saddle_solution, solve
from ocr_interp.theory.certificate import held_out_beta

MEASURED, RANDOM, UNTRAINED, OTHER, SIBLING, SADDLE, PREDICTED = (
    "measured",
    "random weights",
    "untrained",
    "other OV kind",
    "other run",
    "saddle",
    "prediction",
)
"""Roles: OTHER is a model of another parameterisation of W_OV, SIBLING another model of the same one, SADDLE
the KKT point that gradient descent goes to from a small start, beside a nuclear-norm prediction."""


@runtime_checkable
class Prediction(Protocol):
    """Anything with a matrix W: rows subjects, relations; columns answers, in the order of the task."""

    @property
    def W(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Comparison:
    """One circuit against the prediction.

    Attributes:
        role: MEASURED, or which baseline it is.
        source: where it comes from, in words.
        cosine: of W with the prediction, as vectors.
        cosine_nuclear, cosine_frobenius: of W with the closed forms; NaN if the task is not balanced.
        cosine_saddle: of W with the saddle; NaN if the report has none.
        scale: ⟨W, prediction⟩ / ‖prediction‖², how many times as large W is.
        beta: held-out implication block's coefficient over the training block's
            (`ocr_interp.theory.certificate.held_out_beta`, projection); NaN without one of them.
        beta_margin: the same as a ratio of worst margins.
        angles: per degenerate block of the prediction, largest first. Measured directions are assigned to
            blocks by the largest sum of overlaps, whatever their order.
        groups: cosines of the geometry by kind of pair, measured and predicted.
        cosines: all pairwise cosines; vectors as in AlignmentReport.vectors.
    """

    role: str
    source: str
    cosine: float
    cosine_nuclear: float
    cosine_frobenius: float
    cosine_saddle: float
    scale: float
    beta: float
    beta_margin: float
    angles: tuple[BlockAngles, ...] = field(repr=False)
    groups: tuple[CosineGroup, ...] = field(repr=False)
    cosines: Float[np.ndarray, "vector vector"] = field(repr=False)

    def group(self, name: str) -> CosineGroup:
        """The cosines of one kind of pair; an unknown name raises with the close matches."""
        for group in self.groups:
            if group.name == name:
                return group
        raise unknown_name("kind of pair", name, [group.name for group in self.groups])


@dataclass(frozen=True)
class AlignmentReport:
    """A circuit and its baselines against one prediction.

    Attributes:
        provenance: of the measured circuit; comparisons are of diag(a) W_OV.
        prediction: what was compared with, in words.
        comparisons: the measured circuit first, then the baselines, then the saddle where there is one
            (see `align`), then the prediction with itself.
        vectors: labels of the rows and columns of all pairwise cosines.
        predicted_cosines: those of the prediction.
        predicted_beta: β of the prediction, by projection.
    """

    provenance: Provenance
    prediction: str
    comparisons: tuple[Comparison, ...] = field(repr=False)
    vectors: tuple[str, ...] = field(repr=False)
    predicted_cosines: Float[np.ndarray, "vector vector"] = field(repr=False)
    predicted_beta: float

    @property
    def measured(self) -> Comparison:
        """The circuit itself."""
        return self.comparisons[0]

    def of_role(self, role: str) -> tuple[Comparison, ...]:
        """Comparisons of a role, e.g. "random weights"; empty if that baseline was not given."""
        roles = (MEASURED, RANDOM, UNTRAINED, OTHER, SIBLING, SADDLE, PREDICTED)
        if role not in roles:
            raise unknown_name("role", role, roles)
        return tuple(c for c in self.comparisons if c.role == role)

    def summary(self) -> str:
        """Readable text: one row per circuit, then the cosines of the geometry."""
        with_saddle = bool(self.of_role(SADDLE))
        named = f"{'cosine of W with':18}{'it':>9}{'nuclear':>9}{'frobenius':>10}"
        named += f"{'saddle':>9}{'beta':>8}" if with_saddle else f"{'beta':>8}"
        head = f"{named}{'worst angle by block (in/out)':>34}"
        against = f"against {self.prediction} (it); nuclear, frobenius: the closed forms of those norms"
        beside = ["saddle: where gradient descent from a small start goes"] if with_saddle else []
        lines = [self.provenance.summary(), against, *beside, head]
        for c in self.comparisons:
            angles = "  ".join(f"{a.input_angles.max():.0f}/{a.output_angles.max():.0f}" for a in c.angles)
            cosines = f"{c.cosine:9.4f}{c.cosine_nuclear:9.4f}{c.cosine_frobenius:10.4f}"
            cosines += f"{c.cosine_saddle:9.4f}" if with_saddle else ""
            lines.append(f"{c.role:18}{cosines}{c.beta:8.3f}{angles:>34}")
        absent = [role for role in (RANDOM, UNTRAINED) if not self.of_role(role)]
        absent += [] if self.of_role(OTHER) or self.of_role(SIBLING) else [OTHER]
        lines += [f"baselines not given: {', '.join(absent)}"] if absent else []
        lines.append(f"{'cosine of':38}{'measured':>10}{'predicted':>10}{'deviation':>10}")
        lines += [
            f"{g.name:38}{g.mean:10.3f}{g.predicted:10.3f}{g.deviation:10.3f}"
            for g in self.measured.groups
            if g.count
        ]
        return "\n".join(lines)


def align(
    circuit: OVMatrix,
    prediction: Prediction,
    *,
    untrained: OVMatrix | None = None,
    other: OVMatrix | None = None,
    random_seeds: Sequence[int] = (0, 1, 2),
    as_if_whole: bool = False,
) -> AlignmentReport:
    """Compares diag(a) W_OV of a fact-recall circuit with a prediction, beside baselines.

    Beside a nuclear-norm solution of a balanced task with m_train < m_test stands `saddle_solution(task)`, of
    frozen attention and without EOS like the prediction: gradient descent from a small start goes there.

    Args:
        circuit: of a fact-recall model, with all subjects, relations and answers.
        prediction: a Solution, or anything with .W [subjects and relations, answers].
        untrained: the circuit before training, e.g. of run.at(0).
        other: the circuit of another model, of another parameterisation of W_OV (OTHER) or of the same one,
            e.g. with another seed or recipe (SIBLING).
        random_seeds: baselines as in `OVCircuit.random_like`, one per seed.
        as_if_whole: compares the circuit of one expert as if every prompt had it; refused without.

    Raises:
        ModelError: a circuit of another model, one expert's, a baseline of another task, an `untrained` that
            has been trained, or an `other` with the same weights.
        ConfigError: a prediction of another shape or task, or one that is not finite or zero.
    """
    task = circuit.task
    if task is None:
        raise ModelError(
            "alignment needs to know which tokens are subjects, relations and answers: pass task=, a "
            'FactRecallTask with their names, and tokens={"r1": ..., "r2": ...} for the relations'
        )
    if isinstance(circuit.route, int) and not as_if_whole:
        raise ModelError(
            "a prediction is of all prompts of a task, got the circuit of one expert, number "
            f"{circuit.route}: align run.circuit, or where prompts are routed that of a prompt, "
            "OVCircuit.from_run(run, prompt=...)"
        )
    target = _predicted_matrix(prediction, task)
    frame = _Frame(task, target, _saddle_beside(prediction, task))
    found = [frame.compare(MEASURED, circuit.provenance.summary(), _part(circuit, task).W)]
    same_kind = other is not None and type(other.linear_map) is type(circuit.linear_map)
    for role, baseline in ((UNTRAINED, untrained), (SIBLING if same_kind else OTHER, other)):
        if baseline is not None:
            W = _part(baseline, task).W
            _check_role(role, baseline, circuit)
            if not W.any():
                raise ModelError(
                    f"a baseline must have an entry that is not zero, got an {role} circuit that is zero "
                    "throughout: leave it out"
                )
            found.append(frame.compare(role, baseline.provenance.summary(), W))
    for seed in random_seeds:
        drawn = random_circuit(_part(circuit, task), seed)
        found.append(frame.compare(RANDOM, f"{drawn.provenance.model}, seed {seed}", drawn.W))
    if frame.saddle is not None:
        source = "saddle_solution(task), where gradient descent goes from a small start"
        found.append(frame.compare(SADDLE, source, frame.saddle))
    found.append(frame.compare(PREDICTED, "the prediction itself", target))
    return AlignmentReport(
        provenance=circuit.effective.provenance,
        prediction=_describe(prediction),
        comparisons=tuple(found),
        vectors=vector_labels(task),
        predicted_cosines=frame.cosines,
        predicted_beta=found[-1].beta,
    )


def _check_role(role: str, given: OVMatrix, circuit: OVMatrix) -> None:
    """Requires that a baseline fits its role."""
    if role == UNTRAINED and given.provenance.step not in (0, None):
        raise ModelError(f"untrained must be a model at step 0, got step {given.provenance.step:,}")
    if role == SIBLING and given.provenance.fingerprint == circuit.provenance.fingerprint:
        raise ModelError(
            f"other must be another model, got the same weights {given.provenance.fingerprint}: pass a run "
            "of another seed, recipe or OV kind"
        )


class _Frame:
    """What is computed once for a prediction: its blocks, cosines, and the closed forms."""

    def __init__(
        self,
        task: FactRecallTask,
        target: Float[np.ndarray, "subject_or_relation answer"],
        saddle: Float[np.ndarray, "subject_or_relation answer"] | None,
    ) -> None:
        self.task, self.target, self.saddle = task, target, saddle
        self.masks, self.cosines = group_masks(task), all_cosines(target, task)
        self.spectrum = _spectrum(target, 1e-6)
        balanced = task.balanced_sizes is not None
        self.nuclear = solve(task, "nuclear").W if balanced else None
        self.frobenius = solve(task, "frobenius").W if balanced else None

    def compare(
        self, role: str, source: str, W: Float[np.ndarray, "subject_or_relation answer"]
    ) -> Comparison:
        beta = held_out_beta(W, self.task)
        scale = float(np.vdot(W, self.target) / np.vdot(self.target, self.target))
        cosines = all_cosines(W, self.task)
        return Comparison(
            role=role,
            source=source,
            cosine=_cosine(W, self.target),
            cosine_nuclear=_cosine(W, self.nuclear),
            cosine_frobenius=_cosine(W, self.frobenius),
            cosine_saddle=_cosine(W, self.saddle),
            scale=scale,
            beta=beta.projection,
            beta_margin=beta.margin,
            angles=block_angles(self.spectrum, _spectrum(W, 0.0), scale),
            groups=cosine_groups(cosines, self.cosines, self.masks),
            cosines=cosines,
        )


def _spectrum(W: Float[np.ndarray, "input output"], tolerance: float) -> Spectrum:
    return spectrum_of(np.eye(len(W)), W, tolerance)


def _cosine(W: Float[np.ndarray, "input output"], target: Float[np.ndarray, "input output"] | None) -> float:
    if target is None:
        return float("nan")
    return float(np.vdot(W, target) / (np.linalg.norm(W) * np.linalg.norm(target)))


def _part(circuit: OVMatrix, task: FactRecallTask) -> OVMatrix:
    """diag(a) W_OV of subjects and relations by answers."""
    if circuit.task != task:
        raise ModelError("a baseline must be of the same task as the circuit, got one of another task")
    rows, columns = task.labels[: task.noise_tokens.start], task.labels[task.n_inputs :]
    return circuit.effective.restrict(rows, columns)


def _predicted_matrix(
    prediction: Prediction, task: FactRecallTask
) -> Float[np.ndarray, "subject_or_relation answer"]:
    W = np.asarray(prediction.W, dtype=np.float64)
    wanted = (task.noise_tokens.start, task.n_answers)
    if W.shape != wanted or not _same_facts(getattr(prediction, "task", task), task):
        raise ConfigError(
            f"prediction.W must be [subjects and relations, answers] = {wanted} of the circuit's task, got "
            f"{W.shape}{'' if W.shape != wanted else ' of a task with other groups'}: "
            'predict with solve(run.task), outputs="answers", inputs="subject_relation"'
        )
    if not np.isfinite(W).all() or not W.any():
        raise ConfigError("prediction.W must be finite and not zero throughout")
    return W


def _same_facts(theirs: FactRecallTask, task: FactRecallTask) -> bool:
    """Whether two tasks have the same subjects, facts, implications and trained triples; noise may differ."""
    if theirs.implied_relations != task.implied_relations:
        return False
    names = ("subject_fact", "answer_of_fact", "told")
    return all(np.array_equal(getattr(theirs, name), getattr(task, name)) for name in names)


def _saddle_beside(
    prediction: Prediction, task: FactRecallTask
) -> Float[np.ndarray, "subject_or_relation answer"] | None:
    """The saddle's matrix beside a solution whose norm has one; else None."""
    norm = getattr(getattr(prediction, "found", prediction), "norm", None)  # the object: not all have names
    if norm is None or isinstance(prediction, SaddleSolution) or not has_saddle(task, norm):
        return None
    return saddle_solution(task).W


def _describe(prediction: Prediction) -> str:
    if isinstance(prediction, SaddleSolution):
        return "the saddle of rank n"
    norm = getattr(prediction, "norm", None)
    return f"the {norm}-norm max-margin solution" if norm else type(prediction).__name__
