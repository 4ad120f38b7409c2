"""The data set of these tests, and the families that they are run on."""

import pytest

from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.models.tiny import FAMILIES

SMALL = FactConfig(n_pairs=3, n_names=5)

ONE_FAST = [pytest.param(f, marks=() if f == "llama" else pytest.mark.slow) for f in FAMILIES]
"""The five families, one of them in the fast part of the suite."""
