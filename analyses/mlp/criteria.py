"""Setting and criteria of the study of an MLP and of two layers. Written down before its runs.

First trials (seed 0) chose widths, rates and starts so that every run fits; the thresholds are older than
they.
"""

from __future__ import annotations

SIZES = (10, 1, 3)
SEEDS = (0, 1, 2, 3, 4)
STARTS = (0.04, 0.1, 0.3)
"""Standard deviation of every weight at the start; the usual 1/√d_model is 0.177."""

D_MODEL, D_HEAD, D_MLP = 32, 16, 32
ADAM_RATE, RELATIVE_STEP, MAX_STEPS = 1e-3, 0.003, 9_000
LOSS = 1e-4
"""A run ends at this mean training loss in nats; coefficients are compared at it."""

DEDUCED = 0.95
"""Smallest start: least held-out accuracy among the implications, every seed; chance 0.1."""

NARROW = 2.0
"""Added after the runs: mean effective rank of the implications' logits below which a code is narrow."""

CONTROL = 0.3
"""Largest mean held-out accuracy of random weights and of models that were told no implication."""

ABOVE = (SIZES[1] / SIZES[2]) ** 0.5
"""The sign of the saddle law: from the smallest start the mean ratio of held-out and told coefficients is
above √r, and it falls from each start to the next larger one."""

MLP_SHARE = {"descent": (0.0, 0.2), "adamw": (0.2, 0.6)}
"""Share of the held-out coefficient that the MLP writes, mean over seeds, smallest start. The path through
the OV circuit alone has 4 trained factors, the one through OV and MLP 6: from a small start the gradient of
the longer path is smaller. Adam's steps do not know the size of the gradient."""

WITHOUT_MLP = {"descent": 0.9, "adamw": 0.6}
"""Least mean held-out accuracy with the MLP's output replaced by its mean."""

EMBEDDINGS, OV_START = (32, 64, 128, 256), 0.01
"""Widths of random embeddings between which the OV circuit alone is trained by descent, and its start."""

WIDE_DEDUCES, NARROW_DOES_NOT = 0.9, 0.3
"""Added after the runs of ONE_PART had refuted it at width 32, and after a trial with two seeds at 256: least
held-out accuracy at the largest width and largest at the smallest, means. Random embeddings of 42 tokens
overlap by 1/√width, so that what is told of one subject is half told of others."""

PARTS = ("ov", "mlp", "embeddings")
ONE_PART = {"facts": 0.9, "random": 0.9}
"""Least mean held-out accuracy when one part alone is trained and the others stay as a facts-only model has
them ("facts") or at normal entries of size 1/√d_model ("random"). Every part is a product of two factors or,
after facts alone, reads subjects of a pair that look alike."""
