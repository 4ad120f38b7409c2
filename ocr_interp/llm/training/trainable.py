"""The trained parameters of a method, and their optimizers out of `optim`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ocr_interp.errors import ModelError, OcrInterpError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.layers.layout import embedding_names
from ocr_interp.llm.training.configuration import FinetuneConfig
from ocr_interp.optim import optimizers
from ocr_interp.optim.stepping import put_state, state_of, torch_optimizers


def make_trainable(model: Any, config: FinetuneConfig, saved: Mapping[str, Tensor] | None = None) -> Any:
    """The model with its method's update attached; only the trained parameters require gradients.

    The start of the update depends on train_seed only.

    Args:
        model: the model, which may be changed in place.
        config: the recipe.
        saved: the tensors of a saved update that will be put in; None for the start of training.

    Raises:
        ModelError: the method does not work with this model, or there is an update on it already.
    """
    if getattr(model, "peft_config", None):
        raise ModelError(
            f"this {type(model).__name__} has an update of peft already: put it into the weights first "
            "(model.merge_and_unload()), or take the model without it"
        )
    method = methods[config.method]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train_seed)
        try:
            return (
                method.attach(model, config) if saved is None else method.attach_saved(model, config, saved)
            )
        except OcrInterpError:
            raise
        except Exception as error:  # a user's adapter may raise anything
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"method {config.method!r} cannot be put on {type(model).__name__}: "
                f"{type(error).__name__}: {reason}"
            ) from error


def trained_parameters(model: Any) -> dict[str, Tensor]:
    """The parameters that require gradients, by name; tied parameters are listed once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def is_map(name: str, shape: tuple[int, ...], embeddings: frozenset[str]) -> bool:
    """Whether a parameter is the matrix of a linear map: no embedding, no vector, no convolution kernel."""
    return len(shape) == 2 and name not in embeddings


def make_optimizers(
    model: Any, config: FinetuneConfig, trained: Mapping[str, Tensor] | None = None
) -> list[torch.optim.Optimizer]:
    """The recipe's optimizer, and its fallback for the parameters that it does not train.

    Args:
        model: the model, as `make_trainable` returned it.
        config: the recipe.
        trained: what the optimizers step on, by the names of the parameters (`MasterWeights.trained`); None
            is the parameters themselves.

    Raises:
        ConfigError: Muon without a matrix to train.
    """
    parameters, tables = trained or trained_parameters(model), embedding_names(model)
    on_gpu = any(p.device.type == "cuda" for p in parameters.values())
    # Processors without bfloat16 instructions multiply it 25 times slower than float32.
    recipe = config.optimizer_settings("bfloat16" if on_gpu else "float32")
    return torch_optimizers(
        optimizers[config.optimizer],
        [(p, is_map(name, tuple(p.shape), tables), recipe) for name, p in parameters.items()],
    )


def training_state(
    trained: Mapping[str, Tensor], made: Sequence[torch.optim.Optimizer] = ()
) -> dict[str, Tensor]:
    """What optimizers step on and their state, as "parameter|<name>" and "optimizer|<name>|<key>"."""
    tensors = {f"parameter|{name}": p.detach() for name, p in trained.items()}
    for name, parameter in trained.items():
        for key, value in state_of(made, parameter).items():
            tensors[f"optimizer|{name}|{key}"] = value
    return tensors


def restore_state(
    trained: Mapping[str, Tensor], made: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    """Restores what optimizers step on and their state, to the bit.

    Raises:
        ModelError: the state belongs to another model, or was trained in another precision.
    """
    saved = {key.partition("|")[2] for key in tensors if key.startswith("parameter|")}
    others = [key for key in tensors if not key.startswith("parameter|")]
    states_of = {key.split("|")[1] if key.startswith("optimizer|") else key for key in others}
    if saved != set(trained) or not states_of <= saved:
        odd = sorted((saved ^ set(trained)) | (states_of - saved))[:3]
        raise ModelError(f"the checkpoint is of another model: {', '.join(odd)} are not in both")
    for name, parameter in trained.items():
        tensor = tensors[f"parameter|{name}"]
        if tensor.shape != parameter.shape:
            raise ModelError(
                f"the checkpoint is of another model: {name} must have the shape {tuple(parameter.shape)}, "
                f"got {tuple(tensor.shape)}"
            )
        if tensor.dtype != parameter.dtype:
            raise ModelError(
                f"the checkpoint holds {name} as {tensor.dtype}, it is trained as {parameter.dtype}: "
                "an earlier version trained bfloat16 weights without float32 copies; finish the run "
                "with that version, or fine-tune into a new run_dir"
            )
    states: dict[str, dict[str, Tensor]] = {}
    with torch.no_grad():
        for key, tensor in tensors.items():
            kind, name, *rest = key.split("|")
            if kind == "parameter":
                trained[name].copy_(tensor)
            else:
                states.setdefault(name, {})["|".join(rest)] = tensor
    for name, state in states.items():
        put_state(made, trained[name], state)
