"""ocr-interp: the command line. Every subcommand imports what it needs, so that --help is instant."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ocr_interp.cli.ablate import Ablate
from ocr_interp.cli.analyze import Analyze
from ocr_interp.cli.diagram import Diagram
from ocr_interp.cli.files import read_run
from ocr_interp.cli.llm import Llm
from ocr_interp.cli.reproduce import Reproduce
from ocr_interp.cli.sweep import Sweep
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import OcrInterpError
from ocr_interp.task import FactRecallTask


@dataclass(frozen=True)
class Train:
    """Train one model on the fact-recall task, or go on with one that was stopped."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of the run, e.g. runs/factorized; the same command on it again resumes or just reads it"""
    task: FactRecallTask = field(default_factory=FactRecallTask)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def run(self) -> None:
        import torch

        torch.set_num_threads(1)  # small matrices: a second thread costs more than it gives
        from ocr_interp.training.loop import train
        from ocr_interp.viz.text.run import describe_run

        run = train(self.task, self.model, self.train, self.run_dir)
        print(describe_run(run))
        if run.status == "interrupted":
            sys.exit(f"stopped at step {run.step:,}; the same command goes on from there")


@dataclass(frozen=True)
class Info:
    """Show what a run is and what it learned."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of the run"""

    def run(self) -> None:
        run = read_run(self.run_dir)
        from ocr_interp.viz.text.run import describe_run

        print(describe_run(run))


@dataclass(frozen=True)
class Solve:
    """Solve the max-margin problem of a task: what gradient descent converges to, with a certificate."""

    task: FactRecallTask = field(default_factory=FactRecallTask)
    norm: Literal["nuclear", "frobenius", "spectral"] = "nuclear"
    """nuclear: the factorized model's limit; frobenius: the non-factorized one's; spectral: for comparison"""
    tolerance: float = 1e-4
    """certified relative gap to reach"""
    outputs: Literal["answers", "vocabulary"] = "answers"
    """the wrong outputs of the margin constraints"""
    inputs: Literal["subject_relation", "eos", "noise_eos"] = "subject_relation"
    """what an example holds"""
    method: Literal["auto", "closed_form", "first_order", "clarabel", "scs"] = "auto"
    """auto takes the closed form where it holds"""

    def run(self) -> None:
        from ocr_interp.theory.closed.closed_form import predicted_solution
        from ocr_interp.theory.solve import format_solution, solve_max_margin

        solved = solve_max_margin(
            self.task,
            self.norm,
            self.tolerance,
            outputs=self.outputs,
            inputs=self.inputs,
            method=self.method,
        )
        print(format_solution(solved))
        if self.task.balanced_sizes is not None:
            predicted = predicted_solution(self.task, self.norm, self.outputs, self.inputs)
            print(f"closed form of the balanced task: objective {predicted.objective:.10g}")
            if predicted.sizes[2]:
                print(
                    f"  beta {predicted.beta:.10g}, held-out margin {predicted.held_out_margin:.8g} against "
                    f"other implications, {predicted.held_out_margin_own_fact:.8g} against the own fact"
                )


_Subcommand = Reproduce | Train | Sweep | Llm | Info | Analyze | Ablate | Diagram | Solve
Command = (
    Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Llm, tyro.conf.subcommand("llm")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Analyze, tyro.conf.subcommand("analyze")]
    | Annotated[Ablate, tyro.conf.subcommand("ablate")]
    | Annotated[Diagram, tyro.conf.subcommand("diagram")]
    | Annotated[Solve, tyro.conf.subcommand("solve")]
)


def main() -> None:
    """Entry point: errors are one line on stderr and exit code 2, never a traceback."""
    try:
        _parse(sys.argv[1:]).run()
    except OcrInterpError as error:
        _fail(str(error))
    except MemoryError:
        _fail("not enough memory: make the task, the batch or d_head smaller")
    except RuntimeError as error:
        if "alloc" not in str(error) and "out of memory" not in str(error):
            raise  # a defect of ours, which should be seen whole
        _fail(f"not enough memory ({str(error).splitlines()[0]}): make the task, the batch or d_head smaller")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)  # the reader of our output went away, as `| head` does
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}")


def _parse(
    arguments: list[str],
) -> _Subcommand:
    """The command with its fields; tyro's boxed errors become one line."""
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(
                Command,
                prog="ocr-interp",
                description="Out-of-context reasoning in transformers: train, reproduce, look inside.",
                args=arguments or ["--help"],
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _fail(_unboxed(boxed.getvalue()))
        raise


def _unboxed(text: str) -> str:
    """What a boxed message says, in one line: without its frame, title and pointers to --help."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip(" │─") for line in plain.splitlines() if not line.startswith(("╭", "╰"))]
    message = " ".join(line for line in lines if line)
    message = re.sub(r"^[^-]*-{10,} ?| ?-{10,}", "", message)  # where it must draw in ASCII
    message = re.sub(r"Error parsing (__tyro-dummy-inner__[\w.]*: )?", "", message)
    message = re.split(r" ?(?:For full helptext|Argument helptext:|Got errors:)", message)[0]
    return re.sub(r"no type matching (.*) could be instantiated from", r"must be \1, got", message)


def _fail(message: str) -> None:
    print(f"ocr-interp: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
