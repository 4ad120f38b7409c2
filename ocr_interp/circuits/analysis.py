"""All measurements of one fact-recall circuit: what `ocr-interp analyze` prints and writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ocr_interp.circuits.attention.by_kind import AttentionByKind
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.circuits.geometry.alignment import AlignmentReport, align
from ocr_interp.circuits.geometry.answer_blocks import AnswerBlock, answer_blocks, has_blocks
from ocr_interp.circuits.geometry.embeddings import SpanShare, held_out_span
from ocr_interp.linalg.spectrum import Spectrum
from ocr_interp.linalg.vectors import factor_imbalance
from ocr_interp.maps.routed import Routed
from ocr_interp.models.trained import TrainedModel
from ocr_interp.storage.plain import plain
from ocr_interp.theory import has_saddle, solve
from ocr_interp.theory.norms import Norm, as_norm

COMPARED = "nuclear"
"""Norm of the solution that a parameterisation is compared with if it makes no known norm small."""

_FROM_ZERO = (
    "W_OV is 0 before training (LoRA starts with B = 0): there is no untrained circuit to compare with"
)

SCHEMA, SCHEMA_VERSION = "ocr-interp/circuit-analysis", 1


@dataclass(frozen=True)
class CircuitAnalysis:
    """One circuit of a fact-recall model: energy by block, spectrum, and distance from the prediction.

    Attributes:
        ov: name of the parameterisation of W_OV.
        circuit: diag(a) W_OV, all inputs by answers; of a run trained without noise, without noise tokens.
        random: random circuits like it (`OVCircuit.random_like`), one per seed.
        spectrum: of its rows of subjects and relations, in degenerate blocks.
        parts: relation block and pair patterns; none for unbalanced tasks.
        attention: what EOS attends to.
        alignment: with the prediction, beside its baselines.
        norm: of the prediction, its name: "nuclear", "frobenius", "kronecker", ...
        span: how much of the held-out subjects' images lies in the span of the training subjects'; None if
            the task lacks either kind.
        imbalance: of the trained factors (`factor_imbalance`, over the whole vocabulary); None for a
            non-factorized model.
        notes: what to keep in mind when measured and predicted are compared.
    """

    ov: str
    circuit: OVCircuit = field(repr=False)
    random: tuple[OVCircuit, ...] = field(repr=False)
    spectrum: Spectrum = field(repr=False)
    parts: tuple[AnswerBlock, ...] = field(repr=False)
    attention: AttentionByKind = field(repr=False)
    alignment: AlignmentReport = field(repr=False)
    norm: str
    span: SpanShare | None = field(repr=False)
    imbalance: float | None
    notes: tuple[str, ...] = field(repr=False)

    def to_json(self) -> str:
        """Every number with all its digits, as JSON with a schema version; what is undefined is null."""
        relevant = self.circuit.subjects_and_relations
        content = {
            "schema": SCHEMA,
            "version": SCHEMA_VERSION,
            "ov": self.ov,
            "provenance": self.circuit.provenance,
            "unit": "logits, of diag(a) W_OV",
            "matrix": {
                "inputs": self.circuit.inputs.labels,
                "outputs": self.circuit.outputs.labels,
                "values": self.circuit.W,
            },
            "norms": {"all_inputs": self.circuit.norms, "subjects_and_relations": relevant.norms},
            "energy": self.circuit.energy,
            "random": [
                {
                    "source": each.provenance.summary(),
                    "norms": each.norms,
                    "energy_shares": each.energy.shares,
                    "singular_values": each.singular_values,
                }
                for each in self.random
            ],
            "spectrum": {
                "tolerance": self.spectrum.tolerance,
                "blocks": [{"values": block.values} for block in self.spectrum.blocks],
            },
            "parts": [{"name": part.name, "values": part.values} for part in self.parts],
            "attention": self.attention,
            "norm": self.norm,
            "alignment": self._alignment(),
            "held_out_span": self.span,
            "imbalance": self.imbalance,
            "notes": self.notes,
        }
        return json.dumps(plain(content), ensure_ascii=False, allow_nan=False) + "\n"

    def _alignment(self) -> dict[str, Any]:
        """The report without the pairwise cosines of the baselines, which would be most of the file."""
        report = self.alignment
        compared = [
            {f.name: getattr(c, f.name) for f in dataclasses.fields(c) if f.name != "cosines"}
            for c in report.comparisons
        ]
        return {
            "prediction": report.prediction,
            "predicted_beta": report.predicted_beta,
            "comparisons": compared,
            "vectors": report.vectors,
            "cosines": report.measured.cosines,
            "predicted_cosines": report.predicted_cosines,
        }


def analyze_run(
    run: TrainedModel,
    *,
    norm: str | None = None,
    other: TrainedModel | None = None,
    untrained: TrainedModel | None = None,
    tolerance: float = 0.05,
    random_seeds: Sequence[int] = (0, 1, 2),
    expert: int | None = None,
) -> CircuitAnalysis:
    """Everything that is measured on the circuit of a fact-recall model.

    Args:
        run: a Run or Snapshot.
        norm: of the max-margin solution to compare with, any of `theory.norms`; None is the one that the
            model's parameterisation makes small: nuclear for a factorized model, frobenius for a
            non-factorized one.
        other: another model of the same task, as a baseline: of the same OV kind or of another one.
        untrained: the model before training; None takes run.at(0) where there is one.
        tolerance: of degenerate blocks, see `OVCircuit.spectrum`.
        random_seeds: seeds of the random baselines, one baseline per seed.
        expert: of routed experts, whose circuit is measured, also of `untrained` and of an `other` with
            experts.

    Raises:
        ModelError: `other` is of another task, or has the same weights.
        SolverError: an unbalanced task whose prediction was not found.
    """
    linear_map = run.weights.linear_map
    whole = OVCircuit.from_run(run, expert=expert)
    circuit = whole.seen
    relevant = circuit.subjects_and_relations
    spectrum = relevant.spectrum(tolerance)  # a bad tolerance is reported before anything is solved
    if untrained is None:
        untrained = run.untrained
    before = _baseline(untrained, expert)
    at_zero = before is not None and not before.W.any()
    of_expert = run.of_route(expert).weights.linear_map
    chosen = as_norm(norm or of_expert.norm or COMPARED)
    report = align(
        whole,
        solve(run.task, chosen),
        untrained=None if at_zero else before,
        other=_baseline(other, expert),
        random_seeds=random_seeds,
        as_if_whole=expert is not None,
    )
    both = run.task.subject_trained.any() and not run.task.subject_trained.all()
    return CircuitAnalysis(
        ov=linear_map.name,
        circuit=circuit,
        random=tuple(circuit.random_like(seed) for seed in random_seeds),
        spectrum=spectrum,
        parts=answer_blocks(relevant) if has_blocks(run.task) else (),
        attention=whole.attention_by_kind,
        alignment=report,
        norm=chosen.name,
        span=held_out_span(relevant) if both else None,
        imbalance=_imbalance(run, expert) if of_expert.has_factors else None,
        notes=(*_notes(run, chosen, expert), *([_FROM_ZERO] if at_zero else [])),
    )


def _baseline(model: TrainedModel | None, expert: int | None) -> OVCircuit | None:
    """The circuit of a baseline: of the same expert, if it has experts."""
    if model is None:
        return None
    has_experts = isinstance(model.weights.linear_map, Routed)
    return OVCircuit.from_run(model, expert=expert if has_experts else None)


def _imbalance(run: TrainedModel, expert: int | None) -> float:
    vocabulary = OVCircuit.from_run(run, outputs="vocabulary", raw=True, expert=expert)
    return factor_imbalance(vocabulary.left, vocabulary.right)


def _notes(run: TrainedModel, norm: Norm, expert: int | None) -> tuple[str, ...]:
    model, task = run.config.model, run.task
    said = ["the prediction is the max-margin solution; docs/theory.md says how training relates to it"]
    saddle = run.saddle if has_saddle(task, norm) else None
    if saddle is not None:
        seen = "attention trained" if saddle.attention == "trained" else "EOS in every prompt"
        said.append(
            f"a small start goes to the saddle, not to the prediction; with {seen} the saddle's beta is "
            f"{saddle.beta:.4f}"
        )
    if task.n_noise and not run.config.has_noise:
        said.append("trained without noise: noise tokens, which no prompt holds, are left out")
    if run.config.train.weight_decay:
        said.append("trained with weight decay, an explicit norm penalty: no evidence of implicit bias")
    if model.attention != "linear":
        said.append("the prediction is for linear attention; here a = exp(score), each prompt normalised")
    elif model.train_attention and task.balanced_sizes is not None and min(task.balanced_sizes) > 0:
        several = task.implied_relations > 1
        trained = None if several else norm.beta_with_trained_attention(*task.balanced_sizes[1:])
        if trained is None:
            said.append("attention was trained: the prediction is for frozen attention")
        elif trained[0] < trained[1]:
            said.append(
                f"attention was trained: the max-margin beta is then between {trained[0]:.4f} and "
                f"{trained[1]:.4f}; the prediction is for frozen attention"
            )
    if expert is not None:
        said.append(
            f"expert {expert} alone, as if every prompt and token had it; the prediction, beta and cosines "
            "are for one W_OV: of relations that it never sees they say nothing"
        )
    elif run.weights.linear_map.norm is None:
        said.append(
            f"no norm is known that a {model.linear_map.name} W_OV makes small: {norm.name} is for "
            "comparison, and so is a saddle beside it"
        )
    return tuple(said)
