"""Points that hold a mapping, as lists (YAML, JSON), tuples or arrays: one configuration."""

import numpy as np
import pytest

from ocr_interp.errors import ConfigError
from ocr_interp.sweeps.grid import grid_points
from ocr_interp.task import FactRecallTask

TASK = FactRecallTask.from_mapping((0, 0, 1, 1), (0, 1), (True, False, True, False))
SIZES = {"n_pairs": 2, "m_train": None, "m_test": None}
NAMES = ("fact_of_subject", "implication_of_fact", "trained")


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_a_mapping_may_come_as_lists_or_arrays(kind):
    whole = [*TASK.fact_of_subject], [*TASK.implication_of_fact], [*TASK.trained]
    given = {name: kind(values) for name, values in zip(NAMES, whole, strict=True)}
    (point,) = grid_points([{**SIZES, **given}])
    (product,) = grid_points({name: [value] for name, value in {**SIZES, **given}.items()})
    assert point.config.task.fact_of_subject == TASK.fact_of_subject
    assert product.config.fingerprint == point.config.fingerprint
    assert point.values["trained"] == TASK.trained


def test_a_mapping_of_wrong_length_is_one_error_that_names_the_point():
    given = {"fact_of_subject": [0, 0, 1], "implication_of_fact": [0, 1], "trained": [True] * 4}
    with pytest.raises(ConfigError, match=r"invalid point \(n_pairs=2.*fact_of_subject="):
        grid_points([{**SIZES, **given}])
