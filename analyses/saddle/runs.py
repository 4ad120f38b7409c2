"""The descents and flows of this study; descents are kept in runs/saddle and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ocr_interp import FactRecallTask
from ocr_interp.theory import FlowPath, SymmetricFactors, symmetric_flow
from ocr_interp.training.long_descent import LongDescent, long_descent

Sizes = tuple[int, int, int]


def noise_free(sizes: Sizes) -> FactRecallTask:
    """A balanced task with the smallest vocabulary."""
    return FactRecallTask(*sizes, n_noise=0, seq_len=3)


def descend(runs: Path, sizes: Sizes, log10_time: float, **options: Any) -> LongDescent:
    """Gradient descent to a time, kept in a file that its settings name."""
    torch.set_num_threads(1)
    settings = {"logit_step": 0.1, "relative_step": 0.05, **options}
    named = "_".join(f"{name}-{value}" for name, value in sorted(settings.items()))
    file = runs / "saddle" / f"{'-'.join(map(str, sizes))}_{named}.safetensors"
    return long_descent(noise_free(sizes), log10_time=log10_time, file=file, **settings)


def flow(sizes: Sizes, size: float, log10_margin: float = 100.0, **options: Any) -> FlowPath:
    """The reduced flow from isotropic factors: a model of infinite width."""
    return symmetric_flow(
        noise_free(sizes), SymmetricFactors.isotropic(size), log10_margin=log10_margin, **options
    )
