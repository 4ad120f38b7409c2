"""Nothing measured changes: 200 steps of six runs equal those of the code before version 2, to the bit.

Other processors and other versions of torch and numpy round otherwise. A probe of the arithmetic tells
them: where it does not agree with the stored one, the stored numbers themselves are compared.
"""

import json

import pytest
from bits import CASES, FILE, digests, numbers, probe, trained

STORED = json.loads(FILE.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_200_steps_give_what_they_always_gave(name):
    run, stored = trained(name), STORED["runs"][name]
    if probe() == STORED["probe"]:
        assert digests(run) == {kind: stored[kind] for kind in ("history", "weights")}
    found = numbers(run)
    assert found["last"] == pytest.approx(stored["last"], rel=1e-5, abs=1e-6, nan_ok=True)
    assert found["entries"].keys() == stored["entries"].keys()
    for weight, entries in stored["entries"].items():
        assert found["entries"][weight] == pytest.approx(entries, rel=1e-5, abs=1e-6)


def test_the_probe_and_the_digests_see_one_bit():
    """A check that cannot fail would be none."""
    assert probe() == probe()
    run = trained("factorized_frozen_descent")
    before = digests(run)
    next(iter(run.weights.ov.values()))[0, 0] *= 1 + 1e-15
    assert digests(run)["weights"] != before["weights"]
    run.history.loc[3, "beta"] *= 1 + 1e-15
    assert digests(run)["history"] != before["history"]
