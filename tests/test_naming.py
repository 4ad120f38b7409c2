"""Names of users' own: labels everywhere, tables of facts by hand, and what is refused, by its message."""

import unicodedata

import numpy as np
import pandas as pd
import pytest
import torch

from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.task import FactRecallTask

CITIES = {"Rome": {"Ada": True, "Bo": False}, "Milan": {"Cy": False}, "Lima": {"Ed": True, "Flo": False}}
LANGUAGES = {"Rome": "Italian", "Milan": "Italian", "Lima": "Spanish"}


def test_names_are_the_labels():
    task = FactRecallTask.from_names(CITIES, LANGUAGES, n_noise=1, seq_len=4)
    expected = ("Ada", "Bo", "Cy", "Ed", "Flo", "r1", "r2", "noise0", "EOS")
    assert task.labels == (*expected, "Rome", "Milan", "Lima", "Italian", "Spanish")
    assert (task.n_facts, task.n_implications) == (3, 2)
    assert task.fact_of_subject == (0, 0, 1, 2, 2)
    assert task.implication_of_fact == (0, 0, 1)
    assert task.trained == (True, False, False, True, False)
    assert task.token("Ed") == 3
    with pytest.raises(UnknownNameError, match="did you mean 'Milan'"):
        task.token("Milano")
    assert FactRecallTask.from_dict(task.to_dict()) == task
    plain = FactRecallTask.from_mapping(task.fact_of_subject, task.implication_of_fact, task.trained, 1, 4)
    assert plain != task
    assert plain.labels[:2] == ("s0", "s1")


def test_a_balanced_task_takes_names_too():
    task = FactRecallTask(2, 1, 0, names=("Ada", "Bo", "Rome", "Lima", "Italian", "Spanish"))
    assert task.labels[:2] == ("Ada", "Bo")
    assert task.labels[-2:] == ("Italian", "Spanish")


ROWS = [
    {"subject": "Ada", "fact": "Rome", "implication": "Italian", "told": True},
    {"subject": "Bo", "fact": "Rome", "implication": None, "told": False},
    {"subject": "Cy", "fact": "Lima", "implication": "Spanish", "told": False},
    {"subject": "Di", "fact": "Lima", "implication": float("nan"), "told": True},
]


class Polars:
    """What a polars DataFrame and Series have, as far as a table is read."""

    def __init__(self, rows):
        self.to_dicts = lambda: rows
        self.to_list = lambda: rows


@pytest.mark.parametrize(
    "table",
    [
        ROWS,
        pd.DataFrame(ROWS),
        Polars(ROWS),
        {name: [row[name] for row in ROWS] for name in ROWS[0]},
        {name: pd.Series([row[name] for row in ROWS]) for name in ROWS[0]},
        [{**row, "told": "YES" if row["told"] else 0} for row in ROWS],
    ],
    ids=["rows", "pandas", "polars", "columns", "series", "words"],
)
def test_tables_in_every_form(table):
    task = FactRecallTask.from_rows(table)
    assert task.labels[:4] == ("Ada", "Bo", "Cy", "Di")
    assert task.trained == (True, False, False, True)
    assert task.fact_of_subject == (0, 0, 1, 1)


def test_without_told_a_row_with_an_implication_is_told():
    rows = [{name: row[name] for name in ("subject", "fact", "implication")} for row in ROWS]
    assert FactRecallTask.from_rows(rows).trained == (True, False, True, False)


@pytest.mark.parametrize(
    "column",
    [list, np.array, pd.Series, torch.tensor, Polars, lambda v: pd.Series(v, index=range(7, 7 + len(v)))],
)
def test_a_mapping_takes_columns_of_tables(column):
    expected = FactRecallTask.from_mapping([0, 0, 1], [0, 1], [True, False, True])
    task = FactRecallTask.from_mapping(column([0, 0, 1]), column([0, 1]), column([True, False, True]))
    assert task == expected
    assert hash(task) == hash(expected)


COMPOSED, APART = "Jos\u00e9", unicodedata.normalize("NFD", "Jos\u00e9")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (COMPOSED, APART),
        ("S\u00e3o Paulo", "s\u00e3o paulo"),
        ("Ann Bo", "Ann\u00a0Bo"),
        ("Ann Bo", "Ann  Bo"),
        ("Ann Bo", "Ann \u200bBo"),
        ("Rome", "Rome"),
    ],
)
def test_two_spellings_of_one_name_are_refused_with_both(first, second):
    names = ("Ada", first, second, "Lima", "Italian", "Spanish")
    with pytest.raises(ConfigError, match="names must differ in more than") as error:
        FactRecallTask(2, 1, 0, names=names)
    assert ascii(first)[1:-1] in str(error.value) or repr(first) in str(error.value)
    assert " and fact " in str(error.value)
    if first != second:
        told = str(error.value).split(" and ")
        assert told[0].split("'")[1] != told[1].split("'")[1], "the two can be told apart"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "c"), r"2 subjects, then 2 facts, then 2 implications \(6 in all\), got 3"),
        (("a", "b", "c", "d", "e", ""), "implication ''"),
        (("a", "b", "c", "d", "e", " f"), "implication ' f'"),
        (("a", "b", "c", "d", "e", "f\x1b[2J"), r"implication 'f\\x1b\[2J'"),
        (("r1", "b", "c", "d", "e", "EOS"), r"subject 'r1' \(the label.*implication 'EOS'"),
        (("noise12", "b", "c", "d", "e", 5), "noise12.*implication 5"),
    ],
)
def test_names_that_are_not_allowed_are_all_listed(unchecked, names, message):
    with pytest.raises(ConfigError, match=message):
        unchecked.FactRecallTask(2, 1, 0, names=names)


@pytest.mark.parametrize(
    ("facts", "implications", "message"),
    [
        (
            {"Rome": {"A": True}, "Lima": {"A": True}},
            {"Rome": "x", "Lima": "y"},
            "fact 'Lima': subject 'A' stands in",
        ),
        ({"Rome": {"A": True}, "Lima": {}}, {"Rome": "x", "Lima": "y"}, "fact 'Lima' must map its subjects"),
        (
            {"Rome": {"A": True}, "Lima": {"B": 2}},
            {"Rome": "x", "Lima": "y"},
            "told must be one of true, yes, 1",
        ),
        ({"Rome": {"A": True}, "Lima": {"B": True}}, {"Rome": "x"}, "got none for 'Lima'"),
        ({"Rome": {"A": True}, "Lima": {"B": True}}, {"Rome": "x", "Limo": "y"}, "did you mean 'Lima'"),
        ({"Rome": ["A"], "Lima": {"B": True}}, {"Rome": "x", "Lima": "y"}, r"got \['A'\]"),
        ([("Rome", "A")], {"Rome": "x"}, "facts must be a mapping, got list"),
    ],
)
def test_contradictions_name_what_they_are_about(unchecked, facts, implications, message):
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        unchecked.FactRecallTask.from_names(facts, implications)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (7, "a list of rows with the columns .* got int"),
        ([], "at least one row, got list"),
        ([7], "row 0 must map columns to values, got 7"),
        ({"subject": ["a"], "fact": ["b", "c"]}, "columns must be of equal length, got subject 1, fact 2"),
        ({"subject": ["a"], "fact": ["b"]}, "got no 'implication' among 'subject', 'fact'"),
        ([{**ROWS[0]}, {**ROWS[0]}], "row 1: subject 'Ada' stands in row 0 already"),
        (
            [{**ROWS[0]}, {**ROWS[1], "implication": "Latin"}],
            "row 1: fact 'Rome' implies 'Latin', and in row 0 'Italian'",
        ),
        ([{**ROWS[0], "fact": None}], "row 0: fact must be a text that is not empty, got nothing"),
        ([{**ROWS[0], "told": "maybe"}], "row 0: told must be one of .* got 'maybe'"),
        ([{**ROWS[1]}], "got none for 'Rome'"),
    ],
)
def test_bad_tables_name_the_row(unchecked, table, message):
    with pytest.raises(ConfigError, match=message):
        unchecked.FactRecallTask.from_rows(table)


def test_columns_without_an_order_and_names_instead_of_indices_say_what_to_do(unchecked):
    with pytest.raises(ConfigError, match=r"fact_of_subject must be a sequence .* got set"):
        unchecked.FactRecallTask.from_mapping({0, 1}, [0, 1], [True, True])
    with pytest.raises(ConfigError, match=r"got 'Rome': for names use FactRecallTask.from_names"):
        unchecked.FactRecallTask.from_mapping(["Rome"], [0, 1], [True])
