"""The parts of a model that its parameters belong to, as its bridge knows them: OV, QK, MLP, the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ocr_interp.llm.models.bridge import as_bridge, viewed
from ocr_interp.llm.models.loading import LanguageModel

PARTS = ("OV", "QK", "QKV", "O", "MLP", "other mixers")
"""Parts of blocks; where one matrix makes queries, keys and values, QKV and O stand for QK and OV."""

REST = "embeddings and norms"

_OF_PROJECTION = {"v": "OV", "o": "OV", "q": "QK", "k": "QK", "qkv": "QKV"}


def parts_of(lm: LanguageModel) -> dict[str, str]:
    """The part of every parameter, by its name.

    Raises:
        ModelError: a model that cannot be bridged.
    """
    copied = viewed(lm, torch.device("cpu"))
    own = dict(copied.model.named_parameters())
    blocks = {id(p) for name, p in own.items() if p.ndim > 1 and _layer_of(name) is not None}
    part: dict[int, str] = {}
    for block in getattr(as_bridge(copied, torch.device("cpu")), "blocks", ()):
        part |= _of_block(block)
    return {name: part.get(id(p), PARTS[-1] if id(p) in blocks else REST) for name, p in own.items()}


def _of_block(block: Any) -> dict[int, str]:
    """The part of parameters of a block, by their identity."""
    found: dict[int, str] = {}
    mlp, attention = getattr(block, "mlp", None), getattr(block, "attn", None)
    for parameter in mlp.parameters() if isinstance(mlp, nn.Module) else ():
        found[id(parameter)] = "MLP"
    # Where the MLP has no module of its own (OPT), its part of the bridge holds the whole block.
    for name, child in block.named_children():
        for parameter in child.parameters() if name not in ("attn", "mlp", "_original_component") else ():
            found.pop(id(parameter), None)
    joint = isinstance(getattr(attention, "qkv", None), nn.Module)
    for name, part in _OF_PROJECTION.items():
        projection = getattr(attention, name, None)
        for parameter in projection.parameters() if isinstance(projection, nn.Module) else ():
            found[id(parameter)] = "O" if joint and name == "o" else part
    return found


def _layer_of(name: str) -> int | None:
    """The number in a parameter's name, which those of a stack of blocks have."""
    return next((int(word) for word in name.split(".") if word.isdigit()), None)
