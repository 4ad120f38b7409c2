"""The data set of these tests: three pairs of five names."""

from ocr_interp.llm.config import FactConfig

SMALL = FactConfig(n_pairs=3, n_names=5)
