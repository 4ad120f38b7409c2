"""Results of single seeds, kept in the folder of runs while the code that they come from stays the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ocr_interp.discovery
from analyses.circuits import worked_models
from ocr_interp.storage.plain import plain

LIBRARY = Path(ocr_interp.discovery.__file__).parent


def kept(path: Path, sources: Sequence[str], measure: Callable[[], Any]) -> dict[str, Any]:
    """A result as plain data: read if these sources measured it before, measured and written if not.

    Args:
        path: JSON file of the result.
        sources: modules of this study that it comes from; the library's discovery and the models count too.
        measure: makes it.
    """
    own = [Path(__file__).parent / f"{name}.py" for name in sources]
    paths = [*own, *sorted(LIBRARY.rglob("*.py")), Path(worked_models.__file__)]
    code = hashlib.sha256(b"".join(each.read_bytes() for each in paths)).hexdigest()[:16]
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["code"] == code:
            return content["result"]
    result = plain(measure())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"code": code, "result": result}, indent=1) + "\n", encoding="utf-8")
    return result
