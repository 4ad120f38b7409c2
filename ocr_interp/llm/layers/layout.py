"""Where attention and MLPs write to the residual stream of a language model, and which weights are whose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ocr_interp.errors import ModelError
from ocr_interp.llm.layers.tracing import TOKENS, Origin, Trace, trace

ATTENTION, MLP = "attention", "mlp"

_ADVICE = "take method='full' or 'lora' without train_parts, or another model"


@dataclass(frozen=True)
class Branch:
    """What is computed from the residual stream and added to it again.

    Attributes:
        block: path of its block, e.g. "model.layers.3".
        kind: ATTENTION if it mixes positions, as attention, Mamba or a convolution does; else MLP.
        output: path of the outermost module whose output is what is added; None where a module is called
            more than once in one pass, so that it has no place of its own.
        weights: names of its parameters, norms included.
        roles: path of each of its linear modules -> "q or k", "v", "qkv" (where one matrix makes both), "o",
            "in" and "out" of a mixer without a pattern, "inner" for others of a mixer; of an MLP "mlp in" if
            it reads what enters the MLP (gates and routers too), else "mlp out".
    """

    block: str
    kind: str
    output: str | None
    weights: frozenset[str]
    roles: Mapping[str, str]


@dataclass(frozen=True)
class Layout:
    """The branches of a model, in the order in which they are added.

    Attributes:
        branches: all of them.
        norms: names of the parameters of norms.
        embeddings: names of embeddings, position embeddings and unembedding.
        widths: (inputs, outputs) of every linear module, by its path.
    """

    branches: tuple[Branch, ...]
    norms: frozenset[str]
    embeddings: frozenset[str]
    widths: Mapping[str, tuple[int, int]]


def layout_of(model: Any) -> Layout:
    """Asks a model with one short forward pass, which changes nothing; on "meta" too.

    Args:
        model: a causal language model of transformers.

    Raises:
        ModelError: a model whose blocks do not add branches to a residual stream, or add something that no
            module makes.
    """
    name = type(model).__name__
    size = int(model.config.get_text_config().vocab_size)
    ids = (torch.arange(TOKENS, device=next(model.parameters()).device) % size)[None]
    trains = [(module, module.training) for module in model.modules()]
    try:
        seen = trace(model.eval(), ids)
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{name} cannot be asked where its attention and MLPs are, its forward pass fails: {reason}: "
            f"{_ADVICE}"
        ) from error
    finally:
        for module, training in trains:
            module.training = training
    _refuse_unnamed(name, seen)
    norms = _owned(model, seen.norms)
    branches: list[Branch] = []
    for block, origin in seen.branches:
        branch = _branch(block, origin, seen)
        if branch not in branches:  # blocks that are run several times add the same
            branches.append(branch)
    return Layout(tuple(branches), norms, embedding_names(model), dict(seen.widths))


def embedding_names(model: Any) -> frozenset[str]:
    """Names of the embeddings, position embeddings (GPT-2) and unembedding."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    tables |= {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m}
    return frozenset(name for name, p in model.named_parameters() if id(p) in tables)


def _refuse_unnamed(name: str, seen: Trace) -> None:
    blocks = {block for block, _ in seen.branches}
    if not any(origin.mixes for _, origin in seen.branches):
        raise ModelError(
            f"{name} has no blocks that add attention, or another mixer of positions, to a residual "
            f"stream: {_ADVICE}"
        )
    odd = [block for block in seen.left if block in blocks]
    if odd:
        raise ModelError(
            f"{name} does not keep a residual stream: what leaves {odd[0]} is not a sum with what enters it: "
            f"{_ADVICE}"
        )
    unnamed = [block for block, origin in seen.branches if not origin.made_by]
    if unnamed:
        raise ModelError(
            f"{name} adds something to the residual stream in {unnamed[0] or 'no block'} that is the output "
            f"of no module: {_ADVICE}"
        )


def _branch(block: str, origin: Origin, seen: Trace) -> Branch:
    output = next((path for path in reversed(origin.made_by) if seen.calls[path] == 1), None)
    kind = ATTENTION if origin.mixes else MLP
    roles = {path: _role(path, origin, kind) for path in sorted(origin.maps)}
    return Branch(block, kind, output, origin.weights, roles)


def _role(path: str, origin: Origin, kind: str) -> str:
    if kind == MLP:
        return "mlp in" if path in origin.first else "mlp out"
    if origin.qk or origin.v:
        if path in origin.qk and path in origin.v:
            return "qkv"
        if path in origin.qk or path in origin.v:
            return "q or k" if path in origin.qk else "v"
        return "o" if path in origin.after else "inner"  # a gate reads the stream
    if path in origin.made_by:
        return "out"
    return "in" if path in origin.first else "inner"


def _owned(model: Any, paths: set[str]) -> frozenset[str]:
    """Names of the parameters of some modules."""
    own = {id(p) for path in paths for p in model.get_submodule(path).parameters(recurse=False)}
    return frozenset(name for name, p in model.named_parameters() if id(p) in own)
