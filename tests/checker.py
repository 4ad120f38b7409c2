"""Type and shape annotations of the package, checked while the tests run: all, and no slower than need be.

jaxtyping's own hook takes half of the time of tests with many small calls. Four things are cheaper here, and
nothing is left unchecked: bytecode of other packages is read from where it is kept, only functions whose
annotations have shapes enter jaxtyping's frames, a check is written when its function is first called, and a
model is asked once whether it is a HookedModel.
"""

import builtins
import functools
import re
from functools import partial
from importlib.util import cache_from_source
from pathlib import Path
from types import FunctionType
from typing import ClassVar
from weakref import WeakSet

import jaxtyping
from jaxtyping import _import_hook, install_import_hook

# An int is welcome where a float is asked for, as for every type checker (PEP 484).
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True, violation_type=TypeError))"
_PACKAGE = str(Path(__file__).parents[1] / "ocr_interp")

_checked_name = _import_hook._optimized_cache_from_source
_jaxtyped = jaxtyping.jaxtyped


def install():
    """The hook, which must stand before anything imports the package."""
    return install_import_hook("ocr_interp", _CHECKER)


def _cache_name(typechecker_hash, /, path, debug_override=None):
    """The hook renames the bytecode of all that is imported while a module of the package is; other packages
    would be compiled again in every process that may not write theirs."""
    own = str(path).startswith(_PACKAGE)
    name = partial(_checked_name, typechecker_hash) if own else cache_from_source
    return name(path, debug_override)


def _needs_jaxtyping(function):
    """Whether an annotation names something of jaxtyping, or what only jaxtyping lets pass: a name that is
    imported for type checkers alone, or one inside a function."""
    known = {**vars(builtins), **function.__globals__}
    for annotation in function.__annotations__.values():
        if annotation is not None and not isinstance(annotation, str):
            return True
        words = re.findall(r"(?<![\w.])[A-Za-z_]\w*", annotation or "")
        if any(word not in known or type(known[word]).__module__.startswith("jaxtyping") for word in words):
            return True
    return False


def _decorator(*, typechecker):
    def decorated(function):
        if not isinstance(function, FunctionType):
            return _jaxtyped(typechecker=typechecker)(function)
        if not function.__annotations__:
            return function
        inside = "<locals>" in function.__qualname__  # its names are those of frames that are gone later
        checked = _checked(function, typechecker) if inside else None

        @functools.wraps(function)
        def either(*args, **kwargs):
            nonlocal checked
            if jaxtyping.config.jaxtyping_disable:
                return function(*args, **kwargs)
            if checked is None:
                checked = _checked(function, typechecker)
            return checked(*args, **kwargs)

        return either

    return decorated


def _checked(function, typechecker):
    return (_jaxtyped(typechecker=typechecker) if _needs_jaxtyping(function) else typechecker)(function)


_import_hook._optimized_cache_from_source = _cache_name
jaxtyping.jaxtyped = _decorator


def ask_once(protocol):
    """A protocol whose isinstance is asked once of each module: it reads all members, at every call of a
    checked function, and a bridge collects its hooks anew for that, in milliseconds."""

    class AskedOnce(type(protocol)):
        found: ClassVar[WeakSet] = WeakSet()

        def __instancecheck__(cls, instance):
            import torch

            if not isinstance(instance, torch.nn.Module):
                return super().__instancecheck__(instance)
            if instance not in AskedOnce.found and super().__instancecheck__(instance):
                AskedOnce.found.add(instance)
            return instance in AskedOnce.found

    protocol.__class__ = AskedOnce
