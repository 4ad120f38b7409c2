"""Matrices side by side in one parameter, so that one product applies them all and one step trains them all.

In files each matrix has its own name, "<module>.0", "<module>.1", …, as if it were a parameter of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ocr_interp.errors import ModelError


class JoinedMatrices(nn.Module):
    """Matrices of one shape as one parameter; as a sequence it gives views of them.

    Args:
        matrices: at least one; their values are copied.
        axis: along which they are put together: 0 for maps of the same input, 1 for maps whose outputs are
            summed.

    Attributes:
        weight: all of them, [n × row, column] or [row, n × column].
    """

    def __init__(self, matrices: Sequence[Tensor], axis: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([matrix.detach() for matrix in matrices], axis))
        self._axis, self._count = axis, len(matrices)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, k: int) -> Tensor:
        return self.pieces(self.weight)[k]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.pieces(self.weight))

    def pieces(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """What belongs to each matrix of something of the parameter.

        Args:
            tensor: of the shape of `weight`, such as its gradient, of which there are views; or a count of
                steps, of which each gets a copy.
        """
        if tensor.shape != self.weight.shape:
            return tuple(tensor.clone() for _ in range(self._count))
        size = tensor.shape[self._axis] // self._count
        return tuple(tensor.narrow(self._axis, k * size, size) for k in range(self._count))

    def whole(self, pieces: Sequence[Tensor]) -> Tensor | None:
        """The reverse of `pieces`; None for what cannot be pieces of this parameter.

        Raises:
            ModelError: matrices that have done different numbers of steps.
        """
        shapes = {piece.shape for piece in pieces}
        if len(pieces) != self._count or len(shapes) != 1:
            return None
        if shapes == {self[0].shape}:
            return torch.cat(list(pieces), self._axis)
        if pieces[0].dim() == 2:  # matrices of another shape
            return None
        if any(not torch.equal(piece, pieces[0]) for piece in pieces):
            raise ModelError("matrices that are trained together must have done the same number of steps")
        return pieces[0]


def joined_in(model: nn.Module) -> dict[str, JoinedMatrices]:
    """The parameters of a model that hold several matrices, by name."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, JoinedMatrices)}
    return {f"{name}.weight": module for name, module in found.items()}


def apart(tensors: Mapping[str, Tensor], joined: Mapping[str, JoinedMatrices]) -> dict[str, Tensor]:
    """Tensors by name, those of joined matrices one by one.

    Args:
        tensors: by the name of a parameter, or by such a name between bars, "optimizer|<name>|step".
        joined: of `joined_in`.
    """
    found = {}
    for key, tensor in tensors.items():
        name = next((word for word in key.split("|") if word in joined), None)
        pieces = (tensor,) if name is None else joined[name].pieces(tensor)
        found |= {_renamed(key, name, name and name_of_piece(name, k)): p for k, p in enumerate(pieces)}
    return found


def together(tensors: Mapping[str, Tensor], joined: Mapping[str, JoinedMatrices]) -> dict[str, Tensor]:
    """The reverse of `apart`; matrices that do not fit stay as they are, under their own names.

    Raises:
        ModelError: matrices that have done different numbers of steps.
    """
    owner = {name_of_piece(name, k): name for name, one in joined.items() for k in range(len(one))}
    found: dict[str, Tensor] = {}
    pieces: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        piece = next((word for word in key.split("|") if word in owner), None)
        if piece is None:
            found[key] = tensor
        else:
            whole = _renamed(key, piece, owner[piece])
            pieces.setdefault((whole, owner[piece]), {})[key] = tensor
    for (key, name), parts in pieces.items():
        ordered = [_renamed(key, name, name_of_piece(name, k)) for k in range(len(joined[name]))]
        whole = joined[name].whole([parts[k] for k in ordered]) if parts.keys() == set(ordered) else None
        found |= parts if whole is None else {key: whole}
    return found


def name_of_piece(name: str, k: int) -> str:
    """The name in files of a matrix of a parameter of `joined_in`."""
    return f"{name.removesuffix('.weight')}.{k}"


def _renamed(key: str, old: str | None, new: str | None) -> str:
    """A key with one of the names between its bars replaced."""
    return "|".join(str(new) if word == old else word for word in key.split("|"))
