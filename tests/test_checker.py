"""The checker of annotations sees what is wrong, with shapes and without, and leaves other packages alone."""

import sys

import jaxtyping
import numpy as np
import pytest
import torch

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
