"""bfloat16 moves as float32 does, the environment changes nothing, and what is kept is what was measured."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from small_facts import SMALL

from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.measuring.measure import measure
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.result import read_result
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.llm.training.finetune import finetune
from ocr_interp.llm.training.master_weights import MasterWeights
from ocr_interp.llm.training.trainable import restore_state
from ocr_interp.llm.training.update import load_finetuned


def config(**values):
    given = {"model": "tiny", "lr": 1e-2, "steps": 12, "log_every": 4, "batch_size": 6, "device": "cpu"}
    return LLMRunConfig(SMALL, FinetuneConfig(**{**given, **values}))


WIDER = {"hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 4}


@pytest.mark.slow
def test_small_steps_add_up_in_bfloat16_as_in_float32(make_model):
    """AdamW at 1e-5: rounded to bfloat16 after each step, nearly every weight would stay where it was."""
    runs, moved = {}, {}
    for dtype in ("float32", "bfloat16"):
        lm = make_model(**WIDER)
        before = {name: p.detach().to(torch.bfloat16) for name, p in lm.model.named_parameters()}
        runs[dtype] = finetune(config(lr=1e-5, steps=60, log_every=60, dtype=dtype), lm=lm)
        after = dict(runs[dtype].lm.model.named_parameters())
        same = [after[name].to(torch.bfloat16) == start for name, start in before.items()]
        moved[dtype] = 1 - float(torch.cat([each.flatten() for each in same]).float().mean())
    assert {p.dtype for p in runs["bfloat16"].lm.model.parameters()} == {torch.bfloat16}
    one, other = (runs[d].history["train_loss"].iloc[-1] for d in ("float32", "bfloat16"))
    start = runs["float32"].before.mean("training_fact", "logprob")
    gained = {d: run.after.mean("training_fact", "logprob") - start for d, run in runs.items()}
    assert other == pytest.approx(one, abs=0.02)
    assert gained["bfloat16"] == pytest.approx(gained["float32"], rel=0.1)
    assert moved["bfloat16"] == pytest.approx(moved["float32"], rel=0.05)
    assert moved["bfloat16"] > 0.1


def test_steps_are_summed_up_in_the_copies():
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    exact = torch.nn.Parameter(torch.ones(2))
    masters = MasterWeights({"w": weight, "x": exact})
    assert masters.trained["x"] is exact
    optimizer = torch.optim.SGD([masters.trained["w"]], lr=1e-3)
    for step in range(1, 9):
        weight.grad = torch.ones_like(weight)
        masters.take_gradients()
        optimizer.step()
        masters.write_back()
        assert weight.grad is None
        torch.testing.assert_close(masters.trained["w"], torch.full((3,), 1 - step * 1e-3))
        assert torch.equal(weight, masters.trained["w"].to(torch.bfloat16))
    assert weight.tolist()[0] == 0.9921875  # 1 - 1e-3 itself is 1 in bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_bfloat16_run_goes_on_to_the_bit_and_keeps_what_was_measured(method, make_model, tmp_path):
    recipe = config(method=method, dtype="bfloat16", checkpoint_every=4)
    whole = finetune(recipe, lm=make_model())

    def stop(row):
        if row["step"] == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    first = finetune(recipe, tmp_path / "run", lm=make_model(), on_log=stop)
    assert (first.status, first.step) == ("interrupted", 8)
    second = finetune(recipe, tmp_path / "run", lm=make_model(), save_model=True)
    pd.testing.assert_frame_equal(whole.history, second.history, check_exact=True)
    kept = load_finetuned(tmp_path / "run")
    for (name, mine), theirs in zip(whole.lm.model.named_parameters(), kept.model.parameters(), strict=True):
        assert mine.dtype == torch.bfloat16
        assert torch.equal(mine, theirs), name
    asked = measure(kept, make_facts(SMALL), device="cpu")
    result = read_result(tmp_path / "run" / "result.json")
    np.testing.assert_array_equal(asked.rank, result["after"]["rank"])
    np.testing.assert_allclose(asked.logprob, result["after"]["logprob"], atol=6e-5)
    last = {name: values[-1] for name, values in result["history"].items()}
    for name, value in asked.row().items():
        assert last[name] == pytest.approx(value, rel=1e-5), name


def test_a_checkpoint_without_the_copies_is_refused():
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    masters = MasterWeights({"w": parameter})
    with pytest.raises(ModelError, match=r"holds w as torch\.bfloat16.*new run_dir"):
        restore_state(masters.trained, [], {"parameter|w": torch.ones(3, dtype=torch.bfloat16)})
    with pytest.raises(ModelError, match=r"w must have the shape \(3,\), got \(1,\)"):
        restore_state(masters.trained, [], {"parameter|w": torch.ones(1)})


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        {"ACCELERATE_MIXED_PRECISION": "bf16"},
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
        {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"},
    ],
)
def test_the_environment_does_not_change_a_run(setting, make_model, monkeypatch):
    from accelerate.state import AcceleratorState, GradientState, PartialState

    recipe = config(optimizer="sgd", lr=0.5)
    plain = finetune(recipe, lm=make_model())
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    try:
        set_so = finetune(recipe, lm=make_model())
    finally:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
    pd.testing.assert_frame_equal(plain.history, set_so.history, check_exact=True)


@pytest.mark.slow
def test_an_enclosing_autocast_does_not_change_a_run(make_model):
    plain = finetune(config(), lm=make_model())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = finetune(config(), lm=make_model())
    pd.testing.assert_frame_equal(plain.history, inside.history, check_exact=True)


@pytest.mark.parametrize(
    ("method", "said"), [("full", "take method='lora', a smaller"), ("lora", "take dtype='b")]
)
def test_bfloat16_is_recommended_where_it_saves_memory(method, said, make_model, monkeypatch):
    """Weights that are trained need float32 copies; frozen ones take half."""
    sizes = {"hidden_size": 64, "intermediate_size": 256}
    monkeypatch.setattr("ocr_interp.llm.training.memory.available_memory", lambda device: 2**10)
    with pytest.raises(ConfigError, match=said) as caught:
        finetune(config(method=method, lora_rank=1), lm=make_model(**sizes))
    assert ("bfloat16" in str(caught.value)) == (method == "lora")


@pytest.mark.slow
def test_a_model_in_memory_is_trained_in_the_precision_of_the_recipe(make_model, tmp_path):
    finetune(config(dtype="bfloat16"), tmp_path / "run", lm=make_model(), save_model=True)
    kept = json.loads((RunFolder(tmp_path / "run").model_folder / "config.json").read_text())
    assert kept["dtype"] == "bfloat16"
    finetune(config(), tmp_path / "other", lm=load_finetuned(tmp_path / "run"), save_model=True)
    assert load_finetuned(tmp_path / "other").model.dtype == torch.float32
