"""Tiny models with a tokenizer that knows the facts' words; nothing is fetched."""

import pytest
from small_facts import SMALL, tokenizer_of

from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.models.tiny import tiny_model


@pytest.fixture(scope="session")
def facts():
    """Three pairs of five names, one training name a pair."""
    return make_facts(SMALL)


@pytest.fixture(scope="session")
def tokenizer(facts):
    """Neither a BOS nor a padding token."""
    return tokenizer_of(facts)


@pytest.fixture
def make_model(tokenizer):
    """Builds a fresh tiny model of a family."""
    return lambda family="llama", **changes: tiny_model(family, tokenizer, **changes)
