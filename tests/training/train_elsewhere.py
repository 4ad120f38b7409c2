"""Trains into a directory, for tests that kill, interrupt or starve another process."""

import resource

from other_process import say

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import RunError
from ocr_interp.task import FactRecallTask
from ocr_interp.training.loop import train


def main(run_dir, recipe, mode, at):
    trained = []

    def on_log(row):
        # The first update loads what torch's optimisers load late: a second in which nothing is trained.
        if row["step"] and not trained and mode == "say_when_logged":
            say("ready")
        trained.extend([row] if row["step"] else [])
        if mode == "full_disk" and row["step"] == at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))

    if mode != "say_when_logged":
        say("ready")
    task = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
    try:
        run = train(
            task, ModelConfig(d_head=4), TrainConfig(**recipe), run_dir, progress=False, on_log=on_log
        )
    except RunError as error:
        say(type(error).__name__, error)
    else:
        say(run.status, run.step)
