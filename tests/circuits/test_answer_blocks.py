"""Relation block and pair patterns against the closed form, also where singular values coincide."""

import numpy as np
import pytest
from snapshots import predicted, random_snapshot

from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.circuits.geometry.answer_blocks import answer_blocks
from ocr_interp.errors import ModelError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve


@pytest.mark.parametrize("sizes", [(3, 1, 2), (5, 1, 3), (4, 1, 1), (8, 1, 3), (4, 2, 1)])
@pytest.mark.parametrize("norm", ["nuclear", "frobenius"])
def test_parts_of_the_prediction_have_the_predicted_singular_values(sizes, norm):
    """At n = 2 (m_train + m_test) relation and large block have one value: an SVD would mix them."""
    n, m_train, m_test = sizes
    task = FactRecallTask(n, m_train, m_test, n_noise=1, seq_len=4)
    solution = solve(task, norm)
    circuit = OVCircuit.from_run(predicted(task, solution.W)).effective.subjects_and_relations
    parts = answer_blocks(circuit)
    beta = solution.beta
    pair = np.array([[m_train**0.5, m_test**0.5], [m_train**0.5, beta * m_test**0.5]])
    values = [s for s in np.linalg.svd(pair)[1] if s > 1e-9]
    assert [part.name.split(" (")[0] for part in parts] == [
        "relation block",
        *["large pair patterns", "small pair patterns"][: len(values)],
    ]
    assert parts[0].values == pytest.approx([n**0.5])
    for part, value in zip(parts[1:], values, strict=True):
        assert part.values == pytest.approx(np.full(n - 1, value))
    basis = np.hstack([part.basis for part in parts])
    assert basis.T @ basis == pytest.approx(np.eye(basis.shape[1]), abs=1e-12)
    assert circuit.W @ basis @ basis.T == pytest.approx(circuit.W, abs=1e-12)


def test_parts_need_all_answers_of_a_balanced_task(mapped_task):
    with pytest.raises(ModelError, match=r"balanced fact-recall task: use circuit\.spectrum"):
        answer_blocks(OVCircuit.from_run(random_snapshot(mapped_task)))
    task = FactRecallTask(3, 1, 1, n_noise=1, seq_len=4)
    with pytest.raises(ModelError, match="all answers as outputs"):
        answer_blocks(OVCircuit.from_run(random_snapshot(task)).restrict(outputs=["b0"]))
