"""Ablation studies: interventions x splits x metrics in one tidy table, with matched random controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.controls import RANDOM, Draw
from ocr_interp.ablation.edits.base import Intervention
from ocr_interp.ablation.examples import Examples
from ocr_interp.ablation.metrics import Metric, check_metrics, identity_of, measure
from ocr_interp.ablation.studied import StudiedModel, examples_by_seed, studied_model
from ocr_interp.ablation.study_table import KEYS, TOUCHED, StudyRows, read_rows
from ocr_interp.ablation.where.site import Site
from ocr_interp.checks import check_count
from ocr_interp.errors import (
    InterventionNeverFiredError,
    ModelError,
    OcrInterpError,
    UnknownNameError,
    unknown_name,
)
from ocr_interp.hooked.alone import length_told
from ocr_interp.hooked.passes import own_run
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.running.progress import Show, progress_bar
from ocr_interp.storage.digests import digest_of
from ocr_interp.storage.notebooks import ShownAsTable
from ocr_interp.storage.seals import SEAL
from ocr_interp.training.run import Snapshot

BASELINE, NO_CONTROL = "none", "intervention"
"""Name of the unablated model in column `spec`, and of the intervention itself in column `control`."""


@dataclass(frozen=True)
class AblationStudy(ShownAsTable):
    """The result of `run_ablation_study`.

    Attributes:
        table: one row per (spec, control, seed, split): columns KEYS, "touched" (number of edited positions
            per prompt, mean over the split) and the metrics, in the units of `ablation.metrics`. Spec "none"
            is the model without interventions. A control that is impossible with the examples or its
            reference is NaN.
        fingerprint: digest of weights, step, examples and custom metrics; the column `study`.
        step: number of updates of the weights; None if the model is not a Run.
        metrics: names of the measured columns.
        splits: names of the splits.
    """

    table: pd.DataFrame = field(repr=False)
    fingerprint: str
    step: int | None
    metrics: tuple[str, ...]
    splits: tuple[str, ...]

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls in the table, in order of appearance; closer matches come later."""
        return tuple(name for name in dict.fromkeys(self.table["control"]) if name != NO_CONTROL)

    def by_split(self, metric: str, control: str = NO_CONTROL) -> pd.DataFrame:
        """Mean over seeds of one metric: one row per spec, one column per split.

        Raises:
            UnknownNameError: the study has no such metric, or has not measured this control.
        """
        if metric not in self.metrics:
            raise unknown_name("metric", metric, self.metrics)
        if control not in (known := (NO_CONTROL, *self.controls)):
            error = unknown_name("control that this study measured", control, known)
            none = f"; it was measured with controls=False: run it with controls, such as {RANDOM!r}"
            raise UnknownNameError(f"{error}{'' if self.controls else none}")
        rows = self.table.loc[self.table["control"] == control]
        found = rows.pivot_table(index="spec", columns="split", values=metric, sort=False, dropna=False)
        return found.reindex(columns=[split for split in self.splits if split in found.columns])


def read_ablation_study(path: Path | str) -> AblationStudy:
    """A study as its file holds it, with all metrics that every row has; its step is not in the file.

    Raises:
        RunError: no such file, no table of one study, damaged, or changed.
    """
    fingerprint, rows = read_rows(Path(path))
    metrics = [name for name in rows[0] if name not in (*KEYS, TOUCHED) and all(name in row for row in rows)]
    table = pd.DataFrame(rows, columns=[*KEYS, TOUCHED, *metrics])
    return AblationStudy(table, fingerprint, None, tuple(metrics), tuple(dict.fromkeys(table["split"])))


Specs = Mapping[str, Intervention | Sequence[Intervention]]


def run_ablation_study(
    model: Snapshot | HookedModel,
    specs: Specs,
    metrics: Sequence[str] | None = None,
    *,
    examples: Examples | None = None,
    custom_metrics: Mapping[str, Metric] | None = None,
    seeds: Sequence[int] = (0,),
    controls: bool = True,
    path: Path | str | None = None,
    progress: Show = None,
    eval_draws: int = 4,
    batch_size: int | None = None,
) -> AblationStudy:
    """Measures a model under each of many interventions, beside matched random controls.

    A Run is measured on every triple of its task: without noise, or on `eval_draws` noisy sequences per
    triple if it was trained with noise. Any HookedTransformer or TransformerBridge is measured on
    `examples`. The model is run in eval mode, and each module gets its own mode back.

    Specs run one after the other, because parallel runs gain little: on two busy cores, two
    threads, each with a copy of the model, took 1.2 times as long for the fact-recall model and 0.9 times for
    a 6-layer one; two processes took 0.9 and 1.3 times, and most of a minute to start
    (benchmarks/bench_ablation.py).

    Args:
        model: a Run or Snapshot, or a hooked model.
        specs: name -> intervention, or several that are applied together (each that has a control is then
            replaced by it).
        metrics: names from METRICS; None is all that the examples allow.
        examples: prompts and answers; for a Run they replace its task's.
        custom_metrics: name -> function (logits at the query, examples) -> one value per example.
        seeds: seeds of the noise in a Run's examples and of the random controls; all are in one table.
        controls: whether to measure the matched random controls of each spec (`Edit.controls`). They have as
            many random positions of each prompt; for a hooked model only positions whose token occurs in
            some prompt up to its query. Random outputs are drawn from the answers; for a hooked model from
            the candidates, or else from the right answers.
        path: a CSV file, rewritten after each evaluation; rows that it already has are not measured again.
        progress: True shows a progress bar on stderr, "lines" plain lines, False nothing; None a bar on a
            terminal.
        eval_draws: noisy sequences per triple of a Run.
        batch_size: examples per forward pass; None is all. Resampling and equal norms are within a batch.

    Returns: one tidy table.

    Raises:
        UnknownNameError: an unknown metric, hook or token; the message lists close matches.
        ConfigError: a hooked model without examples, ids that the model does not have, or a metric that the
            examples do not allow.
        WeightsError: NaN or infinite weights.
        InterventionNeverFiredError: a spec changed nothing (a control that changes nothing is NaN).
        RunError: the file at `path` belongs to another model or other examples, or is no table of a study.
    """
    custom = dict(custom_metrics or {})
    _check_arguments(specs, seeds, eval_draws, batch_size)
    if examples is not None and not isinstance(examples, Examples):
        raise OcrInterpError(
            f"examples must be Examples, got {type(examples).__name__}: pass Examples(tokens, answer)"
        )
    first = examples_by_seed(model, examples, eval_draws)(int(seeds[0]))
    wanted = check_metrics(None if metrics is None else tuple(metrics), custom, first, (*KEYS, TOUCHED, SEAL))
    options = f"{batch_size} {[(name, identity_of(each)) for name, each in custom.items()]}"
    studied = studied_model(model, examples, eval_draws, options)
    _check_exchanges(studied, specs, seeds, batch_size)
    rows = StudyRows(None if path is None else Path(path), studied.fingerprint, wanted)
    plan = [(name, spec, seed) for seed in seeds for name, spec in {BASELINE: (), **specs}.items()]
    with progress_bar("ablate", len(plan), show=progress, unit="ablations") as move:
        for done, (name, spec, seed) in enumerate(plan, start=1):
            parts = _parts(spec)
            for control, drawn in _variants(studied, parts, seed, controls):
                key = {"study": studied.fingerprint, "spec": name, "description": _described(parts)}
                key |= {"control": control, "seed": seed}
                if not rows.has(key):
                    rows.add(_evaluate(studied, drawn, key, wanted, custom, batch_size))
            move(done, name)
    table = rows.table()
    asked = {(name, _described(_parts(spec)), seed) for name, spec, seed in plan}
    kept = [key in asked for key in zip(table["spec"], table["description"], table["seed"], strict=True)]
    table = table.loc[kept].reset_index(drop=True)
    return AblationStudy(table, studied.fingerprint, studied.step, wanted, first.splits)


def _parts(spec: Intervention | Sequence[Intervention]) -> tuple[Intervention, ...]:
    return tuple(spec) if isinstance(spec, Sequence) else (spec,)


def _check_arguments(specs: Specs, seeds: Sequence[int], eval_draws: int, batch_size: int | None) -> None:
    check_count("eval_draws", eval_draws, 1)
    if not isinstance(specs, Mapping):
        raise OcrInterpError(
            f"specs must be a mapping of names to interventions, got {type(specs).__name__}: pass "
            '{"head 3": Zero().at(Site.at("z", layer=0, heads=[3]))}'
        )
    if batch_size is not None:
        check_count("batch_size", batch_size, 1)
    if not specs or not seeds:
        raise OcrInterpError(f"a study needs specs and seeds, got {len(specs)} and {len(seeds)}")
    if BASELINE in specs:
        raise OcrInterpError(f"{BASELINE!r} names the model as it is: give that spec another name")
    for name, spec in specs.items():
        parts = _parts(spec)
        if not parts or not all(isinstance(part, Intervention) for part in parts):
            raise OcrInterpError(f"spec {name!r} must be an intervention or several, got {spec!r}")
        drifting = [part.describe() for part in parts if not part.repeats]
        if drifting:
            raise OcrInterpError(
                f"spec {name!r} must do the same each time, got {drifting[0]}, whose random state depends on "
                "what ran before, so that a resumed study would differ: give it a seed"
            )


def _check_exchanges(
    studied: StudiedModel, specs: Specs, seeds: Sequence[int], batch_size: int | None
) -> None:
    """Requires that no batch leaves a prompt alone whose values are to be exchanged, before anything is run.

    Raises:
        ModelError: one that does, with what to pass.
    """
    exchanging = {name: [part for part in _parts(spec) if part.needs_others] for name, spec in specs.items()}
    for seed in seeds if any(exchanging.values()) else ():
        examples = studied.examples(int(seed))
        for batch in examples.batches(batch_size):
            for name, part in ((name, part) for name, parts in exchanging.items() for part in parts):
                touched = part.touched(studied.model, batch.tokens.cpu(), examples.labels)
                alone = (
                    len(batch.tokens) == 1 if isinstance(part.where, Site) else int((touched > 0).sum()) == 1
                )
                if alone:
                    raise ModelError(
                        f"resampling needs >= 2 sequences of a length in each batch, got 1 in one of "
                        f"{len(batch.tokens)} x {batch.tokens.shape[1]} tokens for spec {name!r} "
                        f"({len(examples)} examples, batch_size {batch_size}): pass another batch_size or "
                        "more prompts"
                    )


# --- one evaluation --------------------------------------------------------------------------------


def _described(parts: tuple[Intervention, ...]) -> str:
    """The specs in words; long texts are shortened to a digest."""
    text = " + ".join(part.describe() for part in parts) or "as it is"
    return text if len(text) <= 80 else f"{text[:60]}… {digest_of(text, 12)}"


def _variants(
    studied: StudiedModel, parts: tuple[Intervention, ...], seed: int, controls: bool
) -> Iterator[tuple[str, tuple[Intervention, ...]]]:
    """The intervention itself, then its controls."""
    yield NO_CONTROL, parts
    if not controls or not parts:
        return
    pools = studied.model, studied.inputs, studied.outputs, studied.length
    drawn = [part.controls(Draw.seeded(seed + k, *pools)) for k, part in enumerate(parts)]
    for name in dict.fromkeys(name for found in drawn for name in found):
        yield name, tuple(f.get(name, f.get(RANDOM, p)) for f, p in zip(drawn, parts, strict=True))


def _evaluate(
    studied: StudiedModel,
    parts: tuple[Intervention, ...],
    key: dict[str, Any],
    metrics: tuple[str, ...],
    custom: Mapping[str, Metric],
    batch_size: int | None,
) -> list[dict[str, Any]]:
    """One evaluation: one row per split."""
    examples = studied.examples(int(key["seed"]))
    counts = _touched(studied, parts, examples)
    try:
        found = measure(_logits(studied.model, parts, examples, batch_size), examples, metrics, custom)
    except (InterventionNeverFiredError, ModelError):
        if key["control"] == NO_CONTROL:
            raise
        found = {split: dict.fromkeys(metrics, float("nan")) for split in examples.splits}
    return [{**key, "split": split, TOUCHED: counts[split], **values} for split, values in found.items()]


def _touched(studied: StudiedModel, parts: tuple[Intervention, ...], examples: Examples) -> dict[str, float]:
    """Mean number of positions of a prompt that are acted on, by split."""
    count = torch.zeros(len(examples))
    for batch in examples.batches():
        for part in parts:
            count[batch.rows] += part.touched(studied.model, batch.tokens.cpu(), examples.labels)
    names = np.array(examples.split)
    return {split: float(count.numpy()[names == split].mean()) for split in examples.splits}


def _logits(
    model: Any, parts: tuple[Intervention, ...], examples: Examples, batch_size: int | None
) -> Float[Tensor, "batch vocabulary"]:
    """Logits at the query of every example, on the CPU."""
    rows, found = [], []
    labels = {"labels": examples.labels, "output_labels": examples.output_labels}
    applied = ablated(model, *parts, **labels) if parts else nullcontext()
    with torch.no_grad(), own_run(model), applied:
        for batch in examples.batches(batch_size):
            with length_told(model, partial(batch.tokens.size, 1), "prompts of the examples"):
                logits = model(batch.tokens.to(model.W_E.device))
            places = torch.arange(len(logits), device=logits.device)
            found.append(logits[places, batch.query.to(logits.device)].cpu())
            rows.append(batch.rows)
    return torch.cat(found)[torch.cat(rows).argsort()]
