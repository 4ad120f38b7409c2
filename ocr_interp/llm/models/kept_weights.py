"""The weights in a model's folder, read one tensor at a time, without a second model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.llm.models.loading import LanguageModel, local_files


class KeptWeights:
    """The parameters of a model, as its safetensors files hold them.

    Args:
        places: file, name in it and precision of every parameter, by the parameter's name.
    """

    def __init__(self, places: Mapping[str, tuple[Path, str, torch.dtype]]) -> None:
        self._places = dict(places)

    def __call__(self, name: str) -> Tensor:
        """The tensor of a parameter on the CPU, rounded to the precision of the model.

        Raises:
            ModelError: the file is gone or damaged.
        """
        path, key, dtype = self._places[name]
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(key).to(dtype)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} cannot be read again ({error}): put the base model back") from None

    def are_of(self, model: Any) -> bool:
        """Whether a model has these weights, to the bit."""
        return all(torch.equal(self(name), p.detach().cpu()) for name, p in model.named_parameters())


def kept_weights(lm: LanguageModel) -> KeptWeights | str:
    """The weights in the folder that a model has its name from; a text says why they cannot be read.

    Nothing but names and shapes is read now.
    """
    files = [file for file in local_files(lm.name) if file.suffix == ".safetensors"]
    if not files:
        return f"{lm.name} is no folder on this machine with safetensors files, from which the start is read"
    shapes: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118  # no dict
                    shapes[key] = path, tuple(file.get_slice(key).get_shape())
        except (OSError, SafetensorError) as error:
            return f"{path} cannot be read ({error})"
    prefix = f"{getattr(lm.model, 'base_model_prefix', '')}."
    places = {}
    for name, parameter in lm.model.named_parameters():
        keys = (name, name.removeprefix(prefix))  # GPT-2's files leave the prefix out
        key = next((k for k in keys if k in shapes and shapes[k][1] == tuple(parameter.shape)), None)
        if key is None:
            return f"the files of {lm.name} hold no {name} of shape {tuple(parameter.shape)}"
        places[name] = shapes[key][0], key, parameter.dtype
    return KeptWeights(places)
