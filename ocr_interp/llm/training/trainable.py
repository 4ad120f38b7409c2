"""What is trained and by what: the method's parameters, AdamW or Muon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ocr_interp.errors import ConfigError, ModelError, OcrInterpError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.training.configuration import FinetuneConfig


def make_trainable(model: Any, config: FinetuneConfig) -> Any:
    """The model with its method's update attached; what is trained asks for gradients, and nothing else does.

    The start depends on train_seed alone.

    Raises:
        ModelError: the method cannot be put on this model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train_seed)
        try:
            return methods[config.method].attach(model, config)
        except OcrInterpError:
            raise
        except Exception as error:  # an adapter may be anybody's
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"method {config.method!r} cannot be put on {type(model).__name__}: "
                f"{type(error).__name__}: {reason}"
            ) from error


def trained_parameters(model: Any) -> dict[str, Tensor]:
    """The parameters that get gradients, by name; tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def is_matrix(name: str, shape: tuple[int, ...], embeddings: frozenset[str]) -> bool:
    """Whether Muon takes a parameter: a matrix that maps, not a table of embeddings."""
    return len(shape) == 2 and name not in embeddings


def embedding_names(model: Any) -> frozenset[str]:
    """Names of the tables: embeddings, of positions too (GPT-2), and unembedding."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    tables |= {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m}
    return frozenset(name for name, p in model.named_parameters() if id(p) in tables)


def make_optimizers(model: Any, config: FinetuneConfig) -> list[torch.optim.Optimizer]:
    """One optimizer, or Muon on the matrices and AdamW on the rest.

    Raises:
        ConfigError: Muon in a torch that does not have it, or without a matrix to train.
    """
    parameters, tables = trained_parameters(model), embedding_names(model)
    matrices = [p for name, p in parameters.items() if is_matrix(name, tuple(p.shape), tables)]
    if config.optimizer == "adamw":
        return [_adamw(list(parameters.values()), config)]
    if not hasattr(torch.optim, "Muon"):
        raise ConfigError(f"optimizer='muon' needs torch.optim.Muon (torch >= 2.9), got {torch.__version__}")
    if not matrices:
        raise ConfigError("optimizer='muon' needs a matrix to train: this model trains none")
    from ocr_interp.optim.gram_muon import FullPrecisionMuon  # needs a torch that has Muon

    kind = torch.optim.Muon if matrices[0].device.type == "cuda" else FullPrecisionMuon
    muon = kind(
        matrices,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    taken = {id(p) for p in matrices}
    rest = [p for p in parameters.values() if id(p) not in taken]
    return [muon, *([_adamw(rest, config)] if rest else [])]


def _adamw(parameters: list[Tensor], config: FinetuneConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=parameters[0].device.type in ("cpu", "cuda"),
    )


def training_state(model: Any, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Trained parameters and optimizer state, as "parameter|<name>" and "optimizer|<name>|<key>"."""
    parameters = trained_parameters(model)
    tensors = {f"parameter|{name}": p.detach() for name, p in parameters.items()}
    for name, parameter in parameters.items():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer|{name}|{key}"] = torch.as_tensor(value).detach()
    return tensors


def restore_state(model: Any, optimizers: list[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Puts parameters and optimizer state back, to the bit.

    Raises:
        ModelError: state of another model.
    """
    parameters = trained_parameters(model)
    saved = {key.split("|")[1] for key in tensors}
    if saved != set(parameters):
        odd = sorted(saved ^ set(parameters))[:3]
        raise ModelError(f"the checkpoint is of another model: {', '.join(odd)} are not in both")
    owner = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    with torch.no_grad():
        for key, tensor in tensors.items():
            kind, name, *rest = key.split("|")
            parameter = parameters[name]
            if kind == "parameter":
                parameter.copy_(tensor)
            else:
                # A step count stays where torch keeps it (on the CPU, unless fused on a GPU).
                where = parameter.device if tensor.dim() or parameter.device.type == "cuda" else "cpu"
                owner[id(parameter)].state[parameter][rest[0]] = tensor.to(where)
