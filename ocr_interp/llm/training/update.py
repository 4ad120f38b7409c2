"""The update of a fine-tuning run: its statistics and state, merging it, and storing it on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ocr_interp.checks import from_fields
from ocr_interp.errors import ModelError, RunError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.adapters.base import Attached
from ocr_interp.llm.layers.joined import apart, joined_in, together
from ocr_interp.llm.layers.movement import Movement, movement
from ocr_interp.llm.models.kept_weights import KeptWeights
from ocr_interp.llm.models.loading import LanguageModel, load_model, quiet
from ocr_interp.llm.models.unchanged import unchanged_if_refused
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.base_weights import BaseWeights
from ocr_interp.llm.training.files.inputs import BaseModel, model_files
from ocr_interp.llm.training.files.store import ADAPTER_FILE, RunFolder
from ocr_interp.llm.training.trainable import make_trainable, trained_parameters
from ocr_interp.storage.atomic import GO_ON
from ocr_interp.storage.folders import read_settings, write_settings
from ocr_interp.storage.seals import require_seal, seal_folder
from ocr_interp.storage.tensors import read_tensors, write_tensors
from ocr_interp.storage.whole import whole_folder

_STATE = "adapter|"

ADAPTER_CONFIG = "adapter_config.json"
UPDATE_FIELDS = (
    *("model", "method", "method_options", "train_parts", "lora_rank", "lora_alpha", "train_seed", "dtype"),
    "steps",
)
"""Fields of the recipe that an update depends on."""

_SHOWN = 3

_RESTORE = "put the original back, or save the update again"


def method_columns(recipe: FinetuneConfig) -> dict[str, str]:
    """What the columns of a method measure, by their names in the history ("method/name")."""
    columns = methods[recipe.method].columns(recipe)
    return {f"{recipe.method}/{name}": what for name, what in columns.items()}


def method_statistics(model: Any, recipe: FinetuneConfig) -> dict[str, float]:
    """The present values of the columns of a method.

    Raises:
        ModelError: the method's statistics do not match its columns.
    """
    with torch.no_grad():
        values = methods[recipe.method].statistics(model, recipe)
    found = {f"{recipe.method}/{name}": float(value) for name, value in values.items()}
    expected = method_columns(recipe)
    if set(found) != set(expected):
        odd = sorted(set(found) ^ set(expected))
        raise ModelError(
            f"method {recipe.method!r} must give statistics for exactly its columns: {', '.join(odd)} "
            "is in one of both only; correct its `columns` or `statistics`"
        )
    return {name: found[name] for name in expected}


def method_state(model: Any, recipe: FinetuneConfig) -> dict[str, Tensor]:
    """The tensors that a method keeps in a checkpoint beside its parameters, with a prefix to their names."""
    state = methods[recipe.method].state(model)
    return {f"{_STATE}{name}": tensor.detach() for name, tensor in state.items()}


def restore_method_state(
    model: Any, recipe: FinetuneConfig, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Copies a method's state back in place.

    Returns: the other tensors of the checkpoint.

    Raises:
        ModelError: the state belongs to another model.
    """
    state = methods[recipe.method].state(model)
    saved = {name.removeprefix(_STATE): t for name, t in tensors.items() if name.startswith(_STATE)}
    _require_same(state, saved)
    with torch.no_grad():
        for name, tensor in saved.items():
            state[name].copy_(tensor)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_STATE)}


def trained_model(
    lm: LanguageModel, names: frozenset[str], model: Any, recipe: FinetuneConfig
) -> LanguageModel:
    """The result of fine-tuning: the update merged into the model if possible, else attached to it.

    Args:
        lm: the model that was fine-tuned.
        names: names of its parameters before fine-tuning.
        model: the trained model, as `make_trainable` returned it.
        recipe: the recipe.

    Raises:
        ModelError: the parameters of the merged model have other names than before.
    """
    adapter = methods[recipe.method]
    if adapter.why_not_merged:
        return LanguageModel(lm.name, model, lm.tokenizer, Attached(adapter, recipe))
    plain = adapter.merged(model)
    odd = sorted({name for name, _ in plain.named_parameters()} ^ names)
    if odd:
        raise ModelError(
            f"method {recipe.method!r} left {len(odd)} parameters that are not the model's own, such as "
            f"{odd[0]}: its adapter must put them into the weights (`merged`) or say why it cannot "
            "(`why_not_merged`)"
        )
    return LanguageModel(lm.name, plain, lm.tokenizer)


def run_movement(lm: LanguageModel, start: KeptWeights | str) -> Movement | str:
    """How far a trained model moved from its start; a text says why that is not known.

    Args:
        lm: what `trained_model` returned.
        start: the weights before fine-tuning, or why they cannot be read.
    """
    if lm.attached is not None:
        return f"the update of {lm.attached.recipe.method!r} has no ΔW: {lm.attached.adapter.why_not_merged}"
    if isinstance(start, str):
        return start
    try:
        return movement(lm.model, start)
    except ModelError as error:
        return str(error)


def keep_model(lm: LanguageModel, folder: RunFolder) -> None:
    """Writes a trained model with its tokenizer as a sealed folder, or an update that is not merged.

    Raises:
        RunError: a file cannot be written; nothing is left of the folder.
    """
    if lm.attached is not None:
        _save_update(lm, folder)
        return
    with quiet(), whole_folder(folder.model_folder, GO_ON) as temporary:
        lm.model.save_pretrained(temporary)
        lm.tokenizer.save_pretrained(temporary)
        seal_folder(temporary, {"fingerprint": folder.fingerprint})


def _save_update(lm: LanguageModel, folder: RunFolder) -> None:
    assert lm.attached is not None
    write_update(folder.adapter_file.parent, lm.model, lm.attached.recipe, folder.fingerprint)


def write_update(folder: Path, model: Any, recipe: FinetuneConfig, fingerprint: str) -> None:
    """Writes an update without its model: adapter.safetensors, and adapter_config.json with its method.

    Raises:
        RunError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror or error}") from None
    tensors = {**apart(trained_parameters(model), joined_in(model)), **method_state(model, recipe)}
    stamp = {"fingerprint": fingerprint, "kind": "weights"}
    write_tensors(folder / ADAPTER_FILE, tensors, stamp, large=True)
    fields = LLMRunConfig(train=recipe).to_dict()["train"]
    about = {**{name: fields[name] for name in UPDATE_FIELDS}, **BaseWeights.of(model).to_dict()}
    write_settings(folder / ADAPTER_CONFIG, {"format_version": 1, "fingerprint": fingerprint, **about})


def read_update(folder: Path) -> tuple[FinetuneConfig, dict[str, Tensor], BaseWeights]:
    """The recipe and the tensors of an update that `write_update` has written, and which model it is of.

    Raises:
        RunError: no such files, damaged ones, or ones that do not belong together.
    """
    file = folder / ADAPTER_CONFIG
    missing = f"{folder} holds no update ({ADAPTER_CONFIG} is missing): name the folder of save_update"
    values = read_settings(file, 1, missing, lambda error: f"is damaged ({error!r}): {_RESTORE}")
    require_seal(file, values, (), _RESTORE)
    tensors, _ = read_tensors(folder / ADAPTER_FILE, str(values.get("fingerprint")), "weights", _RESTORE)
    recipe = from_fields(FinetuneConfig, "train", {n: values[n] for n in UPDATE_FIELDS if n in values})
    return recipe, tensors, BaseWeights.from_dict(values)


def put_update(model: Any, recipe: FinetuneConfig, tensors: Mapping[str, Tensor]) -> None:
    """Copies an update into a model that its method has been attached to.

    Raises:
        ModelError: the update belongs to another model; nothing has been copied.
    """
    require_fitting(model, recipe, tensors)
    trained = trained_parameters(model)
    others = together(restore_method_state(model, recipe, tensors), joined_in(model))
    with torch.no_grad():
        for name, tensor in others.items():
            trained[name].copy_(tensor)


def require_fitting(model: Any, recipe: FinetuneConfig, tensors: Mapping[str, Tensor]) -> None:
    """Requires the names and shapes of an update in a model that its method has been attached to.

    Raises:
        ModelError: the update belongs to another model.
    """
    own = apart(trained_parameters(model), joined_in(model)) | method_state(model, recipe)
    _require_same(own, tensors)


def load_finetuned(
    run_dir: str | Path, base: LanguageModel | None = None, *, model: str | None = None
) -> LanguageModel:
    """Loads the model that a run saved (`save_model`).

    Args:
        run_dir: directory of a finished run.
        base: for an update that is not merged: the model before fine-tuning, to which it is attached; None
            loads it.
        model: folder or name of the model before fine-tuning if it was moved; None is the run's
            config.train.model.

    Raises:
        RunError: no run there, a damaged file, or a base model that is not the one of the run.
        ModelError: the run saved no model, or the base model is missing or another one.
    """
    folder = RunFolder(Path(run_dir))
    config = folder.read_config()
    recipe = config.train
    if not folder.result_file.exists():
        raise ModelError(f"{folder.progress()}: no model is kept before")
    result = folder.read_result()
    if folder.model_folder.is_dir():
        folder.require_kept_model(result)
        return load_model(str(folder.model_folder), dtype=recipe.dtype)
    if not folder.adapter_file.is_file():
        raise ModelError(f"{run_dir} kept no model: {how_to_keep(folder)}")
    advice = "restore it, or fine-tune into a new run_dir"
    tensors, _ = read_tensors(folder.adapter_file, folder.fingerprint, "weights", advice)
    lm = base or load_base(folder, model)
    if base is not None:
        inputs = folder.read_inputs()
        if inputs is not None:
            inputs.require_same(BaseModel.of(base, {}), base.name, folder.path)
    with unchanged_if_refused(lm.model):
        attached = make_trainable(lm.model, recipe, tensors).eval()
        put_update(attached, recipe, tensors)
    return LanguageModel(lm.name, attached, lm.tokenizer, Attached(methods[recipe.method], recipe))


def load_base(folder: RunFolder, model: str | None = None) -> LanguageModel:
    """Loads the model that a run was begun with.

    Args:
        folder: the run.
        model: its folder or name if it was moved; None is that of the run's configuration.

    Raises:
        ModelError: it cannot be loaded.
        RunError: it is not the one that the run was given.
    """
    recipe, inputs = folder.read_config().train, folder.read_inputs()
    name = model or recipe.model
    compared = inputs is None or inputs.require_files(name, model_files(name), folder.path)
    lm = load_model(name, dtype=recipe.dtype)
    if inputs is not None and not compared:
        inputs.require_same(BaseModel.of(lm, {}), name, folder.path)
    return lm


def how_to_keep(folder: RunFolder) -> str:
    """What to type to get the model of a run that has none."""
    if folder.is_complete():
        return "fine-tune with save_model=True (--save-model)"
    return "it is not kept yet, start `llm finetune` again with the same run_dir"


def _require_same(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Requires the same names and shapes."""
    mine, theirs = ({name: tuple(t.shape) for name, t in both.items()} for both in (own, saved))
    odd = sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
    if not odd:
        return
    here = {name: mine.get(name, "nothing") for name in odd[:_SHOWN]}
    listed = [
        f"{n.removeprefix(_STATE)} is {theirs.get(n, 'nothing')} there and {here[n]} here" for n in here
    ]
    more = f", and {len(odd) - _SHOWN} more differ" if len(odd) > _SHOWN else ""
    raise ModelError(
        f"the saved update is of another model than this one: {', '.join(listed)}{more}; load it onto the "
        "model that it was trained on, or a copy"
    )
