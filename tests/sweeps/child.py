"""Sweeps into a folder, for tests that kill another process."""

import json
import sys

import torch

from ocr_interp.configuration.training import TrainConfig
from ocr_interp.sweeps import store
from ocr_interp.sweeps.sweep import sweep
from ocr_interp.task import FactRecallTask


def main(job):
    torch.set_num_threads(1)
    write_part, written = store.SweepStore.write_part, []

    def say_when_written(self, records):
        write_part(self, records)
        written.append(records)
        if len(written) == job["parts"]:
            sys.stdout.write("ready\n")
            sys.stdout.flush()

    store.SweepStore.write_part = say_when_written
    task = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
    recipe = TrainConfig(**job["train"])
    sweep(job["axes"], task=task, train=recipe, path=job["path"], stack=2, progress=False)


main(json.loads(sys.argv[1]))
