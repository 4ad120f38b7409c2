"""Changed cells of a table are refused; rows without a seal are not used."""

import random

import pandas as pd
import pytest

from ocr_interp.ablation.study_table import KEYS, TOUCHED, StudyRows
from ocr_interp.errors import RunError

METRICS = ("loss", "margin")


def rows(spec="r1", **metrics):
    key = {"study": "s" * 8, "spec": spec, "description": "zero at r1", "control": "intervention", "seed": 0}
    values = {TOUCHED: 1.0, "loss": 0.1 + 0.2, "margin": float("nan"), **metrics}
    return [{**key, "split": split, **values} for split in ("training_fact", "held_out_fact")]


@pytest.fixture
def path(tmp_path):
    written = StudyRows(tmp_path / "a.csv", "s" * 8, METRICS)
    written.add(rows())
    written.add(rows("path", loss=1e-7 / 3, margin=-0.0))
    return tmp_path / "a.csv"


def test_rows_come_back_under_their_seals(path):
    found = StudyRows(path, "s" * 8, METRICS)
    assert found.table().to_dict("records")[0]["loss"] == 0.1 + 0.2
    assert all(found.has({"spec": spec, "seed": 0}) for spec in ("r1", "path"))
    assert "seal" not in found.table()
    assert list(pd.read_csv(path).columns) == [*KEYS, TOUCHED, *METRICS, "seal"]


def test_no_digit_is_changed_in_silence(path):
    whole, rng = path.read_text(), random.Random(0)
    expected = StudyRows(path, "s" * 8, METRICS).table()
    places = [k for k, letter in enumerate(whole) if letter.isdigit()]
    refused = 0
    for at in rng.sample(places, 60):
        other = rng.choice([digit for digit in "0123456789" if digit != whole[at]])
        path.write_text(whole[:at] + other + whole[at + 1 :])
        try:
            found = StudyRows(path, "s" * 8, METRICS).table()
        except RunError as error:
            refused += str(path) in str(error)
        else:  # a digit beyond what a float holds
            pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert refused > 55


def test_a_changed_cell_names_its_line_and_the_way_out(path):
    path.write_text(
        path.read_text().replace("path,zero at r1,intervention,0,held", "path,zero,intervention,0,held")
    )
    with pytest.raises(RunError, match=r"a\.csv was changed .*line 5, 'path'.*delete that line, or the file"):
        StudyRows(path, "s" * 8, METRICS)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]))  # what the message advises
    assert len(StudyRows(path, "s" * 8, METRICS).table()) == 3


@pytest.mark.parametrize("lost", ["column", "header", "cells"])
def test_rows_without_a_seal_are_measured_again(path, lost):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    changed = {
        "column": table.drop(columns="seal"),
        "header": table.rename(columns={"seal": "sea1"}),
        "cells": table.assign(seal=""),
    }[lost]
    changed.to_csv(path, index=False)
    if lost == "header":
        with pytest.raises(RunError, match=r"a\.csv is damaged \(line 2"):
            StudyRows(path, "s" * 8, METRICS)
        return
    found = StudyRows(path, "s" * 8, METRICS)
    assert not found.has({"spec": "r1", "seed": 0})
    assert len(found.table()) == 0
    found.add(rows(loss=5.0))
    again = StudyRows(path, "s" * 8, METRICS)
    assert again.table()["loss"].tolist() == [5.0, 5.0]
    assert len(pd.read_csv(path)) == 4, "what was not measured again is still in the file"
