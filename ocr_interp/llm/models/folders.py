"""What a model folder may hold: data. It brings no code, no pipes, and no sizes that no model has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ocr_interp.errors import ModelError, shown
from ocr_interp.storage.known_folders import FACT_RECALL_RUN, LANGUAGE_MODEL_RUN
from ocr_interp.storage.reading import parse_json, read_bytes, require_regular

_JSON_BYTES = 256 * 2**20
"""Largest JSON of a model folder: a tokenizer of a million tokens has some 100 MB."""

_SETTINGS = ("config.json", "tokenizer_config.json", "processor_config.json", "generation_config.json")

MOST_LAYERS, MOST_PARTS, MOST_NUMBER = 2_000, 10**6, 2**40
"""Most layers, heads, experts or other parts, and largest number of a configuration."""

_LAYERS = re.compile(r"(^|_)(layers?|blocks?)$")
_PARTS = re.compile(r"^(num|n)_|(^|_)size$")


def refuse_hostile_folder(name: str, folder: Path) -> None:
    """Checks a model folder before transformers reads it.

    Args:
        name: what the user called it.
        folder: the folder; links in it are followed, since a cache of the hub is made of them.

    Raises:
        ModelError: a run instead of a model; a file that is a pipe or device; settings that are no JSON,
            that name code (`auto_map`, attention kernels of the hub) or an adapter of another folder; numbers
            of layers or parts that no model has.
    """
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            continue
        try:
            require_regular(path)
        except OSError as error:
            raise ModelError(f"{name}: {path.name} cannot be read ({error.strerror or error})") from None
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{name} holds an adapter (adapter_config.json), which names another model: merge it into its "
            "model and name the folder of the whole"
        )
    for settings in _SETTINGS:
        if (folder / settings).exists():
            content = _read(name, folder / settings)
            _refuse_code(f"{name}: {settings}", content)
            if settings == "config.json":
                _refuse_runs(name, content)
                _refuse_sizes(f"{name}: {settings}", content)


def _refuse_runs(name: str, content: Mapping[str, Any]) -> None:
    if FACT_RECALL_RUN.holds(content):
        raise ModelError(f"{name} must be a language model, or a run of one, got {FACT_RECALL_RUN}")
    if LANGUAGE_MODEL_RUN.holds(content):
        raise ModelError(
            f"{name} must be a model folder, got {LANGUAGE_MODEL_RUN}: name {name}/model, which a run with "
            "save_model has"
        )


def _read(name: str, path: Path) -> Mapping[str, Any]:
    try:
        content = parse_json(read_bytes(path, _JSON_BYTES))
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: {path.name} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{name}: {path.name} must be an object, got a {type(content).__name__}")
    return content


def _refuse_code(where: str, content: Mapping[str, Any]) -> None:
    for key, value in _entries(content):
        if key == "auto_map" and value:
            raise ModelError(
                f"{where} names code of the folder (auto_map), which is never run: take a model that "
                "transformers brings itself; if it is one, delete auto_map from the file"
            )
        if "attn_implementation" in key and isinstance(value, str) and re.search(r"[/@:]", value):
            raise ModelError(f"{where} names a kernel to load, {key}={shown(value)}: delete it")


def _refuse_sizes(where: str, content: Mapping[str, Any]) -> None:
    for key, value in _entries(content):
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        most = MOST_LAYERS if _LAYERS.search(key) else MOST_PARTS * 10 if _PARTS.search(key) else MOST_NUMBER
        if abs(value) > most:
            raise ModelError(f"{where} has {key}={shown(value)}, allowed is at most {most:,}: it is no model")


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """(key, value) of all objects at any depth, which `parse_json` has bounded."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(content, list):
        for value in content:
            yield from _entries(value)


def weights_bytes(folder: Path) -> int:
    """Bytes of the files of weights in a folder; 0 if it has none under a known suffix."""
    suffixes = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in suffixes)
