"""One row per subject: margins, ranks and names, by hand and against the certificate and a run's history."""

import numpy as np
import pytest

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, solve, train
from ocr_interp.task import FACT, IMPLICATION
from ocr_interp.theory.subject_table import RANGE_COLUMNS, TABLE_COLUMNS, subject_logits, subject_table

CITIES = {"Rome": {"Ada": True, "Bo": False}, "Milan": {"Cy": False}, "Lima": {"Ed": True, "Flo": False}}
TASK = FactRecallTask.from_names(
    CITIES, {"Rome": "Italian", "Milan": "Italian", "Lima": "Spanish"}, n_noise=2, seq_len=5
)


def test_a_table_by_hand():
    fact = np.array([[3.0, 1, 0, 0, 0], [2, 0, 2, 0, 0], [5, 1, 0, 0, 9], [0, 0, 7, 6, 0], [0, 0, 0, 0, 0]])
    implication = np.array(
        [[0.0, 0, 0, 4, 1], [5, 0, 0, 2, 1], [0, 0, 0, 1, 2], [0, 0, 0, 1, 1], [0, 0, 0, 3, 3]]
    )
    table = subject_table(TASK, {FACT: fact, IMPLICATION: implication})
    assert list(table.columns) == list(TABLE_COLUMNS)
    assert table["subject"].tolist() == ["Ada", "Bo", "Cy", "Ed", "Flo"]
    assert table["fact"].tolist() == ["Rome", "Rome", "Milan", "Lima", "Lima"]
    assert table["implication"].tolist() == ["Italian"] * 3 + ["Spanish"] * 2
    assert table["told"].tolist() == [True, False, False, True, False]
    assert table["fact_margin"].tolist() == [2, 0, -8, 1, 0]
    assert table["implication_margin"].tolist() == [3, 1, -1, 0, 0]
    assert table["implication_margin_overall"].tolist() == [3, -3, -1, 0, 0]
    assert table["rank"].tolist() == [0, 0, 1, 0.5, 0.5]
    assert table["first"].tolist() == ["Italian", "Italian", "Spanish", "", ""]
    coarse = subject_table(TASK, {FACT: fact, IMPLICATION: implication}, error=1.5)
    assert coarse["rank"].tolist() == [0, 0.5, 0.5, 0.5, 0.5], "closer than the error is a tie"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outputs", "inputs"), [("answers", "subject_relation"), ("vocabulary", "noise_eos")]
)
def test_margins_are_those_of_the_certificate(outputs, inputs):
    solution = solve(TASK, outputs=outputs, inputs=inputs)
    table, certificate = solution.table(), solution.certificate
    untold = table[~table["told"]]
    assert set(table.columns) == {*TABLE_COLUMNS, *RANGE_COLUMNS}
    low, high = (table[name] for name in RANGE_COLUMNS)
    assert (low <= table["implication_margin"] + 1e-9).all()
    assert (table["implication_margin"] <= high + 1e-9).all()
    assert (high - low).max() <= 2 * solution.margin_error
    np.testing.assert_allclose(untold["implication_margin"], certificate.held_out_margins, atol=1e-9)
    overall = certificate.held_out_margins_overall
    np.testing.assert_allclose(untold["implication_margin_overall"], overall, atol=1e-9)
    told = np.append(table["fact_margin"], table.loc[table["told"], "implication_margin_overall"])
    np.testing.assert_allclose(np.sort(told), np.sort(certificate.margins), atol=1e-9)


def test_a_tie_of_the_solution_is_no_opinion():
    """By the symmetry of the two languages the Frobenius norm is silent on all."""
    table = solve(TASK, "frobenius").table()
    untold = table[~table["told"]]
    assert untold["rank"].tolist() == [0.5] * 3
    assert untold["first"].tolist() == [""] * 3


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_the_table_of_a_run_is_its_history(attention):
    recipe = TrainConfig(steps=40, lr=0.02, data="noise_free", device="cpu", log_every=20)
    run = train(TASK, ModelConfig(d_head=8, attention=attention), recipe)
    table, row = run.table(), run.history.iloc[-1]
    told = table[table["told"]]
    assert table.loc[~table["told"], "implication_margin"].min() == pytest.approx(
        row["held_out_margin"], abs=1e-5
    )
    margins = np.append(table["fact_margin"], told["implication_margin_overall"])
    assert margins.min() == pytest.approx(row["train_margin"], abs=1e-5)
    assert run.at(0).table()["rank"].tolist() != table["rank"].tolist()


@pytest.mark.slow
def test_the_table_of_a_noisy_run_is_the_mean_over_the_noise():
    recipe = TrainConfig(steps=40, lr=0.02, batch_size=6, device="cpu", log_every=20)
    run = train(TASK, ModelConfig(d_head=8), recipe)
    a, names = run.effective_W.astype(np.float64), run.task
    noise = [a[list(names.noise_tokens)][[i, j]].sum(axis=0) for i in range(2) for j in range(2)]
    logits = np.mean(noise, axis=0) + a[names.tokens("Bo", "r2", "EOS")].sum(axis=0)
    own, other = names.token("Italian"), names.token("Spanish")
    table = run.table().set_index("subject")
    assert table.loc["Bo", "implication_margin"] == pytest.approx(logits[own] - logits[other], abs=1e-6)


def test_logits_hold_what_every_example_holds():
    W = np.arange(12.0 * 3).reshape(12, 3)
    task = FactRecallTask(2, 1, 2, n_noise=2, seq_len=5)
    logits = subject_logits(task, W[:11], "noise_eos")
    assert logits[IMPLICATION][4].tolist() == (W[4] + W[7] + W[8] + W[9] + W[10]).tolist()
