"""Paths: cut, and replaced by a mean, another sequence and a donor, all by hand."""

import hooked_models
import numpy as np
import pytest
import torch
from micro_model import BATCH, ROWS, SCORES, TASK, answers, by_hand

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.circuit_parts import ov_block
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.patch import Patch
from ocr_interp.ablation.edits.resample import Resample, donors
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import tokens_of_kind
from ocr_interp.errors import InterventionNeverFiredError, ModelError, UnknownNameError


def test_a_path_is_cut_exactly(model):
    rows = ROWS.copy()
    rows[[1, 3], 2:] = 0
    held_out, implications = (tokens_of_kind(TASK, k) for k in ("held-out subjects", "implications"))
    with ablated(model, Zero().at(Path(held_out, implications, layer=0, head=0))):
        assert answers(model) == pytest.approx(by_hand(rows), abs=1e-12)
        assert answers(model)[:, :2] == pytest.approx(by_hand()[:, :2], abs=1e-12)
        with ablated(model, Zero().at(Path(("r2",), ("b0",), layer=0, head=0)), labels=TASK.labels):
            rows[5, 0] = 0
            assert answers(model) == pytest.approx(by_hand(rows), abs=1e-12)
    rows = ROWS.copy()
    rows[[4, 5]] = 0
    with ablated(model, Zero().at(Path(tokens_of_kind(TASK, "relations"), layer=0, head=0))):
        assert answers(model) == pytest.approx(by_hand(rows), abs=1e-12)


def test_paths_that_do_not_exist(llama_bridge):
    for each in (
        llama_bridge,
        hooked_models.hooked_transformer("LN"),
        hooked_models.hooked_transformer(None),
    ):
        with (
            pytest.raises(ModelError, match="outputs=None"),
            ablated(each, Zero().at(Path((3,), (4,), layer=0, head=0))),
        ):
            pass


SUBJECTS = tokens_of_kind(TASK, "subjects")


def with_other_subjects(contributions, columns):
    """Logits by hand where what each sequence's subject adds to some answers is something else."""
    wanted = by_hand().astype(float)
    for k, sequence in enumerate(BATCH.tolist()):
        subject = next(t for t in sequence if t in SUBJECTS)
        wanted[k, columns] += (contributions[k] - SCORES[subject] * ROWS[subject])[columns]
    return wanted


def test_a_block_of_the_circuit_is_one_call(model):
    assert ov_block(TASK, "held-out subjects", "implications") == Zero().at(
        Path((1, 3), (10, 11), layer=0, head=0)
    )
    assert ov_block(TASK, "relations") == Zero().at(Path((4, 5), layer=0, head=0))
    with pytest.raises(UnknownNameError, match="implications"):
        ov_block(TASK, "subjects", "implication")
    with pytest.raises(UnknownNameError, match="kind of answer 'held-out subjects'"):
        ov_block(TASK, "subjects", "held-out subjects")
    rows = ROWS.copy()
    rows[[0, 2], :2] = 0
    with ablated(model, ov_block(TASK, "training subjects", "facts")):
        assert answers(model) == pytest.approx(by_hand(rows), abs=1e-12)


def test_a_path_carries_its_mean(model):
    reference = torch.tensor([[0, 4, 6, 7], [6, 2, 5, 7], [3, 4, 6, 7], [6, 4, 5, 7]])  # the last has none
    mean = (SCORES[0] * ROWS[0] + SCORES[2] * ROWS[2] + SCORES[3] * ROWS[3]) / 3
    for outputs, columns in ((None, slice(None)), ((10, 11), slice(2, 4)), (("b1",), slice(1, 2))):
        with ablated(model, Mean(reference).at(Path(SUBJECTS, outputs, layer=0, head=0)), labels=TASK.labels):
            assert answers(model) == pytest.approx(with_other_subjects([mean] * 3, columns), abs=1e-12)
    held_out = Path((1, 3), layer=0, head=0)
    with ablated(model, Mean(reference[2:3]).at(held_out)):  # prompts without the path stay
        assert np.array_equal(answers(model)[0], by_hand()[0])
        with pytest.raises(ModelError, match="same length"):
            model(BATCH[:, 1:])
    with (
        pytest.raises(InterventionNeverFiredError, match="inputs"),
        ablated(model, Mean(reference).at(Path((1,), layer=0, head=0))),
    ):
        pass


def test_a_mean_needs_the_path_at_every_query_that_has_it():
    each = hooked_models.hooked_transformer("LN")
    spec = Mean(torch.tensor([[5, 5, 3, 5]])).at(Path((3,), layer=0, head=0))
    with ablated(each, spec), pytest.raises(ModelError, match=r"positions \[0, 1\]"):
        each(torch.tensor([[5, 3, 5, 5]]))
    with ablated(each, spec):
        each(torch.tensor([[5, 5, 3, 5]]))


def test_a_path_carries_what_another_sequence_does(model):
    order = donors(3, torch.Generator().manual_seed(2)).tolist()
    subject = [0, 3, 1]
    carried = [SCORES[subject[j]] * ROWS[subject[j]] for j in order]
    with ablated(model, Resample(2).at(Path(SUBJECTS, (8, 9), layer=0, head=0))):
        assert answers(model) == pytest.approx(with_other_subjects(carried, slice(0, 2)), abs=1e-12)
    two = Path((0, 3), layer=0, head=0)
    with ablated(model, Resample().at(two)):  # donors are among the two that hold one
        wanted = by_hand().astype(float)
        wanted[0] += SCORES[3] * ROWS[3] - SCORES[0] * ROWS[0]
        wanted[1] -= SCORES[3] * ROWS[3] - SCORES[0] * ROWS[0]
        assert answers(model) == pytest.approx(wanted, abs=1e-12)
        with pytest.raises(ModelError, match=">= 2"):
            model(BATCH[:1])


def test_a_path_carries_what_a_donor_does(model):
    donor = torch.tensor([[2, 5, 6, 7]])
    with ablated(model, Patch(donor=donor).at(Path(SUBJECTS, (10, 11), layer=0, head=0))):
        wanted = with_other_subjects([SCORES[2] * ROWS[2]] * 3, slice(2, 4))
        assert answers(model) == pytest.approx(wanted, abs=1e-12)
    with ablated(model, Patch(donor=BATCH.flip(0)).at(Path(SUBJECTS, layer=0, head=0))):
        carried = [SCORES[s] * ROWS[s] for s in (1, 3, 0)]
        assert answers(model) == pytest.approx(with_other_subjects(carried, slice(None)), abs=1e-12)
        with pytest.raises(ModelError, match="one or as many"):
            model(BATCH[:2])
    with (
        pytest.raises(InterventionNeverFiredError, match="donor"),
        ablated(model, Patch(donor=donor).at(Path((0,), layer=0, head=0))),
    ):
        pass


@pytest.mark.parametrize("kind", ["grouped", "bridge"])
def test_paths_of_grouped_models_are_patched(kind, llama_bridge):
    """Donor equal to the prompt changes nothing; a donor's c is that of its own pattern and values."""
    each = (
        hooked_models.hooked_transformer("RMS", n_layers=2, kv_heads=2) if kind == "grouped" else llama_bridge
    )
    tokens, donor = torch.tensor([[3, 4, 5, 3, 9]]), torch.tensor([[4, 6, 5, 6, 9]])
    with ablated(each, Patch(donor=tokens).at(Path((3,), layer=1, head=2))):
        inside = each(tokens)
    assert torch.allclose(inside, each(tokens), atol=1e-12)
    caches = [each.run_with_cache(t)[1] for t in (tokens, donor)]
    c = []
    for cache, chosen in zip(caches, ([0, 3], [1, 3]), strict=True):
        v = cache["blocks.1.attn.hook_v"][0]
        v = v[:, 2 // (each.cfg.n_heads // v.shape[1])]
        c.append(cache["blocks.1.attn.hook_pattern"][0, 2][:, chosen] @ v[chosen])
    wanted = caches[0]["blocks.1.attn.hook_z"][0, :, 2] - c[0] + c[1]
    with ablated(each, Patch(donor=donor).at(Path((3, 6), layer=1, head=2))):
        _, found = each.run_with_cache(tokens)
    assert torch.allclose(found["blocks.1.attn.hook_z"][0, :, 2], wanted, atol=1e-6)
