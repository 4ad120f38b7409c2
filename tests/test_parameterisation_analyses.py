"""The studies of parameterisations: claims that can hold and fail, and a control that is one."""

import dataclasses

import numpy as np
import pytest

from analyses.parameterisation import kronecker
from analyses.parameterisation.kronecker_criteria import CASES, DIALS, SEEDS, SHARES
from ocr_interp.theory import aligned_compacter
from ocr_interp.training.long_descent import long_descent


def as_predicted():
    """Every β in the middle of its range, Compacter's at its point."""
    point = aligned_compacter(kronecker.task()).beta
    middle = {name: [(low + high) / 2] * len(SEEDS) for name, (_, _, (low, high)) in CASES.items()}
    middle["Compacter, aligned"] = [point] * len(SEEDS)
    right = dict.fromkeys(CASES, [1.0] * len(SEEDS))
    falling = dict(
        zip(SHARES, ([value] * len(SEEDS) for value in np.linspace(0.8, 0.0, len(SHARES))), strict=True)
    )
    flat = dict.fromkeys(SHARES, [0.7] * len(SEEDS))
    dial = {name: flat if name == "factorized" else falling for name in DIALS}
    return kronecker.Measured(
        middle, right, middle, right, dial, {}, [point] * len(SEEDS), [0.0] * len(SEEDS)
    )


def test_claims_can_hold_and_fail():
    good = as_predicted()
    found = {claim.id: claim.holds for claim in kronecker.claims(good)}
    assert len(found) == 2 * len(CASES) + 3
    assert all(found.values())
    worse = {name: [*betas[:-1], 3.0] for name, betas in good.descent.items()}
    flat = dict.fromkeys(DIALS, good.dial["factorized"])
    moved = {**good.dial, "factorized": good.dial["PHM, aligned"]}
    for bad, held in (
        (dataclasses.replace(good, descent=worse, adamw=worse), 2),
        (dataclasses.replace(good, dial=flat), 2 * len(CASES) + 2),
        (dataclasses.replace(good, dial=moved), 2 * len(CASES) + 2),
    ):
        assert sum(claim.holds for claim in kronecker.claims(bad)) == held


def test_the_control_has_the_start_of_a_descent_permuted(monkeypatch, tmp_path):
    monkeypatch.setattr(kronecker, "TIME", 0.5)
    still, moved = (kronecker.descend_factorized(tmp_path, share, seed=1) for share in (0.0, 1.0))
    alone = long_descent(kronecker.task(), "factorized", entries=0.01, log10_time=0.5, seed=1, logit_step=0.1)
    assert still.beta == pytest.approx(alone.beta, rel=1e-9)
    assert moved.beta != still.beta


def test_only_permuted_layouts_have_a_seed():
    assert kronecker.placed({"layout": "aligned"}, 3) == {"layout": "aligned"}
    assert kronecker.placed({"permuted_share": 0.5}, 3) == {"permuted_share": 0.5, "layout_seed": 3}
