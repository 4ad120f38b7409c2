"""Measurements and runs of language models as text for a terminal."""

from __future__ import annotations

from ocr_interp.llm.adapters import methods
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.measuring.intervals import clustered_interval
from ocr_interp.llm.measuring.measure import Measurement
from ocr_interp.llm.measuring.scoring import describe_scoring
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


def describe_finetuning(run: FinetuneRun) -> str:
    """What was trained, how long it took, and how the model answers before and after, as aligned text."""
    recipe = run.config.train
    first = (
        f"{recipe.model}: {run.status} at step {run.step:,} of {recipe.steps:,}, {recipe.method}, "
        f"{recipe.optimizer}, lr {recipe.lr:g}, batch {recipe.batch_size}, "
        f"control {run.config.facts.control}, loss {run.history['train_loss'].iloc[-1]:.4f}, "
        f"{run.seconds['train'] + run.seconds['measure']:.0f} s"
    )
    lines = [first, describe_measurement(run.facts, run.after, run.before)]
    if run.why_not_merged:
        lines.append(
            f"the update of {recipe.method!r} is not in the model's weights ({run.why_not_merged}): it is "
            "kept beside them, in run_dir/adapter; `ocr-interp llm evaluate` can ask it, `inspect` cannot"
        )
    row = {str(name): float(value) for name, value in run.history.iloc[-1].items()}
    lines += [f"note: {remark}" for remark in methods[recipe.method].remarks(recipe, row)]
    return "\n".join(lines)
