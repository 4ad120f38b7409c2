"""Many interventions x splits x metrics -> one tidy table, with matched random controls."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.controls import EQUAL_NORM, RANDOM, matched_controls
from ocr_interp.ablation.metrics import METRICS, examples, split_metrics
from ocr_interp.ablation.spec import Intervention
from ocr_interp.checks import check_count
from ocr_interp.circuits.provenance import fingerprint_of
from ocr_interp.errors import InterventionNeverFiredError, OcrInterpError, RunError, unknown_name
from ocr_interp.task import SPLITS
from ocr_interp.training.files import write_atomic
from ocr_interp.training.runs import Snapshot

BASELINE, NO_CONTROL = "none", "intervention"
"""Name of the unablated model in column `spec`, and of the intervention itself in column `control`."""

KEYS = ("study", "spec", "description", "control", "seed", "split")
"""Columns that say what a row is; the metrics follow. `study` is the fingerprint of weights and data."""


@dataclass(frozen=True)
class AblationStudy:
    """What `run_ablation_study` found.

    Attributes:
        table: a row a (spec, control, seed, split): columns KEYS and the metrics, in the units of
            `ablation.metrics`. Spec "none" is the model as it is. A control that chose nothing that the
            examples hold is NaN throughout.
        fingerprint: of weights, step and examples; the column `study`.
        step: updates that the weights had seen.
        metrics: names of the measured columns.
    """

    table: pd.DataFrame = field(repr=False)
    fingerprint: str
    step: int
    metrics: tuple[str, ...]

    def by_split(self, metric: str, control: str = NO_CONTROL) -> pd.DataFrame:
        """Mean over seeds of one metric: a row a spec, a column a split.

        Raises:
            UnknownNameError: a metric or control that the study does not have.
        """
        if metric not in self.metrics:
            raise unknown_name("metric", metric, self.metrics)
        if control not in (NO_CONTROL, RANDOM, EQUAL_NORM):
            raise unknown_name("control", control, (NO_CONTROL, RANDOM, EQUAL_NORM))
        rows = self.table.loc[self.table["control"] == control]
        found = rows.pivot_table(index="spec", columns="split", values=metric, sort=False, dropna=False)
        return found.reindex(columns=[split for split in SPLITS if split in found.columns])


Specs = Mapping[str, Intervention | Sequence[Intervention]]


def run_ablation_study(
    run: Snapshot,
    specs: Specs,
    metrics: Sequence[str] = METRICS,
    *,
    seeds: Sequence[int] = (0,),
    controls: bool = True,
    path: Path | None = None,
    progress: bool | None = None,
    eval_draws: int = 4,
) -> AblationStudy:
    """Measures a fact-recall model under each of many interventions, beside matched random controls.

    Everything is measured on run.model: every triple of the task without noise, or `eval_draws` noisy
    sequences of each where the run was trained with noise. Specs run one after the other: an
    evaluation of these small models is far shorter than the seconds a worker process takes to import torch.

    Args:
        run: a Run or Snapshot.
        specs: name -> intervention, or several to be applied together (a control is then drawn for each
            that has one).
        metrics: names from METRICS.
        seeds: of the noise of the examples, and of the random controls; one table holds them all.
        controls: whether each spec is measured beside `matched_controls` too.
        path: a CSV file, rewritten whole after each evaluation; what it holds already is not measured
            again.
        progress: a bar on stderr; None shows one in a terminal.
        eval_draws: noisy sequences of each triple.

    Returns: one tidy table.

    Raises:
        UnknownNameError: an unknown metric, hook or token, with the close matches.
        InterventionNeverFiredError: a spec that changed nothing (a control that does is NaN).
        RunError: a file at `path` of another model, of other examples, or with other columns.
    """
    _check_arguments(specs, seeds, eval_draws)
    wanted = tuple(dict.fromkeys(metrics))
    split_metrics(run.task, torch.zeros(1, run.task.d_vocab), _FIRST, wanted)  # names are checked first
    study = _fingerprint(run, eval_draws)
    rows = _read(path, study, wanted)
    plan = [(name, spec, seed) for seed in seeds for name, spec in {BASELINE: (), **specs}.items()]
    with _bar(len(plan), progress) as advance:
        for name, spec, seed in plan:
            parts = tuple(spec) if isinstance(spec, Sequence) else (spec,)
            for control, drawn in _variants(run, parts, seed, controls):
                key = {"study": study, "spec": name, "description": _described(parts)}
                key |= {"control": control, "seed": seed}
                if _missing(rows, key):
                    rows += _evaluate(run, drawn, key, wanted, eval_draws)
                    _write(path, rows, wanted)
            advance()
    table = pd.DataFrame(rows, columns=[*KEYS, *wanted])
    asked = {(n, _described(tuple(s) if isinstance(s, Sequence) else (s,)), k) for n, s, k in plan}
    kept = [key in asked for key in zip(table["spec"], table["description"], table["seed"], strict=True)]
    return AblationStudy(table.loc[kept].reset_index(drop=True), study, run.step, wanted)


_FIRST = torch.zeros(1, dtype=torch.long).numpy()


def _check_arguments(specs: Specs, seeds: Sequence[int], eval_draws: int) -> None:
    check_count("eval_draws", eval_draws, 1)
    if not specs or not seeds:
        raise OcrInterpError(f"a study needs specs and seeds, got {len(specs)} and {len(seeds)}")
    if BASELINE in specs:
        raise OcrInterpError(f"{BASELINE!r} names the model as it is: give that spec another name")
    for name, spec in specs.items():
        parts = tuple(spec) if isinstance(spec, Sequence) else (spec,)
        if not parts or not all(isinstance(part, Intervention) for part in parts):
            raise OcrInterpError(f"spec {name!r} must be an intervention or several, got {spec!r}")


def _described(parts: tuple[Intervention, ...]) -> str:
    """The specs in words, shortened to a digest where there are many tokens."""
    text = " + ".join(part.describe() for part in parts) or "as it is"
    return text if len(text) <= 80 else f"{text[:60]}… {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _variants(
    run: Snapshot, parts: tuple[Intervention, ...], seed: int, controls: bool
) -> Iterator[tuple[str, tuple[Intervention, ...]]]:
    """The intervention itself, then its controls."""
    yield NO_CONTROL, parts
    if not controls or not parts:
        return
    task = run.task
    length = task.seq_len if _noisy(run) else 3
    drawn = [
        matched_controls(part, run.model, seed + k, range(task.n_inputs), task.answer_tokens, length)
        for k, part in enumerate(parts)
    ]
    for name in (RANDOM, EQUAL_NORM):
        if any(name in found for found in drawn):
            yield name, tuple(f.get(name, f.get(RANDOM, p)) for f, p in zip(drawn, parts, strict=True))


def _evaluate(
    run: Snapshot,
    parts: tuple[Intervention, ...],
    key: dict[str, Any],
    metrics: tuple[str, ...],
    eval_draws: int,
) -> list[dict[str, Any]]:
    """One evaluation: a row a split."""
    tokens, triple = examples(run.task, _noisy(run), int(key["seed"]), eval_draws)
    try:
        with torch.no_grad():
            if parts:
                with ablated(run.model, *parts, labels=run.task.labels):
                    logits = run.model(tokens)[:, -1]
            else:
                logits = run.model(tokens)[:, -1]
        found = split_metrics(run.task, logits, triple, metrics)
    except InterventionNeverFiredError:
        if key["control"] == NO_CONTROL:
            raise
        present = {SPLITS[k] for k in run.task.triples.split}
        found = {split: dict.fromkeys(metrics, float("nan")) for split in SPLITS if split in present}
    return [{**key, "split": split, **values} for split, values in found.items()]


def _noisy(run: Snapshot) -> bool:
    return run.config.train.data != "noise_free" and run.task.seq_len > 3


def _fingerprint(run: Snapshot, eval_draws: int) -> str:
    """Of the weights and of what they are measured on."""
    said = f"{run.config.task.to_dict()} {run.config.model} step {run.step} {_noisy(run)} {eval_draws}"
    return hashlib.sha256(f"{said} {fingerprint_of(run.weights.tensors())}".encode()).hexdigest()[:16]


# --- the file ------------------------------------------------------------------------------------


def _missing(rows: list[dict[str, Any]], key: dict[str, Any]) -> bool:
    return not any(all(row[name] == value for name, value in key.items()) for row in rows)


def _read(path: Path | None, study: str, metrics: tuple[str, ...]) -> list[dict[str, Any]]:
    if path is None or not path.exists():
        return []
    try:
        table = pd.read_csv(path, dtype="str", keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is no table of a study ({error}): move it away") from None
    columns = [*KEYS, *metrics]
    if list(table.columns) != columns:
        raise RunError(
            f"{path} must have the columns {columns}, got {list(table.columns)}: choose another path, or the "
            "same metrics in the same order"
        )
    others = sorted(set(table["study"]) - {study})
    if others:
        raise RunError(
            f"{path} is of study {others[0]}, this one is {study} (other weights, step, task or eval_draws): "
            "choose another path, or delete the file"
        )
    numbers: Any = {"seed": int} | dict.fromkeys(metrics, float)  # Python's own reading gives every bit back
    try:
        return [{str(k): numbers.get(k, str)(v) for k, v in row.items()} for row in table.to_dict("records")]
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): delete it and run the study again") from None


def _write(path: Path | None, rows: list[dict[str, Any]], metrics: tuple[str, ...]) -> None:
    if path is None:
        return
    buffer = io.StringIO()
    pd.DataFrame(rows, columns=[*KEYS, *metrics]).to_csv(buffer, index=False, na_rep="nan")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue().encode())


@contextmanager
def _bar(total: int, progress: bool | None) -> Iterator[Any]:
    """A progress bar on stderr; gives the function that moves it on."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (console.is_terminal if progress is None else progress):
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(console=console) as bar:
        shown = bar.add_task("ablations", total=total)
        yield lambda: bar.advance(shown)
