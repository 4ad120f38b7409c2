"""LoRA in token space: where W_0 comes from; what every map must do is in test_conformance.py."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from test_conformance import RECIPE, TASK

from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.circuits.analysis import analyze_run
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.cli.ablate.specs import default_specs
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.errors import ConfigError, ModelError, RunError, UnknownNameError
from ocr_interp.maps.axes import TokenAxes
from ocr_interp.maps.low_rank import LowRank
from ocr_interp.models.starts import initial_weights
from ocr_interp.sweeps.sweep import load_sweep, sweep
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve
from ocr_interp.training.long_descent import long_descent
from ocr_interp.training.loop import train
from ocr_interp.training.store import load_run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A pretrained run with trained attention."""
    folder = tmp_path_factory.mktemp("base") / "run"
    train(TASK, ModelConfig(), RECIPE, folder, progress=False)
    return folder


def lora(base, **options):
    options = {"base": str(base), "rank": 3, **options}
    return ModelConfig(ov="low_rank", ov_options=options, train_attention=False)


def test_it_starts_at_the_effective_circuit_of_its_base(base):
    run = load_run(base)
    weights = initial_weights(TASK, lora(base), 0)
    n = TASK.n_inputs
    np.testing.assert_allclose(weights.W_OV[:n].numpy(), run.effective_W, rtol=1e-6, atol=1e-7)
    assert not weights.ov["B"].any()
    both = initial_weights(TASK, lora(base, zero_b=False), 0)
    assert both.ov["B"].any()
    assert torch.equal(both.ov["A"], weights.ov["A"])


def test_alpha_over_rank_scales_the_update(base):
    one = initial_weights(TASK, lora(base, zero_b=False, alpha=3.0), 0)
    two = initial_weights(TASK, lora(base, zero_b=False, alpha=6.0), 0)
    torch.testing.assert_close(two.W_OV - two.ov["W_0"], 2 * (one.W_OV - one.ov["W_0"]), rtol=1e-4, atol=1e-6)


def test_training_moves_the_update_alone_and_a_resumed_run_has_the_same_bits(base, tmp_path):
    whole = train(TASK, lora(base), RECIPE, progress=False)
    assert whole.history["train_loss"].iloc[-1] < whole.history["train_loss"].iloc[1]
    assert torch.equal(whole.weights.ov["W_0"], initial_weights(TASK, lora(base), 0).ov["W_0"])

    class Killed(BaseException):
        pass

    def kill(row):
        if row["step"] == 15:
            raise Killed

    with pytest.raises(Killed):
        train(TASK, lora(base), RECIPE, tmp_path / "run", progress=False, on_log=kill)
    resumed = train(TASK, lora(base), RECIPE, tmp_path / "run", progress=False)
    assert resumed.history.equals(whole.history)
    for name, tensor in whole.weights.tensors().items():
        assert torch.equal(resumed.weights.tensors()[name], tensor), name


@pytest.mark.slow
def test_another_base_at_the_same_place_is_noticed_and_a_finished_run_needs_none(base, tmp_path):
    place = tmp_path / "base"
    shutil.copytree(base, place)
    config = lora(place)
    assert dict(config.ov_options)["base_digest"] == dict(lora(base).ov_options)["base_digest"]
    run = train(TASK, config, RECIPE, tmp_path / "run", progress=False)
    shutil.rmtree(place)
    train(TASK, ModelConfig(), dataclasses.replace(RECIPE, seed=5), place, progress=False)
    with pytest.raises(
        ConfigError, match=r"holds other weights \(digest .*\) than this run was configured with"
    ):
        train(TASK, config, dataclasses.replace(RECIPE, seed=1), progress=False)
    with pytest.raises(RunError, match="base_digest"):
        train(TASK, lora(place), RECIPE, tmp_path / "run", progress=False)
    shutil.rmtree(place)
    again = load_run(tmp_path / "run")
    assert torch.equal(again.weights.W_OV, run.weights.W_OV)
    with pytest.raises(ConfigError, match="is not there: give the folder of a finished run"):
        train(TASK, config, dataclasses.replace(RECIPE, seed=1), progress=False)


def test_a_matrix_in_a_file_is_a_base(base, tmp_path):
    circuit = load_run(base).circuit
    file = tmp_path / "circuit.safetensors"
    safetensors.torch.save_file({"W_OV": torch.from_numpy(circuit.W)}, file)
    W = initial_weights(TASK, lora(file), 0).W_OV
    n = TASK.n_inputs
    np.testing.assert_allclose(W[:n, n:].numpy(), circuit.W, rtol=1e-6, atol=1e-7)
    assert not W[:, :n].any()


def test_an_update_of_an_update(base, tmp_path):
    first = train(TASK, lora(base), RECIPE, tmp_path / "first", progress=False)
    weights = initial_weights(TASK, lora(tmp_path / "first"), 0)
    torch.testing.assert_close(weights.W_OV[: TASK.n_inputs], first.weights.W_OV[: TASK.n_inputs])


def test_new_subjects_start_at_zero_with_the_relations_of_the_base(base):
    others = FactRecallTask(3, 2, 3, n_noise=2, seq_len=5)
    W = initial_weights(others, lora(base, subjects="new"), 0).W_OV
    run = load_run(base)
    n, before = others.n_subjects, TASK.n_subjects
    assert not W[:n].any()
    wanted = run.effective_W[before:, before:]
    np.testing.assert_allclose(W[n : others.n_inputs, n:].numpy(), wanted, rtol=1e-6, atol=1e-7)
    with pytest.raises(ConfigError, match=r"must have the vocabulary of the task \(15 subjects.* got 9 subj"):
        initial_weights(others, lora(base), 0)
    with pytest.raises(ConfigError, match="with subjects='new' only the subjects may differ"):
        initial_weights(FactRecallTask(4, 1, 2, n_noise=2, seq_len=5), lora(base, subjects="new"), 0)


@pytest.mark.slow
def test_a_descent_starts_at_its_base_too(base):
    small = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
    options = {"base": str(base), "rank": 4}
    found = long_descent(small, "low_rank", ov_options=options, log10_time=3)
    W_0 = LowRank(**options).placed(TokenAxes(small, 11, 6)).given(11, 6)["W_0"]
    run = load_run(base).subjects_and_relations_W
    np.testing.assert_allclose(W_0.numpy(), run, rtol=1e-6, atol=1e-7)
    assert torch.equal(found.parameters["W_0"], W_0)
    start = {"A": 0.01 * torch.ones(11, 4), "B": torch.zeros(4, 6)}
    again = long_descent(small, "low_rank", ov_options=options, start=start, log10_time=1)
    assert torch.equal(again.parameters["W_0"], W_0)


def test_the_sides_of_its_circuit_add_up(base):
    run = train(TASK, lora(base), RECIPE, progress=False)
    merged, update = run.circuit, OVCircuit.from_run(run, of="update")
    of_base = OVCircuit.from_run(run, of="base")
    np.testing.assert_allclose(of_base.W + update.W, merged.W, rtol=1e-6, atol=1e-7)
    assert update.left.shape[1] == 3
    assert update.has_factors
    assert update.provenance.of == "update"
    for circuit in (merged, update, of_base):
        circuit.check_fresh(run)
    with pytest.raises(ModelError, match="the update of a run cannot be told from its HookedTransformer"):
        update.check_fresh(run.model)
    with pytest.raises(UnknownNameError, match="unknown of 'bse'"):
        OVCircuit.from_run(run, of="bse")
    with pytest.raises(ConfigError, match="a factorized OV circuit has no base: leave of out"):
        OVCircuit.from_run(load_run(base), of="base")


@pytest.mark.slow
def test_it_is_swept_and_ablated(base, tmp_path):
    runs = {"seed": [0, 1]}
    sweep(runs, task=TASK, model=lora(base), train=RECIPE, path=tmp_path, keep_weights=True, progress=False)
    found = load_sweep(tmp_path)
    run = found.run(str(found.runs["run"].iloc[0]))
    alone = train(TASK, lora(base), RECIPE, progress=False)
    assert torch.equal(run.weights.W_OV, alone.weights.W_OV)
    specs = dict(list(default_specs(alone).items())[:2])
    study = run_ablation_study(alone, specs, ["accuracy"], progress=False)
    assert set(specs) < set(study.table["spec"])


def test_the_command_line_trains_it(command, tmp_path, base):
    words = "--n-pairs 3 --m-train 1 --m-test 2 --n-noise 2 --seq-len 5 --steps 20 --batch-size 12"
    model = f"--ov low_rank --ov-options base {base} rank 3 --log-every 10 --device cpu --snapshots 2"
    code, out, err = command("train", "run", *words.split(), *model.split())
    assert code == 0, err
    assert "low_rank" in out
    settings = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert len(dict(settings["model"]["ov_options"])["base_digest"]) == 16
    code, _, err = command("train", "other", *words.split(), "--ov", "low_rank")
    assert code != 0
    assert "an update of a W_0, got none: give option base =" in err


@pytest.mark.slow
def test_a_base_that_cannot_be_one_is_refused(base, tmp_path):
    with pytest.raises(ConfigError, match="an update of a W_0, got none: give option base ="):
        train(TASK, ModelConfig(ov="low_rank"), RECIPE, progress=False)
    with pytest.raises(ConfigError, match="is not there: give the folder of a finished run"):
        lora(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="must be the folder of a run that has ended"):
        lora(tmp_path)
    with pytest.raises(ConfigError, match="must hold one matrix of numbers, W_OV, got W_O, W_QK, W_V"):
        lora(base / "weights.safetensors")
    file = tmp_path / "W.safetensors"
    safetensors.torch.save_file({"W_OV": torch.ones(4, 5)}, file)
    with pytest.raises(ConfigError, match=r"must be \[20, 20\] \(all tokens\) or \[14, 6\].* got \[4, 5\]"):
        initial_weights(TASK, lora(file), 0)
    with pytest.raises(ConfigError, match="subjects='new' needs the folder of a run"):
        initial_weights(TASK, lora(file, subjects="new"), 0)
    safetensors.torch.save_file({"W_OV": torch.full((14, 6), torch.nan)}, file)
    with pytest.raises(ConfigError, match="must be finite, got NaN or inf"):
        lora(file)
    file.write_bytes(b"no tensors")
    with pytest.raises(RunError, match="is damaged"):
        lora(file)
    routed = ModelConfig(ov="routed", ov_options={"by": "relation"})
    train(TASK, routed, RECIPE, tmp_path / "routed", progress=False)
    with pytest.raises(
        ConfigError, match="routes its prompts to 2 experts, so no single W_0 gives its logits"
    ):
        lora(tmp_path / "routed")
    softmax = ModelConfig(attention="softmax")
    train(TASK, softmax, RECIPE, tmp_path / "softmax", progress=False)
    with pytest.raises(ConfigError, match="has trained softmax attention, so no single W_0 gives its logits"):
        lora(tmp_path / "softmax")


def test_options_that_are_not_allowed_are_refused(base):
    with pytest.raises(
        ConfigError, match=r"'rank' of ov='low_rank' must be <= 20, the smaller side .* got 21"
    ):
        initial_weights(TASK, lora("zero", rank=21), 0)
    with pytest.raises(ConfigError, match="'rank' of ov='low_rank' must be >= 1, got 0"):
        lora("zero", rank=0)
    with pytest.raises(ConfigError, match="'alpha' of ov='low_rank' must be a finite number > 0"):
        lora("zero", alpha=0.0)
    with pytest.raises(ConfigError, match="'subjects' of ov='low_rank' must be one of 'same', 'new'"):
        lora(base, subjects="old")
    with pytest.raises(ConfigError, match="d_head must be None for ov='low_rank'"):
        initial_weights(TASK, dataclasses.replace(lora("zero"), d_head=4), 0)


def test_only_an_update_of_zero_has_a_norm(base):
    assert lora("zero").linear_map.norm == "nuclear"
    assert lora(base).linear_map.norm is None


def test_it_is_analysed_though_it_starts_at_zero():
    run = train(TASK, lora("zero"), dataclasses.replace(RECIPE, snapshots=2), progress=False)
    assert not run.untrained.subjects_and_relations_W.any()
    for untrained in (None, run.untrained):
        found = analyze_run(run, untrained=untrained, random_seeds=(0,))
        assert found.alignment.of_role("untrained") == ()
        assert "W_OV is 0 before training" in found.notes[-1]
    with pytest.raises(ModelError, match="got an untrained circuit that is zero throughout: leave it out"):
        run.circuit.alignment(solve(TASK), untrained=run.untrained)
