"""Every intervention on a one-layer model whose activations are computed by hand."""

import copy

import numpy as np
import pytest
import torch
from micro_model import BATCH, ROWS, SCORES, TASK, answers, by_hand, snapshot

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.circuit_parts import output_subspace, singular_block
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.patch import Patch
from ocr_interp.ablation.edits.resample import Resample, donors
from ocr_interp.ablation.edits.subspace import Subspace
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.where.site import Site, tokens_of_kind
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ConfigError, ModelError, StaleCircuitError


def test_the_model_computes_what_the_hand_does(model):
    assert np.array_equal(answers(model), by_hand())


def test_zero_at_tokens_positions_and_heads(model):
    rows = ROWS.copy()
    rows[6] = 0  # the noise token
    with ablated(model, Zero().at(Site.at("v", layer=0, tokens=["noise0"])), labels=TASK.labels):
        assert np.array_equal(answers(model), by_hand(rows))
    with ablated(model, Zero().at(Site.at("pattern", layer=0, tokens=[6]))):
        assert np.array_equal(answers(model), by_hand(rows))
    with ablated(model, Zero().at(Site.at("v", layer=0, positions=[0]))):
        assert np.array_equal(answers(model), by_hand(tokens=BATCH[:, 1:]))
    with ablated(model, Zero().at(Site.at("attn_scores", layer=0, positions=[-4]))):
        assert np.array_equal(answers(model), by_hand(tokens=BATCH[:, 1:]))
    with ablated(model, Zero().at(Site.at("z", layer=0, heads=[0], positions=[-1]))):
        assert np.array_equal(answers(model), np.zeros((3, 4)))


def test_mean_over_the_same_tokens_of_a_reference(model):
    reference = torch.tensor([[0, 4, 6, 7], [0, 6, 4, 7], [2, 6, 5, 7]])
    rows = ROWS.astype(float)
    mean = (2 * ROWS[0] + ROWS[2]) / 3  # subjects s0, s0, s2
    rows[[0, 1, 2, 3]] = mean
    subjects = tokens_of_kind(TASK, "subjects")
    assert set(subjects) == {0, 1, 2, 3}
    with ablated(model, Mean(reference).at(Site.at("v", layer=0, tokens=subjects))):
        assert answers(model) == pytest.approx(by_hand(rows), abs=1e-12)
    by_position = Mean(reference, by_position=True).at(Site.at("v", layer=0, positions=[1]))
    second = (ROWS[4] + 2 * ROWS[6]) / 3
    wanted = by_hand() + np.array([SCORES[s[1]] * (second - ROWS[s[1]]) for s in BATCH.tolist()])
    with ablated(model, by_position):
        assert answers(model) == pytest.approx(wanted, abs=1e-12)
        with pytest.raises(ModelError, match="by_position=False"):
            model(BATCH[:, 1:])


def test_resampling_takes_donors_from_the_batch(model):
    order = donors(3, torch.Generator().manual_seed(5)).tolist()
    assert sorted(order) == [0, 1, 2]
    assert all(order[k] != k for k in range(3))
    wanted = by_hand()
    for k, sequence in enumerate(BATCH.tolist()):  # the value at position 0 of the donor, the own score
        wanted[k] += SCORES[sequence[0]] * (ROWS[int(BATCH[order[k], 0])] - ROWS[sequence[0]])
    for seed in (5, torch.Generator().manual_seed(5)):
        with ablated(model, Resample(seed).at(Site.at("v", layer=0, positions=[0]))):
            assert np.array_equal(answers(model), wanted)
            with pytest.raises(ModelError, match=">= 2"):
                model(BATCH[:1])


def test_every_donor_but_oneself_is_as_likely():
    generator = torch.Generator().manual_seed(0)
    found = np.array([donors(4, generator).tolist() for _ in range(600)])
    shares = np.array([[(found[:, k] == j).mean() for j in range(4)] for k in range(4)])
    assert np.abs(shares - (1 - np.eye(4)) / 3).max() < 0.08


def test_a_subspace_is_projected_out(model):
    q = torch.zeros(24, 1, dtype=torch.float64)
    q[20:22, 0] = torch.tensor([0.6, 0.8], dtype=torch.float64)  # logits of b0, b1
    wanted = by_hand().astype(float)
    wanted[:, :2] -= np.outer(wanted[:, :2] @ [0.6, 0.8], [0.6, 0.8])
    with ablated(model, Subspace(q).at(Site.at("attn_out", layer=0))):
        assert answers(model) == pytest.approx(wanted, abs=1e-12)
    other = torch.zeros(24, 1, dtype=torch.float64)
    other[22] = 1
    # As much as the other: the norm of the c0 logits, all positions of the batch counted.
    with torch.no_grad():
        _, cache = model.run_with_cache(BATCH)
    written = cache["blocks.0.hook_attn_out"].numpy()
    g = np.linalg.norm(written @ other.numpy()) / np.linalg.norm(written @ q.numpy())
    wanted = by_hand().astype(float)
    wanted[:, :2] -= g * np.outer(wanted[:, :2] @ [0.6, 0.8], [0.6, 0.8])
    with ablated(model, Subspace(q, equal_to=other).at(Site.at("attn_out", layer=0))):
        assert answers(model) == pytest.approx(wanted, abs=1e-12)


def test_a_singular_block_is_taken_out_of_the_circuit(model):
    circuit = OVCircuit.from_run(snapshot()).effective
    for index, block in enumerate(circuit.spectrum().blocks):
        W = circuit.W - block.component
        wanted = np.array([sum(W[t] for t in s) for s in BATCH.tolist()])
        with ablated(model, singular_block(circuit, index, tolerance=1e-6)):
            assert answers(model) == pytest.approx(wanted, abs=1e-10)
            other = model(BATCH)[:, -1, :8]
        assert torch.equal(other, model(BATCH)[:, -1, :8])  # no other logit moves


def test_a_block_of_other_weights_is_refused_unless_it_is_transferred(model):
    circuit = OVCircuit.from_run(snapshot()).effective.subjects_and_relations
    block = circuit.spectrum().block(0)
    stale = copy.deepcopy(model)
    stale.blocks[0].attn.W_V.data[0, 0, 0] += 1
    spec = singular_block(circuit, block)
    with pytest.raises(StaleCircuitError, match="read it again"), ablated(stale, spec):
        pass
    with ablated(stale, singular_block(circuit, block, check_fresh=False)):
        stale(BATCH)
    with pytest.raises(ConfigError, match="must come with a tolerance"):
        singular_block(circuit, 0)


def test_a_patch_puts_another_prompt_in_place(model):
    _, cache = model.run_with_cache(torch.tensor([[2, 5, 6, 7]]))
    patch = Patch(cache["blocks.0.attn.hook_v"]).at(Site.at("v", layer=0, positions=[0, 1]))
    wanted = by_hand()
    for k, sequence in enumerate(BATCH.tolist()):
        for place, donor in enumerate((2, 5)):
            wanted[k] += SCORES[sequence[place]] * (ROWS[donor] - ROWS[sequence[place]])
    with ablated(model, patch):
        assert np.array_equal(answers(model), wanted)
        with pytest.raises(ModelError, match="source must be"):
            model(BATCH[:, 1:])


def test_output_subspaces_take_numpy(model):
    circuit = OVCircuit.from_run(snapshot())
    spec = output_subspace(circuit, np.eye(4)[:, 2:], positions=(-1,))
    with ablated(model, spec):
        assert np.array_equal(answers(model)[:, :2], by_hand()[:, :2])
        assert not answers(model)[:, 2:].any()
