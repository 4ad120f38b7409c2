"""`ocr-interp llm finetune`."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.cli.llm.threads import set_threads
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig

_SHOWN = {
    "held-out facts": "held_out_fact",
    "training implications": "training_implication",
    "held-out implications": "held_out_implication",
}


@dataclass(frozen=True)
class Finetune:
    """Fine-tune a language model on told facts and ask what it was never told; the same command resumes.

    On several GPUs: accelerate launch -m ocr_interp.cli llm finetune ...
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of the run, new or one to go on with"""
    facts: FactConfig = field(default_factory=FactConfig)
    train: FinetuneConfig = field(default_factory=FinetuneConfig)
    save_model: bool = True
    """also keep the trained model, in run_dir/model"""
    threads: int | None = None
    """of torch on the CPU; None is torch's own choice"""

    def run(self) -> None:
        set_threads(self.threads)
        from ocr_interp.llm.models.allocator import keep_freed_memory
        from ocr_interp.llm.training.finetune import finetune
        from ocr_interp.llm.training.text import describe_finetuning

        keep_freed_memory()
        config = LLMRunConfig(self.facts, self.train)
        run = finetune(config, self.run_dir, save_model=self.save_model, on_log=show_row)
        if os.environ.get("RANK", "0") != "0":
            return  # one of several processes tells
        print(describe_finetuning(run))
        if run.status == "interrupted":
            sys.exit(f"stopped at step {run.step:,}; the same command goes on from there")


def show_row(row: object) -> None:
    """Prints one line per measurement to stderr."""
    assert isinstance(row, dict)
    loss = (
        "       -" if math.isnan(row["train_loss"]) else f"{row['train_loss']:8.4f}"
    )  # before the first step
    shown = {  # a split may be empty
        kind: row[f"{split}/rank"] for kind, split in _SHOWN.items() if not math.isnan(row[f"{split}/rank"])
    }
    ranks = ", ".join(f"{kind} {rank:5.2f}" for kind, rank in shown.items())
    print(f"step {row['step']:>5}  loss {loss}  rank of {ranks}", file=sys.stderr)
