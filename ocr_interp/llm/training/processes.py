"""The processes and the device of a fine-tuning run, managed by accelerate."""

from __future__ import annotations

from typing import Any

from ocr_interp.devices import resolve_device
from ocr_interp.errors import ConfigError
from ocr_interp.llm.training.configuration import FinetuneConfig


def make_accelerator(recipe: FinetuneConfig) -> Any:
    """The Accelerator, which manages device and processes; the recipe alone says the precision.

    Settings of the environment that would change what is computed are not taken: mixed precision, a share of
    each gradient (gradient accumulation), compilation.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedType, GradientAccumulationPlugin

    device = recipe.device
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(
            f"device must be 'auto', 'cpu', 'cuda' or 'mps', got {device!r}: choose a GPU with "
            "CUDA_VISIBLE_DEVICES, several with `accelerate launch`"
        )
    where = _device_of_this_process(device)
    accelerator = Accelerator(
        cpu=where == "cpu",
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
    _ours["device"] = accelerator.device.type
    return accelerator


_ours: dict[str, str] = {}
"""The kind of device for which accelerate's state of this process was made by this module."""


def _device_of_this_process(device: str) -> str:
    """The kind of device to train on; accelerate's state of this process is left if it is of another one.

    accelerate keeps one state for a process. If this module made it, another can take its place, so that a
    process may train on one device after another; somebody else's stays, and "auto" follows it.

    Raises:
        ConfigError: somebody else's state is of another device than the one that is asked for.
    """
    from accelerate.state import AcceleratorState, PartialState

    where, kept = resolve_device(device).type, dict(PartialState._shared_state)
    if not kept or kept["device"].type == where:
        return where
    if _ours.get("device") == kept["device"].type and kept["distributed_type"] == "NO":
        AcceleratorState._reset_state(reset_partial_state=True)
        return where
    if device == "auto":
        return kept["device"].type
    raise ConfigError(
        f"device must be {kept['device'].type!r}, which accelerate was set to in this process, got "
        f"{device!r}: choose that device, or fine-tune in a process of its own"
    )
