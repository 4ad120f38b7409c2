"""Large sets of facts are prepared in time and memory linear in subjects plus answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_ten_thousand_subjects_and_a_thousand_answers_are_prepared_in_seconds(tmp_path):
    program = Path(__file__).with_name("large_set.py")
    done = subprocess.run(
        [sys.executable, program, tmp_path], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(done.stdout)
    assert (found["asked"], found["answers"]) == (20_000, 1_000)
    assert found["seconds"] < 20
    assert found["bytes"] < 2**30
    assert found["scoring"] == {"fact": "until_distinct", "implication": "until_distinct"}
