"""Contributions of tokens in fact-recall models: by hand, against the token-count form, and bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from snapshots import random_snapshot
from test_ov_circuit import MICRO, micro

from ocr_interp.circuits.attribution.attribute import attribute
from ocr_interp.circuits.attribution.of_run import attribute_run
from ocr_interp.errors import AttributionError, ModelError, UnknownNameError, WeightsError
from ocr_interp.linalg.sums import checked_residual


def test_contributions_by_hand():
    found = attribute_run(micro(), ["noise0", "s3", "r2", "EOS"], "c1", "c0")
    # s3 scores 2 and writes (0, 3, 0, 1); r2 scores 1 and writes (-1, -1, 1, 1); noise and EOS write nothing
    assert found.contributions.tolist() == [[0, 2, 0, 0]]
    assert found.kinds == ("noise", "held-out subjects", "r2", "EOS")
    assert (found.total, found.residual, found.direct, found.bias) == (2, 0, 0, 0)
    alone = attribute_run(micro(), ["noise0", "s3", "r2", "EOS"], "c1")
    assert alone.by_position.tolist() == [0, 2, 1, 0]
    assert (alone.against, alone.total, alone.of_kind("r2")) == (None, 3, 1)
    assert "held-out subjects" in alone.summary()
    across = attribute_run(micro(), [1, "r2", "EOS"], "c0", "b0")
    assert across.by_position.tolist() == [-2, 2, 0]


@pytest.mark.parametrize("attention", ["linear", "softmax"])
@pytest.mark.parametrize("factorized", [True, False])
def test_contributions_sum_to_the_logits_of_the_plain_formula(attention, factorized):
    task = replace(MICRO, seq_len=5)
    run = random_snapshot(task, 3, attention=attention, factorized=factorized)
    prompt = ["s0", "noise0", "noise0", "r1", "EOS"]
    ids = MICRO.tokens(*prompt)
    scores = run.weights.W_QK[MICRO.eos_token, ids]
    weights = scores if attention == "linear" else torch.softmax(scores, 0)
    logits = (weights @ run.weights.W_OV[ids])[list(MICRO.answer_tokens)]
    for a, name in enumerate(("b0", "b1", "c0", "c1")):
        found = attribute_run(run, prompt, name, "b1" if name != "b1" else None)
        wanted = logits[a] - (logits[1] if name != "b1" else 0)
        assert found.total == pytest.approx(float(wanted), abs=1e-12)
        assert abs(found.contributions.sum() - found.total) < 1e-10
        assert sum(found.of_kind(kind) for kind in found.kind_names) == pytest.approx(found.total)


def test_a_sum_that_is_not_the_total_raises():
    assert checked_residual(np.array([1.0, 2.0]), 3.0, 2.2e-16, "x") == 0
    with pytest.raises(AttributionError, match=r"contributions to x must sum to 3\.0000001, got 3"):
        checked_residual(np.array([1.0, 2.0]), 3.0000001, 2.2e-16, "x")
    assert checked_residual(np.array([1.0, 2.0]), 3.0000001, 1.2e-7, "x") == pytest.approx(-1e-7)
    with pytest.raises(AttributionError):
        checked_residual(np.array([np.nan]), 1.0, 1e-7, "x")


def test_bad_prompts_and_answers():
    run = micro()
    with pytest.raises(UnknownNameError, match="did you mean 's"):
        attribute_run(run, ["s9", "r1", "EOS"], "b0")
    with pytest.raises(ModelError, match="must name every token once, got 'b0'"):
        attribute_run(run, ["s0", "r1", "EOS"], "b0", "b0")
    with pytest.raises(UnknownNameError, match="kind of token in this prompt 'noise'"):
        attribute_run(run, ["s0", "r1", "EOS"], "b0").of_kind("noise")
    broken = micro()
    broken.weights.W_V[0, 0] = torch.nan
    with pytest.raises(WeightsError, match="W_V"):
        attribute_run(broken, ["s0", "r1", "EOS"], "b0")


def test_one_function_for_runs_and_models():
    run, prompt = random_snapshot(MICRO), ["s0", "r1", "EOS"]
    of_run = attribute(run, prompt, "b0", "c1")
    of_model = attribute(run.model, prompt, "b0", "c1", labels=MICRO.labels)
    assert of_run.contributions == pytest.approx(of_model.contributions, abs=1e-12)
    assert attribute(run, prompt, "b0", "c1", layer=0, head=0).total == of_run.total
    with pytest.raises(ModelError, match=r"one head and the tokens of its task, got layer=1, head=0"):
        attribute(run, prompt, "b0", layer=1, head=0)
    with pytest.raises(ModelError, match=r"labels: leave them out, or pass run\.model"):
        attribute(run, prompt, "b0", labels=MICRO.labels)


def test_a_batch_of_one_is_a_prompt():
    run, ids = micro(), [int(i) for i in MICRO.tokens("s3", "r2", "EOS")]
    plain = attribute(run, ids, "c1")
    for model in (run, run.model):
        for batch in (torch.tensor([ids]), np.array([ids]), [ids], (torch.tensor(ids),), torch.tensor(ids)):
            found = attribute(model, batch, MICRO.labels.index("c1"))
            assert found.by_position == pytest.approx(plain.by_position)
    assert attribute(run, [["s3", "r2", "EOS"]], "c1").total == plain.total
    for several in (torch.tensor([ids, ids]), [ids, ids], np.zeros((1, 1, 3), dtype=int)):
        with pytest.raises(ModelError, match=r"a batch of one .*such as prompts"):
            attribute(run.model, several, 0)


@pytest.mark.parametrize("prompt", [["s0", "r1"], ["s0", "r1", "EOS", "noise0"], ["EOS", "s0", "EOS"]])
def test_a_prompt_that_no_run_was_trained_on_is_refused(prompt):
    with pytest.raises(ModelError, match="prompt must end with the query 'EOS' and hold it once"):
        attribute(random_snapshot(MICRO), prompt, "b0")
