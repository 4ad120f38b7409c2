"""A figure is a module with a FIGURE: found by being there, its claims gone when it is deleted."""

import ast
import json
import shutil
import signal
import sys
import time
from pathlib import Path

import experiments_elsewhere
import psutil
import pytest
from other_process import SERVER, OtherProcess

import analyses
from analyses.house import experiments
from analyses.house.claims import Claim, assemble, write_claims
from analyses.house.discovery import choose, find_figures
from analyses.house.experiments import STACK, Experiment, load_all, make_jobs, train_all
from analyses.house.figure import Figure
from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, load_run
from ocr_interp.errors import ConfigError, OcrInterpError, UnknownNameError
from ocr_interp.training.loop import train

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "figures"
SMALL = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
FEW = TrainConfig(steps=4, log_every=2, batch_size=3, device="cpu")
A_FIGURE = '''
"""How well a line of slope 2 is a line, and a model of its own."""

import matplotlib.pyplot as plt

from analyses.house.claims import Claim
from analyses.house.experiments import Experiment, load_all
from analyses.house.figure import Figure
from ocr_interp import FactRecallTask, ModelConfig, TrainConfig
from ocr_interp.viz.style import figure_style, save_figure

RECIPE = TrainConfig(steps=4, log_every=2, batch_size=3, device="cpu")
TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
TINY = Experiment("tiny", TASK, ModelConfig(d_head=2), RECIPE, seeds=(0,))


def make(runs, figures):
    losses = [float(run.history["train_loss"].iloc[-1]) for run in load_all(runs, TINY)]
    with figure_style():
        fig, ax = plt.subplots()
        ax.plot(losses)
        save_figure(fig, figures / "new_line", {"losses": losses})
    return losses


def claims(losses):
    measured, holds = {"losses": losses}, min(losses) > 0
    return [Claim("new_claim", "It trains", "this test", "loss > 0", measured, 0.0, holds, "new_line")]


FIGURE = Figure(pictures=("new_line",), draw=make, claims=claims, experiments=(TINY,))
'''


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder for a study of one's own, beside those of the repository."""
    folder = tmp_path / "studies" / "mine"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    monkeypatch.setattr(analyses, "__path__", [*analyses.__path__, str(folder.parent)])
    yield folder
    for name in [name for name in sys.modules if name.startswith("analyses.mine")]:
        del sys.modules[name]
    vars(analyses).pop("mine", None)


@pytest.fixture
def figures(tmp_path):
    """The committed claims, to be changed."""
    folder = tmp_path / "figures"
    shutil.copytree(FIGURES / "claims", folder / "claims")
    return folder


def entries(figures):
    return json.loads((figures / "claims.json").read_text())


@pytest.mark.slow
def test_a_new_figure_is_drawn_with_its_claim_and_gone_when_its_module_is(study, figures, tmp_path, command):
    assert len(A_FIGURE.strip().splitlines()) <= 60
    (study / "new.py").write_text(A_FIGURE)
    words = ("reproduce", "--figures", str(figures), "--runs", str(tmp_path / "runs"), "--only", "mine.new")
    code, out, err = command(*words)
    assert code == 0, err
    assert {path.name for path in figures.glob("new_line.*")} == {
        f"new_line.{e}" for e in ("png", "svg", "json")
    }
    committed = json.loads((FIGURES / "claims.json").read_text())
    assert entries(figures)[:-1] == committed, "slow figures keep theirs"
    claim = entries(figures)[-1]
    assert (claim["id"], claim["script"], claim["figure"]) == ("new_claim", "mine.new", "new_line")
    drawn = json.loads((figures / "new_line.json").read_text())["losses"]
    assert claim["measured"]["losses"] == pytest.approx(drawn, rel=1e-5)
    _, out, _ = command("reproduce", "--list", "--figures", str(figures), "--only", "mine")
    assert out.splitlines() == ["mine.new  quick  new_line", "    holds  new_claim"]

    (study / "new.py").unlink()
    code, _, err = command(*words)
    assert code == 2
    assert "mine.new" in err
    assemble(figures, [one.script for one in find_figures()])
    assert entries(figures) == committed


@pytest.mark.slow
def test_a_figure_that_fails_loses_no_other_and_is_named_at_the_end(study, figures, tmp_path, command):
    head = "from analyses.house.figure import Figure\n"
    (study / "a_broken.py").write_text("FIGURE = Figure(\n")
    (study / "b_import.py").write_text("import no_such_module\nFIGURE = None\n")
    (study / "c_text.py").write_text('FIGURE = "figure_7"\n')
    raises = "def make(runs, figures):\n    raise ValueError('no data')\n"
    (study / "d_raises.py").write_text(head + raises + "FIGURE = Figure(pictures=(), draw=make)\n")
    (study / "e_nothing.py").write_text(head + "FIGURE = Figure(pictures=('absent',), draw=lambda r, f: 0)\n")
    (study / "f_good.py").write_text(A_FIGURE)
    (figures / "absent.png").write_text("an old one")
    (study / "helper.py").write_text("x = 1\n")
    code, _, err = command(
        "reproduce", "--figures", str(figures), "--runs", str(tmp_path / "runs"), "--only", "mine"
    )
    assert code == 1
    failed = [line.split(":")[0] for line in err.splitlines() if line.startswith("FAILED")]
    names = ["a_broken", "b_import", "c_text", "d_raises", "e_nothing"]
    assert failed == [f"FAILED mine.{name}" for name in names]
    assert "ValueError: no data" in err
    assert "absent.png" in err
    assert entries(figures)[-1]["id"] == "new_claim"


def test_committed_claims_are_those_of_the_figures_in_the_code(tmp_path):
    shutil.copytree(FIGURES / "claims", tmp_path / "claims")
    found = find_figures()
    assemble(tmp_path, [one.script for one in found])
    assert (tmp_path / "claims.json").read_bytes() == (FIGURES / "claims.json").read_bytes()
    assert {f"{one.script}.json" for one in found} == {path.name for path in (FIGURES / "claims").iterdir()}


@pytest.mark.slow
def test_every_committed_picture_belongs_to_one_figure_and_every_claim_to_a_picture():
    pictures = [name for one in find_figures() for name in one.load().pictures]
    assert sorted(pictures) == sorted(path.stem for path in FIGURES.glob("*.png"))
    for claim in entries(FIGURES):
        assert claim["figure"] is None or claim["figure"] in pictures, claim["id"]


def test_figures_are_chosen_by_name_by_study_and_never_in_silence():
    found = find_figures()
    assert [one.script for one in choose(found, ["theorem_3"])] == ["paper.theorem_3"]
    assert [one.script for one in choose(found, ["width", "paper.theorem_3"])] == [
        "paper.theorem_3",
        "width.figure_6_width",
    ]
    with pytest.raises(UnknownNameError, match=r"paper\.theorem_3"):
        choose(found, ["paper.theorem_4"])


def test_two_claims_of_one_name_and_a_damaged_file_are_told(tmp_path):
    claim = Claim("same", "s", "s", "e", {"x": 1}, 0.0, True)
    for script in ("a.b", "c.d"):
        write_claims(tmp_path, script, [claim])
    with pytest.raises(OcrInterpError, match=r"a\.b and c\.d both make a claim 'same'"):
        assemble(tmp_path, ["a.b", "c.d"])
    assert not (tmp_path / "claims.json").exists()
    (tmp_path / "claims" / "a.b.json").write_text('[{"id": ')
    with pytest.raises(OcrInterpError, match=r"a\.b\.json is damaged"):
        assemble(tmp_path, ["a.b"])
    with pytest.raises(ConfigError, match="'quick' or 'slow', got 'cheap'"):
        Figure(pictures=(), draw=lambda runs, figures: None, cost="cheap")


# --- training for the figures ------------------------------------------------------------------------


@pytest.mark.slow
def test_experiments_leave_the_runs_that_train_leaves(tmp_path, monkeypatch):
    """In several processes, which have loaded torch."""
    monkeypatch.setattr(experiments, "get_context", {"spawn": SERVER}.__getitem__)
    one = Experiment("one", SMALL, ModelConfig(d_head=2), FEW, (0, 1, 2))
    other = Experiment("other", SMALL, ModelConfig(ov="non_factorized"), FEW, (1,))
    train_all(tmp_path, [one, other])
    for experiment in (one, other):
        for seed, run in zip(experiment.seeds, load_all(tmp_path, experiment), strict=True):
            config = experiment.config(seed)
            assert run.config == config
            alone = train(config.task, config.model, config.train, progress=False)
            assert run.history.equals(alone.history)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


@pytest.mark.slow
def test_processes_save_and_end_when_the_one_that_started_them_is_killed(tmp_path):
    started = 0
    with OtherProcess(experiments_elsewhere.train_for_long, tmp_path) as parent:
        seen = psutil.Process(parent.pid)
        for _ in range(600):
            started = len(list(tmp_path.glob("*/seed0/history.csv")))
            if started == len(experiments_elsewhere.EXPERIMENTS):
                break
            time.sleep(0.1)
        children = seen.children(recursive=True)
        parent.send_signal(signal.SIGKILL)
        parent.wait(30)
    assert started == len(experiments_elsewhere.EXPERIMENTS), "both train"
    _, alive = psutil.wait_procs(children, timeout=30)
    for child in alive:
        child.kill()
    assert [child.cmdline() for child in alive] == []
    for experiment in experiments_elsewhere.EXPERIMENTS:
        run = load_run(experiment.path(tmp_path, 0))
        assert not run.complete
        assert run.history["step"].iloc[-1] > 0


def test_jobs_are_stacks_of_one_shape_the_longest_first():
    def group(name, ov, steps, seeds):
        train = TrainConfig(steps=steps, log_every=100)
        experiment = Experiment(name, SMALL, ModelConfig(ov=ov), train, tuple(range(seeds)))
        return [(experiment.config(seed), experiment.path(Path(), seed)) for seed in experiment.seeds]

    long, short = group("long", "factorized", 1000, 8), group("short", "non_factorized", 200, 3)
    jobs = make_jobs([*short, *long], 2)
    assert [len(job) for job in jobs] == [4, 4, 3]
    assert max(map(len, jobs)) <= STACK
    assert sorted(path for job in jobs for _, path in job) == sorted(path for _, path in [*short, *long])
    assert [len(job) for job in make_jobs(short, 2)] == [2, 1], "one shape alone is shared among the cores"


# --- the house -------------------------------------------------------------------------------------


def own_imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return [name.split(".")[1] for name in names if name.startswith("analyses.")]


def test_a_study_builds_on_the_house_and_on_studies_before_it_alone():
    folders = sorted(path for path in (ROOT / "analyses").iterdir() if (path / "__init__.py").exists())
    assert {path.name for path in folders} == {"house", *analyses.STUDIES}
    order = ("house", *analyses.STUDIES)
    for folder in folders:
        modules = sorted(folder.glob("*.py"))
        assert len(modules) <= 13, f"{folder.name}: about twelve modules, and __init__"
        for path in modules:
            for study in own_imports(path):
                assert order.index(study) <= order.index(folder.name), f"{path} imports from {study}"
            assert "sys.path" not in path.read_text(encoding="utf-8")
