"""ocr-interp train: trains one model on the fact-recall task."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.cli.arguments.fact_file import task_of_file, told_rule
from ocr_interp.cli.arguments.files import say
from ocr_interp.cli.arguments.flags import flags_of
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import OcrInterpError, RunError
from ocr_interp.task import FactRecallTask


@dataclass(frozen=True)
class Train:
    """Train one model on the fact-recall task, or go on with one that was stopped or needs more steps."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of the run, e.g. runs/factorized; a stopped run is resumed, a finished one goes on if
    --steps is larger, else it is only shown"""
    facts: Path | None = None
    """a file of facts as `ocr-interp solve` takes it (columns subject, fact, implication, told); the run
    keeps its names. It replaces --n-pairs, --m-train and --m-test"""
    task: FactRecallTask = field(default_factory=FactRecallTask)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def run(self) -> None:
        task = self.task if self.facts is None else task_of_file(self.facts, self.task)
        import torch

        torch.set_num_threads(1)  # small matrices: a second thread costs more than it gives
        from ocr_interp.running.progress import bar_or_lines
        from ocr_interp.training.loop import train
        from ocr_interp.viz.text.run import describe_run

        try:
            run = train(task, self.model, self.train, self.run_dir, progress=bar_or_lines())
        except RunError as error:
            raise type(error)(f"{error}{self._command_of_run(task)}") from error
        say(describe_run(run))
        if self.facts is not None:
            say(told_rule(self.facts, task))
        if run.status == "interrupted":
            sys.exit(f"stopped at step {run.step:,}; the same command goes on from there")

    def _command_of_run(self, task: FactRecallTask) -> str:
        """The command that goes on with another run in the directory; empty if there is none."""
        from ocr_interp.training.store import RunStore

        try:
            found = RunStore(self.run_dir).read_config()
        except OcrInterpError:
            return ""
        steps = max(self.train.steps, found.train.steps)
        longer = replace(found, train=replace(found.train, steps=steps))
        if not longer.differences(RunConfig(task, self.model, replace(self.train, steps=steps))):
            return ""  # only the number of steps is in the way, and the message says why
        if self.facts is not None and longer.task == task:
            flags = f"--facts {shlex.quote(str(self.facts))} {flags_of(longer.model, longer.train)}".rstrip()
        else:
            flags = flags_of(longer.task, longer.model, longer.train)
        return f". The run in it goes on with: ocr-interp train {shlex.quote(str(self.run_dir))} {flags}"
