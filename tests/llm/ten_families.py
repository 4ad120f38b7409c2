"""Tiny random models of ten families and more, from their own configurations, for the tests of methods."""

import pytest
import torch

from analyses.architectures.tiny import tiny_architecture

TEN = (
    *("LlamaForCausalLM", "Qwen2ForCausalLM", "MistralForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"),
    *("OlmoForCausalLM", "GPT2LMHeadModel", "GPTNeoXForCausalLM", "PhiForCausalLM", "OPTForCausalLM"),
)
OTHERS = (
    *("BloomForCausalLM", "FalconForCausalLM", "MixtralForCausalLM", "Phi3ForCausalLM", "GPTJForCausalLM"),
    *("Olmo2ForCausalLM", "Qwen3NextForCausalLM", "JambaForCausalLM", "DeepseekV3ForCausalLM"),
    *("GPTBigCodeForCausalLM", "MptForCausalLM", "StableLmForCausalLM", "CohereForCausalLM"),
)
FAST = ("LlamaForCausalLM",)
IDS = torch.arange(3, 15).view(2, 6)

FITTING = {
    "compacter": {"reduction_factor": 6},
    "compacter_plus": {"reduction_factor": 6},
    "phm_adapter": {"reduction_factor": 2},
}
"""Options with which a method fits the width of these models, 24."""


def families(*more):
    """All as parameters of a test, some of them in the fast part of the suite."""
    names = (*TEN, *more)
    return [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in names]


def tiny(name, **changes):
    """A model in float64."""
    return tiny_architecture(name, **changes)
