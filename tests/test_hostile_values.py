"""Values that no configuration should get: refused by name when it is made."""

import dataclasses
import itertools

import numpy as np
import pytest

from ocr_interp.checks import check_count
from ocr_interp.errors import ConfigError, OcrInterpError, shown
from ocr_interp.running.schedule import MOST_ROWS, LoggedSteps, logged_steps, snapshot_steps
from ocr_interp.sweeps.grid import MOST_POINTS, grid_points

SELF = []
SELF.append(SELF)
HOSTILE = (
    *(10**400, -(10**400), 10**5000, 2**63, 2**64, float("nan"), float("inf"), 1e400, 1 + 2j, None, b"x"),
    *(
        "\0",
        "a" * 10_000,
        "",
        [],
        {},
        (),
        {"a": 10**400},
        SELF,
        object(),
        set(),
        np.array([1, 2]),
        np.zeros(0),
    ),
    *(range(10**9), len),
)
NAMES = ("FactRecallTask", "ModelConfig", "TrainConfig", "FactConfig", "FinetuneConfig")


@pytest.mark.parametrize("name", NAMES)
def test_every_field_takes_every_value_or_refuses_it(unchecked, name):
    cls = getattr(unchecked, name)
    for field, value in itertools.product(dataclasses.fields(cls), HOSTILE):
        said = ""
        try:
            made = cls(**{field.name: value})
            hash(made)  # what is kept is plain
            repr(made)
        except OcrInterpError as error:
            said = str(error)
        assert len(said) < 3_000, field.name


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("FactRecallTask", {"n_pairs": 10**400}, r"must be <= 9\d+, got a number of about 400"),
        ("FactRecallTask", {"n_pairs": 10**8}, r"at most 100,000,000 tokens .* got 600,000,008"),
        ("FactRecallTask", {"seq_len": 2**40}, r"at most 100,000,000 tokens per sequence"),
        ("FactRecallTask", {"n_pairs": 2, "m_train": None, "m_test": None, "fact_of_subject": (0, 1),
                            "implication_of_fact": (2**62, 0), "trained": (True, True)}, "use every index"),
        ("FactRecallTask", {"fact_of_subject": 3, "implication_of_fact": 4, "trained": 5}, "be a sequence"),
        ("FactRecallTask", {"names": range(10**9)}, "names must have at most 1,000,000 entries"),
        ("FactConfig", {"implications_file": 7}, "implications_file must be a path"),
        ("FactConfig", {"language": None}, "language must be a text"),
        ("ModelConfig", {"d_head": 10**7}, "d_head must be <= 1000000"),
        ("ModelConfig", {"attention": np.array(["linear", "softmax"])}, "attention must be one of"),
        ("ModelConfig", {"init": 3}, "init must be a text"),
        ("TrainConfig", {"steps": 10**12, "log_every": 1}, r"1,000,000 rows.*log_every must be >= 1000002"),
        ("TrainConfig", {"steps": 10**9, "log_every": 10**9}, "a row at least every 10,000,000 steps"),
        ("TrainConfig", {"optimizer": np.array([1, 2])}, "optimizer must be one of"),
        ("TrainConfig", {"lr": 10**400}, "lr must be a finite number > 0, got a number of about 400 digits"),
        ("TrainConfig", {"snapshots": 2**40}, "snapshots must be <= 100000"),
        ("FinetuneConfig", {"model": 3}, "model must be a text"),
        ("FinetuneConfig", {"device": None}, "device must be a text"),
        ("FinetuneConfig", {"steps": 10**15}, "at most 1,000,000 rows"),
        ("FactConfig", {"data": ["city_language"]}, "unknown fact set|data"),
        ("FactConfig", {"train_templates": "01"}, "train_templates must be a tuple"),
        ("FactConfig", {"train_templates": (0, "1")}, r"train_templates\[1\] must be a whole number"),
        ("FactConfig", {"fact_templates": (1,)}, r"fact_templates\[0\] must be a text"),
        ("FactConfig", {"file": 7}, "file must be a path"),
        ("FactConfig", {"fact_property": None}, "fact_property must be a text"),
    ],
)  # fmt: skip
def test_the_message_names_the_field_and_what_is_allowed(unchecked, name, values, message):
    with pytest.raises(OcrInterpError, match=message):
        getattr(unchecked, name)(**values)


def test_numbers_of_numpy_are_kept_as_pythons(unchecked):
    made = unchecked.FinetuneConfig(steps=np.int64(4), lr=np.float32(0.5), batch_size=np.int32(2))
    assert [type(v) for v in (made.steps, made.lr, made.batch_size)] == [int, float, int]
    assert type(unchecked.FactConfig(seed=np.int64(3)).seed) is int
    assert unchecked.FactConfig(train_templates=[0, np.int64(1)]).train_templates == (0, 1)


def test_any_value_is_shown_in_few_letters():
    for value in HOSTILE:
        assert 0 < len(shown(value)) <= 201
    assert shown([10**5000]) == "a list"
    assert shown("x") == "'x'"
    with pytest.raises(ConfigError, match="n must be >= 0, got a number of about 5,000 digits"):
        check_count("n", -(10**5000), 0)


# --- histories and grids that have no end ----------------------------------------------------------------


def old_logged_steps(steps, every):
    return sorted({*range(0, steps + 1, every), steps})


def old_snapshot_steps(logged, count):
    first, last = logged[0], logged[-1]
    wanted = [last ** (k / max(1, count - 1)) for k in range(count)]
    return sorted({first, *{min(logged, key=lambda step: abs(step - target)) for target in wanted}, last})


def test_the_schedule_is_the_old_one_without_its_lists():
    for steps, every in itertools.product((0, 1, 7, 60, 100, 999, 1000), (1, 3, 7, 100, 5000)):
        logged = logged_steps(steps, every)
        assert list(logged) == old_logged_steps(steps, every) == logged
        assert len(logged) == len(list(logged))
        for count in (1, 2, 3, 12, 40):
            assert snapshot_steps(logged, count) == old_snapshot_steps(list(logged), count)
    assert logged_steps(100, 7)[2:5] == [14, 21, 28]
    assert logged_steps(10**18, 1)[10**17] == 10**17
    assert snapshot_steps(LoggedSteps(10**12, 10**6), 3)[1] == 10**6


def test_a_long_run_with_few_rows_is_allowed(unchecked):
    recipe = unchecked.TrainConfig(steps=10**12, log_every=10**7)
    assert len(recipe.logged_steps()) == 100_001 <= MOST_ROWS


def test_a_grid_has_a_number_of_points():
    with pytest.raises(ConfigError, match=f"at most {MOST_POINTS:,} points, got 100,001 or more"):
        grid_points({"seed": itertools.count()})
    with pytest.raises(ConfigError, match="at most 100,000 points, got 1,000,000 or more"):
        grid_points({"seed": range(1000), "d_head": range(1, 1001)})
    with pytest.raises(ConfigError, match="at most 100,000 points"):
        grid_points([{}] * 100_001)
    with pytest.raises(OcrInterpError, match="unknown axis 3"):
        grid_points({3: [1]})
    assert len(grid_points({"seed": (k for k in range(3))})) == 3
