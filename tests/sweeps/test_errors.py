"""An error in one run, of whatever type: a recorded failed run, never the end of the sweep."""

import pytest

from ocr_interp.errors import ConfigError
from ocr_interp.sweeps import engines
from ocr_interp.sweeps.records import RunRecord
from ocr_interp.sweeps.stacks import train_stack
from ocr_interp.sweeps.sweep import load_sweep

ERRORS = (RuntimeError("shape mismatch\nin detail"), KeyError("W_V"), ConfigError("no such device here"))


def failing(error):
    def train(stack, **options):
        if any(config.train.seed == 1 for config in stack):
            raise error
        return train_stack(stack, **options)

    return train


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_in_a_run_is_recorded_and_stops_no_other(
    error, tiny_sweep, tmp_path, monkeypatch, same_table
):
    monkeypatch.setattr(engines, "train_stack", failing(error))
    found = tiny_sweep({"seed": [0, 1, 2]}, stack=3)
    assert found.runs["status"].tolist() == ["finished", "failed", "finished"]
    message = found.runs["message"][1]
    assert message.startswith(f"{type(error).__name__}: ")
    assert "\n" not in message
    assert load_sweep(tmp_path / "sweep").runs["status"].tolist() == found.runs["status"].tolist()
    monkeypatch.setattr(engines, "train_stack", train_stack)
    again = tiny_sweep({"seed": [0, 1, 2]}, stack=3)
    assert again.runs["status"].tolist() == ["finished"] * 3, "failed runs are tried again"
    same_table(again, tiny_sweep({"seed": [0, 1, 2]}, path="whole"))


def test_records_of_others_are_checked_field_by_field(tiny_sweep):
    record = next(iter(tiny_sweep({"seed": [0]}, path=None)._records.values()))
    good = record.to_dict()
    assert RunRecord.from_dict(good, 2).rows == record.rows
    numbers = [1] * len(good["columns"])
    wrong = {"status": "done", "seconds": "1", "message": 3, "trained_on": None, "columns": numbers}
    for field, value in wrong.items():
        with pytest.raises(ValueError, match=field):
            RunRecord.from_dict({**good, field: value}, 2)
