"""Parameterisations of W_OV, one file each: what is trained, and how it makes the OV circuit.

`maps["factorized"]` is a class, `ModelConfig(ov="factorized").linear_map` one of its objects. A new one is
a new file in this folder, or a class of your own: `maps.register("my_own", MyOwn)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_interp.registry import Registry

if TYPE_CHECKING:
    from ocr_interp.maps.base import LinearMap

maps: Registry[type[LinearMap]] = Registry(
    "parameterisation of W_OV", "ocr_interp.maps", "MAP", ("axes", "base", "routing")
)
