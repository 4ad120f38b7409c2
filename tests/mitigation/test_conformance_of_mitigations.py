"""What every mitigation must do; a new file in mitigation/methods/ is tested by being there."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from ocr_interp import FactRecallTask
from ocr_interp.mitigation import Aim, Descent, Mitigation, compare, mitigate, mitigations

TASK = FactRecallTask(3, 1, 2, n_noise=0, seq_len=3, implied_relations=2)
AIM = Aim.of(TASK, "r3")
MARGIN, QUICK = 1.0, {"margin": 1.0, "entries": 0.2}
"""Few steps, from a start that is no longer small."""

EVERY = pytest.mark.parametrize("name", mitigations.names)


def begun(name, seed=0):
    method = mitigations[name]()
    linear_map = method.linear_map(AIM, seed)
    start = method.start(AIM, linear_map, 0.01, seed)
    told = method.told(AIM, seed)
    descent = Descent(AIM, told, linear_map, method.routes(AIM), start, method.optimizer_and_rate())
    return descent, method.steering(descent, seed)


@EVERY
def test_it_says_what_it_is(name):
    found = mitigations[name]
    assert issubclass(found, Mitigation)
    assert found.name == name
    assert found.label
    assert found.knows in ("nothing", "unwanted", "prompts", "examples", "features")
    assert all(isinstance(value, bool | int | float | str) for value in asdict(found()).values())


@EVERY
def test_it_fits_what_is_told_and_all_that_is_measured_is_finite(name):
    found = mitigate(TASK, "r3", name, **QUICK)
    row = found.row()
    assert all(np.isfinite(value) for value in row.values() if isinstance(value, float))
    assert found.measured.fact_accuracy == found.measured.told_accuracy == 1.0
    if mitigations[name].finished is Mitigation.finished:
        assert MARGIN <= found.measured.told_margin < MARGIN + 2
    assert found.after is not None
    assert found.after.told_margin > 0.5
    assert found.W.shape == (TASK.n_relations, *AIM.shape)
    assert (found.n_examples > 0) == (found.method.knows == "examples")
    assert (found.n_prompts > 0) == (found.method.knows == "prompts")


@pytest.mark.slow
@EVERY
def test_everything_follows_from_the_seed(name):
    once, again = (mitigate(TASK, "r3", name, **QUICK, seed=1) for _ in range(2))
    other = mitigate(TASK, "r3", name, **QUICK, seed=2, go_on=False)
    np.testing.assert_array_equal(once.W, again.W)
    assert once.measured == again.measured
    assert once.after == again.after
    assert not np.array_equal(once.W, other.W)


@EVERY
def test_steps_in_two_parts_have_the_bits_of_steps_at_once(name):
    (once, steering), (twice, other) = begun(name), begun(name)
    once.advance(8, steering)
    twice.advance(3, other)
    twice.advance(5, other)
    assert all(torch.equal(value, twice.parameters[key]) for key, value in once.parameters.items())


@EVERY
def test_without_knowing_the_unwanted_relation_it_does_the_same_for_another(name):
    method = mitigations[name]()
    if method.knows == "nothing":
        ours, others = (mitigate(TASK, which, method, **QUICK, go_on=False) for which in ("r2", "r3"))
        np.testing.assert_array_equal(ours.W, others.W)
        assert ours.measured.wanted_beta == others.measured.unwanted_beta
    else:
        assert method.controls(AIM)


@pytest.mark.slow
@EVERY
def test_several_unwanted_relations_and_its_controls(name):
    task = FactRecallTask(3, 1, 2, n_noise=0, seq_len=3, implied_relations=3)
    aim = Aim.of(task, ["r3", "r4"])
    methods = {name: name, **mitigations[name]().controls(aim)}
    table = compare(task, ["r3", "r4"], methods, seeds=(0,), **QUICK)
    assert list(table["label"]) == list(methods)
    assert np.isfinite(table.select_dtypes("float")).all(axis=None)
