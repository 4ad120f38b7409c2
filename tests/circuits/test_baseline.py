"""Random circuits like another: same size, same Frobenius norm, another seed another draw."""

import numpy as np
import pytest
from snapshots import random_snapshot, snapshot
from test_ov_circuit import MICRO

from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ConfigError, StaleCircuitError


@pytest.mark.parametrize("factorized", [True, False])
def test_a_random_circuit_has_the_norm_and_the_rank_of_its_model_and_says_so(factorized):
    run = random_snapshot(MICRO, d_head=2, factorized=factorized)
    circuit = OVCircuit.from_run(run).effective
    chance = circuit.random_like(3)
    assert chance.W.shape == circuit.W.shape
    assert chance.frobenius_norm == pytest.approx(circuit.frobenius_norm)
    assert chance.spectrum().rank == (2 if factorized else 4)
    assert chance.has_factors is factorized
    assert chance.is_effective
    assert np.array_equal(chance.W, circuit.random_like(3).W)
    assert not np.allclose(chance.W, circuit.random_like(4).W)
    assert chance.provenance.fingerprint != circuit.provenance.fingerprint
    assert chance.provenance.model.startswith("random weights like fact-recall")
    assert (chance.provenance.seed, chance.provenance.step) == (3, None)
    assert circuit.provenance.fingerprint in chance.provenance.flags[-1]
    with pytest.raises(StaleCircuitError):
        chance.check_fresh(run)
    with pytest.raises(ConfigError, match="seed must be"):
        circuit.random_like(-1)


@pytest.mark.slow
def test_shares_of_energy_of_random_weights_are_shares_of_entries():
    circuit = OVCircuit.from_run(random_snapshot(MICRO, d_head=5))
    drawn = np.mean([circuit.random_like(k).energy.shares for k in range(300)], axis=0)
    counts = circuit.energy.counts
    assert drawn == pytest.approx(counts / counts.sum(), abs=0.02)


def test_the_summary_puts_random_weights_beside_every_number():
    circuit = OVCircuit.from_run(random_snapshot(MICRO))
    text = circuit.summary()
    assert circuit.norms.summary() in text
    assert circuit.random_like(0).norms.summary() in text
    share = (
        circuit.energy.share("EOS", "other facts"),
        circuit.random_like(0).energy.share("EOS", "other facts"),
    )
    assert f"{100 * share[0]:.2f}% ({100 * share[1]:.2f}%)" in text


def test_a_zero_circuit_has_a_zero_baseline():
    circuit = OVCircuit.from_run(snapshot(MICRO, np.zeros((12, 3)), np.zeros((3, 12))))
    assert not circuit.random_like(0).W.any()
