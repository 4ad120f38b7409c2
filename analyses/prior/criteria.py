"""Setting and criteria of the study of prior knowledge. Written down before its runs."""

from __future__ import annotations

N = 10
"""Pairs (b_i, c_i); chance rank of an implication is (N − 1) / 2 = 4.5."""

OLD, NEW = 2, 4
"""Subjects per pair: old ones, in pretraining, and new ones, in fine-tuning."""

ENTRIES = 0.01
"""Standard deviation of the entries at every start, also of new subjects' rows."""

PRETRAINING, FINE_TUNING = 4.0, 4.0
"""log10 of the time of each stage; the loss is then about 1e-4 and 1e-3."""

RANK_OF_LORA = 8
SEEDS = (0, 1, 2, 3, 4)

FIRST, SECOND, CHANCE = (0.0, 0.2), (0.8, 1.2), (3.0, 6.0)
"""Ranges of the mean rank, every seed: recalled or deduced first; second behind another; neither."""

EXPECTED = {
    ("factorized", "facts"): {"task": FIRST},
    ("scratch", "facts"): {"task": CHANCE},
    ("non_factorized", "facts"): {"task": CHANCE},
    ("lora", "facts"): {"task": CHANCE},
    ("factorized", "mislead"): {"task": SECOND, "pretrained": FIRST},
    ("scratch", "mislead"): {"task": FIRST, "pretrained": CHANCE},
    ("non_factorized", "mislead"): {"task": CHANCE, "pretrained": CHANCE},
    ("lora", "mislead"): {"task": FIRST, "pretrained": CHANCE},
    ("factorized", "help"): {"task": FIRST},
}
"""(model, what is told) -> ranges of the ranks of the implication of the task and of the pretrained one."""

OLD_TOLD = (1, 2, 3, 4, 5, 6)
OLD_OF_SIX = 6
PRETRAINING_TIMES, FACT_TIMES = (4.0, 10.0, 40.0), (1.0, 2.0, 4.0, 10.0)
RECALL_WITHIN = 0.03
"""Largest distance of the recall coefficient from the law `stages.Pretrained.recall`. The first criterion,
that it stays at the pretrained features' own ratio, was refuted by a first trial (0.62 for 1.00): facts'
features grow in fine-tuning. The law was derived after that trial from one pretraining, and judged on all."""

RATIO_WITHIN = 0.05
"""Largest distance of the features' ratio from the pretraining's β, after pretraining to t = 1e40."""

COSINES = (0.0, 0.3, 0.6, 0.9)
RATIO = (3, 1, 3)
LAW_WITHIN = 0.02
"""Largest distance of β from the laws for frozen answer features of these cosines, at t = 1e60."""
