"""The processes and the device of a fine-tuning run, managed by accelerate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ocr_interp.devices import resolve_device
from ocr_interp.errors import ConfigError
from ocr_interp.llm.training.configuration import FinetuneConfig

DEVICES = ("auto", "cpu", "cuda", "mps")


def make_accelerator(recipe: FinetuneConfig) -> Any:
    """The Accelerator, which manages device and processes; the recipe alone says the precision.

    Settings of the environment that would change what is computed are not taken: mixed precision, a share of
    each gradient (gradient accumulation), compilation.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedType, GradientAccumulationPlugin

    device = recipe.device
    if device not in DEVICES:
        raise ConfigError(
            f"device must be 'auto', 'cpu', 'cuda' or 'mps', got {device!r}: choose a GPU with "
            "CUDA_VISIBLE_DEVICES, several with `accelerate launch`"
        )
    accelerator = Accelerator(
        cpu=resolve_device(device).type == "cpu",
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_backend="no",
    )
    sharded = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
    if accelerator.distributed_type in sharded:
        raise ConfigError(
            f"fine-tuning keeps a whole model in each process, accelerate is set to "
            f"{accelerator.distributed_type.value}: launch it with --multi_gpu alone"
        )
    if recipe.batch_size < accelerator.num_processes:
        raise ConfigError(
            f"batch_size must be at least the number of processes ({accelerator.num_processes}), got "
            f"{recipe.batch_size}"
        )
    return accelerator


@contextmanager
def state_for(device: str) -> Iterator[None]:
    """Lets a process fine-tune on another device than something did before it.

    accelerate keeps one state for a process and refuses another device. While the block runs there is a new
    one; then the old one is back, and an Accelerator that was made with it has kept it all the time.

    Raises:
        ConfigError: another device than that of several processes.
    """
    from accelerate.state import AcceleratorState, PartialState

    kept: Any = PartialState._shared_state
    if not kept or device not in DEVICES or kept["device"].type == resolve_device(device).type:
        yield
        return
    if kept["distributed_type"] != "NO":
        raise ConfigError(
            f"device must be {kept['device'].type!r}, where the processes of this run are, got {device!r}"
        )
    states: dict[Any, Any] = {state: state._shared_state for state in (PartialState, AcceleratorState)}
    try:
        for state in states:
            state._shared_state = {}
        yield
    finally:
        for state, own in states.items():
            state._shared_state = own
