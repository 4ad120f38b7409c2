"""Counts of the adapters of the Compacter paper, and of SmolLM2, against those computed by hand."""

import pytest

from ocr_interp.errors import ConfigError
from ocr_interp.llm.adapters.counts import adapter_counts

T5_NORMS = (12 * 2 + 12 * 3 + 2) * 768
"""Two norms a block of the encoder, three of the decoder, one after each."""


@pytest.mark.parametrize(
    ("what", "total"),
    [
        ({"width": 768, "bottleneck": 24, "n_adapters": 48, "norms": T5_NORMS}, 161_728),
        ({"width": 768, "bottleneck": 24, "n_adapters": 24, "norms": T5_NORMS}, 104_704),
        ({"width": 576, "bottleneck": 36, "n_adapters": 60}, 110_224),
        ({"width": 576, "bottleneck": 36, "n_adapters": 30}, 55_144),
        ({"width": 576, "bottleneck": 72, "n_adapters": 60}, 116_704),
        ({"width": 576, "bottleneck": 72, "n_adapters": 30}, 58_384),
    ],
)
def test_compacter_and_compacter_plus_plus(what, total):
    assert adapter_counts(**what).total == total


def test_the_phm_adapter_has_a_rule_for_each_projection():
    found = adapter_counts(
        768, 24, 48, phm_dim=12, shared_phm_rule=False, factorized_phm_W=False, norms=T5_NORMS
    )
    assert found.total == 398_976
    assert found.rules == 96 * 12**3


def test_parts_by_hand():
    found = adapter_counts(8, 4, 3, phm_dim=2, phm_rank=2, norms=5)
    assert (found.rules, found.factors, found.biases, found.norms) == (8, 2 * 3 * (8 + 4) * 2, 3 * 12, 5)
    fixed = adapter_counts(8, 4, 3, phm_dim=2, learn_phm=False, phm_bias=False)
    assert (fixed.rules, fixed.biases, fixed.total) == (0, 0, 2 * 3 * 12)


def test_a_phm_dim_that_does_not_divide_names_those_that_do():
    with pytest.raises(ConfigError, match=r"bottleneck 18: one of 1, 2, 3, 6, 9, 18, got 4"):
        adapter_counts(576, 18, 60)
    with pytest.raises(ConfigError, match=r"phm_rank must be >= 1, got 0"):
        adapter_counts(576, 36, 60, phm_rank=0)
