"""One forward pass, watched: what is added to the residual stream, and which weights went into it.

No architecture is known by name. The pass runs under a `TorchFunctionMode`, which sees every call of torch in
order, and hooks that see every module's output. It also works on the device "meta", where there are shapes
and no values.

Every tensor is known by what it was computed from since the residual stream was last read. A sum of the
stream and something else is the stream again, and the something else is a branch: attention or an MLP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

TOKENS = 5
"""Length of the sequence that is passed through the model."""

_ADD = {"add", "add_", "__add__", "__radd__", "__iadd__"}
_SCALE = {"mul", "mul_", "div", "div_", "__mul__", "__rmul__", "true_divide"}
_SAME = {
    *("dropout", "view", "reshape", "flatten", "squeeze", "unsqueeze", "contiguous", "clone", "view_as"),
    *("to", "float", "half", "bfloat16", "double", "type", "type_as", "detach"),
    *("__get__", "t", "transpose", "permute"),  # of a weight, `.T` is an attribute
}
"""Calls whose output is their first input, but for its shape or precision."""
_PICK = {"__getitem__", "index_select", "gather", "take_along_dim"}
_PRODUCT = {"matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "einsum"}
_LINEAR = {"linear", "addmm", "matmul", "mm"}
_POSITIONS = {"conv1d", "cumsum", "logcumsumexp"}
_NORM = {"layer_norm", "rms_norm", "group_norm", "rsqrt"}


@dataclass(frozen=True)
class Origin:
    """What a tensor was computed from since the residual stream was last read.

    Attributes:
        stream: whether it is the residual stream itself.
        made_by: modules whose output it is, the innermost first.
        terms: where it is a sum that no module made: what was added.
        reads: whether the stream went into it.
        weights: names of the parameters that went into it.
        maps: the linear modules among them.
        first, after: those of `maps` that no other stands before, and those that read mixed positions.
        qk, v: linear modules whose outputs went into an attention pattern, and into what it mixed.
        mixes: whether positions were mixed.
        is_pattern: whether a softmax stands before it, and no mixing after that.
        normed: numbers of the outputs of norms of the stream that went into it.
    """

    stream: bool = False
    made_by: tuple[str, ...] = ()
    terms: tuple[Origin, ...] = ()
    reads: bool = False
    weights: frozenset[str] = frozenset()
    maps: frozenset[str] = frozenset()
    first: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    qk: frozenset[str] = frozenset()
    v: frozenset[str] = frozenset()
    mixes: bool = False
    is_pattern: bool = False
    normed: frozenset[int] = frozenset()


NOTHING = Origin()


def _joined(origins: Iterable[Origin]) -> Origin:
    """What was computed from several tensors."""
    found = NOTHING
    for one in origins:
        if one.stream:
            found = replace(found, reads=True)
            continue
        found = replace(
            found,
            reads=found.reads or one.reads,
            weights=found.weights | one.weights,
            maps=found.maps | one.maps,
            first=found.first | one.first,
            after=found.after | one.after,
            qk=found.qk | one.qk,
            v=found.v | one.v,
            mixes=found.mixes or one.mixes,
            is_pattern=found.is_pattern or one.is_pattern,
            normed=found.normed | one.normed,
        )
    return found


@dataclass
class Trace:
    """What was seen.

    Attributes:
        branches: (block, what was added) for every term that was added to the residual stream, in order.
        left: blocks whose output is not the residual stream.
        norms: modules that normalise and have only vectors as parameters.
        widths: (inputs, outputs) of every linear module.
        calls: how often every module was called.
    """

    branches: list[tuple[str, Origin]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    norms: set[str] = field(default_factory=set)
    widths: dict[str, tuple[int, int]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)


def trace(model: nn.Module, ids: Tensor) -> Trace:
    """Watches one forward pass of a transformers model; the model is left as it was."""
    watcher = _Watcher(model)
    with torch.no_grad(), watcher.hooked(), watcher:
        model(input_ids=ids, use_cache=False)
    return watcher.trace


def stacks(model: nn.Module) -> tuple[str, ...]:
    """Paths of the members of the outermost module lists, among which the blocks are."""
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outer = [n for n in lists if not any(n != other and n.startswith(f"{other}.") for other in lists)]
    members = {n: [key for key, _ in model.get_submodule(n).named_children()] for n in outer}
    return tuple(f"{n}.{key}" if n else key for n, keys in members.items() for key in keys)


class _Watcher(TorchFunctionMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.trace = model, Trace()
        self._path = {id(module): name for name, module in model.named_modules()}
        self._weights = {id(p): name for name, p in model.named_parameters()}
        self._blocks = frozenset(stacks(model))
        self._origin: dict[int, Origin] = {}
        self._alive: list[Tensor] = []  # an id is that of one tensor as long as the tensor lives
        self._all: set[int] = set()
        self._inside: list[nn.Module] = []
        self._count = 0

    # --- modules ------------------------------------------------------------------------------------

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Hooks on all modules while the block runs."""
        handles = []
        try:
            for module in self.model.modules():
                handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True))
                handles.append(module.register_forward_hook(self._leave))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self._inside.append(module)
        path = self._path[id(module)]
        self.trace.calls[path] = self.trace.calls.get(path, 0) + 1
        if path in self._blocks:
            hidden = next(filter(_is_hidden, [*args, *kwargs.values()]), None)
            if hidden is not None and not self._of(hidden).stream:
                self._know(hidden, Origin(stream=True))

    def _leave(self, module: nn.Module, args: Sequence[Any], output: Any) -> None:
        self._inside.pop()
        path, made = self._path[id(module)], first_tensor(output)
        if made is None:
            return
        origin = self._of(made)
        if path in self._blocks:
            if not origin.stream and not origin.normed:
                self.trace.left.append(path)
        elif not origin.stream and path:
            normed = origin.normed
            if path in self.trace.norms and not origin.maps and origin.reads:
                self._count += 1
                normed |= {self._count}
            self._know(made, replace(origin, made_by=(*origin.made_by, path), terms=(), normed=normed))

    # --- calls --------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        out = _answer_without_values(name, args, self._all)
        out = func(*args, **kwargs) if out is None else out
        if name == "all":
            self._all.add(id(out))
            self._alive.append(out)
        given = list(_tensors([*args, *kwargs.values()]))
        origins = [self._of(one) for one in given]
        if name == "__setitem__":
            self._know(args[0], _joined(origins))
        made = list(_tensors([out]))
        if made and given:
            origin = self._computed(name, given, origins, args, kwargs, made[0])
            for one in made:
                self._know(one, origin)
        return out

    def _computed(
        self, name: str, given: list[Tensor], origins: list[Origin], args: Any, kwargs: Any, made: Tensor
    ) -> Origin:
        """The origin of what a call gave."""
        first = origins[0]
        scaled = name in _SCALE and sum(one.numel() > 1 for one in given) == 1
        if name in _SAME or scaled:
            return next(o for one, o in zip(given, origins, strict=True) if one.numel() > 1 or not scaled)
        if name in _ADD and len(given) == 2:
            return self._sum(*origins)
        if name in _PICK and not first.reads and not first.stream:
            return first  # which rows of a weight are taken is no mixing
        found = _joined(origins)
        active = [one for one in origins if one.reads or one.stream]
        is_root = name in ("pow", "__pow__") and isinstance(args[-1], float) and args[-1] == -0.5
        if name in _NORM or is_root:
            self._note_norm()
        if name in _LINEAR:
            found = self._through_map(found, given, made)
        if name == "softmax":
            found = replace(found, is_pattern=True)
        if name == "scaled_dot_product_attention":
            named = [kwargs[n] if n in kwargs else args[k] for k, n in enumerate(("query", "key", "value"))]
            q, k, v = map(self._of, named)
            return replace(
                found, mixes=True, is_pattern=False, qk=found.qk | q.maps | k.maps, v=found.v | v.maps
            )
        if name in _PRODUCT and len(active) >= 2:
            patterns = [one for one in active if one.is_pattern]
            if len(patterns) == 1:
                mixed = [one.maps for one in active if not one.is_pattern]
                qk, v = found.qk | patterns[0].maps, found.v.union(*mixed)
                return replace(found, mixes=True, is_pattern=False, qk=qk, v=v)
            return replace(found, mixes=True)
        if name in _POSITIONS and found.reads:
            return replace(found, mixes=True)
        return found

    def _sum(self, one: Origin, other: Origin) -> Origin:
        for stream, branch in ((one, other), (other, one)):
            if (stream.stream or _is_normed_stream(stream, branch)) and not branch.stream:
                self._note_branches(branch)
                return Origin(stream=True)
        terms = tuple(t for o in (one, other) for t in ((o,) if o.made_by else o.terms))
        return replace(_joined((one, other)), terms=terms)

    def _note_branches(self, added: Origin) -> None:
        inside = [self._path[id(module)] for module in self._inside]
        block = next((path for path in inside if path in self._blocks), "")
        for term in (added,) if added.made_by or not added.terms else added.terms:
            if term.reads:
                self.trace.branches.append((block, term))

    def _through_map(self, found: Origin, given: list[Tensor], made: Tensor) -> Origin:
        """The origin after a product with the weight of the linear module that is running, if it is one."""
        module = self._inside[-1] if self._inside else None
        weight = getattr(module, "weight", None)
        if module is None or not isinstance(weight, Tensor) or weight.dim() != 2:
            return found
        path = self._path[id(module)]
        own = self._of(weight).weights
        x = next((one for one in given if self._of(one).weights != own and one.dim() >= 2), None)
        if x is None or not any(self._of(one).weights == own for one in given):
            return found
        self.trace.widths[path] = (x.shape[-1], made.shape[-1])
        before, here = self._of(x), frozenset({path})
        first = found.first if before.maps else found.first | here
        after = found.after | here if before.mixes else found.after
        return replace(found, maps=found.maps | here, first=first, after=after)

    def _note_norm(self) -> None:
        module = self._inside[-1] if self._inside else None
        if module is None or any(True for _ in module.children()):
            return
        if all(parameter.dim() <= 1 for parameter in module.parameters(recurse=False)):
            self.trace.norms.add(self._path[id(module)])

    # --- tensors ------------------------------------------------------------------------------------

    def _of(self, tensor: Tensor) -> Origin:
        known = self._origin.get(id(tensor))
        if known is None:
            weight = self._weights.get(id(tensor))
            return NOTHING if weight is None else Origin(weights=frozenset({weight}))
        return known

    def _know(self, tensor: Tensor, origin: Origin) -> None:
        if id(tensor) not in self._weights:
            self._origin[id(tensor)] = origin
            self._alive.append(tensor)


def _answer_without_values(name: str, args: Any, yes: set[int]) -> Any:
    """What a question about values is answered with on the device "meta"; None for any other call.

    Models ask whether a mask is all true (yes), and which experts got tokens (one of them).

    Args:
        name, args: the call.
        yes: ids of the results of `all`.
    """
    asked = args[0] if args and isinstance(args[0], Tensor) and args[0].is_meta else None
    if asked is None:
        return None
    if name in ("__bool__", "is_nonzero"):
        return asked.dim() == 0 and id(asked) in yes
    if name == "item":
        return 1
    if name == "__contains__":
        return False
    if name == "__getitem__" and isinstance(args[1], Tensor) and args[1].dim() == 0:
        return asked[0]
    if name == "one_hot":
        return torch.zeros(*asked.shape, args[1] if len(args) > 1 else 1, dtype=torch.long, device="meta")
    if name == "nonzero":
        return torch.zeros(1, asked.dim(), dtype=torch.long, device="meta")
    if name == "where" and len(args) == 1:
        return tuple(torch.zeros(1, dtype=torch.long, device="meta") for _ in range(asked.dim()))
    return None


def first_tensor(output: Any) -> Tensor | None:
    """A module's output, or the first tensor of a tuple or a transformers output."""
    return next(_tensors([output]), None)


def _is_normed_stream(stream: Origin, branch: Origin) -> bool:
    """Whether a norm after the last sum made the stream that a branch is added to (OPT-350m, GPT-1)."""
    is_norm = bool(stream.normed and stream.made_by) and not stream.maps
    return is_norm and bool(branch.maps) and stream.normed <= branch.normed


def _is_hidden(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.shape[:2] == (1, TOKENS)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
