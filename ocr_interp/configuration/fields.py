"""Shared by all run configurations: changed fields, fingerprints, differences.

A fingerprint hashes the fields that differ from their defaults. A field that is added later therefore leaves
the fingerprints of earlier runs unchanged. A default must never change: the fingerprints of earlier runs
would then no longer match.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from ocr_interp.storage.digests import digest_of

Parts = Mapping[str, Mapping[str, Any]]
"""Values by part of a configuration ("task", "model", ...) and field."""


def changed_fields(values: Parts, defaults: Parts, undecisive: Collection[str] = ()) -> dict[str, dict]:
    """The fields that differ from their defaults; parts without any are left out.

    Args:
        values: values of a configuration.
        defaults: values of the default configuration.
        undecisive: fields that do not affect the result.
    """
    found = {
        part: {
            name: value
            for name, value in fields.items()
            if name not in undecisive and (name not in defaults[part] or value != defaults[part][name])
        }
        for part, fields in values.items()
    }
    return {part: fields for part, fields in found.items() if fields}


def fingerprint(version: int, fields: Mapping[str, Any]) -> str:
    """Short hash of a format version and fields."""
    return digest_of(json.dumps([version, fields], sort_keys=True), 16)


def differences(mine: Parts, theirs: Parts, undecisive: Collection[str] = ()) -> list[str]:
    """The fields in which two configurations of one class differ, as "train.lr: 0.005 != 0.01"."""
    return [
        f"{part}.{name}: {mine[part][name]!r} != {theirs[part].get(name)!r}"
        for part in mine
        for name in mine[part]
        if mine[part][name] != theirs[part].get(name) and name not in undecisive
    ]
