"""result.json of a fine-tuning run: written with a seal, read, and asked for its configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocr_interp.configuration import version_1
from ocr_interp.errors import OcrInterpError, RunError
from ocr_interp.llm.training.configuration import FORMAT_VERSION, LLMRunConfig
from ocr_interp.storage.atomic import GO_ON, write_atomic
from ocr_interp.storage.folders import read_settings
from ocr_interp.storage.plain import plain
from ocr_interp.storage.seals import SEAL, require_seal, sealed

_SINCE_SEALS = ("keeps", "history_digest", "logits_digest", "movement")
"""Fields of a result.json that has a seal."""


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Writes the JSON of a finished run: one line per field, six digits, NaN as null, and its seal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {key: plain(value, 6) for key, value in result.items()}
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in sealed(content).items())
    write_atomic(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode(), GO_ON)


def read_result(path: str | Path) -> dict[str, Any]:
    """Reads the JSON of a finished run, of any version, with all its fields.

    Raises:
        RunError: the file is missing, damaged, was changed, or of a newer version; or a folder was given.
    """
    path = Path(path)
    if path.is_dir():
        inside = path / "result.json"
        then = f"name the file in it, {inside}" if inside.is_file() else "it has no result.json"
        raise RunError(f"{path} is a folder, required is the file of a result: {then}")
    missing, advice = f"{path} is missing: the run has not finished", "delete it, and the run is made again"

    def damaged(error: Exception) -> str:
        return f"is damaged ({error}): {advice}"

    values = read_settings(path, FORMAT_VERSION, missing, damaged)
    require_seal(path, values, values.keys() - set(_SINCE_SEALS), advice)
    return {name: value for name, value in values.items() if name != SEAL}


def config_of_result(result: Mapping[str, Any]) -> LLMRunConfig:
    """The configuration in the result of `read_result`.

    Raises:
        RunError: its fingerprint is not the one that was written.
    """
    try:
        config = LLMRunConfig.from_dict(result["config"])
        is_first = result["format_version"] == 1
        expected = version_1.llm_fingerprint(result["config"]) if is_first else config.fingerprint
    except (OcrInterpError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"this is no result of a language-model run ({error})") from None
    if expected != result.get("fingerprint"):
        raise RunError(
            f"the configuration of a result was changed after it was written (fingerprint "
            f"{result.get('fingerprint')}, its content has {expected}): make the run again"
        )
    return config
