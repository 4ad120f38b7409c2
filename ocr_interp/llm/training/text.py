"""Measurements and runs of language models as text for a terminal."""

from __future__ import annotations

import math

from ocr_interp.errors import ConfigError, RunError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.measuring.intervals import clustered_interval
from ocr_interp.llm.measuring.measure import Measurement
from ocr_interp.llm.measuring.scoring import describe_scoring
from ocr_interp.llm.measuring.table import LogitTable
from ocr_interp.llm.training.run import FinetuneRun
from ocr_interp.task import SPLITS


def describe_measurement(facts: FactSet, found: Measurement, before: Measurement | None = None) -> str:
    """Mean rank with its interval, top-1 and log-probability of every split, as aligned text."""
    kind = {True: "causal", False: "not causal", None: "own facts"}[facts.causal]
    lines = [
        f"{facts.name} ({kind}): {len(facts.facts)} facts, {len(facts.implications)} implications, "
        f"{facts.n_subjects} names, {sum(facts.trained)} of them training names",
        f"{'':24}{'told':>6}{'rank':>8}{'95 % interval':>16}{'top-1':>8}{'log p':>8}"
        + (f"{'rank before':>14}" if before else ""),
    ]
    for split in SPLITS:
        if not facts.count(split):
            continue
        examples = [e for e in facts.test_examples if SPLITS[e.split] == split]
        interval = clustered_interval([found], split)
        lines.append(
            f"{split.replace('_', ' '):24}{'yes' if examples[0].told else 'no':>6}{interval.mean:8.2f}"
            f"{f'{interval.low:.2f} to {interval.high:.2f}':>16}{found.mean(split, 'top1'):8.2f}"
            f"{found.mean(split, 'logprob'):8.2f}" + (f"{before.mean(split, 'rank'):14.2f}" if before else "")
        )
    chance = (len(facts.implications) - 1) / 2
    lines.append(
        f"rank 0 is best, chance {chance:g} for implications; the interval draws pairs, then names: with "
        f"{len(facts.facts)} pairs an indication"
    )
    lines.append(describe_scoring(found.scoring))
    return "\n".join(lines)


def describe_answers(table: LogitTable) -> str:
    """Whose answers are first, calibrated ranks and the contrast of the pairing, at the last measurement."""
    lines = [f"{'whose answer is first':24}{'told':>8}{'pretrained':>12}{'other':>8}{'tied':>8}   by chance"]
    beside = []
    for split in SPLITS:
        own = table.answers(split)
        if not len(own.target):
            continue
        name, first = split.replace("_", " "), own.first_answers()
        chance = " / ".join(f"{share:.2f}" for share in first.chance)
        lines.append(
            f"{name:24}{first.told:8.2f}{_or_dash(first.pretrained):>12}{first.other:8.2f}{first.tied:8.2f}"
            f"   {chance}"
        )
        if len(own.unseen):
            beside.append(f"{name} {own.calibrated().mean_rank:.2f}")
    if beside:
        lines.append(f"mean rank, calibrated on unseen names: {', '.join(beside)}")
    try:
        found = table.answers("held_out_implication").pairing()
    except ConfigError as error:
        lines.append(f"no contrast of the pairing of held-out implications: {error}")
    else:
        lines.append(
            f"held-out implications: the pairing stands out by {found.nats:.2f} nats, p = {found.p:.3f} of "
            f"{found.n_assignments:,} assignments"
        )
    return "\n".join(lines)


def _or_dash(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def describe_finetuning(run: FinetuneRun) -> str:
    """What was trained, how long it took, and how the model answers before and after, as aligned text."""
    recipe = run.config.train
    first = (
        f"{recipe.model}: {run.status} at step {run.step:,} of {recipe.steps:,}, {recipe.method}, "
        f"{recipe.optimizer}, lr {recipe.lr:g}, batch {recipe.batch_size}, "
        f"control {run.config.facts.control}, loss {run.history['train_loss'].iloc[-1]:.4f}, "
        f"{run.seconds['train'] + run.seconds['measure']:.0f} s"
    )
    lines = [first, describe_measurement(run.facts, run.after, run.before), *_recorded(run)]
    if run.why_not_merged:
        lines.append(
            f"the update of {recipe.method!r} is not in the model's weights ({run.why_not_merged}): it is "
            "kept beside them, in run_dir/adapter; `ocr-interp llm evaluate` can ask it, `inspect` cannot"
        )
    row = {str(name): float(value) for name, value in run.history.iloc[-1].items()}
    lines += [f"note: {remark}" for remark in methods[recipe.method].remarks(recipe, row)]
    return "\n".join(lines)


def _recorded(run: FinetuneRun) -> list[str]:
    """What the run recorded beside ranks: whose answers are first, and how far the weights moved."""
    try:
        lines = [describe_answers(run.logits)]
    except RunError as error:
        lines = [f"note: {error}"]
    moved = run.movement
    unknown = f"how far the weights moved is not known: {moved}"
    return [*lines, unknown if isinstance(moved, str) else moved.summary()]
