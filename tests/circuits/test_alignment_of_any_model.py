"""A head of any model beside a predicted geometry: the task's labels say which tokens are which."""

import numpy as np
import pytest

from ocr_interp import FactRecallTask, ModelConfig, OVCircuit, TrainConfig, solve, train
from ocr_interp.errors import ConfigError, ModelError, UnknownNameError

TASK = FactRecallTask(4, 1, 2)
ROWS, COLUMNS = TASK.labels[: TASK.noise_tokens.start], TASK.labels[TASK.n_inputs :]


@pytest.fixture(scope="module")
def run():
    recipe = TrainConfig(steps=60, batch_size=24, lr=0.02, snapshots=2, device="cpu")
    return train(TASK, ModelConfig(d_head=8, train_attention=False), recipe, progress=False)


def head_of(model, rows=ROWS, columns=COLUMNS, **labels):
    return OVCircuit.from_model(model, layer=0, head=0, inputs=list(rows), outputs=list(columns), **labels)


def numbers_of(comparison):
    return comparison.cosine, comparison.cosine_saddle, comparison.beta, comparison.scale


def test_a_head_has_the_alignment_of_its_run(run):
    """The attention of this run is frozen at 1, so that its effective circuit is its W_OV."""
    wanted = run.circuit.alignment(solve(TASK), untrained=run.untrained)
    for rows, columns in ((ROWS, COLUMNS), (ROWS[::-1], COLUMNS[::-1])):
        head, start = (head_of(model, rows, columns) for model in (run.model, run.untrained.model))
        found = head.alignment(solve(TASK), task=TASK, untrained=start)
        assert numbers_of(found.measured) == pytest.approx(numbers_of(wanted.measured))
        assert found.of_role("untrained")[0].cosine == pytest.approx(wanted.of_role("untrained")[0].cosine)
        assert np.allclose(found.measured.cosines, wanted.measured.cosines)
        assert "rows per unit of attention" in " ".join(found.provenance.flags)


def test_tokens_may_be_called_otherwise(run):
    words = [f"word {k}" for k in range(TASK.d_vocab)]
    head = head_of(run.model, range(len(ROWS)), range(TASK.n_inputs, TASK.d_vocab), labels=words)
    calls = {label: words[TASK.labels.index(label)] for label in (*ROWS, *COLUMNS)}
    calls["r1"] = TASK.labels.index("r1")  # ids as well
    found = head.alignment(solve(TASK), task=TASK, tokens=calls)
    wanted = run.circuit.alignment(solve(TASK))
    assert numbers_of(found.measured) == pytest.approx(numbers_of(wanted.measured))


def test_what_does_not_fit_is_refused(run):
    head = head_of(run.model)
    with pytest.raises(ModelError, match=r"which tokens are subjects, relations and answers: pass task="):
        head.alignment(solve(TASK))
    with pytest.raises(ModelError, match="pass task as well"):
        head.alignment(solve(TASK), tokens={"r1": "s0"})
    with pytest.raises(ModelError, match="has its task: leave task out"):
        run.circuit.alignment(solve(TASK), task=TASK)
    with pytest.raises(UnknownNameError, match="subject, relation or answer of the task"):
        head.alignment(solve(TASK), task=TASK, tokens={"r9": "r1"})
    with pytest.raises(UnknownNameError, match="token of the circuit"):
        head.restrict(list(ROWS[1:])).alignment(solve(TASK), task=TASK)
    with pytest.raises(ModelError, match="every token once"):
        head.alignment(solve(TASK), task=TASK, tokens={"s1": "s0"})
    with pytest.raises(ConfigError, match=r"prediction\.W must be"):
        head.alignment(solve(FactRecallTask(3, 1, 2)), task=TASK)
