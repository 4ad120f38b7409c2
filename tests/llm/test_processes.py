"""Several processes train what one process trains."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from ocr_interp.llm.training.store import read_result

CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ocr_interp.cli.llm import Finetune
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.training.configuration import FinetuneConfig
base, run = sys.argv[1:]
recipe = FinetuneConfig(model=base, steps=8, log_every=4, lr=1e-3, batch_size=5, device="cpu")
Finetune(Path(run), FactConfig(n_pairs=3, n_names=5), recipe).run()
"""


def launch(base, run, count):
    """Starts `count` processes that train one model; gives what each printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        several = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
        }  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(several if count > 1 else {})}
        command = [sys.executable, "-c", CHILD, str(base), str(run)]
        children.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    said = [child.communicate(timeout=240)[0] for child in children]
    assert [child.returncode for child in children] == [0] * count
    return said


@pytest.mark.slow
def test_two_processes_train_what_one_trains(make_model, tmp_path):
    lm = make_model()
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    (one,) = launch(tmp_path / "base", tmp_path / "one", 1)
    first, second = launch(tmp_path / "base", tmp_path / "two", 2)
    assert "held out implication" in one
    assert "held out implication" in first
    assert second == ""
    alone, together = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two"))
    for name, weight in alone.items():
        torch.testing.assert_close(weight, together[name], atol=1e-5, rtol=1e-4)
    losses = [read_result(tmp_path / run / "result.json")["history"]["train_loss"] for run in ("one", "two")]
    assert losses[0][1:] == pytest.approx(losses[1][1:], rel=1e-4)
