"""Sweeps into folders, for tests that kill another process."""

from other_process import say

from ocr_interp.configuration.training import TrainConfig
from ocr_interp.sweeps import store
from ocr_interp.sweeps.sweep import sweep
from ocr_interp.task import FactRecallTask


def main(path, axes, parts, recipe):
    write_part, written = store.SweepStore.write_part, []

    def say_when_written(self, records):
        write_part(self, records)
        written.append(records)
        if len(written) == parts:
            say("ready")

    store.SweepStore.write_part = say_when_written
    task = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
    sweep(axes, task=task, train=TrainConfig(**recipe), path=path, stack=2, progress=False)
