"""Wrong commands, subcommands and options get a suggestion; options of variants are pairs."""

import sys

import pytest

import ocr_interp
from ocr_interp import FactRecallTask, TrainConfig, cli
from ocr_interp.cli.arguments.flags import flags_of
from ocr_interp.cli.arguments.options import _pairs
from ocr_interp.cli.arguments.suggestions import complaint, options
from ocr_interp.cli.sweep import Sweep
from ocr_interp.cli.train import Train


@pytest.fixture
def said(monkeypatch, capsys):
    """What a command prints to stderr before it exits with code 2."""

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ocr-interp", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1
        return printed.err

    return call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trian", "runs/x"), ["unknown command 'trian'", "did you mean train?"]),
        (("Analyse", "runs/x"), ["did you mean analyze?"]),
        (("help",), ["ocr-interp --help"]),
        (("llm", "fintune", "x"), ["did you mean finetune?", "commands of ocr-interp llm"]),
        (("llm",), ["needs one of prepare, facts, finetune"]),
        (("train", "x", "--stepz", "3"), ["--stepz of ocr-interp train", "did you mean --steps?"]),
        (
            ("train", "x", "--step", "3"),
            ["did you mean --steps", "analyze, ablate, diagram, circuit, export have --step"],
        ),
        (("train", "x", "--learning-rate", "1"), ["did you mean --lr?"]),
        (("train", "x", "--train.lr", "1"), ["did you mean --lr?"]),
        (("sweep", "s", "--axsi=seed=0:2"), ["did you mean --axis?"]),
        (("llm", "finetune", "x", "--lora_rnk", "3"), ["did you mean --lora-rank?"]),
        (("reproduce", "--lst"), ["did you mean --list"]),
        (("info", "x", "more"), ["unexpected argument more"]),
        (("train", "x", "--ov-options", "rank"), ["--ov-options", "pairs NAME VALUE", "got rank"]),
        (("train", "x", "--optimizer-options", "rho", "1"), ["'rho'"]),
    ],
)
def test_what_was_probably_meant(said, arguments, words):
    shown = said(*arguments)
    for word in words:
        assert word in shown


def test_a_right_command_line_has_no_complaint():
    for line in (
        "train x --steps 3 --no-train-attention --ov-options rank 3 --batch_size=4",
        "llm finetune x --lora-rank 3 --no-save-model",
        "reproduce --all --list --only theorem_3",
        "diagram x -o out.svg --prompt s1 r2",
    ):
        assert complaint("ocr-interp", cli.COMMANDS, line.split()) is None
    assert "--run-dir" not in options(Train)
    assert {"--axis", "--steps", "--n-pairs", "--no-certificates"} <= options(Sweep).keys()


def test_version_and_metavar(monkeypatch, capsys):
    for arguments, shown in (
        (["--version"], f"ocr-interp {ocr_interp.__version__}\n"),
        (["train", "-h"], ""),
    ):
        monkeypatch.setattr(sys, "argv", ["ocr-interp", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        found = capsys.readouterr().out
        assert found == (shown or found)
    assert "--ov-options [NAME VALUE [NAME VALUE ...]]" in found


def test_pairs_are_read_in_their_types():
    assert _pairs(["rank", "3", "scale", "1e-3", "kind", "tanh", "on", "True"]) == (
        ("rank", 3),
        ("scale", 1e-3),
        ("kind", "tanh"),
        ("on", True),
    )


@pytest.mark.slow
def test_another_run_in_the_directory_comes_with_its_command(said, tmp_path, monkeypatch, capsys):
    flags = "--n-pairs 3 --m-test 1 --n-noise 2 --seq-len 5 --no-train-attention --steps 4 --batch-size 9"
    rest = "--lr 0.02 --log-every 2 --snapshots 0 --device cpu"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ocr-interp", "train", "here", *f"{flags} {rest}".split()])
    cli.main()
    capsys.readouterr()
    shown = said("train", "here", "--steps", "8")
    assert "train.lr: 0.005 != 0.02" in shown
    command = shown.split("goes on with: ocr-interp ")[1].split()
    assert command == f"train here {flags.replace('--steps 4', '--steps 8')} {rest}".split()
    monkeypatch.setattr(sys, "argv", ["ocr-interp", *command])
    cli.main()
    assert "finished at step 8 of 8" in capsys.readouterr().out
    assert "goes on with" not in said("train", "here", *command[2:-1], "cpu", "--steps", "4")


def test_flags_are_read_as_what_they_are_made_of():
    task = FactRecallTask.from_mapping((0, 0, 1), (0, 1), (True, False, True), n_noise=2, seq_len=5)
    recipe = TrainConfig(lr=1 / 3, second_optimizer="sgd", switch_step=3, second_lr=0.5, muon_nesterov=False)
    read = cli._parse(["train", "x", *flags_of(task, recipe).split()])
    assert isinstance(read, Train)
    assert (read.task, read.train) == (task, recipe)
