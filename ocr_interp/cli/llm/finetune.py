"""`ocr-interp llm finetune`: fine-tunes a language model on a fact set."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ocr_interp.cli.arguments.files import say
from ocr_interp.cli.llm.threads import set_threads
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig

if TYPE_CHECKING:
    from ocr_interp.llm.facts.fact_set import FactSet
    from ocr_interp.llm.models.loading import LanguageModel

_SHOWN = {
    "held-out facts": "held_out_fact",
    "training implications": "training_implication",
    "held-out implications": "held_out_implication",
}


@dataclass(frozen=True)
class Finetune:
    """Fine-tune a language model on facts, and measure it on implications that it was never told.

    The same command resumes a stopped run.
    On several GPUs: accelerate launch -m ocr_interp.cli llm finetune ...
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of the run; a stopped run of the same configuration is resumed, a finished one only shown"""
    facts: FactConfig = field(default_factory=FactConfig)
    train: FinetuneConfig = field(default_factory=FinetuneConfig)
    save_model: bool = True
    """also save the trained model, in run_dir/model (in run_dir/adapter if its update cannot be merged)"""
    threads: int | None = None
    """number of torch's threads on the CPU; None is torch's default"""

    def run(self) -> None:
        set_threads(self.threads)
        from ocr_interp.llm.facts.drawing import told_rule
        from ocr_interp.llm.models.allocator import keep_freed_memory
        from ocr_interp.llm.training.finetune import finetune
        from ocr_interp.llm.training.text import describe_finetuning

        keep_freed_memory()
        config = LLMRunConfig(self.facts, self.train)
        run = finetune(
            config, self.run_dir, save_model=self.save_model, on_log=show_row, on_start=self._before_training
        )
        if os.environ.get("RANK", "0") != "0":
            return  # only the main one of several processes prints
        say(describe_finetuning(run))
        say(told_rule(self.facts, run.facts))
        if run.status == "finished" and self.save_model and not run.keeps_model:
            say("it kept no model: fine-tune into a new run_dir to get one")
        if run.status == "interrupted":
            sys.exit(f"stopped at step {run.step:,}; the same command goes on from there")

    def _before_training(self, lm: LanguageModel, facts: FactSet) -> None:
        """Says who is told, and what `llm inspect` will leave out: after hours of training it is late."""
        from ocr_interp.llm.facts.drawing import told_rule

        say(told_rule(self.facts, facts), on_stderr=True)
        if self.save_model:
            self._say_what_inspect_leaves_out(lm, facts)

    def _say_what_inspect_leaves_out(self, lm: LanguageModel, facts: FactSet) -> None:
        from ocr_interp.llm.adapters import methods
        from ocr_interp.llm.inside.foreseen import foreseen

        why = methods[self.train.method].why_not_merged
        unmerged = (
            f"`ocr-interp llm inspect` will not be able to read this run: the update of "
            f"{self.train.method!r} is not in the model's weights ({why})"
        )
        for line in [unmerged] if why else foreseen(lm, facts):
            say(f"note: {line}", on_stderr=True)


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
    say(f"step {row['step']:>5}  loss {loss}  rank of {ranks}", on_stderr=True)
