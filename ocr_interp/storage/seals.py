"""Seals: a digest of a JSON object, of the files of a folder, or of a row of a table, kept with it.

What is read again is believed only under its seal. A seal notices damage and edits; who computes a digest
anew can forge one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ocr_interp.errors import RunError
from ocr_interp.storage.digests import digest_of, digest_of_file
from ocr_interp.storage.reading import parse_json, read_bytes

SEAL = "seal"
"""Key of the seal in a JSON object."""

SEAL_FILE = "ocr_interp_seal.json"
"""Name of the file that holds the digests of the other files of a folder."""


def seal_of(values: Mapping[str, Any]) -> str:
    """The digest of values that JSON can hold, whatever the order of their names."""
    return digest_of(json.dumps({k: v for k, v in values.items() if k != SEAL}, sort_keys=True), 32)


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their seal."""
    return {**values, SEAL: seal_of(values)}


def require_seal(path: Path, values: Mapping[str, Any], unsealed: Collection[str], advice: str) -> None:
    """Requires that the content of a JSON file is that of its seal.

    Args:
        path: the file, for the message.
        values: its content.
        unsealed: names that the content of files from before there were seals has; with any other name it
            must have a seal.
        advice: what to do about a changed file.

    Raises:
        RunError: the content is not that of its seal, or it has lost its seal.
    """
    if SEAL not in values:
        odd = sorted(set(values) - set(unsealed))
        if odd:
            raise RunError(
                f"{path} was changed after it was written (it has {odd[0]!r}, but no seal): {advice}"
            )
        return
    if values[SEAL] != seal_of(values):
        raise RunError(
            f"{path} was changed after it was written (its content is not that of its seal): {advice}"
        )


def file_digests(folder: Path, names: Collection[str] | None = None) -> dict[str, str]:
    """The SHA-256 of files of a folder by their relative names; None takes all but its seal."""
    if names is None:
        files = (file for file in folder.rglob("*") if file.is_file())
        names = [str(file.relative_to(folder).as_posix()) for file in files]
    return {name: digest_of_file(folder / name) for name in sorted(names) if name != SEAL_FILE}


def seal_folder(folder: Path, about: Mapping[str, Any]) -> None:
    """Writes the digests of all files of a folder that is being made into it.

    Args:
        folder: the folder.
        about: what else the seal says, such as the fingerprint of the run.

    Raises:
        OSError: the seal cannot be written.
    """
    content = sealed({"format_version": 1, **about, "files": file_digests(folder)})
    (folder / SEAL_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def require_sealed_folder(folder: Path, advice: str) -> dict[str, Any] | None:
    """Requires that the files of a folder are those that were sealed; files that came later do not matter.

    Args:
        folder: the folder.
        advice: what to do about a changed file.

    Returns: what its seal says; None if it has no seal.

    Raises:
        RunError: files that were changed or are gone; the message names them.
    """
    path = folder / SEAL_FILE
    try:
        said = dict(parse_json(read_bytes(path)))
        files = {str(name): str(digest) for name, digest in dict(said["files"]).items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} is damaged ({error!r}): {advice}") from None
    require_seal(path, said, (), advice)
    gone = [name for name in files if not (folder / name).is_file()]
    there = file_digests(folder, [name for name in files if name not in gone])
    changed = [name for name, digest in there.items() if digest != files[name]]
    if gone or changed:
        kinds = (("changed after it was written", changed), ("missing", gone))
        what = "; ".join(
            f"{', '.join(str(folder / n) for n in names[:3])}: {kind}" for kind, names in kinds if names
        )
        raise RunError(f"{what} ({SEAL_FILE} holds other digests): {advice}")
    return said
