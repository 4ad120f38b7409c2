"""On anybody's model an answer is right or refused: random models beside plain ones, which know no bridge."""

import draws
import pytest
import torch
from draws import QUESTIONS, outcomes, pair_of, report
from random_families import FAMILIES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draws", "of_each", "families"), [(70, 1, 60), pytest.param(500, 8, 25, marks=pytest.mark.long)]
)
def test_no_answer_is_wrong_in_silence_and_none_ends_in_a_traceback(draws, of_each, families):
    """One question of a model of every family, or every question of fewer models."""
    found = list(outcomes(draws, seed=0, of_each=of_each))
    kinds = {each.kind for each in found}
    assert kinds <= {"right", "flagged", "refused"}, report(found)
    assert len({each.family for each in found}) >= families
    assert {each.question for each in found} == set(QUESTIONS)
    assert (
        sum(each.kind == "right" for each in found) > 0.6 * draws
    )  # refusing everything would be right, too


@pytest.mark.parametrize("family", ["GPT2", "Llama", draws.LENS])
def test_a_model_without_anything_in_between_is_answered(family):
    pair = pair_of(family, 7 if family == draws.LENS else 0, torch.float64)
    assert pair is not None
    for question in draws.QUESTIONS:
        outcome = draws.ask(pair, question)
        assert outcome.kind == "right", outcome.said


def test_the_comparison_itself_sees_a_wrong_answer(monkeypatch):
    """The oracle does not agree with whatever it is shown: a head's neighbour is told apart."""
    pair = pair_of("Llama", 3, torch.float64)
    assert pair is not None
    assert pair.plain.heads > 1
    own = draws.Site.at

    def neighbour(kind, *, heads=None, **options):
        moved = None if heads is None else [(heads[0] + 1) % pair.plain.heads]
        return own(kind, heads=moved, **options)

    monkeypatch.setattr(draws.Site, "at", neighbour)
    assert draws.ask(pair, "zero").kind == "silent"


def test_the_families_are_many():
    assert len(FAMILIES) >= 60
