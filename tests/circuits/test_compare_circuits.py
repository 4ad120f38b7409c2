"""Two circuits: sizes, groups and principal angles against dense matrices and scipy; refusals."""

from dataclasses import replace

import numpy as np
import pytest
from hooked_models import hooked_transformer
from scipy.linalg import subspace_angles

from ocr_interp import ModelConfig, OVCircuit, TrainConfig, train
from ocr_interp.circuits import QKCircuit
from ocr_interp.comparison import compare
from ocr_interp.errors import ConfigError, ModelError

TOKENS = {"inputs": {"a": [3, 4, 5], "b": [6, 7]}, "outputs": {"x": [10, 11], "y": [12, 13, 14]}}


def circuits(seeds=(0, 1), **tokens):
    return [
        OVCircuit.from_model(hooked_transformer("LN", seed=k), layer=0, head=1, **(tokens or TOKENS))
        for k in seeds
    ]


def test_sizes_and_groups_are_those_of_dense_matrices():
    before, after = circuits()
    found = compare(before, after)
    change = after.W - before.W
    assert found.relative == pytest.approx(np.linalg.norm(change) / np.linalg.norm(before.W))
    size = np.linalg.norm(before.W) * np.linalg.norm(after.W)
    assert found.cosine == pytest.approx((before.W * after.W).sum() / size)
    assert found.norms[2].nuclear == pytest.approx(np.linalg.norm(change, "nuc"))
    assert found.bias_change == pytest.approx(np.linalg.norm(after.bias - before.bias))
    rows, columns = (slice(0, 3), slice(3, 5)), (slice(0, 2), slice(2, 5))
    for k, row in enumerate(rows):
        for j, column in enumerate(columns):
            assert found.group_change[k, j] == pytest.approx(np.linalg.norm(change[row, column]))
            assert found.group_before[k, j] == pytest.approx(np.linalg.norm(before.W[row, column]))


def test_angles_of_blocks_are_scipys():
    """One block of all directions: its subspaces are the column spaces, whatever is matched."""
    before, after = circuits()
    (block,) = compare(before, after, tolerance=1.0, controls=2).blocks
    assert block.multiplicity == 3
    for mine, side in ((block.input_angles, "left"), (block.output_angles, "right")):
        spaces = [getattr(c, side) if side == "left" else getattr(c, side).T for c in (before, after)]
        wanted = np.sort(np.degrees(subspace_angles(*spaces)))
        # Of two equal directions scipy gives a few square roots of the last bit, as the processor rounds.
        rounding = float(np.degrees(4 * np.finfo(float).eps ** 0.5))
        np.testing.assert_allclose(np.sort(mine), wanted, atol=rounding)
    assert block.random_input_angles.shape == (2, 3)


def test_a_rotation_inside_a_degenerate_block_is_no_change():
    before, _ = circuits()
    U, _, Vt = np.linalg.svd(before.W, full_matrices=False)
    equal = np.diag([3.0, 3.0, 1.0])
    one = replace(before, left=U[:, :3] @ equal, right=Vt[:3])
    turn = np.eye(3)
    turn[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]
    other = replace(before, left=U[:, :3] @ turn @ equal, right=turn.T @ Vt[:3])
    np.testing.assert_allclose(other.W, one.W, atol=1e-12)
    first, second = compare(one, other, tolerance=1e-6).blocks
    assert (first.multiplicity, second.multiplicity) == (2, 1)
    assert max(first.input_angles.max(), first.output_angles.max(), second.input_angles.max()) < 1e-6


def test_a_circuit_against_itself_is_unchanged():
    (before,) = circuits((0,))
    found = compare(before, before)
    assert found.relative == 0.0
    assert found.cosine == pytest.approx(1.0)
    assert max(block.input_angles.max() for block in found.blocks) < 1e-6
    assert max(block.random_input_angles.max() for block in found.blocks) < 1e-6  # of size zero too


def test_random_changes_have_the_size_of_the_change_and_follow_the_seed():
    before, after = circuits()
    first, again, other = (compare(before, after, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.blocks[0].random_input_angles, again.blocks[0].random_input_angles)
    assert not np.array_equal(first.blocks[0].random_input_angles, other.blocks[0].random_input_angles)


def test_qk_circuits_are_compared_too():
    models = [hooked_transformer("LN", seed=k) for k in (0, 1)]
    pair = [QKCircuit.from_model(m, layer=0, head=2, queries=range(3, 7), keys=range(8, 13)) for m in models]
    found = compare(*pair)
    assert found.kind == "QK"
    assert found.relative == pytest.approx(np.linalg.norm(pair[1].W - pair[0].W) / np.linalg.norm(pair[0].W))
    with pytest.raises(ModelError, match="two OVCircuits or two QKCircuits"):
        compare(pair[0], circuits((0,))[0])


def test_snapshots_of_a_run(tiny_task):
    recipe = TrainConfig(steps=20, batch_size=12, snapshots=2, device="cpu")
    run = train(tiny_task, ModelConfig(d_head=6), recipe, progress=False)
    circuit = run.circuit
    other = train(tiny_task, ModelConfig(ov="non_factorized"), recipe, progress=False).circuit
    found = compare(circuit, other)
    assert found.relative == pytest.approx(np.linalg.norm(other.W - circuit.W) / np.linalg.norm(circuit.W))
    assert len(found.table()) == len(found.blocks)
    assert "after random changes of the same size" in found.summary()
    with pytest.raises(ModelError, match="both be effective"):
        compare(circuit, OVCircuit.from_run(run, raw=True))


def test_other_tokens_are_refused():
    before, _ = circuits()
    (other,) = circuits((1,), inputs=range(3, 8), outputs=range(10, 15))
    with pytest.raises(ModelError, match="must have the same inputs, got 5 and 5 tokens with other group"):
        compare(before, other)
    with pytest.raises(ModelError, match="same outputs"):
        compare(before, before.restrict(outputs=[10, 11]))
    with pytest.raises(ConfigError, match="controls"):
        compare(before, before, controls=-1)
