"""The data set of these tests, and the families that they are run on."""

import pytest

from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.models.tiny import FAMILIES, tiny_tokenizer

SMALL = FactConfig(n_pairs=3, n_names=5)


def tokenizer_of(facts: FactSet):
    """A tokenizer of the words of some facts, with neither a BOS nor a padding token."""
    return tiny_tokenizer(f"{e.prompt} {answer}" for e in facts.test_examples for answer in e.candidates)


ONE_FAST = [pytest.param(f, marks=() if f == "llama" else pytest.mark.slow) for f in FAMILIES]
"""The five families, one of them in the fast part of the suite."""
