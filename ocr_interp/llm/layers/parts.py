"""Which weights, linear modules and branches of a model belong to which part."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm.layers.layout import ATTENTION, MLP, Branch, Layout, layout_of
from ocr_interp.llm.layers.part_names import PARTS, ROLES

Member = TypeVar("Member")


def weights_by_part(model: Any, layout: Layout) -> dict[str, frozenset[str]]:
    """Names of the parameters of every part that the model has."""
    kind_of = {name: branch.kind for branch in layout.branches for name in branch.weights}
    kind_of |= dict.fromkeys(layout.norms, "norms") | dict.fromkeys(layout.embeddings, "embeddings")
    every = [name for name, _ in model.named_parameters()]
    kind_of |= _neighbours(every, {name: kind_of[name] for name in every if name in kind_of})
    found = {kind: {n for n in every if kind_of.get(n) == kind} for kind in PARTS if kind not in ROLES}
    for part, paths in maps_by_part(layout).items():
        if part in ROLES and paths:
            own = {f"{path}.{name}" for path in paths for name, _ in _parameters(model, path)}
            found[part] = own & set(every)
    return {part: frozenset(found[part]) for part in PARTS if found.get(part)}


def maps_by_part(layout: Layout) -> dict[str, tuple[str, ...]]:
    """Paths of the linear modules of every part that the model has, in the order of its blocks."""
    roles = [(path, role, b.kind) for b in layout.branches for path, role in b.roles.items()]
    found = {kind: [path for path, _, own in roles if own == kind] for kind in (ATTENTION, MLP)}
    for part, wanted in ROLES.items():
        own = {role for _, role, _ in roles}
        found[part] = [path for path, role, _ in roles if role in wanted] if own >= set(wanted) else []
    return {part: tuple(dict.fromkeys(found[part])) for part in PARTS if found.get(part)}


def trained_weights(model: Any, parts: Sequence[str]) -> frozenset[str]:
    """Names of the parameters of the chosen parts.

    Raises:
        ConfigError: a part that this model does not have.
        ModelError: a model that cannot be asked for its parts.
    """
    return frozenset(_chosen(weights_by_part(model, layout_of(model)), parts, type(model).__name__))


def chosen_maps(model: Any, layout: Layout, parts: Sequence[str], method: str) -> tuple[str, ...]:
    """Paths of the linear modules of the chosen parts.

    Raises:
        ConfigError: a part without linear modules in this model.
    """
    owner = f"method {method!r} updates linear maps, and {type(model).__name__}"
    return tuple(_chosen(maps_by_part(layout), parts, owner))


def chosen_branches(
    model: Any, layout: Layout, parts: Sequence[str], method: str
) -> tuple[tuple[str, Branch], ...]:
    """The branches of the chosen parts, each with the path of the module that makes what it adds.

    Raises:
        ConfigError: a part other than "attention" and "mlp", or one that this model does not have.
        ModelError: a branch without a module of its own.
    """
    kinds = {kind: [b for b in layout.branches if b.kind == kind] for kind in (ATTENTION, MLP)}
    owner = f"method {method!r} adds to what attention and MLPs write, and {type(model).__name__}"
    chosen = _chosen({kind: own for kind, own in kinds.items() if own}, parts, owner)
    found = []
    for branch in (one for one in layout.branches if one in chosen):
        if branch.output is None:
            raise ModelError(
                f"{type(model).__name__} runs {branch.block} several times in one pass, so that its "
                f"{branch.kind} has no single place for an adapter: take method='full' or 'lora', or another "
                "model"
            )
        found.append((branch.output, branch))
    return tuple(found)


def _chosen(by_part: Mapping[str, Collection[Member]], parts: Sequence[str], owner: str) -> list[Member]:
    missing = [part for part in parts if part not in by_part]
    if missing:
        raise ConfigError(
            f"{owner} has no part {', '.join(map(repr, missing))}: there "
            f"{'are' if len(by_part) > 1 else 'is'} {', '.join(map(repr, by_part))}: name what it has in "
            "train_parts"
        )
    found: list[Member] = []
    for one in (one for part in parts for one in by_part[part]):
        if one not in found:
            found.append(one)
    return found


def _neighbours(every: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """The parts of weights that one pass did not use, such as those of experts that got no token.

    Each has the part of its closest relatives in the tree of modules, where that is one part.
    """
    below: dict[str, set[str]] = {}
    for name, kind in known.items():
        for folder in _folders(name):
            below.setdefault(folder, set()).add(kind)
    found = {}
    for name in every:
        if name not in known:
            kinds = next((below[folder] for folder in _folders(name) if folder in below), set())
            if len(kinds) == 1:
                found[name] = next(iter(kinds))
    return found


def _folders(name: str) -> list[str]:
    """The modules that a parameter stands in, the innermost first."""
    words = name.split(".")[:-1]
    return [".".join(words[:count]) for count in range(len(words), 0, -1)]


def _parameters(model: Any, path: str) -> Iterable[tuple[str, Any]]:
    return model.get_submodule(path).named_parameters(recurse=False)
