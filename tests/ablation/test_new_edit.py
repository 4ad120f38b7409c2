"""A new kind of edit, written here, goes everywhere that edits go, without a change of the package."""

import inspect
from dataclasses import dataclass, replace

import hooked_models
import pandas as pd
import pytest
import torch

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, load_run, train
from ocr_interp.ablation import RANDOM, Edit, Examples, Path, Site, ablated, edits, run_ablation_study
from ocr_interp.ablation import study as study_module
from ocr_interp.viz.text.study import describe_study


@dataclass(frozen=True)
class Noise(Edit):
    """Adds Gaussian noise to the chosen entries.

    Attributes:
        size: standard deviation of the noise, in units of the activation.
        seed: of the noise, or a generator.
    """

    size: float
    seed: int | torch.Generator = 0

    def prepare(self, place):
        generator = self.seed
        if isinstance(generator, int):
            generator = torch.Generator().manual_seed(generator)
        return lambda value, mask: value + self.size * torch.randn(value.shape, generator=generator).to(value)

    def controls(self, where, draw):
        other = replace(self, seed=int(draw.rng.integers(2**31)))
        return {**super().controls(where, draw), "other noise": other.at(where)}


TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
SPECS = {
    "v": Noise(0.5).at(Site.at("v", layer=0, tokens=["r1"])),
    "path": Noise(0.5, seed=1).at(Path((0, 1, 2), layer=0, head=0)),
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "a"
    recipe = TrainConfig(steps=40, batch_size=15, lr=0.02, log_every=20, device="cpu")
    train(TASK, ModelConfig(), recipe, folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def run(run_dir):
    return load_run(run_dir)


def test_it_is_short():
    assert len(inspect.getsource(Noise).splitlines()) <= 60


def test_it_is_applied_nested_and_taken_away():
    model = hooked_models.hooked_transformer("LN", n_layers=2)
    tokens, hook = torch.tensor([[3, 4, 5, 9]]), "blocks.1.attn.hook_z"
    before, cache = model.run_with_cache(tokens)
    with ablated(model, Noise(0.1, 3).at(Site.at("z", layer=1, heads=[2]))):
        found = model.run_with_cache(tokens)[1][hook]
    noise = 0.1 * torch.randn(found.shape, generator=torch.Generator().manual_seed(3)).double()
    torch.testing.assert_close(found[:, :, 2], (cache[hook] + noise)[:, :, 2], rtol=0, atol=0)
    assert torch.equal(found[:, :, [0, 1, 3]], cache[hook][:, :, [0, 1, 3]])
    assert torch.equal(model(tokens), before)


@pytest.mark.slow
def test_a_study_of_a_run_has_its_controls_and_resumes(run, tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    study = run_ablation_study(run, SPECS, seeds=(0, 1), path=path)
    assert study.controls == (RANDOM, "other noise")
    counts = study.table.groupby(["spec", "control"]).size()
    assert (counts[["v", "path"]] == 2 * 4).all()
    touched = study.table.pivot_table(index=["spec", "seed", "split"], columns="control", values="touched")
    assert (touched[RANDOM].drop("none") == touched["intervention"].drop("none")).all()
    whole = study.by_split("loss")
    assert (study.by_split("loss", "other noise").loc["path"] != whole.loc["path"]).all()
    assert "(" in describe_study(study, ["margin"]).splitlines()[3]
    monkeypatch.setattr(study_module, "_evaluate", None)  # nothing is measured again
    again = run_ablation_study(run, SPECS, seeds=(0, 1), path=path)
    pd.testing.assert_frame_equal(again.table, study.table)


@pytest.mark.slow
def test_a_study_refuses_it_with_a_generator(run):
    drifting = {"v": Noise(0.5, torch.Generator()).at(Site.at("v", layer=0))}
    with pytest.raises(ValueError, match=r"must do the same each time, got Noise .* generator"):
        run_ablation_study(run, drifting)


def test_a_study_of_a_hand_made_model():
    model = hooked_models.hooked_transformer("LN", n_layers=2)
    tokens = torch.tensor([[3, 4, 5, 9], [6, 4, 7, 8], [10, 5, 4, 8]])
    examples = Examples(tokens, torch.tensor([12, 13, 14]), candidates=torch.tensor([12, 13, 14]))
    specs = {
        "word": Noise(0.5).at(Site.at("v", layer=1, tokens=[4])),
        "path": Noise(0.5).at(Path((4,), layer=1, head=2)),
    }
    table = run_ablation_study(model, specs, examples=examples).table.set_index(["spec", "control"])
    assert table.loc["word", "loss"].nunique() == 3
    assert table.loc["path", "loss"].nunique() == 2, "the last query sees a token of either"
    assert (table.loc["word", "touched"] == 1).all()


@pytest.mark.slow
def test_the_command_line_takes_it(run_dir, run, command, tmp_path):
    words = ("ablate", str(run_dir), "-o", "t.csv", "--show", "loss", "--draws", "1")
    code, _, error = command(*words, "--spec", "noise:size=0.5", "v@r1")
    assert code == 2
    assert "unknown edit 'noise'" in error
    with edits.registered("noise", Noise):
        spec = ("--spec", "noise:size=0.5", "v@r1", "noise:size=0.5,seed=1", "s0,s3,s6 -> all")
        code, shown, error = command(*words, *spec)
        assert code == 0, error
        bad = {
            "noise": "Noise must have size",
            "noise:siz=1": "did you mean 'size'",
            "noise:size": "NAME:option=value",
            "noise:size=1,size=2": "once each",
            "patch": "in Python",
        }
        for text, message in bad.items():
            code, _, error = command(*words, "--spec", text, "v@r1")
            assert code == 2
            assert message in error
    assert "noise:size=0.5 v@r1" in shown
    table = pd.read_csv(tmp_path / "t.csv")
    mine = table[(table["spec"] == "noise:size=0.5 v@r1") & (table["control"] == "intervention")]
    same = run_ablation_study(run, {"v": SPECS["v"]}, eval_draws=1, controls=False).table
    assert mine["loss"].to_numpy() == pytest.approx(same[same["spec"] == "v"]["loss"].to_numpy(), rel=1e-12)
    assert set(table["control"]) == {"intervention", "random", "other noise"}
