"""An analysis of a circuit as aligned text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ocr_interp.circuits.analysis import CircuitAnalysis
from ocr_interp.circuits.geometry.alignment import (
    MEASURED,
    OTHER,
    RANDOM,
    SADDLE,
    SIBLING,
    Comparison,
)
from ocr_interp.circuits.geometry.cosine_groups import CHECKS, RECALL
from ocr_interp.viz.text.undefined import Numbers

MOST_BLOCKS = 8
"""Number of degenerate blocks that are listed; the rest are only counted."""

NO_COMMON_DIRECTION = 0.1
"""Cosine with the prediction below which measured values are not scaled to its size."""

_KIND = 20


def describe_analysis(found: CircuitAnalysis) -> str:
    """All sections; numbers are in logits unless a heading says otherwise."""
    numbers = Numbers()
    sections = (
        _head(found),
        _energy(found),
        _spectrum(found, numbers),
        _attention(found),
        _alignment(found, numbers),
        _checks(found, numbers),
    )
    notes = [*numbers.notes, *(f"note: {text}" for text in found.notes)]
    return "\n\n".join("\n".join(section) for section in (*sections, notes))


def _head(found: CircuitAnalysis) -> list[str]:
    circuit = found.circuit
    rows = circuit.subjects_and_relations
    return [
        circuit.provenance.summary(),
        f"diag(a) W_OV, {len(circuit.inputs)} inputs x {len(circuit.outputs)} answers:",
        f"  all inputs               {circuit.norms.summary()}",
        f"  subjects and relations   {rows.norms.summary()}",
        *(f"  random weights           {each.norms.summary()}" for each in found.random[:1]),
        *(f"{c.role}: {c.source}" for c in found.alignment.comparisons if c.role in (OTHER, SIBLING)),
    ]


def _energy(found: CircuitAnalysis) -> list[str]:
    energy = found.circuit.energy
    columns = [k for k, name in enumerate(energy.columns) if energy.counts[:, k].any()]
    lines = ["share of energy (mean entry) by kind of token"]
    lines.append(" " * _KIND + "".join(f"{energy.columns[k]:>20}" for k in columns))
    for name, shares, means, counts in zip(
        energy.rows, energy.shares, energy.means, energy.counts, strict=True
    ):
        if not counts.any():  # noise of a run without noise
            continue
        cells = [
            f"{100 * shares[k]:8.2f}% {f'({means[k]:.2g})':>10}" if counts[k] else f"{'-':>20}"
            for k in columns
        ]
        lines.append(f"{name:{_KIND}}" + "".join(cells))
    if found.random:
        lines.append(f"the same of random weights, mean of {len(found.random)} seeds")
        drawn = np.mean([each.energy.shares for each in found.random], axis=0)
        for name, shares, counts in zip(energy.rows, drawn, energy.counts, strict=True):
            if not counts.any():
                continue
            cells = [f"{100 * shares[k]:8.2f}%{'':11}" if counts[k] else f"{'-':>20}" for k in columns]
            lines.append(f"{name:{_KIND}}" + "".join(cells).rstrip())
    return lines


def _spectrum(found: CircuitAnalysis, numbers: Numbers) -> list[str]:
    spectrum = found.spectrum
    lines = [
        f"singular values of subjects and relations, blocks at tolerance {spectrum.tolerance:g}",
        f"{'block':>6}{'size':>6}{'mean':>11}{'largest':>11}{'smallest':>11}",
    ]
    lines += [
        f"{b.index:6}{b.multiplicity:6}{b.value:11.5g}{b.values[0]:11.5g}{b.values[-1]:11.5g}"
        for b in spectrum.blocks[:MOST_BLOCKS]
    ]
    rest = spectrum.blocks[MOST_BLOCKS:]
    if rest:
        count = sum(b.multiplicity for b in rest)
        lines.append(f"   ... {len(rest)} more blocks with {count} values from {rest[0].values[0]:.5g} down")
    if found.parts:
        lines.append("by the parts that the theory names")
        lines += [
            f"  {p.name:28} mean {p.values.mean():.5g}, {p.values[0]:.5g} to {p.values[-1]:.5g}"
            for p in found.parts
        ]
    lines.append(
        f"predicted blocks ({found.norm} norm), measured values scaled to its size, angles in degrees"
    )
    lines.append(f"{'size':>12}{'predicted':>11}{'measured':>11}{'worst input':>13}{'worst output':>13}")
    measured = found.alignment.measured
    for a in measured.angles:
        value, why_not = _mean(a.measured_values), "the circuit has fewer directions than the prediction"
        if not measured.cosine > NO_COMMON_DIRECTION:
            value, why_not = np.nan, f"with a cosine of {measured.cosine:.2f}, sizes cannot be compared"
        why_not = f"no measured value: {why_not}"
        absent = "*" if len(a.measured_values) < a.multiplicity else " "
        lines.append(
            f"{a.multiplicity:12}{a.predicted_value:11.5g}{numbers.show(value, '11.5g', why_not)}"
            f"{a.input_angles.max():13.1f}{absent}{a.output_angles.max():12.1f}{absent}".rstrip()
        )
    if any(len(a.measured_values) < a.multiplicity for a in measured.angles):
        rank, wanted = found.circuit.subjects_and_relations.rank, sum(a.multiplicity for a in measured.angles)
        lines.append(
            f"  * 90 degrees for want of a direction: the circuit has rank {rank}, the prediction {wanted}"
        )
    return lines


def _attention(found: CircuitAnalysis) -> list[str]:
    a = found.attention
    lines = [
        f"what EOS attends to ({a.attention} attention)",
        f"{'':{_KIND}}{'mean score':>12}{'spread':>10}{'mean |a|':>10}{'in a prompt':>13}{'share':>9}",
    ]
    for k, kind in enumerate(a.kinds):
        if np.isnan(a.mean_score[k]) or not a.tokens_in_prompt[k]:
            continue
        lines.append(
            f"{kind:{_KIND}}{a.mean_score[k]:12.4g}{a.std_score[k]:10.3g}{a.mean_size[k]:10.4g}"
            f"{a.tokens_in_prompt[k]:13.3g}{100 * a.share[k]:8.1f}%"
        )
    return lines


def _alignment(found: CircuitAnalysis, numbers: Numbers) -> list[str]:
    report = found.alignment
    unequal = "no cosine: the closed forms are of tasks with equal groups, these are unequal"
    neither = "no beta: it compares held-out with training implications, and one of them is missing or zero"
    with_saddle = bool(report.of_role(SADDLE))
    saddle = f"{'with saddle':>13}" if with_saddle else ""
    lines = [
        f"alignment with {report.prediction} (it), subjects and relations by answers",
        f"{'cosine of W':{_KIND}}{'with it':>9}{'with nuclear':>14}{'with frobenius':>16}{saddle}{'beta':>9}"
        f"{'by margins':>12}",
    ]
    for c in report.comparisons:
        name = c.role if c.role == MEASURED or c.role != RANDOM else f"random, seed {c.source.split()[-1]}"
        lines.append(
            f"{name:{_KIND}}{c.cosine:9.4f}{numbers.show(c.cosine_nuclear, '14.4f', unequal)}"
            f"{numbers.show(c.cosine_frobenius, '16.4f', unequal)}"
            f"{f'{c.cosine_saddle:13.4f}' if with_saddle else ''}{numbers.show(c.beta, '9.4f', neither)}"
            f"{numbers.show(c.beta_margin, '12.4f', neither)}"
        )
    return lines


def _checks(found: CircuitAnalysis, numbers: Numbers) -> list[str]:
    report = found.alignment
    others = [c for c in report.comparisons if c.role not in (MEASURED, RANDOM, "prediction")]
    named = [("measured", [report.measured]), *((c.role, [c]) for c in others)]
    named.append(("random", list(report.of_role(RANDOM))))
    lines = [
        "the paper's geometry: mean cosines of balanced embeddings",
        f"{'':{_KIND + 12}}{'predicted':>10}" + "".join(f"{name:>15}" for name, _ in named),
    ]
    for name in (*CHECKS, *RECALL):
        group = report.measured.group(name)
        if group.count:
            zero = "no cosine: an embedding is zero"
            cells = "".join(numbers.show(_mean_of(circuits, name), "15.3f", zero) for _, circuits in named)
            lines.append(f"{_SHOWN[name]:{_KIND + 12}}{numbers.show(group.predicted, '10.3f', zero)}" + cells)
    if found.span is not None:
        span = found.span
        lines.append(
            f"held-out subjects' images inside the span of the training subjects': {100 * span.mean:.1f}% "
            f"(a random vector: {100 * span.random_share:.1f}%)"
        )
    if found.imbalance is not None:
        lines.append(f"imbalance of the factors W_V, W_O (0 = balanced, at most 2): {found.imbalance:.3g}")
    return lines


_SHOWN = {
    "relations": "r1 with r2",
    "train_relation": "training subjects with r1",
    "held_out_relation": "held-out subjects with r1",
    "fact_train": "training s + r1 with its b",
    "fact_held_out": "held-out s + r1 with its b",
    "implication_train": "training s + r2 with its c",
    "implication_held_out": "held-out s + r2 with its c",
}


def _mean_of(circuits: Sequence[Comparison], name: str) -> float:
    return _mean(np.array([c.group(name).mean for c in circuits]))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
