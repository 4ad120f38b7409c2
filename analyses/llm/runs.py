"""Every planned run of the language-model studies: which are missing, and makes them.

    python -m analyses.llm.runs --list                 which are there, which are missing
    python -m analyses.llm.runs [--study NAME ...] [--only WORD ...] [--threads 1] [--most-minutes N]

Needs `make llm-model` and `make llm-model-gemma` (once). A run leaves a small JSON and its table of logits in
analyses/results/llm/studies/; what is there is not computed again. It can be stopped at any time, and several
processes share the work. The order is the plan's: the first seed of every study, then the next.
"""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

if not __package__:  # python analyses/llm/runs.py: the same as a module
    root, own = str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")
    command = [sys.executable, "-m", "analyses.llm.runs", *sys.argv[1:]]
    os.execve(
        sys.executable, command, {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, own)))}
    )

from analyses.llm.studies import (
    divergence,
    families,
    mitigation,
    months,
    parts,
    ratio,
    recall,
    step_size,
    strangers,
    wording,
)
from analyses.llm.studies.plan import EVERY_ROW, PlannedRun, Study

RESULTS = Path(__file__).resolve().parents[1] / "results" / "llm" / "studies"
STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        parts.PILOT,
        parts.PILOT_ON_GEMMA,
        families.PILOT,
        mitigation.STUDY,
        families.STUDY,
        strangers.STUDY,
        months.STUDY,
        parts.STUDY,
        parts.ON_GEMMA,
        recall.STUDY,
        wording.STUDY,
        step_size.STUDY,
        ratio.STUDY,
        divergence.STUDY,
    )
}


def planned(studies: tuple[str, ...] = ()) -> list[PlannedRun]:
    """Every run, the first seed of every study before the second of any."""
    chosen = [STUDIES[name].planned() for name in (studies or STUDIES)]
    ranked = [(run.seed % parts.PILOT_SEED, run) for runs in chosen for run in runs]
    return [run for _, run in sorted(ranked, key=lambda one: one[0])]


@dataclass(frozen=True)
class Arguments:
    """Make the runs that are missing, or list them."""

    study: tuple[str, ...] = ()
    """only these studies"""
    only: tuple[str, ...] = ()
    """only runs whose names have all these words (between dashes and slashes)"""
    results: Path = RESULTS
    """folder of the JSONs"""
    threads: int = 1
    """number of torch's threads; with more threads, sums may differ in the last bits"""
    most_minutes: float = 1e9
    """begin no run after this time"""
    names: Annotated[bool, tyro.conf.arg(name="list")] = False
    """only list the runs and which of them are finished"""


def main(arguments: Arguments) -> None:
    if unknown := set(arguments.study) - set(STUDIES):
        raise SystemExit(f"no study {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    runs = [run for run in planned(arguments.study) if set(arguments.only) <= _words(run.name)]
    if not runs:
        raise SystemExit(f"no planned run has the words {', '.join(arguments.only)}: see --list")
    missing = [run for run in runs if not is_finished(run, arguments.results)]
    if arguments.names:
        for run in runs:
            print("missing " if run in missing else "finished", run.name)
        for name, of_study in itertools.groupby(sorted(runs, key=lambda r: r.study), lambda r: r.study):
            own = list(of_study)
            print(f"{name}: {sum(run not in missing for run in own)} of {len(own)} runs are finished")
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are finished")
    if arguments.names and not (arguments.study or arguments.only):
        _list_others()
    if missing and not arguments.names:
        make_missing(missing, arguments)


def _list_others() -> None:
    """How many runs of Table 1 and of what is inside are there, each of which a module of its own makes."""
    from analyses.llm import inside, table_1

    table = [table_1.is_finished(c, RESULTS.parent / f"{n}.json") for n, c in table_1.all_runs().items()]
    inspected = [inside.is_inspected(c, inside.RESULTS / f"{inside.name_of(c)}.json") for c in inside.RUNS]
    for module, done in (("table_1", table), ("inside", inspected)):
        print(f"python -m analyses.llm.{module} --list: {sum(done)} of {len(done)} runs are finished")


def _words(name: str) -> set[str]:
    return set(name.replace("/", "--").split("--"))


def result_path(run: PlannedRun, results: Path = RESULTS) -> Path:
    """The JSON of a run."""
    return results / f"{run.name}.json"


def is_finished(run: PlannedRun, results: Path = RESULTS) -> bool:
    """Whether a run has its JSON; a JSON of another configuration is an error."""
    from ocr_interp.llm.training.files.result import config_of_result, read_result

    path = result_path(run, results)
    if not path.exists():
        return False
    found = read_result(path)
    same_extra = found.get("extra", {}) == dict(run.extra)
    if run.config.differences(config_of_result(found)) or not same_extra:
        raise SystemExit(f"{path} is of another configuration of the same name: move it away")
    return True


def _copied(run: PlannedRun, results: Path) -> bool:
    """Copies the run of another study that is the same computation; False if none is finished."""
    for other in planned():
        same = (other.config, other.extra, other.make) == (run.config, run.extra, run.make)
        if same and other.name != run.name and is_finished(other, results):
            for suffix in (".logits.safetensors", ".json"):
                shutil.copyfile(
                    result_path(other, results).with_suffix(suffix),
                    result_path(run, results).with_suffix(suffix),
                )
            print(f"{run.name}: copied from {other.name}, the same run", flush=True)
            return True
    return False


def make_missing(runs: list[PlannedRun], arguments: Arguments) -> None:
    """Makes the runs that have no JSON and that no other process is making."""
    import torch
    from filelock import FileLock, Timeout

    from ocr_interp.devices import resolve_device
    from ocr_interp.llm.models.allocator import keep_freed_memory
    from ocr_interp.llm.models.loading import LanguageModel, load_model

    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    start, loaded = time.monotonic(), {}
    for run in runs:
        if time.monotonic() - start > 60 * arguments.most_minutes:
            return
        path = result_path(run, arguments.results)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:  # another process makes it
            continue
        with lock:
            if is_finished(run, arguments.results) or _copied(run, arguments.results):
                continue
            folder = run.config.train.model
            if folder not in loaded:
                loaded[folder] = load_model(folder)
            base = loaded[folder]
            base.model.to(resolve_device(run.config.train.device))
            lm = LanguageModel(base.name, copy.deepcopy(base.model), base.tokenizer)
            (run.make or finetuned)(run, lm, path)
        path.with_suffix(".lock").unlink(missing_ok=True)


def finetuned(run: PlannedRun, lm: Any, path: Path) -> None:
    """Plain fine-tuning, with the divergence from the base model on ordinary sentences."""
    from analyses.llm.studies.neutral import log_probabilities, neutral_kl
    from ocr_interp.llm.measuring.table import write_table
    from ocr_interp.llm.training.files.result import write_result
    from ocr_interp.llm.training.finetune import finetune

    start, before, rows = time.perf_counter(), log_probabilities(lm), []

    def measure(row: Any) -> None:
        rows.append(neutral_kl(before, log_probabilities(lm)))

    found = finetune(run.config, lm=lm, on_log=measure if run.extra == EVERY_ROW else None)
    if found.status != "finished":
        raise SystemExit(f"{run.name} was stopped at step {found.step}; the same command makes it again")
    kl = neutral_kl(before, log_probabilities(found.lm))
    write_table(path.with_suffix(".logits.safetensors"), found.logits, run.config.fingerprint)
    by_row = {"neutral_kl_by_row": rows} if rows else {}
    write_result(path, {**found.to_dict(), "extra": dict(run.extra), "neutral_kl": kl, **by_row})
    last = found.history.iloc[-1]
    print(
        f"{run.name}: {time.perf_counter() - start:.0f} s, loss {last['train_loss']:.4f}, facts "
        f"{last['held_out_fact/rank']:.2f}, told {last['training_implication/rank']:.2f}, held out "
        f"{last['held_out_implication/rank']:.2f}, KL {kl:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments))
