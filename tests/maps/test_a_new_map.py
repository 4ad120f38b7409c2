"""The proof: a parameterisation written here goes through everything, without a change to the package.

W_OV = diag(d) + A B, a diagonal plus a product of low rank.
"""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import matplotlib.pyplot as plt
import numpy as np
import pytest
import test_conformance
import torch

from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.cli.ablate.specs import default_specs
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError
from ocr_interp.graphs.building import prompt_graph
from ocr_interp.maps import maps
from ocr_interp.maps.base import LinearMap
from ocr_interp.maps.non_factorized import NonFactorized
from ocr_interp.sweeps.sweep import load_sweep, sweep
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.certificate import certify
from ocr_interp.training.loop import train
from ocr_interp.training.store import load_run
from ocr_interp.viz.heatmaps import plot_ov_circuit
from ocr_interp.viz.text.run import describe_run

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)


# --- the new variant: begin ---
@dataclass(frozen=True)
class DiagonalPlus(LinearMap):
    name: ClassVar[str] = "diagonal_plus"
    label: ClassVar[str] = "diag + low rank"
    colour: ClassVar[str] = "#029e73"

    rank: int = 2

    def shapes(self, n_in, n_out):
        return {"d": (min(n_in, n_out),), "A": (n_in, self.rank), "B": (self.rank, n_out)}

    def start(self, draw):
        shapes = self.shapes(draw.n_tokens, draw.n_tokens)
        return {name: draw.normal(name, *shape) for name, shape in shapes.items()}

    def product(self, parameters):
        W = parameters["A"] @ parameters["B"]
        n_in, n_out = W.shape[-2:]
        n = min(n_in, n_out)
        diagonal = torch.diag_embed(parameters["d"])
        return W + torch.nn.functional.pad(diagonal, (0, n_out - n, 0, n_in - n))


# --- the new variant: end ---


@pytest.fixture(autouse=True)
def _registered():
    with maps.registered("diagonal_plus", DiagonalPlus):
        yield


MODEL = {"ov": "diagonal_plus", "ov_options": (("rank", 3),)}
PROMPT = ["noise0", "noise1", "s1", "r2", "EOS"]
RECIPE = TrainConfig(
    steps=40, batch_size=12, log_every=10, checkpoint_every=20, snapshots=2, lr=0.02, device="cpu"
)


def test_it_is_at_most_sixty_lines_long():
    text = Path(__file__).read_text(encoding="utf-8")
    variant = text.split("# --- the new variant: begin ---\n")[1].split("# --- the new variant: end ---\n")[0]
    assert 10 < len(variant.splitlines()) <= 60


@pytest.mark.slow
def test_it_conforms(tmp_path):
    """What the suite checks of every parameterisation, of this one too."""
    checks = [check for check in vars(test_conformance).values() if getattr(check, "pytestmark", None)]
    called = 0
    for check in checks:
        given = {"ov": "diagonal_plus", "tmp_path": tmp_path, "runs": (2,), "attention": "softmax"}
        wanted = inspect.signature(check).parameters
        if set(wanted) <= set(given):
            check(**{name: given[name] for name in wanted})
            called += 1
    assert called >= 10


@pytest.mark.slow
def test_it_trains_stops_resumes_and_is_swept(tmp_path):
    whole = train(TASK, ModelConfig(**MODEL), RECIPE, progress=False)
    assert whole.history["train_loss"].iloc[-1] < whole.history["training_fact/loss"].iloc[0]

    class Killed(BaseException):
        pass

    def kill(row):
        if row["step"] == 30:
            raise Killed

    with pytest.raises(Killed):
        train(TASK, ModelConfig(**MODEL), RECIPE, tmp_path / "run", progress=False, on_log=kill)
    resumed = train(TASK, ModelConfig(**MODEL), RECIPE, tmp_path / "run", progress=False)
    assert resumed.history.equals(whole.history)
    assert load_run(tmp_path / "run").weights.linear_map == DiagonalPlus(rank=3)
    axes = {"ov": ["factorized", "diagonal_plus"], "seed": [0, 1]}
    sweep(axes, task=TASK, train=RECIPE, path=tmp_path / "sweep", keep_weights=True, progress=False)
    found = load_sweep(tmp_path / "sweep").select(ov="diagonal_plus")
    again = found.run(str(found.runs["run"].iloc[0]))
    alone = train(TASK, ModelConfig(ov="diagonal_plus"), RECIPE, progress=False)
    assert torch.equal(again.weights.W_OV, alone.weights.W_OV)


@pytest.mark.slow
def test_its_circuit_certificate_ablation_graph_and_figure(tmp_path):
    run = train(TASK, ModelConfig(**MODEL), RECIPE, progress=False)
    assert run.circuit.provenance.flags[0].startswith("diagonal-plus: left is W_OV")
    tokens = torch.as_tensor(TASK.tokens(*PROMPT))[None].long()
    logits = run.model(tokens)[0, -1, TASK.n_inputs :].detach().numpy()
    by_hand = sum(
        run.circuit.W[run.circuit.inputs.positions([t])[0]] for t in ("noise0", "noise1", "s1", "r2", "EOS")
    )
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-5)
    certificate = certify(run.effective_W.astype(float), TASK, "nuclear")
    assert certificate.dual > 0
    specs = dict(list(default_specs(run).items())[:3])
    study = run_ablation_study(run, specs, ["accuracy"], progress=False)
    assert set(specs) < set(study.table["spec"])
    assert prompt_graph(run, PROMPT, "c0", "c1").title.startswith("diagonal-plus")
    fig, ax = plt.subplots()
    plot_ov_circuit(ax, run.subjects_and_relations_W, TASK, 1.0, "logits")
    fig.savefig(tmp_path / "figure.png")
    plt.close(fig)


@pytest.mark.slow
def test_the_command_line_knows_it(command, tmp_path):
    words = "--n-pairs 3 --m-train 1 --m-test 2 --n-noise 2 --seq-len 5 --steps 20 --batch-size 12"
    model = "--ov diagonal_plus --ov-options rank 3 --snapshots 2 --log-every 10 --device cpu"
    code, out, err = command("train", "run", *words.split(), *model.split())
    assert code == 0, err
    assert "diagonal_plus" in out
    code, out, err = command("analyze", "run", "--json", "found.json")
    assert code == 0, err
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["ov"] == "diagonal_plus"
    for verb in (("info", "run"), ("diagram", "run", "--output", "mechanism.svg")):
        code, _, err = command(*verb)
        assert code == 0, err


class OfAnotherNorm(NonFactorized):
    name: ClassVar[str] = "of_another_norm"
    norm: ClassVar[str | None] = "spectral"


def test_the_norm_of_its_own_is_tracked_and_told(tmp_path):
    with maps.registered("of_another_norm", OfAnotherNorm):
        run = train(TASK, ModelConfig(ov="of_another_norm"), RECIPE, tmp_path / "run", progress=False)
        assert run.history["gap_spectral"].iloc[-1] >= 0
        W = run.effective_W.astype(float)
        alone = certify(W, TASK, "spectral", outputs="vocabulary", inputs="noise_eos", scale=1.0)
        assert run.history["gap_spectral"].iloc[-1] == pytest.approx(alone.gap, rel=1e-6)
        assert "spectral norm: no certified gap, since a training margin is" in describe_run(
            load_run(tmp_path / "run")
        )
        both = sweep({"ov": ["factorized", "of_another_norm"]}, task=TASK, train=RECIPE, progress=False).table
        assert both["gap_spectral"].isna().sum() == len(both) // 2


def test_options_are_typed_and_defaults_left_out():
    assert ModelConfig(ov="diagonal_plus", ov_options={"rank": 2}) == ModelConfig(ov="diagonal_plus")
    with pytest.raises(ConfigError, match=r"option 'rank' of ov='diagonal_plus' must be a whole number"):
        ModelConfig(ov="diagonal_plus", ov_options={"rank": "two"})
