"""The schedule of measurements, and the progress bar."""

import subprocess
import sys

from ocr_interp.running.progress import progress_bar
from ocr_interp.running.schedule import logged_steps, snapshot_steps


def test_logged_and_snapshot_steps():
    assert logged_steps(7, 3) == [0, 3, 6, 7]
    assert logged_steps(0, 5) == [0]
    assert snapshot_steps(logged_steps(100, 10), 3) == [0, 10, 100]
    assert snapshot_steps([0, 1], 0) == []


def test_a_bar_shows_how_far_it_is_and_what_it_is_told(capsys):
    with progress_bar("boxes", 4, done=1, show=True) as move:
        move(3, "two [red] open")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "boxes" in shown.err
    assert "3/4" in shown.err
    assert "two [red] open" in shown.err


def test_plain_lines_are_few_and_say_how_fast(capsys):
    with progress_bar("boxes", 1000, show="lines", unit="boxes") as move:
        for done in range(0, 1001, 10):
            move(done, f"lid {done}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21, "one at the start and one per 5%, not one per call"
    assert lines[0] == "boxes 0/1,000 boxes: lid 0"
    assert lines[1].startswith("boxes 50/1,000 boxes: lid 50 (")
    assert lines[-1].startswith("boxes 1,000/1,000 boxes: lid 1000 (")
    assert lines[-1].endswith(" boxes/s)")


def test_a_long_silence_is_broken(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("ocr_interp.running.progress.time.monotonic", lambda: now[0])
    with progress_bar("slow", 10**6, show="lines") as move:
        for done in range(4):
            now[0] += 20
            move(done, "")
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "slow 0/1,000,000 steps",
        "slow 2/1,000,000 steps",
    ]


def test_a_bar_that_is_not_shown_says_nothing_and_costs_nothing():
    code = (
        "import sys\nfrom ocr_interp.running.progress import progress_bar\n"
        "for show in (False, None):\n"
        "    with progress_bar('boxes', 4, show=show) as move: move(2, 'x')\n"
        "print('rich' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False False\n", "")
