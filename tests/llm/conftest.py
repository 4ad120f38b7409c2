"""Tiny models with a tokenizer that knows the facts' words; nothing is fetched."""

import pytest

from ocr_interp.llm.config import FactConfig
from ocr_interp.llm.drawing import make_facts
from ocr_interp.llm.tiny import FAMILIES, tiny_model, tiny_tokenizer

SMALL = FactConfig(n_pairs=3, n_names=5)

ONE_FAST = [pytest.param(f, marks=() if f == "llama" else pytest.mark.slow) for f in FAMILIES]
"""The five families, one of them in the fast part of the suite."""


@pytest.fixture(scope="session")
def facts():
    """Three pairs of five names, one training name a pair."""
    return make_facts(SMALL)


@pytest.fixture(scope="session")
def tokenizer(facts):
    """Neither a BOS nor a padding token."""
    texts = [f"{e.prompt} {answer}" for e in facts.test_examples for answer in e.candidates]
    return tiny_tokenizer(texts)


@pytest.fixture
def make_model(tokenizer):
    """Builds a fresh tiny model of a family."""
    return lambda family="llama", **changes: tiny_model(family, tokenizer, **changes)
