"""LoRAs in peft's folders, as experts of a mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm.layers.mixture import LoRAMixer
from ocr_interp.storage.reading import parse_json, read_bytes

_PREFIX = "base_model.model."
_UNLIKE = ("use_dora", "rank_pattern", "alpha_pattern", "lora_bias", "modules_to_save")


@dataclass(frozen=True)
class GivenExpert:
    """A LoRA of a peft folder.

    Attributes:
        folder: the folder.
        scaling: factor of B A.
        matrices: path of every linear map -> (A [rank, n_in], B [n_out, rank]).
    """

    folder: Path
    scaling: float
    matrices: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def rank(self) -> int:
        """Rank of its updates."""
        return max(len(A) for A, _ in self.matrices.values())


def read_experts(folders: Sequence[str]) -> tuple[GivenExpert, ...]:
    """Reads LoRAs, which must be on the same linear maps.

    Raises:
        ModelError: a folder that is missing, damaged, or holds no plain LoRA; or LoRAs on different maps.
    """
    experts = tuple(_read(Path(folder)) for folder in folders)
    for other in experts[1:]:
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


def _read(folder: Path) -> GivenExpert:
    try:
        config = dict(parse_json(read_bytes(folder / "adapter_config.json")))
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} must be a folder that peft has saved (adapter_config.json, "
            f"adapter_model.safetensors): {error}"
        ) from None
    unlike = [name for name in _UNLIKE if config.get(name)]
    if config.get("peft_type") != "LORA" or unlike:
        what = f"{', '.join(unlike)}" if unlike else f"peft_type {config.get('peft_type')!r}"
        raise ModelError(f"{folder} must hold a plain LoRA with one rank to be an expert, got {what}")
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    scaling = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    paths = [
        name.removeprefix(_PREFIX).removesuffix(".lora_A.weight") for name in tensors if "lora_A" in name
    ]
    try:
        own = {p: tuple(tensors[f"{_PREFIX}{p}.lora_{x}.weight"] for x in "AB") for p in paths}
    except KeyError as error:
        raise ModelError(f"{folder} is damaged: it has no {error}") from None
    return GivenExpert(folder, scaling, {path: (A, B) for path, (A, B) in own.items()})
