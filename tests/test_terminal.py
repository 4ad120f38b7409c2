"""Commands on a terminal that only knows ASCII, among paths of any letters: the work is done and shown."""

import io
import sys

import pytest

from ocr_interp.cli import main
from ocr_interp.cli.arguments.files import say

TINY = (
    "--n-pairs",
    "3",
    "--m-test",
    "1",
    "--n-noise",
    "2",
    "--seq-len",
    "5",
    "--steps",
    "4",
    "--batch-size",
    "6",
)
TINY += ("--log-every", "2", "--device", "cpu")


@pytest.fixture
def ascii_command(monkeypatch):
    """Runs `ocr-interp` where stdout and stderr are strict ASCII; gives (exit code, stdout, stderr)."""

    def called(*words):
        streams = [io.BytesIO(), io.BytesIO()]
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            text = io.TextIOWrapper(stream, encoding="ascii", errors="strict", write_through=True)
            monkeypatch.setattr(sys, name, text)
        monkeypatch.setattr(sys, "argv", ["ocr-interp", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return code, *(stream.getvalue().decode("ascii") for stream in streams)

    return called


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    from ocr_interp.configuration.model import ModelConfig
    from ocr_interp.configuration.training import TrainConfig
    from ocr_interp.task import FactRecallTask
    from ocr_interp.training.loop import train

    path = tmp_path_factory.mktemp("日本") / "lauf-ä"
    recipe = TrainConfig(steps=4, batch_size=6, log_every=2, device="cpu")
    train(FactRecallTask(3, 1, 1, n_noise=2, seq_len=5), ModelConfig(), recipe, path, progress=False)
    return path


@pytest.mark.slow
def test_every_command_that_saves_says_so_in_ascii(ascii_command, run_dir, tmp_path):
    out = tmp_path / "größe"
    commands = {
        "train": ("train", str(out / "r"), *TINY),
        "info": ("info", str(run_dir)),
        "analyze": ("analyze", str(run_dir), "--json", str(out / "a.json")),
        "diagram": ("diagram", str(run_dir), "-o", str(out / "d.svg")),
        "export": ("export", str(run_dir), str(out / "w.safetensors")),
        "ablate": ("ablate", str(run_dir), "--zero", "v", "--no-controls", "-o", str(out / "t.csv")),
        "sweep": ("sweep", str(out / "s"), "--axis", "seed=0:2", *TINY),
        "solve": ("solve", "--n-pairs", "3"),
    }
    for name, words in commands.items():
        code, said, errors = ascii_command(*words)
        assert (name, code) == (name, 0), errors
        assert said
    assert (out / "d.svg").is_file()
    assert "gr\\xf6\\xdfe" in ascii_command(*commands["diagram"])[1]


def test_an_error_about_such_a_path_is_one_line(ascii_command, tmp_path):
    for name in ("größe", "日本", "\udcff\udcfe", "a\x1b[31mb", "x" * 300):
        code, said, errors = ascii_command("info", str(tmp_path / name))
        assert (code, said, errors.count("\n")) == (2, "", 1)
        assert "\x1b" not in errors


def test_what_is_printed_moves_no_cursor(capsys):
    say("a\x1b[2Jb\x07\tc\nd")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\x07    c\nd\n"
    say("\udcff", on_stderr=True)
    assert capsys.readouterr().err == "\\udcff\n"
