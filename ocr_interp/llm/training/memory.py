"""Estimates the memory of a fine-tuning run or an inspection before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ocr_interp.errors import ConfigError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.layers.joined import joined_in
from ocr_interp.llm.layers.layout import embedding_names
from ocr_interp.llm.models.loading import DTYPES
from ocr_interp.llm.training.configuration import FinetuneConfig
from ocr_interp.llm.training.trainable import is_map, make_trainable, trained_parameters
from ocr_interp.optim import optimizers

_BYTES = {"float32": 4, "bfloat16": 2}
_MASTER = 4
"""Bytes of a number that optimizers step on."""

_GIB = 2**30
_CGROUP = (  # folder, limit, used, and what of the used is cache that the system gives back, versions 2 and 1
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of a fine-tuning run in bytes, by use.

    Attributes:
        weights, gradients, optimizer, activations: bytes. The optimizer's include the float32 copies of
            weights that are trained in bfloat16 (`MasterWeights`), whose gradients are float32 too when it
            steps. Activations are a rough upper estimate.
        trained: how many numbers are trained.
        added: how many numbers the method adds to the model's own.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    trained: int
    added: int

    @property
    def total(self) -> int:
        """The sum, in bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = ", ".join(
            f"{name} {getattr(self, name) / _GIB:.1f}"
            for name in ("weights", "gradients", "optimizer", "activations")
        )
        return f"{self.total / _GIB:.1f} GiB ({parts})"


def estimate_memory(hf_config: Any, config: FinetuneConfig, positions: int) -> MemoryEstimate:
    """Estimates the memory of a fine-tuning run from the model's configuration; no weight is loaded.

    To count the trained parameters, the method is attached to a model that has shapes and no values.

    Args:
        hf_config: the transformers configuration.
        config: the recipe.
        positions: tokens of the longest sequence.

    Raises:
        ModelError: the method cannot be put on this model.
    """
    model = _without_weights(hf_config).to(DTYPES[config.dtype])
    n_own = _count(p.shape for p in model.parameters())
    with torch.device("meta"):
        model = make_trainable(model, config)
    tables = embedding_names(model)
    trained = trained_parameters(model)
    maps = {name: is_map(name, tuple(p.shape), tables) for name, p in trained.items()}
    n_trained = _count(p.shape for p in trained.values())
    added = _count(p.shape for p in model.parameters()) - n_own
    moments = sum(_moments(config, tuple(p.shape), maps[name]) for name, p in trained.items())
    alone = set() if optimizers[config.optimizer].elementwise else joined_in(model).keys()
    copied = _count(p.shape for n, p in trained.items() if p.element_size() < _MASTER or n in alone)
    text = hf_config.get_text_config()
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size  # GPT-Neo's is None: 4 times
    per_token = text.num_hidden_layers * (16 * text.hidden_size + 4 * inner)
    per_token += methods[config.method].activations_per_token(model, config)
    activations = config.batch_size * (positions * per_token + 4 * text.vocab_size)
    return MemoryEstimate(
        weights=sum(p.element_size() * p.numel() for p in model.parameters()),
        gradients=_MASTER * n_trained if config.steps else 0,
        optimizer=_MASTER * (moments + copied) if config.steps else 0,
        activations=_BYTES[config.dtype] * activations,
        trained=n_trained,
        added=added,
    )


def _moments(config: FinetuneConfig, shape: tuple[int, ...], maps: bool) -> int:
    """How many numbers the optimizer keeps for a parameter between steps."""
    recipe = config.optimizer_settings("float32")
    kind, settings = optimizers[config.optimizer].for_parameter(recipe, shape, maps)
    return kind.copies(settings) * _count([shape])


def _without_weights(hf_config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(hf_config, trust_remote_code=False)


def _count(shapes: Any) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)


def available_memory(device: torch.device) -> int:
    """Free bytes on a device; on the CPU at most what the container's limit leaves."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = psutil.virtual_memory().available
    for folder, limit, used, cache in _CGROUP:
        try:
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            taken = int((folder / used).read_text()) - int(stat.get(cache, 0))
            free = min(free, int((folder / limit).read_text()) - taken)
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return int(free)


def refuse_too_little(estimate: MemoryEstimate, device: torch.device, config: FinetuneConfig) -> None:
    """Raises ConfigError if a fine-tuning run will not fit; the message says what would help."""
    free = available_memory(device)
    if estimate.total > free:
        # Weights that are trained need float32 copies in bfloat16: only frozen ones take less.
        frozen = estimate.weights > 2 * _MASTER * estimate.trained
        smaller = "dtype='bfloat16', " if frozen and config.dtype == "float32" else ""
        fewer = "method='lora', " if methods[config.method].trains_all else ""
        raise ConfigError(
            f"this fine-tuning needs about {estimate}, {device} has {free / _GIB:.1f} GiB free: take "
            f"{fewer}{smaller}a smaller model or batch, or a machine with more memory"
        )


def refuse_too_many_copies(
    hf_config: Any, dtype: str, loaded: int, working: int, device: torch.device
) -> None:
    """Raises ConfigError if the required copies of a model's weights will not fit into memory.

    Args:
        hf_config: the transformers configuration; no weight is loaded.
        dtype: "float32" or "bfloat16".
        loaded: copies in the CPU's memory.
        working: copies on the device; if that is the CPU, in addition to the loaded ones.
        device: where the model runs.
    """
    size = _BYTES[dtype] * _count(p.shape for p in _without_weights(hf_config).parameters())
    copies = {"cpu": loaded}
    copies[device.type] = copies.get(device.type, 0) + working
    for place, count in copies.items():
        free = available_memory(torch.device(place))
        if count * size > free:
            raise ConfigError(
                f"this needs the model's weights {count} times ({count * size / _GIB:.1f} GiB as {dtype}), "
                f"{place} has {free / _GIB:.1f} GiB free: take a smaller model, or a machine with more memory"
            )
