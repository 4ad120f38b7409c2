"""Constructions and computations behind the figures, against values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ocr_interp import FactRecallTask

SMALL = FactRecallTask(n_pairs=5, m_train=1, m_test=3, n_noise=0, seq_len=3)


@pytest.mark.parametrize("n", [2, 8, 20])
def test_a_code_of_width_two_has_every_answer_right(n):
    from analyses.width.narrow_code import planar_code

    code = planar_code(FactRecallTask(n_pairs=n, m_train=1, m_test=2))
    by_hand = (1 - math.cos(math.pi / n)) / math.cos(math.pi / (2 * n))
    assert code.W_V.shape[1] == code.W_O.shape[0] == 2
    assert code.certificate.min_margin == pytest.approx(by_hand, rel=1e-9)
    assert code.certificate.held_out_margins_overall.min() == pytest.approx(by_hand, rel=1e-9)


def test_the_minimiser_with_a_penalty_has_a_loss_that_no_step_improves():
    from scipy.special import log_softmax

    from analyses.phases.penalised import penalised_optimum

    task, penalty = SMALL, 0.01
    triples, rng = task.training_triples, np.random.default_rng(0)

    def objective(W: np.ndarray) -> float:  # row sums, written without the script's matrices
        logits = W[triples.subject] + W[task.n_subjects + triples.relation] + W[task.eos_token]
        right = log_softmax(logits, axis=1)[np.arange(len(triples)), triples.answer + task.n_inputs]
        return float(-right.mean() + penalty * np.linalg.norm(W, "nuc"))

    found = penalised_optimum(task, "factorized", penalty)
    best = objective(found.W)
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(20):
            assert objective(found.W + size * rng.standard_normal(found.W.shape)) > best
        assert objective(found.W * (1 + size)) > best
        assert objective(found.W * (1 - size)) > best
    assert found.loss == pytest.approx(best - penalty * np.linalg.norm(found.W, "nuc"))


def test_a_frobenius_penalty_leaves_held_out_implications_at_zero():
    from analyses.phases.penalised import penalised_optimum

    assert abs(penalised_optimum(SMALL, "non_factorized", 0.003).beta) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("m_train", "m_test"), [(1, 3), (2, 1)])
def test_the_first_pair_block_is_the_leading_direction(m_train, m_test):
    from dataclasses import replace

    from analyses.phases.penalised import first_beta, leading_beta

    M = np.array([[math.sqrt(m_train)] * 2, [math.sqrt(m_test), 0.0]])
    u = np.linalg.svd(M)[0][:, 0]
    by_hand = (u[1] / math.sqrt(m_test)) / (u[0] / math.sqrt(m_train))
    assert leading_beta(m_train, m_test) == pytest.approx(by_hand)
    found = first_beta(replace(SMALL, m_train=m_train, m_test=m_test))
    assert found.beta == pytest.approx(by_hand, abs=0.01)


def test_a_run_that_does_not_fit_has_no_margin_ratio():
    import pandas as pd

    from analyses.phases.grids import with_ratios

    common = {"n_pairs": 5, "m_train": 1, "m_test": 3, "n_noise": 0, "seq_len": 3, "init_scale": 1.0}
    splits = ("training_fact", "training_implication", "held_out_fact")
    common |= {f"{split}/accuracy": 1.0 for split in splits}
    common |= {"held_out_implication/accuracy": 1.0, "held_out_implication/loss": 0.1, "held_out_margin": 1.0}
    rows = [{**common, "status": "finished", "train_margin": margin} for margin in (2.0, -1.0)]
    rows.append({**common, "status": "diverged", "train_margin": 2.0})
    rows.append({**common, "status": "finished", "train_margin": 2.0, "held_out_fact/accuracy": 0.9})
    table = with_ratios(pd.DataFrame(rows))
    assert table["fitted"].tolist() == [True, False, False, False]
    assert table["margin_ratio"].iloc[0] == 0.5
    assert table["margin_ratio"].iloc[1:].isna().all()
    assert table["entries"].iloc[0] == pytest.approx(33**-0.5)


def test_claims_on_the_large_block_look_at_facts_of_both_kinds_of_subjects():
    import pandas as pd

    from analyses.ablations.study import LARGE, _large_block_claims
    from ocr_interp.task import SPLITS

    def table(training_facts: float, held_out_facts: float, margin: float) -> pd.DataFrame:
        without = dict(zip(SPLITS, (training_facts, 1.0, held_out_facts, 0.0), strict=True))
        rows = [{"spec": LARGE, "split": s, "accuracy": a, "margin": margin} for s, a in without.items()]
        return pd.DataFrame(rows + [{"spec": "none", "split": s, "accuracy": 1, "margin": 2} for s in SPLITS])

    def judged(limit: pd.DataFrame, *trained: pd.DataFrame) -> list[bool]:
        return [claim.holds for claim in _large_block_claims(limit, list(trained), [trained[0]])]

    assert judged(table(0, 1, 0.1), table(0, 0.05, 0)) == [True] * 3
    assert judged(table(0, 0.9, 0.1), table(0, 0.05, 0)) == [False, True, True]
    assert judged(table(0, 1, 0.2), table(0, 0.05, 0), table(0, 0.1, 0)) == [False, False, True]
    assert judged(table(0.05, 1, 0.1), table(0.1, 0, 0)) == [False] * 3


def test_a_lookup_table_deduces_without_its_small_block():
    from analyses.ablations.lookup import lookup_table, without_its_small_block
    from analyses.paper.runs import PAPER

    table = lookup_table(PAPER)
    assert np.count_nonzero(table[:-2]) == PAPER.n_subjects + int(PAPER.subject_trained.sum())
    found = without_its_small_block(table)
    assert found["accuracy_before_lookup_table"] == 0, "a tie of all implications is not right"
    assert found["held_out_accuracy_lookup_table"] == found["told_accuracy_lookup_table"] == 1
    # The larger mode of [[1, 1], [√3, 0]] in the corner that the table leaves empty.
    U, s, Vt = np.linalg.svd([[1.0, 1.0], [math.sqrt(3), 0.0]])
    corner = s[0] * U[1, 0] * Vt[0, 1] / math.sqrt(3)
    assert found["coefficient_lookup_table"] == pytest.approx(corner, abs=1e-12)


@pytest.mark.parametrize(
    ("right", "low", "high"), [(96, 0.9016, 0.9843), (100, 0.9630, 1.0), (0, 0.0, 0.0370)]
)
def test_shares_have_wilsons_interval(right, low, high):
    import pandas as pd

    from analyses.width.shares import share

    rows = pd.DataFrame({"held_out_implication/accuracy": [right / 100] * 5})
    found = share(rows, n_pairs=20, m_test=3)
    z = 1.959964
    centre, half = (
        (right + z**2 / 2) / (100 + z**2),
        z / (100 + z**2) * math.sqrt(right * (1 - right / 100) + z**2 / 4),
    )
    assert found.right == pytest.approx(right / 100)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert found.questions[1] - found.questions[0] < found.high - found.low


def test_a_width_is_said_to_fall_with_pairs_only_beyond_chance():
    from analyses.width.claims import _falls
    from analyses.width.shares import Share, wilson

    def of(right, pairs):
        return Share(right, *wilson(right, pairs), questions=wilson(right, pairs))

    assert _falls([of(1.0, 30), of(0.9, 60), of(0.5, 120)])
    assert not _falls([of(1.0, 30), of(0.9, 60), of(0.85, 120)]), "within the interval"
    assert not _falls([of(0.8, 30), of(0.9, 60), of(0.5, 120)]), "rises in between"
