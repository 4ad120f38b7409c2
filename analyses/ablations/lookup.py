"""A control for the small block: a lookup table, written by hand, that knows nothing about held-out
implications.

The pair patterns of any table of own entries are [[√a, √a], [√b, 0]] (rows told and untold subjects, columns
facts and implications), and the large mode of that matrix alone fills its empty corner. So that truncating a
circuit makes it deduce says nothing about a trained circuit that a table would not pass.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from analyses.ablations.low_rank import SIZES, blocks_of
from analyses.ablations.tables import HELD_OUT_IMPLICATION, of_matrix
from ocr_interp import FactRecallTask
from ocr_interp.task import SPLITS

SMALL = list(SIZES)[2]


def lookup_table(task: FactRecallTask) -> Float[np.ndarray, "subject_or_relation answer"]:
    """1 at every told (subject, answer); relations add ±1/2 to facts and to implications; else 0."""
    told = task.training_triples
    table = np.zeros((task.n_subjects + 2, task.n_answers))
    table[told.subject, told.answer] = 1.0
    table[task.n_subjects] = np.repeat([0.5, -0.5], [task.n_facts, task.n_implications])
    table[task.n_subjects + 1] = -table[task.n_subjects]
    return table


def without_its_small_block(table: Float[np.ndarray, "subject_or_relation answer"]) -> dict[str, float]:
    """Held-out accuracy and coefficient at the paper's task, and accuracy on what was told."""
    basis = blocks_of(table)[SMALL]
    before, after = of_matrix(table), of_matrix(table - table @ basis @ basis.T)
    return {
        "accuracy_before_lookup_table": before[HELD_OUT_IMPLICATION]["accuracy"],
        "held_out_accuracy_lookup_table": after[HELD_OUT_IMPLICATION]["accuracy"],
        "told_accuracy_lookup_table": min(after[split]["accuracy"] for split in SPLITS[:3]),
        "coefficient_lookup_table": after[HELD_OUT_IMPLICATION]["logit_difference"],
    }
