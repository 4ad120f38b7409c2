"""The same run on a CPU and on a GPU: does the machine decide what a language model deduces?

Later runs of the other studies were made on a GPU (their JSONs name the device). Sums are rounded in another
order there, and training carries such differences on. So a few runs that were finished on a CPU are made
again on a GPU, of six ways of training, chosen before any of them was made again.
"""

from __future__ import annotations

AGAIN = (
    "parts/profession_color--full--seed0",
    "mitigation/profession--lora--seed0",
    "parts/profession_color--lora_r8--seed0",
    "parts/profession_color--lora_mixer--seed0",
    "parts/city_language--compacter--seed0",
    "step_size/lora--muon--lr0.001--seed0",
)
MEAN_APART, MOST_APART, FIRST_LOSS_APART = 0.1, 0.3, 1e-3
"""Differences of mean ranks, and of the loss, nats."""

CRITERIA = {
    "a_gpu_ends_where_a_cpu_does": (
        "the mean rank of untold implications at the end differs between a CPU and a GPU by at most "
        f"{MEAN_APART} in the mean over the runs made on both and {MOST_APART} in any"
    ),
    "a_gpu_begins_as_a_cpu_does": (
        f"the mean training loss of the first 20 steps differs by at most {FIRST_LOSS_APART:g} nats in each "
        "run that records it"
    ),
}
