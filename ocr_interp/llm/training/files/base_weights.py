"""Which model an update is of: digests of all weights that it leaves as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.storage.digests import digest_of_tensors

_MATRICES, _ENTRIES = 32, 8
"""How many matrices say which model it is by some entries, and how many entries of each."""

_OTHER_MODEL = 0.5
"""Relative distance of these entries from which on it is another model.

Four bits change a tenth, another seed 1.4.
"""

_ROUNDED = 1e-3
"""Smallest relative difference of a norm that is seen in another precision; sums of float32 are closer."""

_DIGITS, _SHOWN = 16, 3

_OTHER = "the saved update is of another model than this one"
_SAME_SHAPES = "names and shapes are the same, the weights are not"
_ADVICE = "load it onto the model that it was trained on, or a copy"


@dataclass(frozen=True)
class Weight:
    """What is kept of a weight.

    Attributes:
        dtype: its precision, e.g. "float32".
        shape: its sizes.
        digest: of its bytes.
        norm: its Frobenius norm.
    """

    dtype: str
    shape: Sequence[int]
    digest: str
    norm: float

    @classmethod
    def of(cls, name: str, weight: Tensor) -> Weight:
        """What is kept of a tensor."""
        dtype, shape = str(weight.dtype).removeprefix("torch."), list(weight.shape)
        return cls(dtype, shape, _digest(name, weight), _norm(weight))

    def is_of(self, name: str, weight: Tensor) -> bool:
        """Whether a tensor is this one, to the bit; in another precision, whether its norm may be rounded."""
        if str(weight.dtype) == f"torch.{self.dtype}":
            return _digest(name, weight) == self.digest
        coarser = max(torch.finfo(dtype).eps for dtype in (getattr(torch, self.dtype), weight.dtype))
        norm = _norm(weight)
        return abs(self.norm - norm) <= max(coarser, _ROUNDED) * max(self.norm, norm)


@dataclass(frozen=True)
class BaseWeights:
    """The weights of a model that an update leaves alone.

    Attributes:
        entries: a few entries of some matrices, by name.
        weights: of every one what is kept, by name, None of those in no plain numbers; empty in updates of
            earlier versions, which have entries alone.
    """

    entries: Mapping[str, Sequence[float]] = field(default_factory=dict)
    weights: Mapping[str, Weight | None] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any) -> BaseWeights:
        """Those of a model with its update, whose trained parameters require gradients."""
        frozen = _frozen(model)
        matrices = sorted(name for name, weight in frozen.items() if weight.dim() == 2)
        chosen = matrices[:: -(-len(matrices) // _MATRICES)] if matrices else ()
        kept: dict[str, Weight | None] = dict.fromkeys(_others(model, frozen))
        kept |= {name: Weight.of(name, weight) for name, weight in frozen.items()}
        return cls(_entries(frozen, chosen), kept)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them."""
        kept = {name: None if one is None else asdict(one) for name, one in self.weights.items()}
        return {"base": dict(self.entries), "base_weights": kept}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BaseWeights:
        """From the values of `to_dict`; those of earlier versions lack some or all.

        Raises:
            TypeError, ValueError: other values.
        """
        kept = dict(values.get("base_weights", {})).items()
        weights = {name: None if one is None else Weight(**one) for name, one in kept}
        return cls(dict(values.get("base", {})), weights)

    def require(self, model: Any, own: Mapping[int, str]) -> None:
        """Requires the weights that the update was trained beside.

        In the precision that they had, all must be the same to the bit. In another one their norms must be
        the same up to rounding, and the few entries about the same. Of weights that are no plain numbers, as
        many quantizations make them, nothing is known.

        Args:
            model: the model with the update's method attached, before the update is put in.
            own: names of the parameters that it had before that, by their ids.

        Raises:
            ModelError: it has other weights; the message names some of them.
        """
        now = {name: weight for name, weight in _frozen(model).items() if id(weight) in own}
        if self.weights:
            self._require_same_names(model, now)
            both = [(n, one, now[n]) for n, one in self.weights.items() if one is not None and n in now]
            odd = [
                f"{own[id(weight)]} is {tuple(kept.shape)} there and {tuple(weight.shape)} here"
                for _, kept, weight in both
                if tuple(kept.shape) != tuple(weight.shape)
            ]
            if odd:
                raise ModelError(f"{_OTHER}: {_some(odd)}; {_ADVICE}")
            odd = [own[id(weight)] for name, kept, weight in both if not kept.is_of(name, weight)]
            if odd:
                raise ModelError(
                    f"{_OTHER}: {_SAME_SHAPES} ({len(odd)} of {len(both)}: {_some(odd)}); {_ADVICE}"
                )
        entries = _entries(now, self.entries)
        pairs = [(a, b) for n, found in entries.items() for a, b in zip(self.entries[n], found, strict=True)]
        if sum((a - b) ** 2 for a, b in pairs) > _OTHER_MODEL**2 * sum(a**2 for a, _ in pairs):
            raise ModelError(f"{_OTHER}: {_SAME_SHAPES}; {_ADVICE}")

    def _require_same_names(self, model: Any, now: Mapping[str, Tensor]) -> None:
        """Of a module whose weights can be read on both sides all must be there, of others one at least."""
        modules, every = dict(model.named_modules()), {*now, *_others(model, now)}
        read_then = {_module(name) for name, one in self.weights.items() if one is not None}
        read_now, unread_then = set(map(_module, now)), set(map(_module, self.weights)) - read_then
        new = [name for name in now if name not in self.weights and _module(name) not in unread_then]
        gone = [
            name
            for name, one in self.weights.items()
            if name not in every
            and (_module(name) not in modules or (one is not None and _module(name) in read_now))
        ]
        if new or gone:
            which = [f"has {_some(new)}"] if new else []
            which += [f"lacks {_some(gone)}"] if gone else []
            raise ModelError(f"{_OTHER}, which {' and '.join(which)}; {_ADVICE}")


def _frozen(model: Any) -> dict[str, Tensor]:
    """The parameters that are not trained and whose numbers can be read, by name.

    Not among them: those that are elsewhere (on "meta"), and those of a quantization, no plain numbers.
    """
    return {
        name: p
        for name, p in model.named_parameters()
        if not p.requires_grad
        and p.numel()
        and p.is_floating_point()
        and not p.is_meta
        and type(p.detach()) in (Tensor, torch.nn.Parameter)
    }


def _others(model: Any, frozen: Collection[str]) -> set[str]:
    """Names of what a model holds beside these weights and those that are trained."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return {*model.state_dict(), *(name for name, _ in model.named_parameters())} - trained - set(frozen)


def _entries(frozen: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, list[float]]:
    """A few entries of those of the named weights that there are."""
    found = {}
    for name in (name for name in names if name in frozen):
        entries = frozen[name].detach().reshape(-1)
        places = torch.linspace(0, len(entries) - 1, _ENTRIES, dtype=torch.float64).long()
        found[name] = entries[places.to(entries.device)].double().tolist()
    return found


def _norm(weight: Tensor) -> float:
    precise = torch.promote_types(weight.dtype, torch.float32)
    return float(torch.linalg.vector_norm(weight.detach().to(precise)))


def _module(name: str) -> str:
    """The module that a parameter stands in."""
    return name.rpartition(".")[0]


def _digest(name: str, weight: Tensor) -> str:
    return digest_of_tensors({name: weight}, _DIGITS)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
