"""The task of a file of facts, which replaces the options that count its pairs and subjects."""

from __future__ import annotations

from pathlib import Path

from ocr_interp.errors import ConfigError
from ocr_interp.fact_tables import COLUMNS
from ocr_interp.llm.facts.reading import read_records
from ocr_interp.task import FactRecallTask


def task_of_file(path: Path, given: FactRecallTask) -> FactRecallTask:
    """The task of a file with one row per subject and COLUMNS, in the file's names.

    Args:
        path: a .csv, .tsv, .json or .jsonl file.
        given: the task of the options; only its noise and length are taken.

    Raises:
        ConfigError: options that the file replaces, or a file that cannot be read or contradicts itself.
    """
    n_noise, seq_len = given.n_noise, given.seq_len
    if given != FactRecallTask(n_noise=n_noise, seq_len=seq_len):
        raise ConfigError(
            f"{path} gives the pairs, subjects and names: leave out --n-pairs, --m-train, --m-test and "
            "the flags of a mapping"
        )
    records = read_records(path)
    if not records.rows:
        raise ConfigError(f"{path} has no rows: it needs at least two facts with a subject each")
    has = tuple(dict.fromkeys((*records.columns, *(key for _, values in records.rows for key in values))))
    missing = [column for column in COLUMNS[:3] if column not in has]
    if missing:
        raise ConfigError(
            f"{records.place}: no column is called {' or '.join(map(repr, missing))}, required are "
            f"{', '.join(COLUMNS[:3])} ({COLUMNS[3]} may be left out), the file has "
            f"{', '.join(map(repr, has))}: rename the file's columns"
        )
    places, rows = zip(*records.rows, strict=True)
    return FactRecallTask.from_rows(list(rows), places, n_noise, seq_len)


def told_rule(path: Path, task: FactRecallTask) -> str:
    """How many subjects of a file's task are told and which rule chose them, in words.

    Args:
        path: the file.
        task: what `task_of_file` made of it.
    """
    count = f"told: {int(task.subject_trained.sum())} of {task.n_subjects} subjects"
    if any(COLUMNS[3] in values for _, values in read_records(path).rows):
        return f"{count}, by the column told of {path.name}"
    return (
        f"{count}, every row with an implication, as {path.name} has no column told; `ocr-interp llm` tells "
        "a share of each fact's names instead (--share)"
    )
