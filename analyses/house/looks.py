"""Labels and colours, in every figure, of the two parameterisations of W_OV that the paper compares."""

from __future__ import annotations

from ocr_interp.maps import maps

PAPERS_TWO = ("factorized", "non_factorized")
COLORS = {ov: maps[ov].colour for ov in PAPERS_TWO}
NAMES = {ov: maps[ov].label for ov in PAPERS_TWO}
