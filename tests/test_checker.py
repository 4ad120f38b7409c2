"""The checker of annotations sees what is wrong, with shapes and without, and leaves other packages alone."""

from __future__ import annotations

import dataclasses
import gc
import sys
import weakref

import jaxtyping
import numpy as np
import pytest
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import Float

from ocr_interp.checks import check_count
from ocr_interp.hooked.alone import probe_ids, state_of_tensors
from ocr_interp.linalg.spectrum import norms_of


def test_shapes_are_checked():
    norms_of(np.ones(3))
    with pytest.raises(jaxtyping.TypeCheckError):
        norms_of(np.ones((3, 3)))


def test_other_annotations_are_checked():
    with pytest.raises(TypeError, match="check_count"):
        check_count(3, 1, 0)
    with pytest.raises(TypeError, match="state_of_tensors"):
        state_of_tensors(3)
    with pytest.raises(TypeError, match="HookedModel"):
        probe_ids(torch.nn.Linear(2, 2))


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(AttributeError):
        probe_ids(torch.nn.Linear(2, 2))


def test_only_the_package_has_bytecode_of_its_own():
    cached = {
        name: str(getattr(module.__spec__, "cached", None))
        for name, module in sys.modules.items()
        if getattr(module, "__spec__", None)
    }
    renamed = {name.split(".")[0] for name, path in cached.items() if "opt-jaxtyping" in path}
    assert renamed == {"ocr_interp"}


Array = np.ndarray | torch.Tensor


def checked(function):
    return jaxtyping.jaxtyped(typechecker=beartype(conf=BeartypeConf(violation_type=TypeError)))(function)


def test_results_are_checked_with_the_axes_of_the_arguments():
    @checked
    def first(x: Float[np.ndarray, "row column"], rows: int) -> Float[np.ndarray, " row"]:
        return x[:rows, 0]

    assert first(np.ones((3, 2)), rows=3).shape == (3,)
    with pytest.raises(jaxtyping.TypeCheckError, match="returned"):
        first(np.ones((3, 2)), 2)
    with pytest.raises(jaxtyping.TypeCheckError, match="rows"):
        first(np.ones((3, 2)), "3")
    with pytest.raises(TypeError, match="missing"):
        first(np.ones((3, 2)))
    assert first(np.ones((4, 2)), 4).shape == (4,), "nothing is left of calls that were refused"


def test_functions_that_one_function_makes_are_checked_each_with_what_it_holds():
    def plain(held):
        @checked
        def add(number: int, *more: int, by: int = 0) -> int:
            return number + held + by + sum(more)

        return add

    def shaped(held):
        @checked
        def add(x: Float[np.ndarray, " row"], by: int = held) -> Float[np.ndarray, " row"]:
            return x + held + by

        return add

    one, other = plain(1), plain(10)
    assert (one(1), other(1, 1, by=1), one(2)) == (2, 13, 3)
    one, other = shaped(1), shaped(10)
    assert (one(np.ones(2)).sum(), other(np.ones(2)).sum(), one(np.ones(1), 0).sum()) == (6, 42, 2)
    for make, right in ((plain, 1), (shaped, np.ones(2))):
        for function in (make(1), make(2)):
            function(right)
            with pytest.raises(TypeError):
                function("1")
            with pytest.raises(TypeError):
                function(right, by="1")


@pytest.mark.parametrize("array", [np.ones, torch.ones], ids=["numpy", "torch"])
def test_every_kind_of_axis_is_checked_again_and_again(array):
    wrong_type = array((2, 3)).astype(int) if array is np.ones else array((2, 3)).long()

    @checked
    def f(
        x: Float[Array, "row column"],
        y: Float[Array, "column row"] | None = None,
        *,
        z: Float[Array, "*rest _"] | None = None,
    ):
        return x

    @checked
    def square(x: Float[Array, "side side"]):
        return x

    for _ in range(3):
        f(array((2, 3)), array((3, 2)))
        f(array((4, 1)), z=array((2, 5, 7)))
        square(array((2, 2)))
        wrong = (
            (array((2, 3)), array((2, 3))),
            (array(2),),
            (wrong_type,),
            ("x",),
        )
        for arguments in wrong:
            with pytest.raises(jaxtyping.TypeCheckError):
                f(*arguments)
        with pytest.raises(jaxtyping.TypeCheckError):
            square(array((2, 3)))


@pytest.mark.parametrize("array", [np.ones, torch.ones], ids=["numpy", "torch"])
def test_several_axes_under_one_name_are_the_same_everywhere(array):
    @checked
    def f(
        x: Float[Array, "*run row column"],
        y: Float[Array, "*run column"] | None = None,
        *,
        last: Float[Array, "... column"] | None = None,
        number: Float[Array, ""] | None = None,
    ) -> Float[Array, "*run row"]:
        return x[..., 0]

    for _ in range(3):
        f(array((2, 3)))
        f(array((2, 3)), array(3), last=array((5, 6, 3)), number=array(()))
        f(array((7, 8, 2, 3)), array((7, 8, 3)), last=array(3))
        wrong = (
            {"x": array(3)},
            {"x": array((2, 3)), "y": array((1, 3))},
            {"x": array((7, 8, 2, 3)), "y": array((8, 7, 3))},
            {"x": array((7, 2, 3)), "y": array((7, 2))},
            {"x": array((2, 3)), "last": array((3, 2))},
            {"x": array((2, 3)), "number": array(1)},
        )
        for arguments in wrong:
            with pytest.raises(jaxtyping.TypeCheckError):
                f(**arguments)


def test_fields_of_a_dataclass_are_checked_with_their_axes():
    def of(kind):
        fields = [("x", Float[np.ndarray, "row column"]), ("y", kind), ("number", int, 0)]
        return checked(dataclasses.make_dataclass("Sized", fields, frozen=True))

    sized, other = of(Float[np.ndarray, " row"]), of(Float[np.ndarray, " column"])
    for _ in range(3):
        assert sized(np.ones((2, 3)), np.ones(2), number=4).number == 4
        assert other(np.ones((2, 3)), y=np.ones(3)).number == 0
        for arguments in ((np.ones((2, 3)), np.ones(3)), (np.ones(2), np.ones(2)), (np.ones((2, 3)), 1)):
            with pytest.raises(jaxtyping.TypeCheckError):
                sized(*arguments)
        with pytest.raises(jaxtyping.TypeCheckError, match="number"):
            sized(np.ones((2, 3)), np.ones(2), "4")


def test_functions_are_not_kept_with_what_they_hold():
    """But for the first one that is made, from which its check is written."""

    class Held:
        pass

    def made(held):
        @checked
        def ignored(x: object) -> object:
            return held

        @checked
        def plain(x: int) -> int:
            return x + (held is None)

        @checked
        def shaped(x: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
            return x + (held is None)

        return ignored(1), plain(1), shaped(np.ones(1))

    gone = []
    for _ in range(3):
        held = Held()
        gone.append(weakref.ref(held))
        made(held)
    del held
    gc.collect()
    assert [each() for each in gone[1:]] == [None, None]
