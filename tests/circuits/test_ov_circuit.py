"""The OV circuit of a run: a model written out by hand, the closed form, freshness and bad input."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from snapshots import predicted, random_snapshot, snapshot

from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.circuits.weights.spectra import ov_spectra
from ocr_interp.errors import ConfigError, ModelError, StaleCircuitError, UnknownNameError, WeightsError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve
from ocr_interp.training.tracking import circuit_norms

MICRO = FactRecallTask(n_pairs=2, m_train=1, m_test=1, n_noise=1, seq_len=4)
"""s0 s1 (pair 0: trained, held out), s2 s3 (pair 1), r1 r2 noise0 EOS; b0 b1 c0 c1: 12 tokens."""


def micro():
    """W_V W_O with one hidden unit a pair and one for relations, written down entry by entry."""
    W_V, W_O = np.zeros((12, 3)), np.zeros((3, 12))
    W_V[0] = [2, 0, 0]  # s0
    W_V[1] = [1, 0, 0]  # s1
    W_V[2] = [0, 2, 0]  # s2
    W_V[3] = [0, 1, 0]  # s3
    W_V[4], W_V[5] = [0, 0, 1], [0, 0, -1]  # r1, r2
    W_O[0, [8, 10]] = 3, 1  # pair 0 writes b0 and c0
    W_O[1, [9, 11]] = 3, 1
    W_O[2, [8, 9, 10, 11]] = 1, 1, -1, -1
    scores = [1, 1, 1, 2, 1, 1, 0.5, 0.25]
    return snapshot(MICRO, W_V, W_O, scores)


def test_every_entry_of_a_circuit_written_by_hand():
    circuit = OVCircuit.from_run(micro(), raw=True)
    expected = [
        [6, 0, 2, 0],
        [3, 0, 1, 0],
        [0, 6, 0, 2],
        [0, 3, 0, 1],
        [1, 1, -1, -1],
        [-1, -1, 1, 1],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert np.array_equal(circuit.W, expected)
    assert circuit.inputs.labels == ("s0", "s1", "s2", "s3", "r1", "r2", "noise0", "EOS")
    assert circuit.outputs.labels == ("b0", "b1", "c0", "c1")
    doubled = np.array(expected, dtype=float)
    doubled[3] *= 2  # the score of s3
    assert np.array_equal(circuit.effective.W, doubled)
    assert circuit.effective.effective.W is circuit.effective.W
    vocabulary = OVCircuit.from_run(micro(), outputs="vocabulary", raw=True)
    assert vocabulary.W.shape == (8, 12)
    assert np.array_equal(vocabulary.restrict(outputs=["b0", "b1", "c0", "c1"]).W, expected)


def test_energy_by_block_counted_by_hand():
    energy = OVCircuit.from_run(micro(), raw=True).energy
    assert energy.rows == ("training subjects", "held-out subjects", "r1", "r2", "noise", "EOS")
    squared = energy.norms**2
    assert squared[0].tolist() == pytest.approx([72, 0, 8, 0, 0])
    assert squared[1].tolist() == pytest.approx([18, 0, 2, 0, 0])
    assert squared[2].tolist() == pytest.approx([0, 2, 0, 2, 0])
    assert squared[4:].sum() == 0
    assert energy.shares.sum() == pytest.approx(1, abs=1e-15)
    assert energy.share("held-out subjects", "own fact") == pytest.approx(18 / 108)
    assert energy.mean("training subjects", "own fact") == 6
    assert energy.norm("r2", "other facts") == pytest.approx(np.sqrt(2))
    assert energy.counts.sum() == 32
    assert np.isnan(energy.mean("r1", "own fact"))
    with pytest.raises(UnknownNameError, match="did you mean 'own fact'"):
        energy.share("r1", "own facts")
    vocabulary = OVCircuit.from_run(random_snapshot(MICRO), outputs="vocabulary").energy
    assert vocabulary.shares.sum() == pytest.approx(1)
    assert vocabulary.counts[:, 4].sum() == 8 * 8


def test_energy_of_an_unbalanced_task(mapped_task):
    circuit = OVCircuit.from_run(random_snapshot(mapped_task))
    W, total = circuit.W, (circuit.W**2).sum()
    own = sum(W[s, f] ** 2 for s, f in enumerate([2, 0, 1, 0, 2]) if s in (0, 2, 3))
    assert circuit.energy.share("training subjects", "own fact") == pytest.approx(own / total)
    implication = sum(W[s, 3 + c] ** 2 for s, c in ((1, 1), (4, 1)))
    assert circuit.energy.share("held-out subjects", "own implication") == pytest.approx(implication / total)


def test_attention_by_kind_counted_by_hand():
    found = OVCircuit.from_run(micro(), raw=True).attention_by_kind
    assert found.mean_score.tolist() == [1, 1.5, 1, 1, 0.5, 0.25]
    assert found.std_score[1] == 0.5
    assert found.tokens_in_prompt.tolist() == [0.5, 0.5, 0.5, 0.5, 1, 1]
    assert found.share.tolist() == pytest.approx(np.array([0.5, 0.75, 0.5, 0.5, 0.5, 0.25]) / 3)
    flipped = micro()
    flipped.weights.W_QK[:, 1] *= -1  # a trained sign is arbitrary: it flips the mean and not the share
    signed = OVCircuit.from_run(flipped).attention_by_kind
    assert (signed.mean_weight[1], signed.mean_size[1]) == (0.5, 1.5)
    assert signed.share.tolist() == pytest.approx(found.share.tolist())
    soft = OVCircuit.from_run(random_snapshot(MICRO, attention="softmax"), raw=True)
    assert pytest.approx(np.exp(soft.scores)[:, None] * soft.W) == soft.effective.W


@pytest.mark.parametrize("sizes", [(2, 1, 1), (3, 1, 2), (4, 2, 1)])
@pytest.mark.parametrize("norm", ["nuclear", "frobenius"])
@pytest.mark.parametrize("factorized", [True, False])
def test_norms_and_degenerate_blocks_of_the_closed_form(sizes, norm, factorized):
    task = FactRecallTask(*sizes, n_noise=1, seq_len=4)
    solution = solve(task, norm)
    scores = np.linspace(0.5, 2, task.n_inputs)
    circuit = OVCircuit.from_run(predicted(task, solution.W, scores, factorized)).effective
    relevant = circuit.subjects_and_relations
    assert pytest.approx(solution.W, abs=1e-12) == relevant.W
    spectrum = relevant.spectrum(tolerance=1e-6)
    assert spectrum.multiplicities == tuple(block.multiplicity for block in solution.spectrum)
    assert [b.value for b in spectrum.blocks] == pytest.approx([b.value for b in solution.spectrum])
    value = {"nuclear": relevant.nuclear_norm, "frobenius": relevant.frobenius_norm}[norm]
    assert value == pytest.approx(solution.objective, rel=1e-12)
    parts = [block.component for block in spectrum.blocks]
    assert sum(parts) == pytest.approx(relevant.W, abs=1e-12)
    for block, part in zip(spectrum.blocks, parts, strict=True):
        P, Q = block.input_projector, block.output_projector
        assert pytest.approx(P, abs=1e-12) == P @ P
        assert np.trace(Q) == pytest.approx(block.multiplicity)
        assert pytest.approx(part, abs=1e-12) == P @ relevant.W
        assert pytest.approx(part, abs=1e-12) == relevant.W @ Q


def test_norms_agree_with_tracking_and_numpy():
    circuit = OVCircuit.from_run(random_snapshot(MICRO, d_head=3))
    tracked = circuit_norms(circuit.W)
    assert circuit.nuclear_norm == pytest.approx(tracked["nuclear_norm"])
    assert circuit.effective_rank == pytest.approx(tracked["effective_rank"])
    assert circuit.spectral_norm == pytest.approx(np.linalg.norm(circuit.W, 2))
    assert circuit.stable_rank == pytest.approx((circuit.frobenius_norm / circuit.spectral_norm) ** 2)
    zero = OVCircuit.from_run(snapshot(MICRO, np.zeros((12, 3)), np.zeros((3, 12))))
    assert zero.norms.effective_rank == 0
    assert zero.spectrum().rank == 0


def test_a_tolerance_groups_and_does_not_chain():
    W = np.zeros((12, 12))
    W[range(4), range(8, 12)] = [1.0, 0.97, 0.94, 0.5]
    circuit = OVCircuit.from_run(snapshot(MICRO, W))
    assert circuit.spectrum(0.04).multiplicities == (2, 1, 1)
    assert circuit.spectrum(0.07).multiplicities == (3, 1)
    assert circuit.spectrum(0).multiplicities == (1, 1, 1, 1)
    with pytest.raises(ConfigError, match=r"block must be in 0\.\.1, got 5"):
        circuit.spectrum(0.07).block(5)
    with pytest.raises(ConfigError, match="tolerance must be"):
        circuit.spectrum(-1.0)


def test_arrays_are_copies_and_stale_circuits_are_told():
    run = random_snapshot(MICRO)
    circuit = OVCircuit.from_run(run, raw=True)
    before = circuit.W.copy()
    circuit.check_fresh(run)
    circuit.effective.check_fresh(run)
    run.weights.W_V[0, 0] += 1e-3
    assert np.array_equal(circuit.left @ circuit.right, before)
    with pytest.raises(StaleCircuitError, match=r"read it again with OVCircuit\.from_run"):
        circuit.check_fresh(run)
    run.weights.W_V[0, 0] = float(circuit.left[0, 0])
    circuit.check_fresh(run)
    run.weights.W_QK[MICRO.eos_token, 1] += 1
    with pytest.raises(StaleCircuitError):
        circuit.check_fresh(run)


def test_weights_that_no_logit_reads_do_not_make_a_circuit_stale():
    run = random_snapshot(MICRO)
    circuit = OVCircuit.from_run(run)
    run.weights.W_V[MICRO.token("b0")] += 1
    run.weights.W_QK[0, 0] += 1
    circuit.check_fresh(run)


def test_provenance_and_summary():
    circuit = OVCircuit.from_run(micro(), raw=True)
    assert (circuit.provenance.step, circuit.provenance.seed, circuit.provenance.dtype) == (7, 0, "float64")
    assert len(circuit.provenance.fingerprint) == 16
    assert circuit.provenance.fingerprint == OVCircuit.from_run(micro(), raw=True).provenance.fingerprint
    assert "score from EOS" in circuit.effective.provenance.folded[-1]
    assert "held-out subjects" in circuit.summary()
    with pytest.raises(dataclasses.FrozenInstanceError):
        circuit.task = None  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value):
    run = copy.deepcopy(micro())
    run.weights.W_O[1, 9] = value
    with pytest.raises(WeightsError, match="W_O of fact-recall factorized at step 7 must be finite, got 1"):
        OVCircuit.from_run(run)


def test_bad_names_are_told_with_the_close_matches():
    circuit = OVCircuit.from_run(micro(), raw=True)
    with pytest.raises(UnknownNameError, match="did you mean 'vocabulary'"):
        OVCircuit.from_run(micro(), outputs="vocabulry")
    with pytest.raises(UnknownNameError, match="did you mean 'noise0'"):
        circuit.restrict(["noise"])
    with pytest.raises(ModelError, match="named twice would count double"):
        circuit.restrict(["s0", "s0"])
    with pytest.raises(ModelError, match="needs all input tokens"):
        _ = circuit.subjects_and_relations.attention_by_kind


def test_a_restricted_circuit_is_checked_by_the_one_it_came_from():
    run = micro()
    part = OVCircuit.from_run(run).effective.subjects_and_relations.restrict(["s0"])
    part.check_fresh(run)
    run.weights.W_V[0, 0] += 1
    with pytest.raises(StaleCircuitError, match="read it again"):
        part.check_fresh(run)


# --- spectra of many heads -----------------------------------------------------------------------


@pytest.mark.parametrize(("kv_heads", "d_head"), [(4, 3), (2, 3), (4, 12), (4, 15)])
def test_spectra_of_heads_against_a_dense_decomposition(kv_heads, d_head):
    generator = torch.Generator().manual_seed(0)
    W_V = torch.randn(2, kv_heads, 12, d_head, generator=generator, dtype=torch.float64)
    W_O = torch.randn(2, 4, d_head, 12, generator=generator, dtype=torch.float64)
    dense = torch.linalg.svdvals(W_V.repeat_interleave(4 // kv_heads, 1) @ W_O)
    found = ov_spectra(W_V, W_O)
    width = min(d_head, 12)
    assert found.shape[-1] >= width
    assert torch.allclose(found[..., :width], dense[..., :width], atol=1e-12)


def test_spectra_keep_small_values_that_a_gram_matrix_loses():
    generator = torch.Generator().manual_seed(0)
    W_V = torch.randn(1, 64, 16, generator=generator) * torch.logspace(0, -5, 16)
    W_O = torch.randn(1, 16, 64, generator=generator)
    exact = torch.linalg.svdvals(W_V.double() @ W_O.double())[..., :16]
    error = (ov_spectra(W_V, W_O).double() - exact).abs().max() / exact.max()
    assert error < 1e-6
    gram = (
        torch.linalg.eigvals((W_V.mT @ W_V) @ (W_O @ W_O.mT)).real.clamp(min=0).sqrt().sort(descending=True)
    )
    assert (gram.values.double()[..., -1] / exact[..., -1] - 1).abs() > 10 * (
        ov_spectra(W_V, W_O).double()[..., -1] / exact[..., -1] - 1
    ).abs()


def test_spectra_of_shapes_that_do_not_fit():
    with pytest.raises(ModelError, match=r"W_V must be \[\.\.\., kv_head, d_model, d_head\]"):
        ov_spectra(torch.zeros(2, 3, 8, 4), torch.zeros(2, 4, 4, 8))
