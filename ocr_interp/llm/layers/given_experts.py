"""LoRAs in peft's folders, as experts of a mixture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm.layers.mixture import LoRAMixer
from ocr_interp.storage.reading import parse_json, read_bytes

_PREFIX = "base_model.model."
_MATRIX = re.compile(rf"{re.escape(_PREFIX)}(?P<path>.+)\.lora_(?P<side>[AB])\.weight")

_WITHOUT_EFFECT = {
    *("r", "lora_alpha", "use_rslora", "bias", "init_lora_weights"),  # read below
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "target_parameters"),
    *("inference_mode", "lora_dropout", "fan_in_fan_out", "megatron_core", "qalora_group_size"),
    *("loftq_config", "eva_config", "runtime_config", "ensure_weight_tying"),
}
"""Fields of peft's LoraConfig that do not change what its A and B do, or say it with them."""

_BESIDE_THE_BASE = (True, None, False, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights that leave the base model's own weights as they are."""


@dataclass(frozen=True)
class GivenExpert:
    """A LoRA of a peft folder.

    Attributes:
        folder: the folder.
        scaling: factor of B A.
        matrices: path of every linear map -> (A [rank, n_in], B [n_out, rank]).
        base: name or folder of the model that it was trained on; empty where the folder does not say it.
    """

    folder: Path
    scaling: float
    matrices: Mapping[str, tuple[Tensor, Tensor]]
    base: str = ""

    @property
    def rank(self) -> int:
        """Rank of its updates."""
        return max(len(A) for A, _ in self.matrices.values())


def read_experts(folders: Sequence[str], base: str) -> tuple[GivenExpert, ...]:
    """Reads LoRAs, which must be on the same linear maps of the same model.

    Args:
        folders: where peft has saved them.
        base: name or folder of the model that they are for; empty where it has none.

    Raises:
        ModelError: a folder that is missing, damaged, or holds no plain LoRA; LoRAs on different maps, or of
            another model by its name.
    """
    experts = tuple(_read(Path(folder)) for folder in folders)
    for one in experts:
        if base and one.base and _last_name(base) != _last_name(one.base):
            raise ModelError(
                f"the LoRA in {one.folder} was trained on another model, {one.base!r} by its "
                f"adapter_config.json, than {base!r}: name LoRAs of this model, or, if they are one model "
                "under two names, write this one there as base_model_name_or_path"
            )
    for other in experts[1:]:
        if experts[0].base and other.base and _last_name(experts[0].base) != _last_name(other.base):
            raise ModelError(
                f"experts must be LoRAs of one model, {experts[0].folder} is of {experts[0].base!r} and "
                f"{other.folder} of {other.base!r} by their adapter_config.json"
            )
        odd = sorted(experts[0].matrices.keys() ^ other.matrices.keys())
        if odd:
            raise ModelError(
                f"experts must be LoRAs on the same linear maps, {experts[0].folder} and {other.folder} "
                f"differ in {len(odd)}, such as {odd[0]}: train them with the same target_modules"
            )
    return experts


def put_experts(mixer: LoRAMixer, experts: Sequence[GivenExpert]) -> None:
    """Copies LoRAs into the experts of a mixture; a smaller rank is filled up with zeros.

    Raises:
        ConfigError: LoRAs on other linear maps than those that are routed.
        ModelError: LoRAs of another width.
    """
    routed = {path.replace("/", "."): update for path, update in zip(mixer.maps, mixer.updates, strict=True)}
    for k, expert in enumerate(experts):
        odd = sorted(routed.keys() ^ expert.matrices.keys())
        if odd:
            raise ConfigError(
                f"the LoRA in {expert.folder} must be on the linear maps that are routed, they differ in "
                f"{len(odd)}, such as {odd[0]}: leave train_parts out, and the maps are those of the LoRAs"
            )
        with torch.no_grad():
            for path, update in routed.items():
                A, B = expert.matrices[path]
                if A.shape[1] != update.A[k].shape[1] or B.shape[0] != update.B[k].shape[0]:
                    raise ModelError(
                        f"the LoRA in {expert.folder} is of another model: {path} has {A.shape[1]} inputs "
                        f"and {B.shape[0]} outputs there, {update.A[k].shape[1]} and "
                        f"{update.B[k].shape[0]} here"
                    )
                B = B * (expert.scaling / mixer.settings.scaling)
                update.A[k].zero_()[: len(A)] = A.to(update.A[k])
                update.B[k].zero_()[:, : B.shape[1]] = B.to(update.B[k])


def saved_experts(tensors: Mapping[str, Tensor], n_experts: int) -> tuple[GivenExpert, ...]:
    """The experts of a mixture that was saved, whatever became of the folders that they came from.

    Args:
        tensors: of the update, by their names in files ("….maps.<path>.A.0").
        n_experts: how many.

    Raises:
        ModelError: experts that are not all there.
    """
    pattern = re.compile(r"(?:.*[.|])?maps\.(?P<path>.+)\.(?P<side>[AB])\.(?P<expert>\d+)")
    found: dict[int, dict[str, dict[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        part = pattern.fullmatch(name)
        if part is not None:
            matrices = found.setdefault(int(part["expert"]), {})
            matrices.setdefault(part["path"].replace("/", "."), {})[part["side"]] = tensor
    if set(found) != set(range(n_experts)) or any(
        set(both) != {"A", "B"} for matrices in found.values() for both in matrices.values()
    ):
        raise ModelError(f"the saved update does not hold the A and B of all {n_experts} experts")
    return tuple(
        GivenExpert(
            Path(f"expert {k}"), 1.0, {path: (both["A"], both["B"]) for path, both in found[k].items()}
        )
        for k in range(n_experts)
    )


def _read(folder: Path) -> GivenExpert:
    try:
        config = dict(parse_json(read_bytes(folder / "adapter_config.json")))
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} must be a folder that peft has saved (adapter_config.json, "
            f"adapter_model.safetensors): {error}"
        ) from None
    _require_plain(folder, config)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise ModelError(
            f"{folder}/adapter_config.json must say the rank r and lora_alpha of its LoRA, got r {rank!r} "
            f"and lora_alpha {alpha!r}"
        )
    matrices = _matrices(folder, tensors, rank)
    scaling = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return GivenExpert(folder, scaling, matrices, str(config.get("base_model_name_or_path") or ""))


def _require_plain(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises ModelError for an update that is not W + scaling B A on linear maps and nothing else."""
    wanted = f"{folder} must hold a plain LoRA with one rank to be an expert, got"
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{wanted} peft_type {config.get('peft_type')!r}")
    unlike = [name for name, value in config.items() if value and name not in _WITHOUT_EFFECT]
    if unlike:
        raise ModelError(f"{wanted} {', '.join(sorted(unlike))}")
    if config.get("bias", "none") != "none":
        raise ModelError(f"{wanted} bias={config['bias']!r}, which trains biases of the model too")
    start = config.get("init_lora_weights", True)
    if start not in _BESIDE_THE_BASE:
        raise ModelError(
            f"{wanted} init_lora_weights={start!r}, which changes the model's own weights: convert it when "
            "it is saved (peft's path_initial_model_for_weight_conversion)"
        )


def _matrices(folder: Path, tensors: Mapping[str, Tensor], rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every linear map; raises ModelError if there is anything else, or not all of it."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part = _MATRIX.fullmatch(name)
        if part is None and name.endswith(".base_layer.weight"):
            continue  # peft saves the frozen unembedding with its LoRA
        if part is None:
            raise ModelError(
                f"{folder} must hold A and B of linear maps alone to be an expert, got {name}: train its "
                "LoRA without embeddings, biases and other parameters"
            )
        found.setdefault(part["path"], {})[part["side"]] = tensor
    if not found:
        raise ModelError(f"{folder} is damaged: it holds no matrix of a LoRA")
    for path, both in found.items():
        missing = {"A", "B"} - set(both)
        if missing:
            raise ModelError(f"{folder} is damaged: it has no {_PREFIX}{path}.lora_{missing.pop()}.weight")
        A, B = both["A"], both["B"]
        if A.dim() != 2 or B.dim() != 2 or not len(A) == B.shape[1] == rank:
            raise ModelError(
                f"{folder} is damaged: r is {rank} in its adapter_config.json, {path} has A of shape "
                f"{tuple(A.shape)} and B of shape {tuple(B.shape)}"
            )
        if not (A.isfinite().all() and B.isfinite().all()):
            raise ModelError(f"{folder} is damaged: the LoRA of {path} has values that are not finite")
    return {path: (both["A"], both["B"]) for path, both in found.items()}


def _last_name(base: str) -> str:
    """What tells two models apart, wherever they lie: "owner/Name", "models/name" and the hub's cache."""
    parts = Path(base).parts
    cached = next((part.rpartition("--")[2] for part in parts if part.startswith("models--")), None)
    return (cached or (parts[-1] if parts else base)).casefold()
