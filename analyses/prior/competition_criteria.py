"""Setting, predictions and criteria of the competition of two answers. Written down before its runs.

A first trial (seed 0, 16 cases) had shown that the told answer overtakes as fine-tuning goes on.
"""

from __future__ import annotations

SHARES = (0, 1, 2, 3)
"""New subjects of 4 a pair who are told another implication than the pretrained one."""

PRETRAINING_TIMES, LAST = (2.0, 4.0, 10.0, 20.0), 40.0
FINE_TUNING_TIMES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0, 30.0, 40.0, 60.0)
"""log10 of the times; one descent of fine-tuning is measured at all up to 3 t + 4, t of pretraining."""

WIDTHS, RANKS = (10, 14, 20, 40), (1, 2, 4, 8, 16)

AT = 4.0
"""log10 of the fine-tuning time at which widths and LoRA's ranks are compared, after pretraining to 1e4."""

CROSSING_SPREAD = 0.25
"""The prediction. In the late flow only p² and the fact's coefficient f have a scale: logits measured in p²
are a function of x = f / p² and of the told share. So the told answer overtakes at one x* for each share,
whatever the length of pretraining: largest distance of x* from the mean over pretraining to 1e4 … 1e20,
relative (1e2 is left out: features and the last steps of fitting are of one size there). As p² and f both
grow like the logarithm of the time, the told answer needs a fixed fraction of pretraining's decades."""

NAIVE_FACTOR = 2.0
"""x* from two laws that know nothing of each other: the recalled logit is p √f / m^¼ for large x (the law of
recall, m = 4 new subjects a pair), the deduced one β f with β of the saddle of (10, told, 4 − told). They
are equal at x* = 1 / (β² √m): 0.80, 0.5, 0.5 for 1, 2, 3 told. The told subjects have to unlearn the
pretrained answer first, so x* must be above it: expected between 1 and NAIVE_FACTOR times it."""

RING_WITHIN = 0.08
"""Derived after those runs, which had refuted CROSSING_SPREAD for 2 and 3 told (x* falls with p²): the flow
of `circulant.ring_flow`, from p² alone. Largest distance of the mean x* of a length from it, relative;
judged on those runs, and on pretraining to 1e40 (LAST), which was run for this."""

CONSTRUCTED_SPREAD = 0.15
"""Oracle: features written by hand, b_i = c_i = p e_i, no pretraining, with the same p² and the same size of
answer types. The crossing must be the same up to this, relative: p² is all that pretraining leaves."""

LORA_FIRST, LORA_RECALLED = 0.9, 0.2
"""LoRA in token space, ranks 8 and 16: told answer first for at least, pretrained first for at most, of the
held-out subjects, mean over seeds. Ranks 1 and 2 cannot hold 9 pair directions: less than half told first."""

WIDTH_SPREAD = 0.25
"""Widths from 20 on do not matter: x* at width 40 within this of width 20."""
