"""What differs in files of format version 1. Such files exist, so nothing here may change.

Version 1 hashed every field of a configuration. Fields that were added while it was in use were left out of
the hash at their defaults, so that earlier runs kept their fingerprints. Fingerprints are computed from the
content of the file alone, not with today's configuration classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ocr_interp.configuration.fields import fingerprint

_CAME_LATER: dict[str, dict[str, Any]] = {
    "task": {},
    "model": {"ov_options": []},
    "train": {
        "muon_momentum": 0.95,
        "muon_nesterov": True,
        "muon_ns_steps": 5,
        "muon_adjust_lr": "original",
        "muon_eps": 1e-7,
        "muon_precision": "bfloat16",
        "scores_lr": 5e-3,
        "second_optimizer": None,
        "switch_step": 0,
        "second_lr": None,
        "optimizer_options": [],
    },
}
"""Fields added while version 1 was in use, with their defaults."""

_LLM_CAME_LATER: dict[str, Any] = {"optimizer_options": [], "method_options": {}, "train_parts": []}
"""The same for the recipe of language-model runs."""

_FACTS_CAME_LATER: dict[str, Any] = {
    "implications_file": None,
    "language": "",
    "scoring": "auto",
    "n_unseen": 0,
}
"""The same for their facts: a run of version 1 that goes on writes its configuration with today's fields."""

_LLM_UNDECISIVE = ("device", "download", "checkpoint_every", "eval_batch_size", "movement")
"""Fields of language-model runs that are left out of the hash."""

_SPLITS = ("training_fact", "training_implication", "held_out_fact", "held_out_implication")
_SPLIT_COLUMNS = ("loss", "loss_in_set", "accuracy", "accuracy_in_set", "margin")

COLUMNS = (
    "step",
    "train_loss",
    "train_margin",
    "held_out_margin",
    "nuclear_norm",
    "frobenius_norm",
    "effective_rank",
    "beta",
    "gap_nuclear",
    "gap_frobenius",
    "excess_nuclear",
    "excess_frobenius",
    "cosine_nuclear",
    "cosine_frobenius",
    *(f"{split}/{column}" for split in _SPLITS for column in _SPLIT_COLUMNS),
)
"""Columns of every history, and of the rows in the parts of a sweep, which did not name them."""

Value = TypeVar("Value")


def run_fingerprint(values: Mapping[str, Any]) -> str:
    """The fingerprint of a run from the values in its file (task, model, train).

    Raises:
        KeyError, AttributeError: a part is missing or holds no fields.
    """
    return fingerprint(1, {part: _hashed(values[part], later) for part, later in _CAME_LATER.items()})


def llm_fingerprint(values: Mapping[str, Any]) -> str:
    """The fingerprint of a language-model run from the values in its file (facts, train)."""
    train = _hashed(values["train"], _LLM_CAME_LATER)
    decisive = {name: value for name, value in train.items() if name not in _LLM_UNDECISIVE}
    return fingerprint(1, {"facts": _hashed(values["facts"], _FACTS_CAME_LATER), "train": decisive})


def _hashed(values: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """All fields except those that were added later and are at their defaults."""
    return {name: value for name, value in values.items() if name not in later or value != later[name]}


def named_weights(tensors: Mapping[str, Value], has_factors: bool) -> dict[str, Value]:
    """Weights under today's names: W_OV of a map without factors was called W_V.

    Args:
        tensors: a snapshot, or the weights of a run of a sweep.
        has_factors: whether the map has factors W_V and W_O.
    """
    if has_factors:
        return dict(tensors)
    return {"W_OV" if name == "W_V" else name: tensor for name, tensor in tensors.items()}
