"""What a matrix says about every subject: margins and ranks as a table, with the task's own names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.task import FACT, IMPLICATION, FactRecallTask
from ocr_interp.theory.problem import constant_feature

if TYPE_CHECKING:
    import pandas as pd

TABLE_COLUMNS = {
    "subject": "name",
    "fact": "name of its fact",
    "implication": "name of its fact's implication",
    "told": "whether the implication is in the training set",
    "fact_margin": "logit of the fact minus that of the best other output, under r1",
    "implication_margin": "logit of the implication minus that of the best other implication, under r2",
    "implication_margin_overall": "the same against every other output",
    "rank": "other implications above the right one, plus half of those equal to it; 0: it comes first",
    "first": "the implication with the highest logit; empty if several share it",
}
"""Columns of a table of subjects, and what they hold. Margins are in logits. With several implications of a
fact there is a row for each, and the column RELATION after the subject; implications are then those of the
row's relation."""

RELATION = "relation"
"""Column with the label of the implication's relation, r2, r3, ..., where a fact has several."""

RANGE_COLUMNS = {
    "implication_margin_low": "smallest implication_margin of any matrix that is as good; NaN if not known",
    "implication_margin_high": "the largest",
}
"""Further columns of a solution's table, for untold subjects; a told one's are its margin."""

_EQUAL = 1e-9
"""Logits that differ by less than this share of the largest are equal: rounding, not an opinion."""


def subject_logits(
    task: FactRecallTask, W: Float[np.ndarray, "input output"], inputs: str
) -> dict[int, Float[np.ndarray, "subject output"]]:
    """Every subject's logits under FACT, IMPLICATION and further relations: x W, with x as in problem.INPUTS.

    Args:
        task: the task.
        W: rows: subjects, relations, and the other inputs unless inputs="subject_relation".
        inputs: what an example holds; the mean noise counts with "noise_eos".
    """
    feature, n = constant_feature(task, inputs), task.n_subjects
    shared = feature @ W[: len(feature)]
    return {relation: W[:n] + W[n + relation] + shared for relation in range(task.n_relations)}


def subject_table(
    task: FactRecallTask,
    logits: dict[int, Float[np.ndarray, "subject output"]],
    *,
    error: float = 0.0,
    ranges: Float[np.ndarray, "untold end"] | None = None,
) -> pd.DataFrame:
    """One row per subject, in the task's order; columns as in TABLE_COLUMNS, and RANGE_COLUMNS with ranges.

    With several implications of a fact one row per subject and relation, relation by relation.

    Args:
        task: names the rows.
        logits: under every relation; the answers are the last columns, facts first.
        error: logits closer than this are equal in `rank` and `first` (a solver's accuracy).
        ranges: smallest and largest margin among the implications, of every held-out implication in the order
            of the task's triples.
    """
    import pandas as pd  # a third of a second, and only tables need it

    relations = range(IMPLICATION, task.n_relations)
    frame = pd.concat([_of_relation(task, logits, k, error) for k in relations], ignore_index=True)
    if ranges is None:
        return frame
    at = list(frame.columns).index("implication_margin_overall")
    for end, name in enumerate(RANGE_COLUMNS):
        values = frame["implication_margin"].to_numpy().copy()
        values[~task.told[IMPLICATION:].flatten()] = ranges[:, end]
        frame.insert(at + end, name, values)
    return frame


def _of_relation(
    task: FactRecallTask, logits: dict[int, Float[np.ndarray, "subject output"]], relation: int, error: float
) -> pd.DataFrame:
    """The rows of one implication relation, without ranges."""
    import pandas as pd

    subjects = np.arange(task.n_subjects)
    first = logits[FACT].shape[1] - task.n_answers
    columns = np.flatnonzero(task.answer_relation == relation)
    implication = task.right_answer[relation] - columns[0]
    names = task.labels[task.n_inputs :]
    among = logits[relation][:, first + columns]
    own = among[subjects, implication][:, None]
    near = np.maximum(error, _EQUAL * np.abs(among).max(axis=1, keepdims=True, initial=0.0))
    above, equal = among > own + near, np.abs(among - own) <= near
    equal[subjects, implication] = False
    top = among >= among.max(axis=1, keepdims=True) - near
    winner = np.where(top.sum(axis=1) == 1, among.argmax(axis=1), -1)
    frame = pd.DataFrame(
        {
            "subject": list(task.labels[: task.n_subjects]),
            "fact": [names[fact] for fact in task.subject_fact],
            "implication": [names[columns[k]] for k in implication],
            "told": task.told[relation],
            "fact_margin": _margin(logits[FACT], first + task.subject_fact),
            "implication_margin": _margin(among, implication),
            "implication_margin_overall": _margin(logits[relation], first + columns[implication]),
            "rank": above.sum(axis=1) + equal.sum(axis=1) / 2,
            "first": ["" if k < 0 else names[columns[k]] for k in winner],
        }
    )
    if task.implied_relations > 1:
        frame.insert(1, RELATION, task.labels[task.relation_tokens[relation]])
    return frame


def _margin(
    logits: Float[np.ndarray, "subject output"], correct: Int[np.ndarray, " subject"]
) -> Float[np.ndarray, " subject"]:
    """Logit of the correct output minus that of the best other one."""
    subjects = np.arange(len(logits))
    others = logits.copy()
    others[subjects, correct] = -np.inf
    return logits[subjects, correct] - others.max(axis=1)
