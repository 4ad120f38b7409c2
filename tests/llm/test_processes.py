"""Several processes train what one process trains."""

import socket

import finetune_elsewhere
import pytest
import torch
from other_process import OtherProcess
from safetensors.torch import load_file

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.training import processes
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.result import read_result
from ocr_interp.llm.training.finetune import finetune


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


@pytest.fixture
def on_a_gpu():
    """An Accelerator of somebody else in this process, with the state that it would have on a GPU."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=True)
    theirs = Accelerator()
    for state in (PartialState, AcceleratorState):
        state._shared_state["device"] = torch.device("cuda")
    yield theirs
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_process_trains_on_one_device_after_another(on_a_gpu, make_model):
    from accelerate.state import PartialState

    recipe = FinetuneConfig(model="tiny", steps=2, log_every=2, batch_size=4, device="cpu")
    run = finetune(LLMRunConfig(FactConfig(n_pairs=3, n_names=5), recipe), lm=make_model())
    assert (run.status, run.device) == ("finished", "cpu")
    assert on_a_gpu.device.type == PartialState().device.type == "cuda"


def test_an_error_gives_the_state_back(on_a_gpu, make_model):
    recipe = FinetuneConfig(model="tiny", steps=2, log_every=2, batch_size=4, device="cpu")
    with pytest.raises(ConfigError, match="steps=0"):
        finetune(
            LLMRunConfig(FactConfig(n_pairs=3, control="implications_only", share=0.0), recipe),
            lm=make_model(),
        )
    assert on_a_gpu.device.type == "cuda"


def test_several_processes_are_on_one_device(on_a_gpu):
    on_a_gpu.state._shared_state["distributed_type"] = "MULTI_GPU"
    from accelerate.state import PartialState

    PartialState._shared_state["distributed_type"] = "MULTI_GPU"
    with (
        pytest.raises(ConfigError, match="'cuda', where the processes of this run are"),
        processes.state_for("cpu"),
    ):
        pass
