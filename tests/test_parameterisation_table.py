"""The table of all parameterisations: known predictions, sums by hand, claims that can fail."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analyses.house.pages import maps_table
from analyses.parameterisation import table, table_runs
from analyses.parameterisation import table_criteria as criteria
from analyses.parameterisation.table_criteria import MAPS, SEEDS, TASKS, noise_free
from ocr_interp import FactRecallTask


def outcome(beta: float, accuracy: float = 1.0, fitted: int | None = 100) -> table_runs.Outcome:
    return table_runs.Outcome(beta=beta, accuracy=accuracy, steps=500, fitted=fitted, log10_loss=-20.0)


def as_predicted():
    """Every run exactly as predicted; a step takes 1 ms of the factorized map and 2 ms of all others."""
    cells = {}
    for name, row in MAPS.items():
        cells[name] = {}
        for sizes in TASKS:
            beta = row.predict(noise_free(sizes))
            runs = [outcome(beta) for _ in SEEDS]
            seconds = 0.001 if name == "factorized" else 0.002
            cells[name][sizes] = table.Cell(
                beta, runs, None if row.pretrained else runs, 10, None if row.pretrained else seconds
            )
    return table.Measured(cells, {sizes: [0.7] * len(SEEDS) for sizes in TASKS}, {name: {} for name in MAPS})


@pytest.mark.parametrize(
    ("predict", "sizes", "known"),
    [
        (criteria.saddle, (20, 1, 3), 0.7858),  # docs/theory.md §10
        (criteria.saddle, (4, 1, 1), 1.0),
        (criteria.nothing, (20, 1, 3), 0.0),
        (criteria.depth_3, (20, 1, 3), 0.7824),
        (criteria.vocabulary_order, (8, 1, 3), 0.83),  # §13
        (criteria.vocabulary_order, (4, 2, 1), 1.0),
        (criteria.one_term, (8, 1, 3), 0.868),
        (criteria.pair_block, (6, 1, 16), 0.5),
        (criteria.pair_block, (6, 2, 1), 1.0),
    ],
)
def test_predictions_are_the_known_numbers(predict, sizes, known):
    assert predict(noise_free(sizes)) == pytest.approx(known, abs=2e-3)


def test_experts_by_subject_are_tasks_of_their_own():
    # members of a pair go to experts 0, 1, 0, 1: one told and one untold, and two untold
    assert criteria.expert_by_expert(noise_free((8, 1, 3))) == pytest.approx((1 + 0 + 0) / 3)
    assert criteria.expert_by_expert(noise_free((4, 1, 1))) == 0
    # five members: (told, untold) are (1, 2) and (1, 1), or the other way round in the next pair
    assert criteria.expert_by_expert(noise_free((6, 2, 3))) == pytest.approx((2 * 0.5**0.25 + 1) / 3)


def test_trained_numbers_by_hand():
    inputs, answers = 32 + 2, 16  # of (8, 1, 3)
    by_hand = {
        "factorized": (inputs + answers) * 16,
        "non-factorized": inputs * answers,
        "deep, 3 factors": (inputs + answers + 16) * 16,
        "LoRA on zero": (inputs + answers) * 8,
        "by relation, read": (2 * inputs + answers) * 16,
        "by relation, write": (inputs + 2 * answers) * 16,
    }
    assert {name: table_runs.n_trained(name, (8, 1, 3)) for name in by_hand} == by_hand


def test_every_row_has_a_map():
    from ocr_interp.maps import maps

    assert {row.ov for row in MAPS.values()} <= set(maps.names)


def test_a_run_is_read_where_its_loss_is_below_the_threshold():
    history = pd.DataFrame(
        {
            "step": [0, 20, 40, 60],
            "train_loss": [2.0, 1e-3, 1e-7, 1e-9],
            "train_margin": [-1.0, 1.5, 12.0, 14.0],
            "beta": [0.0, 0.2, 0.4, 0.6],
            "held_out_implication/accuracy_in_set": [0.0, 0.5, 1.0, 1.0],
        }
    )
    run: Any = SimpleNamespace(history=history)
    assert table_runs._outcome(run, 1e-6) == table_runs.Outcome(0.4, 1.0, 40, 20, -7.0)
    assert table_runs._outcome(run, 1e-12).beta == 0.6
    never: Any = SimpleNamespace(history=history.assign(train_margin=0.0))
    assert table_runs._outcome(never, 1e-6).fitted is None


def test_the_pretrained_start_knows_relations_alone():
    row = dataclasses.replace(MAPS["LoRA, pretrained"])
    start = table_runs.pretrained_start((4, 1, 1), row, 0)
    n_subjects = noise_free((4, 1, 1)).n_subjects
    assert not start["W_0"][:n_subjects].any()
    assert not start["B"].any()
    first, second = start["W_0"][n_subjects:].numpy()
    kinds = FactRecallTask(4, 1, 1, n_noise=0, seq_len=3).answer_relation
    assert first[kinds == 0].min() > first[kinds == 1].max()
    assert second[kinds == 1].min() > second[kinds == 0].max()


def test_claims_can_hold_and_fail():
    good = as_predicted()
    made = table.claims(good)
    assert len(made) == 2 * len(MAPS) - 1
    assert all(claim.holds for claim in made)
    cell = good.cells["factorized"][TASKS[0]]
    off = dataclasses.replace(
        cell, descent=[*cell.descent[:-1], outcome(cell.predicted + 0.06)], adamw=cell.adamw
    )
    bad = dataclasses.replace(
        good, cells={**good.cells, "factorized": {**good.cells["factorized"], TASKS[0]: off}}
    )
    assert [claim.id for claim in table.claims(bad) if not claim.holds] == ["table_factorized_descent"]
    assert table.off_seeds(off) == [SEEDS[-1]]
    assert table.off_seeds(cell) == []


def test_costs_are_relative_to_the_factorized_map():
    measured = as_predicted()
    assert table.relative_cost(measured, "factorized") == 1
    assert table.relative_cost(measured, "non-factorized") == pytest.approx(2)
    assert table.relative_cost(measured, "LoRA, pretrained") is None
    slow = [outcome(0.0, fitted=400), *[outcome(0.0, fitted=100)] * 4]
    never = [outcome(0.0, fitted=None), *slow[1:]]
    for runs, expected in ((slow, (3 * 2 + 2 * 1.6) / 4), (never, None)):
        cell = dataclasses.replace(measured.cells["non-factorized"][TASKS[0]], adamw=runs)
        cells = {**measured.cells["non-factorized"], TASKS[0]: cell}
        changed = dataclasses.replace(measured, cells={**measured.cells, "non-factorized": cells})
        found = table.relative_cost(changed, "non-factorized")
        assert found == (None if expected is None else pytest.approx(expected))


def test_the_table_by_hand():
    numbers = table.numbers_of(as_predicted())
    text = maps_table(numbers).splitlines()
    assert text[0].startswith("| map | (4, 1, 1) | (6, 2, 3) | (8, 1, 3) | (6, 1, 9) |")
    assert len(text) == 2 + len(MAPS)
    row = next(line for line in text if line.startswith("| non-factorized"))
    zeros = " | ".join(["0.00 / 0.00 / 0.00"] * 4)
    assert row == f"| non-factorized | {zeros} | 1.00 / 1.00 | 10 | 2.0 × |"
    numbers["rows"][1]["tasks"][0]["descent"]["beta"][0] = np.float64(0.1)
    assert "| 0.00 / **0.00** / 0.00 |" in maps_table(numbers)
