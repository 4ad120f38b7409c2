"""Type and shape annotations of the package, checked while the tests run: all, and no slower than need be.

jaxtyping's own hook takes half of the time of tests with many small calls. Nothing is left unchecked, and
what follows is cheaper. Bytecode of other packages is read from where it is kept. Only functions whose
annotations have shapes enter jaxtyping's frames, where every argument is checked once, and quickly if each of
its axes is one name. A check is written at the first call of its function, once for all functions that one
`def` makes. A model is asked once whether it is a HookedModel.
"""

import builtins
import functools
import inspect
import re
from dataclasses import is_dataclass
from functools import partial
from importlib.util import cache_from_source
from pathlib import Path
from types import CellType, FunctionType
from typing import Any, ClassVar
from weakref import WeakSet

import jaxtyping
from jaxtyping import _array_types, _import_hook, install_import_hook
from jaxtyping import _decorator as _jaxtyping_decorator
from jaxtyping._storage import get_shape_memo, pop_shape_memo, push_shape_memo, shape_str

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
        if is_dataclass(function):
            own = vars(function).get("__init__")
            if isinstance(own, FunctionType) and not hasattr(own, "__wrapped__"):
                function.__init__ = decorated(own)
            return function
        if not isinstance(function, FunctionType):
            return _jaxtyped(typechecker=typechecker)(function)
        if not function.__annotations__:
            return function
        checked = None

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


_WRITTEN = {}
"""What makes the check of a function inside another, by its code: such a function is made at every call."""


def _checked(function, typechecker):
    written = _shaped if _needs_jaxtyping(function) else _plain
    if "<locals>" not in function.__qualname__:
        return written(function, typechecker)(function)
    of = function.__code__, function.__qualname__  # classes with the same fields have equal code
    if of not in _WRITTEN:
        _WRITTEN[of] = written(function, typechecker)
    return _WRITTEN[of](function)


def _plain(function, typechecker):
    """The function that checks a function, and others of the same code, without shapes.

    beartype keeps every function that it was shown, and with a function inside another what that one holds,
    such as a model: it is shown one without, once, even if there is nothing to check.
    """
    shown = function
    if function.__closure__:
        cells = tuple(CellType() for _ in function.__closure__)
        named = function.__code__, function.__globals__, function.__name__
        shown = functools.update_wrapper(FunctionType(*named, function.__defaults__, cells), function)
        shown.__kwdefaults__ = function.__kwdefaults__
        del shown.__wrapped__
    checked = typechecker(shown)
    if checked is shown:
        return lambda other: other
    known = checked.__kwdefaults__ or {}
    if "__beartype_func" not in known:
        return typechecker
    code, names, known = checked.__code__, checked.__globals__, {**known, "__beartype_func": None}

    def made(other):
        again = functools.update_wrapper(FunctionType(code, names, other.__name__), other)
        again.__kwdefaults__ = {**known, "__beartype_func": other}
        return again

    return made


def _shaped(function, typechecker):
    """The same with shapes: first the arguments, then the result, whose axes are those of the arguments. What
    jaxtyping refuses of the arguments is refused in its words."""
    signature = inspect.signature(function)
    named = function.__name__, function.__qualname__, function.__module__

    def known(annotation):
        return _jaxtyping_decorator._destring_annotation(annotation, function.__globals__)

    parameters = [
        each.replace(
            annotation=known(each.annotation), default=each.empty if each.default is each.empty else None
        )
        for each in signature.parameters.values()
    ]
    alone, result = inspect.Signature(parameters), known(signature.return_annotation)
    check = typechecker(_jaxtyping_decorator._make_fn_with_signature(*named, alone, output=False))
    taken = [inspect.Parameter("result", inspect.Parameter.POSITIONAL_ONLY, annotation=result)]
    check_result = typechecker(
        _jaxtyping_decorator._make_fn_with_signature(*named, inspect.Signature(taken), output=False)
    )

    def made(other):
        @functools.wraps(other)
        def shaped(*args, **kwargs):
            memos = push_shape_memo({})
            try:
                try:
                    check(*args, **kwargs)
                except Exception:
                    refused = True
                else:
                    refused = False
                    found = other(*args, **kwargs)
                    try:
                        check_result(found)
                    except Exception as error:
                        where = f"{other.__module__}.{other.__qualname__}"
                        raise jaxtyping.TypeCheckError(
                            f"{where} returned {found!r}: {error}\n{shape_str(memos)}"
                        ) from error
            finally:
                pop_shape_memo()
            return _jaxtyped(typechecker=typechecker)(other)(*args, **kwargs) if refused else found

        return shaped

    return made


_fits = _array_types._MetaAbstractArray.__instancecheck__
_KNOWN = {}
"""Of an annotation whose axes are names, at most one of them of several axes: these names, the place of that
one or None, and the dtypes that were found to be of it. None of another annotation."""


def _known(kind):
    names = [getattr(each, "name", None) for each in kind.dims]
    for place, each in enumerate(kind.dims):
        if each is _array_types._anonymous_variadic_dim:
            continue
        plain = (_array_types._NamedDim, _array_types._NamedVariadicDim)[place == kind.index_variadic]
        if type(each) is not plain or each.broadcastable or each.treepath:
            return None
    return tuple(names), kind.index_variadic, set()


def _fits_quickly(kind, value):
    """jaxtyping's own answer, without the words of a refusal and what only other kinds of axes need."""
    if kind not in _KNOWN:
        _KNOWN[kind] = _known(kind)
    known = _KNOWN[kind]
    if known is None or kind._skip_instancecheck:
        return _fits(kind, value)
    names, several, dtypes = known
    if not (hasattr(value, "dtype") if kind.array_type is Any else isinstance(value, kind.array_type)):
        return _fits(kind, value)
    if value.dtype not in dtypes:
        fits = _fits(kind, value)
        if fits:
            dtypes.add(value.dtype)
        return fits
    shape, new, together = value.shape, {}, None
    sizes, runs = get_shape_memo()[:2]
    if several is not None:
        more = len(shape) - len(names) + 1
        if more < 0:
            return False
        together = names[several], tuple(shape[several : several + more])
        before = runs.get(together[0], (False, together[1]))
        if before[0]:
            return _fits(kind, value)
        if before[1] != together[1]:
            return False
        names = names[:several] + names[several + 1 :]
        shape = (*shape[:several], *shape[several + more :])
    if len(shape) != len(names):
        return False
    for name, size in zip(names, shape, strict=True):
        known = sizes.get(name, new.get(name))
        if known is None:
            new[name] = size
        elif known != size:
            return False
    sizes.update(new)
    if together is not None and together[0] is not None:
        runs[together[0]] = (False, together[1])
    return True


_array_types._MetaAbstractArray.__instancecheck__ = _fits_quickly
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
