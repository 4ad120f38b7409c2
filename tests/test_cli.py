"""The command line as a user meets it, also in a process of its own."""

import dataclasses
import os
import subprocess
import sys

import other_process
import pytest
from other_process import OtherProcess

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, cli, load_run
from ocr_interp.cli import reproduce
from ocr_interp.errors import OcrInterpError

SHORT = ("--n-pairs", "3", "--m-test", "1", "--steps", "40", "--log-every", "20", "--batch-size", "9")


def call(*arguments: str, cwd=None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ocr_interp.cli", *arguments]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.mark.slow
def test_train_then_info_then_the_same_command_again(tmp_path, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    words = ("train", "here", *SHORT, "--seed", "3", "--ov", "non_factorized")
    with OtherProcess(other_process.command, words, tmp_path, {"COLUMNS": "100"}) as process:
        out, err = process.communicate()
        assert process.wait() == 0, err
    run = load_run(tmp_path / "here")
    assert (run.step, run.config.train.seed, run.config.model.ov) == (40, 3, "non_factorized")
    assert run.task == FactRecallTask(n_pairs=3, m_train=1, m_test=1)
    code, shown, _ = command("info", "here")
    assert code == 0
    loss = run.history["held_out_implication/loss"].iloc[-1]
    assert f"{loss:10.4g}" in shown
    assert "finished at step 40 of 40" in shown
    assert command(*words)[:2] == (0, out)


def test_every_field_of_the_configurations_is_a_flag(command):
    code, shown, _ = command("train", "--help")
    assert code == 0
    for config in (FactRecallTask, ModelConfig, TrainConfig):
        for field in dataclasses.fields(config):
            assert f"--{field.name.replace('_', '-')}" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train",), ["PATH"]),
        (("train", "x", "--n-pairs", "1"), ["n_pairs must be >= 2, got 1"]),
        (("llm", "finetune", "x", "--n-pairs", "0"), ["error: n_pairs must be >= 2, got 0"]),
        (("train", "x", "--m-train", "1.5"), ["--m-train", "1.5"]),
        (("train", "x", "--m-train", "0", "--m-test", "0"), ["m_train + m_test must be >= 1, got 0"]),
        (("train", "x", "--lr", "0"), ["lr must be a finite number > 0, got 0"]),
        (("train", "x", "--lr", "nan"), ["lr must be", "nan"]),
        (("train", "x", "--ov", "tensor"), ["tensor", "factorized", "non_factorized"]),
        (("train", "x", "--attention", "cubic"), ["cubic", "linear", "softmax"]),
        (("train", "x", "--d-head", "0"), ["d_head must be >= 1, got 0"]),
        (("train", "x", "--ov", "non_factorized", "--d-head", "4"), ["d_head", "128", "got 4"]),
        (("train", "x", "--device", "tpu9"), ["device must be", "cpu", "tpu9"]),
        (("train", "x", "--learning-rate", "1"), ["--learning-rate"]),
        (("train", "x", "--seq-len", "2"), ["seq_len must be >= 3, got 2"]),
        (("info", "nowhere"), ["nowhere", "config.json"]),
        (("solve", "--tolerance", "0", "--method", "first_order"), ["tolerance must be", "> 0", "got 0"]),
        (("dance",), ["dance", "train", "info"]),
        (("analyze", "nowhere"), ["nowhere is no run directory"]),
        (("analyze", "x", "--json", "out.txt"), ["out.txt must end in .json, got .txt"]),
        (("analyze", "x", "--norm", "taxicab"), ["taxicab", "nuclear", "frobenius"]),
        (("ablate", "x", "-o", "out.svg"), ["out.svg must end in .csv"]),
        (("ablate", "x", "--show", "acuracy"), ["acuracy", "accuracy"]),
        (("ablate", "x", "--path", "s1"), ["--path"]),
        (("diagram", "-o", "out.svg"), ["at least one run directory"]),
        (("diagram", "x"), ["--output"]),
        (("diagram", "x", "-o", "out.jpg"), ["out.jpg must end in .svg or .png or .pdf or .dot or .json"]),
        (("diagram", "x", "y", "-o", "out.json"), [".json holds one graph, got 2 runs"]),
        (("diagram", "x", "-o", "out.svg", "--answer", "b1"), ["belong to a prompt"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ocr-interp", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert printed.err.startswith("ocr-interp: error: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    for word in words:
        assert word in printed.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_solve_prints_objective_spectrum_margins_and_certificate(command):
    balanced = call("solve", "--n-pairs", "3", "--m-test", "2")
    assert balanced.returncode == 0, balanced.stderr
    for words in (
        "objective 6.560477932",
        "2.22833 x 2",
        "held-out margin 0.70710678",
        "smallest training margin 1",
    ):
        assert words in balanced.stdout
    mapping = ("--fact-of-subject", "0", "0", "1", "1", "--implication-of-fact", "0", "1")
    counts = ("--n-pairs", "2", "--m-train", "None", "--m-test", "None")
    told = ("--trained", "True", "False", "False", "False")
    code, shown, said = command("solve", *counts, *mapping, *told, "--norm", "frobenius")
    assert code == 0, said
    assert "<= optimum <=" in shown


@pytest.mark.slow
def test_another_configuration_into_the_same_directory_is_refused(command):
    assert command("train", "here", *SHORT)[0] == 0
    code, _, error = command("train", "here", *SHORT, "--lr", "0.01")
    assert code == 2
    assert "train.lr: 0.01 != 0.005" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *(
            pytest.param(w, marks=pytest.mark.slow)
            for w in (["analyze", "--help"], ["ablate", "--help"], ["diagram"])
        ),
    ],
)
def test_help_and_complaints_load_nothing_heavy(arguments):
    lines = (
        "import contextlib, sys",
        "from ocr_interp import cli",
        f"sys.argv = ['ocr-interp', *{arguments}]",
        "with contextlib.suppress(SystemExit): cli.main()",
        "print(sorted({'torch', 'pandas', 'matplotlib', 'scipy', 'transformer_lens'} & sys.modules.keys()))",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n") or done.stdout == "[]\n"


def test_reproduce_outside_of_a_clone_says_where_to_run_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        reproduce, "__file__", str(tmp_path / "site-packages" / "ocr_interp" / "cli" / "reproduce.py")
    )
    with pytest.raises(OcrInterpError, match="root of a clone"):
        reproduce._repository()
