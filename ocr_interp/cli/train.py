"""ocr-interp train: trains one model on the fact-recall task."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.cli.files import say
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.task import FactRecallTask


@dataclass(frozen=True)
class Train:
    """Train one model on the fact-recall task, or resume one that was stopped."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of the run, e.g. runs/factorized; a stopped run is resumed, a complete one only shown"""
    task: FactRecallTask = field(default_factory=FactRecallTask)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def run(self) -> None:
        import torch

        torch.set_num_threads(1)  # small matrices: a second thread costs more than it gives
        from ocr_interp.training.loop import train
        from ocr_interp.viz.text.run import describe_run

        run = train(self.task, self.model, self.train, self.run_dir)
        say(describe_run(run))
        if run.status == "interrupted":
            sys.exit(f"stopped at step {run.step:,}; the same command goes on from there")
