"""Setting and criteria of the study of Kronecker products. Written down before its runs."""

from __future__ import annotations

SIZES = (8, 1, 3)
SEEDS = (0, 1, 2, 3, 4)
"""Starts by chance; a permuted layout has the seed of its start."""

ENTRIES, TIME = 0.01, 20.0
"""Gradient descent: standard deviation of the entries at the start, and log10 of the time it runs."""

ADAMW = {"steps": 3_000, "lr": 5e-3, "weight_decay": 0.0}
"""AdamW from entries of the same size: full batch without noise, frozen attention, all outputs and EOS."""

ALIGNED, TRANSPOSED = {"layout": "aligned"}, {"layout": "transposed"}
VOCABULARY, PERMUTED = {"layout": "vocabulary"}, {"layout": "aligned", "permuted_share": 1.0}

CASES = {
    "PHM, aligned": ("kronecker", ALIGNED, (-0.05, 0.05)),
    "PHM, transposed": ("kronecker", TRANSPOSED, (-0.05, 0.05)),
    "PHM, vocabulary order": ("kronecker", VOCABULARY, (0.5, 0.8)),
    "PHM, permuted": ("kronecker", PERMUTED, (-0.15, 0.15)),
    "Compacter, aligned": ("compacter", ALIGNED, (0.5, 1.0)),
    "Compacter, transposed": ("compacter", TRANSPOSED, (-0.05, 0.05)),
    "Compacter, vocabulary order": ("compacter", VOCABULARY, (0.5, 1.0)),
    "Compacter, permuted": ("compacter", PERMUTED, (-0.15, 0.25)),
}
"""Map, options, and the range of β that every seed must be in, under gradient descent and under AdamW.

PHM: 0 where (member, type) stand in one factor; from √r to r^¼ where member and type stand in different
ones, as in the vocabulary's order. Compacter: the stationary point of one term, 0.868, where A runs over
pairs; 0 the other way round. The ranges of permuted layouts are those of earlier trials, widened."""

NEAR_POINT = 0.05
"""Largest distance of β of gradient descent from Compacter's stationary point of one term, aligned."""

SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)
DIALS = {
    "Compacter, aligned": ("compacter", ALIGNED),
    "PHM, vocabulary order": ("kronecker", VOCABULARY),
    "PHM, aligned": ("kronecker", ALIGNED),
    "factorized": ("factorized", {}),
}
"""Orders from which a share of the tokens is permuted; for a factorized W_OV its start is permuted."""

REASONS, SILENT, UNMOVED = 0.5, 0.2, 0.05
"""Mean β over seeds of Compacter and of PHM in the vocabulary's order: at least REASONS at a share of 0, at
most SILENT at 1. The factorized model's mean moves by less than UNMOVED over all shares."""
