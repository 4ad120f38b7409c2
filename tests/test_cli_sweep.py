"""ocr-interp sweep: the grid of flags and files, the library's numbers, one-line complaints."""

import pytest

from ocr_interp import load_sweep, sweep
from ocr_interp.cli.sweep import parse_axes, read_grid
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.task import FactRecallTask

SHORT = "--n-pairs 3 --m-test 1 --n-noise 2 --seq-len 5 --steps 20 --log-every 10 --batch-size 9 --device cpu"
TASK = FactRecallTask(3, 1, 1, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=20, log_every=10, batch_size=9, device="cpu")


@pytest.fixture
def call(command):
    """Runs `ocr-interp sweep` in an empty folder; gives (exit code, stdout, stderr)."""
    return lambda *words: command("sweep", *words)


@pytest.mark.slow
def test_flags_give_the_librarys_numbers(call, tmp_path):
    words = ("grown", "--axis", "d-head=2,3", "--axis", "lr=1e-2,0.05", "--axis", "seed=0:2", *SHORT.split())
    code, out, err = call(*words)
    assert code == 0
    assert all(line.startswith("sweep ") for line in err.splitlines()), "progress, and nothing else"
    expected = sweep(
        {"d_head": [2, 3], "lr": [0.01, 0.05], "seed": [0, 1]}, task=TASK, train=RECIPE, progress=False
    )
    assert load_sweep(tmp_path / "grown").select(d_head=2, lr=0.05, seed=1).final()["beta"].tolist() == (
        expected.select(d_head=2, lr=0.05, seed=1).final()["beta"].tolist()
    )
    lines = out.splitlines()
    assert lines[0] == "8 runs: 8 finished"
    assert lines[2].split()[:3] == ["d_head", "lr", "runs"]
    assert [line.split()[:3] for line in lines[3:7]] == [
        [d, lr, "2/2"] for d in ("2", "3") for lr in ("0.01", "0.05")
    ]
    mean = expected.select(d_head=3, lr=0.05).final()["held_out_implication/loss"].mean()
    assert lines[6].split()[4] == f"{mean:.4g}"
    assert "all rows: grown" in lines[-1]
    assert call(*words)[1] == out, "what is there is read"


@pytest.mark.slow
def test_a_file_gives_points_and_what_they_share(call, tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "axes:\n- {d_head: 2, lr: 1e-2}\n- {d_head: 3, lr: 1e30, optimizer: sgd}\n"
        "task: {n_pairs: 3, m_test: 1, n_noise: 2, seq_len: 5}\n"
        "train: {steps: 20, log_every: 10, batch_size: 9, device: cpu}\n"
    )
    code, out, err = call("there", "--grid", "grid.yaml")
    assert code == 0
    assert all(line.startswith("sweep ") for line in err.splitlines()), "progress, and nothing else"
    assert out.startswith("2 runs: 1 finished, 1 diverged\n")
    assert "the loss is not finite at step" in out
    result = load_sweep(tmp_path / "there")
    assert result.runs.sort_values("d_head")["lr"].tolist() == [0.01, 1e30]
    assert set(result.runs["n_pairs"]) == {3}


@pytest.mark.slow
def test_a_file_gives_the_lists_of_a_mapping(call, tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "axes:\n- {fact_of_subject: [0, 0, 1, 1], implication_of_fact: [0, 1], trained: [yes, no, yes, no]}\n"
        "- {fact_of_subject: [0, 0, 1], implication_of_fact: [0, 1], trained: [yes, no, yes]}\n"
        "task: {n_noise: 2, seq_len: 5}\n"
        "train: {steps: 20, log_every: 10, batch_size: 9, device: cpu}\n"
    )
    code, out, _ = call("there", "--grid", "grid.yaml")
    assert code == 0
    assert out.startswith("2 runs: 2 finished\n")
    result = load_sweep(tmp_path / "there")
    tasks = [result.config(name).task for name in result.runs["run"]]
    assert FactRecallTask.from_mapping([0, 0, 1], [0, 1], [True, False, True], 2, 5) in tasks
    (tmp_path / "shared.yaml").write_text(
        "axes: {seed: [0]}\ntask: {n_noise: 2, seq_len: 5, fact_of_subject: [0, 0, 1, 1], "
        "implication_of_fact: [0, 1], trained: [yes, no, yes, no], "
        "names: [Ada, Bo, Cy, Di, Rome, Lima, Italian, Spanish]}\n"
        "train: {steps: 20, log_every: 10, batch_size: 9, device: cpu}\n"
    )
    assert call("named", "--grid", "shared.yaml")[0] == 0
    named = load_sweep(tmp_path / "named")
    assert named.config(named.runs["run"][0]).task.labels[-1] == "Spanish"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "needs --axis FIELD=VALUE,VALUE at least once, or --grid FILE"),
        ("--axis d_heads=2", "unknown axis 'd_heads': did you mean 'd_head'"),
        ("--axis d_head", "--axis must be FIELD=VALUE,VALUE,..., got 'd_head'"),
        ("--axis d_head=2 --axis d_head=3", "--axis d_head is given twice"),
        ("--axis seed=0:x", "a range must be FIRST:END in whole numbers, got '0:x'"),
        ("--axis lr=0.1,-1", "invalid point (lr=-1): lr must be a finite number > 0"),
        ("--axis seed=0 --engine slurm", "slurm"),
        ("--axis seed=0 --ray-address auto", "ray_address must be None unless engine='ray'"),
        ("--grid missing.yaml", "cannot read missing.yaml"),
        ("--grid bad.yaml", "cannot read bad.yaml"),
        ("--grid empty.yaml", "empty.yaml must map axes, task, model, train to their fields, at least axes"),
        ("--grid section.yaml", "unknown section of section.yaml 'trian': did you mean 'train'"),
        ("--grid field.yaml", "unknown train field 'step': did you mean 'steps'"),
        ("--grid field.yaml --lr 1", "field.yaml has a section train: its fields go there, not in flags"),
        ("--grid field.yaml --axis seed=1", "--axis and --grid exclude each other"),
    ],
)
def test_complaints_are_one_line_and_write_nothing(call, tmp_path, words, message):
    files = {"bad": "a: [", "empty": "axes_: 1", "section": "axes: {seed: [0]}\ntrian: {}"}
    for name, text in {**files, "field": "axes: {seed: [0]}\ntrain: {step: 3}"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    code, out, err = call("folder", *words.split())
    assert (code, out) == (2, "")
    assert err.startswith("ocr-interp: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "folder").exists()


def test_values_as_python_has_them(tmp_path):
    assert parse_axes(("a=1,2.5,1e-3,none,True,word", "b=2:4,9")) == {
        "a": [1, 2.5, 0.001, None, True, "word"],
        "b": [2, 3, 9],
    }
    with pytest.raises(ConfigError, match="FIELD=VALUE"):
        parse_axes(("=3",))
    path = tmp_path / "grid.yaml"
    path.write_text("axes: {lr: [1e-3, 5], ov: [factorized], d_head: [null]}")
    assert read_grid(path) == {"axes": {"lr": [0.001, 5], "ov": ["factorized"], "d_head": [None]}}
    path.write_text("axes: {}\nmodels: {}")
    with pytest.raises(UnknownNameError, match="did you mean 'model'"):
        read_grid(path)
