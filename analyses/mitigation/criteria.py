"""Tasks, methods, predictions and criteria of the study of mitigations. Written down before its runs.

No run of any method on any of these tasks had been made. Known were the laws of docs/theory.md §2, §10, §11
and §14, the saddle's β with one, two and three implications of a fact ((8, 1, 3): 0.786, 0.695, 0.653), and
a program of 3 × 3 (told, given and free subjects of a pair; facts and two implications): if the spurious
answer of k of b untold subjects is pinned to 0, β of those left is 0.208, 0.153 for k = 1, 2 of 3 instead
of 0.41, and β of the causal implication of those given falls to 0.18 to 0.24.
"""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = (0, 1, 2, 3, 4)
ENTRIES = 0.01
MARGIN = 20.0
"""Training ends when every told answer leads every other output by this, in logits. Then it goes on without
the mitigation for as many steps again."""


@dataclass(frozen=True)
class Setting:
    """A task: n, m_train, m_test, implied relations, and which of them are unwanted."""

    sizes: tuple[int, int, int]
    implied: int
    unwanted: tuple[str, ...]

    @property
    def name(self) -> str:
        """As in the JSON."""
        return f"{self.sizes} K={self.implied}"


SETTINGS = (
    Setting((8, 1, 3), 2, ("r3",)),
    Setting((10, 2, 4), 2, ("r3",)),
    Setting((6, 1, 5), 2, ("r3",)),
    Setting((8, 1, 3), 3, ("r3", "r4")),
)

DEDUCED = 0.9
"""Untold answers are deduced if their accuracy among the relation's answers is >= DEDUCED in every seed."""

GUESSES = 3.0
"""They are silent if the mean accuracy of the seeds is <= chance + GUESSES standard deviations of guesses at
the untold prompts of one seed. Chance is 1 / n."""


@dataclass(frozen=True)
class Variant:
    """A method with its options, and what is predicted in every setting.

    Attributes:
        method: name in `ocr_interp.mitigation.mitigations`.
        options: its options; "{wanted}" and "{unwanted}" in a text stand for the relations' names.
        wanted, unwanted: "deduced", "silent", or "" (no prediction) of untold answers.
        control: whether it is a control: as much of the method without its knowledge.
        returns: whether untold unwanted answers, silent before, are right in >= RETURNED of the cases after
            going on; None: no prediction.
    """

    method: str
    options: dict[str, bool | int | float | str]
    wanted: str
    unwanted: str
    control: bool = False
    returns: bool | None = None


COSINE = 0.6
VARIANTS = {
    "nothing": Variant("none", {}, "deduced", "deduced"),
    "one matrix": Variant("one_matrix", {}, "silent", "silent", returns=True),
    "experts, read": Variant("routed", {"side": "read"}, "deduced", "silent", returns=True),
    "experts, write": Variant("routed", {"side": "write"}, "deduced", "deduced"),
    "own matrix": Variant("own_matrix", {}, "deduced", "silent", returns=True),
    "counter-examples, 1 a pair": Variant("counter_examples", {"subjects": 1}, "deduced", "deduced"),
    "counter-examples, 2 a pair": Variant("counter_examples", {"subjects": 2}, "deduced", ""),
    "penalty, all subjects": Variant("penalty", {}, "deduced", "silent", returns=True),
    "penalty, 1 subject a pair": Variant("penalty", {"subjects": 1}, "deduced", "deduced"),
    "projected gradients": Variant("projection", {}, "deduced", "deduced"),
    "Muon": Variant("optimizer", {"optimizer": "muon", "lr": 0.02}, "silent", "silent", returns=True),
    "small start": Variant("start", {"entries": 1e-4}, "deduced", "deduced"),
    "large start": Variant("start", {"entries": 0.5}, "", ""),
    "without the tail": Variant("truncation", {"drop": "tail"}, "deduced", "deduced"),
    "without the top": Variant("truncation", {"drop": "top"}, "", ""),
    "known features": Variant("frozen_features", {"cosine": COSINE}, "deduced", "silent", returns=True),
    "experts {unwanted, r1}": Variant(
        "routed", {"side": "read", "experts": "r1+{unwanted}|{wanted}"}, "silent", "deduced", control=True
    ),
    "experts by subject": Variant("routed", {"by": "subject", "side": "read"}, "deduced", "deduced", True),
    "counter-examples of r2": Variant(
        "counter_examples", {"subjects": 1, "of": "wanted"}, "deduced", "deduced", control=True
    ),
    "random projection": Variant("projection", {"random": True}, "deduced", "deduced", control=True),
    "without random directions": Variant("truncation", {"drop": "random"}, "", "", control=True),
    "features of the unwanted": Variant(
        "frozen_features", {"cosine": COSINE, "known": "unwanted"}, "silent", "deduced", control=True
    ),
}
"""Why. Reading apart (§14): an untold subject's rows in the expert that never met its fact are asked for by
nothing; writing apart leaves one matrix with more columns. An own matrix for the unwanted relation's prompts
is reading apart with another norm. Pinning some subjects dilutes. Projecting r3's answers' features d out of
the values' gradient blocks one of two ways: the features themselves still turn towards what told and untold
subjects share (the rate of ⟨v_untold, d⟩ is ⟨v_untold, v_told⟩ > 0). Muon's norm is the spectral one, β < 0.
A start acts on both alike, and so does a cut of the spectrum. Features (§11): β is the cosine.

Every silence is predicted to end when plain training goes on: descent of a factorized model deduces from any
start, and nothing of what was learned stands against it."""

ADDED = {"penalty, weight 10": Variant("penalty", {"weight": 10.0}, "", "")}
"""Added after the runs of all others had been seen, with no prediction: a penalty of weight 1 left the
unwanted answers first. So was the share of untold unwanted answers that are those of a counter-example."""

RETURNED = 0.5

SELECTIVE = ("experts, read", "own matrix", "penalty, all subjects", "known features")
"""The methods that are predicted to keep the wanted and lose the unwanted."""

ALIKE = 0.1
"""Start, tail, write-side experts and nothing act on both relations alike: |β wanted − β unwanted|, mean of
the seeds, is below this, in every setting."""
BOTH_ALIKE = ("nothing", "experts, write", "small start", "large start", "without the tail")

LOWER_BY = 0.1
"""A large start's β, mean of both relations and the seeds, is lower than nothing's by more than this."""

COSINE_WITHIN = 0.1
"""Known features: β of the wanted within this of the cosine and of the unwanted within this of 0, every
seed."""

TOLD_LOST = 0.9
"""Without the top block, accuracy of told answers (facts and implications) against every output falls below
this in every setting, mean of the seeds."""
# Orders, mean of the seeds in every setting:
# - β of the wanted is larger with experts that read apart than with nothing (the fewer implications share a
#   column, the more is deduced), and smaller with a penalty on all subjects (pinned rows cost what it adds);
# - β of the unwanted with 1 counter-example, and with a penalty on 1 subject, is below nothing's and above
#   DILUTED_ABOVE;
# - without the tail β of both is larger than with nothing.
DILUTED_ABOVE = 0.05
