"""HookedTransformers in one safetensors file with their settings: those of any user, and exports of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ocr_interp.configuration.run import RunConfig
from ocr_interp.errors import ModelError, OcrInterpError, RunError
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.hooked.tokens.labels import name_tokens, names_of
from ocr_interp.storage.tensors import read_any_tensors, write_tensors

KIND = "hooked_transformer"
_ADVICE = "write it again with ocr_interp.models.save_model or `ocr-interp export`"


def save_model(model: HookedModel, path: Path | str) -> Path:
    """Writes a HookedTransformer with its settings and labels; `load_model` and the commands read it.

    Args:
        model: a HookedTransformer; a run's is written by `run.export`.
        path: the file, .safetensors; its folder must exist.

    Returns: the path.

    Raises:
        ModelError: a bridge (keep its transformers model), or a model with attention of its own.
        RunError: the file cannot be written; an earlier file is left unchanged.
    """
    from ocr_interp.models.hooked39 import settings_of

    names = names_of(model)
    about = {
        "kind": KIND,
        "settings": settings_of(model),
        "labels": None if names.labels is None else list(names.labels),
        "output_labels": None if names.output_labels is None else list(names.output_labels),
    }
    source: Any = model
    write_tensors(Path(path), dict(source.state_dict()), about, then="try again")
    return Path(path)


def load_model(path: Path | str) -> HookedModel:
    """A HookedTransformer from a file of `save_model` or of a run's `export`, on the CPU.

    Raises:
        RunError: no such file, a damaged one, or weights without settings.
    """
    from ocr_interp.models.hooked39 import build_model, hooked_of

    state, about = read_any_tensors(Path(path), _ADVICE)
    if about.get("kind") != KIND or not ("settings" in about or "config" in about):
        raise RunError(
            f"{path} must hold a HookedTransformer with its settings, got "
            f"{about.get('kind') or 'weights alone'}: {_ADVICE}"
        )
    try:
        if "config" in about:
            config = RunConfig.from_dict(about["config"])
            model: Any = build_model(config.task, config.model, device="cpu")
        else:
            model = hooked_of(about["settings"])
        model.load_state_dict(state)
    except OcrInterpError as error:
        raise RunError(f"{path} has settings of no model: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{path} has weights that do not fit its settings: {reason}") from None
    if "settings" in about:
        try:
            name_tokens(model, about.get("labels"), about.get("output_labels"))
        except ModelError as error:
            raise RunError(f"{path}: {error}") from None
    return model.eval()
