"""What the whole-model tools say of models whose mechanism is known, found without being told which heads."""

import numpy as np
import pytest
import torch

from analyses.circuits.worked_models import (
    INDUCTION_VOCABULARY,
    addition_accuracy,
    additions,
    head_patterns,
    induction_accuracy,
    induction_answers,
    induction_batch,
    induction_model,
    modular_addition_model,
)
from ocr_interp.circuits import Positions, QKCircuit, composition, direct_attribution

pytestmark = pytest.mark.slow


def test_previous_token_heads_compose_with_induction_heads_through_keys():
    """The pair furthest from random matrices is a previous-token head with an induction head, by keys."""
    model = induction_model(0)
    assert induction_accuracy(model) > 0.99
    previous, after = head_patterns(model)
    found = composition(model)
    best = found.table().iloc[0]
    assert best["by"] == "K"
    writer, reader = int(best["writer"][3:]), int(best["reader"][3:])
    assert previous[0, writer] > 0.4
    assert after[1, reader] > 0.5
    assert best["deviation"] > 10
    for seed in range(3):  # and of random matrices nothing stands out like that
        assert np.nanmax(found.random_like(seed).deviations["K"]) < best["deviation"] / 2


def test_induction_heads_write_the_answer():
    model = induction_model(0)
    tokens, periods = induction_batch(20, torch.Generator().manual_seed(3))
    assert bool(induction_answers(tokens, periods)[0][:, -1].all())
    answers = tokens[:, -1]
    others = [[t for t in range(INDUCTION_VOCABULARY) if t != a] for a in answers.tolist()]
    found = direct_attribution(model, tokens[:, :-1], answers, others)
    best = next(part for part in np.array(found.parts)[np.argsort(-found.mean)] if part.kind == "head")
    assert best.layer == 1
    assert head_patterns(model)[1][1, best.head] > 0.5
    assert found.heads.mean(0)[1].sum() > 0.8 * found.totals.mean()


def test_positions_of_a_previous_token_head():
    """Its position by position circuit is largest just below the diagonal."""
    model = induction_model(0)
    head = int(head_patterns(model)[0][0].argmax())
    at = Positions(range(12))
    W = QKCircuit.from_model(model, layer=0, head=head, queries=at, keys=at).W
    best = [int(W[query, : query + 1].argmax()) for query in range(1, 12)]
    assert best == list(range(11))


def test_modular_addition_reads_an_output_vocabulary_of_its_own():
    model = modular_addition_model(0)
    assert addition_accuracy(model) == 1.0
    prompts, answers = additions()
    chosen = torch.arange(0, len(prompts), 50)
    found = direct_attribution(model, prompts[chosen], answers[chosen], (answers[chosen] + 1) % 23)
    assert (found.totals > 0).all()
    assert found.mlps.mean() > 0.5 * found.totals.mean()  # the sum is made in the MLP
    table = composition(model).table()
    assert set(table["by"]) == {"in"}
    assert set(table["reader"]) == {"MLP 0"}
