"""Fine-tunes by the command line, for tests that interrupt, starve or multiply another process."""

import os
import resource
import sys
from pathlib import Path

from other_process import say

from ocr_interp import cli
from ocr_interp.cli.llm import Finetune
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.training import finetune as module
from ocr_interp.llm.training.configuration import FinetuneConfig


def command(run, base, steps):
    """The exit code of `ocr-interp llm finetune`."""
    sys.argv = [
        "ocr-interp", "llm", "finetune", str(run), "--model", str(base), "--n-pairs", "3", "--n-names", "5",
        "--steps", str(steps), "--log-every", "3", "--lr", "0.01", "--batch-size", "6", "--device", "cpu",
    ]  # fmt: skip
    try:
        cli.main()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            raise
        return stop.code
    return 0


def until_stopped(run, base):
    sys.exit(command(run, base, 100_000))


def with_limits(folder, base, limits):
    """A run without limits; then, for each size, one that may write no larger file once it has measured, and
    twice the same command without that limit."""
    measure, limit = module.Finetuning._measure, [0]

    def and_limit(self, on_log, **options):
        measure(self, on_log, **options)
        if self.step and limit[0]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit[0], resource.RLIM_INFINITY))

    module.Finetuning._measure = and_limit
    codes = [command(folder / "whole", base, 6)]
    for size in limits:
        for limit[0] in (size, 0, 0):
            codes.append(command(folder / str(size), base, 6))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    say("codes", codes)


def one_of_several(run, base, environment):
    os.environ.update(environment)
    recipe = FinetuneConfig(model=str(base), steps=8, log_every=4, lr=1e-3, batch_size=5, device="cpu")
    Finetune(Path(run), FactConfig(n_pairs=3, n_names=5), recipe).run()
