"""Several processes train what one process trains."""

import socket

import finetune_elsewhere
import pytest
import torch
from other_process import OtherProcess
from safetensors.torch import load_file

from ocr_interp.llm.training.files.result import read_result


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
        environment = several if count > 1 else {}
        children.append(OtherProcess(finetune_elsewhere.one_of_several, run, base, environment))
    said = []
    for child in children:
        with child:
            out, err = child.communicate(timeout=240)
            assert child.wait() == 0, err
            said.append(out)
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
