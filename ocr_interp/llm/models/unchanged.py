"""A model that was given stays as it was where something is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def unchanged_if_refused(model: Any) -> Iterator[None]:
    """While the block runs, a model may be changed in place; an error that leaves the block undoes it.

    Undone are modules and hooks that were added or replaced, attributes (its configuration's too), what
    requires gradients, the mode, precision and device. No weight is copied: the block must not write into the
    tensors that the model has before all that can be refused has been.

    Args:
        model: the model; nothing is done for what is no module.
    """
    before = _State(model) if isinstance(model, nn.Module) else None
    try:
        yield
    except BaseException:  # Ctrl-C too
        if before is not None:
            before.restore()
        raise


class _State:
    """What a model is made of, without copies of its tensors."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self._classes = [(module, type(module)) for module in modules]
        configs = {id(c): c for c in (vars(m).get("config") for m in modules) if hasattr(c, "__dict__")}
        self._attributes = [_Attributes(one) for one in (*modules, *configs.values())]
        self._parameters = [_Parameter(one) for one in model.parameters()]

    def restore(self) -> None:
        for module, own in self._classes:
            if type(module) is not own:
                module.__class__ = own
        for attributes in self._attributes:
            attributes.restore()
        for parameter in self._parameters:
            parameter.restore()


class _Attributes:
    """The attributes of an object, and what the containers among them hold: hooks, parameters, submodules."""

    def __init__(self, owner: Any) -> None:
        self._owner, self._values = owner, dict(vars(owner))
        self._held = [
            (one, one.copy()) for one in self._values.values() if isinstance(one, dict | set | list)
        ]

    def restore(self) -> None:
        for container, held in self._held:  # in place: handles of hooks know the containers
            container.clear()
            container.extend(held) if isinstance(container, list) else container.update(held)
        own = vars(self._owner)
        own.clear()
        own.update(self._values)


class _Parameter:
    """Where the numbers of a parameter lie, its gradient, and whether it has one."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self._parameter, self._data, self._trained = parameter, parameter.data, parameter.requires_grad
        self._grad: Tensor | None = parameter.grad
        self._grad_data = None if parameter.grad is None else parameter.grad.data

    def restore(self) -> None:
        own = self._parameter
        own.grad = None  # a gradient is in the precision and on the device of its parameter
        own.data = self._data
        own.requires_grad_(self._trained)
        if self._grad is not None and self._grad_data is not None:
            self._grad.data = self._grad_data
        own.grad = self._grad
