"""The names of parts of a language model, for `FinetuneConfig.train_parts`. Imports no torch."""

from __future__ import annotations

from typing import Any

from ocr_interp.errors import ConfigError, shown, unknown_name

PARTS = {
    "attention": "all that mixes positions: attention, or Mamba or a convolution in its place",
    "mlp": "MLPs, experts and their routers too",
    "qk": "projections to queries and keys",
    "v": "projections to values",
    "o": "output projections of attention",
    "ov": "projections to values, and output projections",
    "qkv": "one matrix that makes values and queries or keys (GPT-2, Phi-3)",
    "in": "input projections of a mixer without an attention pattern, such as Mamba",
    "out": "output projections of such a mixer",
    "norms": "gains and biases of norms",
    "embeddings": "embeddings, position embeddings and unembedding",
}
"""Part -> what belongs to it. "attention", "mlp", "norms" and "embeddings" do not overlap."""

ROLES = {
    "qk": ("q or k",),
    "v": ("v",),
    "o": ("o",),
    "ov": ("v", "o"),
    "qkv": ("qkv",),
    "in": ("in",),
    "out": ("out",),
}
"""Part -> the roles of its linear modules (`layout.Branch.roles`)."""


def checked_parts(given: Any) -> tuple[str, ...]:
    """The parts in the order of PARTS, each once.

    Raises:
        ConfigError, UnknownNameError: no list of names, or a name that is not among PARTS.
    """
    if not isinstance(given, list | tuple):
        raise ConfigError(f"train_parts must be a list of parts, such as ('attention',), got {shown(given)}")
    for name in given:
        if not isinstance(name, str) or name not in PARTS:
            raise unknown_name("part", name, PARTS)
    return tuple(name for name in PARTS if name in given)
