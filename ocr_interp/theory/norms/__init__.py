"""Norms of W: each is one file of this folder, and `theory` uses it through its object.

To add a norm, write one file with a constant `NORM`; `base.py` says what it must define. A norm that depends
on a task's tokens (`kronecker.py`) is made by its class and has no name.
"""

from __future__ import annotations

from ocr_interp.errors import ConfigError
from ocr_interp.registry import Registry
from ocr_interp.theory.norms.base import Norm, UnitarilyInvariantNorm

__all__ = ["Norm", "UnitarilyInvariantNorm", "as_invariant_norm", "as_norm", "norms"]

norms: Registry[Norm] = Registry("norm", "ocr_interp.theory.norms", "NORM", ("base", "kronecker"))


def as_norm(norm: str | Norm) -> Norm:
    """The norm with a name; a Norm is returned unchanged, registered or not.

    Raises:
        UnknownNameError: no such name, with the close matches.
    """
    return norm if isinstance(norm, Norm) else norms[norm]


def as_invariant_norm(norm: str | Norm) -> UnitarilyInvariantNorm:
    """`as_norm` for methods that need a unitarily invariant norm.

    Raises:
        ConfigError: a norm that is not unitarily invariant.
    """
    found = as_norm(norm)
    if not isinstance(found, UnitarilyInvariantNorm):
        raise ConfigError(
            f"a problem in blocks needs a unitarily invariant norm, got {found.name!r}: solve the full "
            "program with method='clarabel' or 'scs'"
        )
    return found
