"""Models and results of single seeds, kept in the folder of runs while the code behind them is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

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
    code = _digest(*own, *sorted(LIBRARY.rglob("*.py")), Path(worked_models.__file__))
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["code"] == code:
            return content["result"]
    result = plain(measure())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"code": code, "result": result}, indent=1) + "\n", encoding="utf-8")
    return result


def model_of(seed: int, runs: Path) -> Any:
    """The trained induction model of a seed, trained on one thread if the folder of runs does not have it."""
    name = f"induction_{seed}_{_digest(Path(worked_models.__file__))}.safetensors"
    path = runs / "discovery" / name
    if not path.is_file():
        torch.set_num_threads(1)
        path.parent.mkdir(parents=True, exist_ok=True)
        parameters = worked_models.induction_model(seed).named_parameters()
        save_file({name: parameter.detach().contiguous() for name, parameter in parameters}, path)
    model = worked_models.untrained_induction_model(seed)
    model.load_state_dict(load_file(path), strict=False)  # buffers are the same in every model
    return model.requires_grad_(False).eval()


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
