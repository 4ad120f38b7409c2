"""`ocr-interp reproduce --list --failed`: what failed, from claims.json alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CLAIMS = [
    {"id": "one", "statement": "A", "expected": "a > 1", "holds": True, "script": "mine.first"},
    {
        "id": "two",
        "statement": "B",
        "expected": "b > 2",
        "measured": {"b_by_seed": [1.0, 1.5, None], "runs": 3, "by_name": {"x": 1}},
        "holds": False,
        "script": "mine.second",
    },
    {
        "id": "three",
        "statement": "C",
        "expected": "c > 3",
        "holds": False,
        "script": "other.first",
        "figure": "c",
    },
]
LIST = ("reproduce", "--list", "--failed", "--figures", "drawn")


@pytest.fixture
def claims(tmp_path):
    (tmp_path / "drawn").mkdir()
    path = tmp_path / "drawn" / "claims.json"
    path.write_text(json.dumps(CLAIMS))
    (tmp_path / "docs" / "findings").mkdir(parents=True)
    (tmp_path / "README.md").write_text("**Failed:** [claim](docs/claims.md#two)")
    page = tmp_path / "docs" / "findings" / "b.md"
    page.write_text("[claim](../claims.md#two), not [claim](claims.md#twos), ![c](../../figures/c.png)")
    (tmp_path / "docs" / "claims.md").write_text("(claims.md#two)")
    return path


def test_failed_claims_with_statement_and_condition(claims, command):
    code, out, err = command(*LIST)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "two  (mine.second)",
        "    claimed: B",
        "    expected: b > 2",
        "    measured: b by seed 1 to 1.5; runs 3",
        "    explained in: README.md, docs/findings/b.md",
        "three  (other.first)",
        "    claimed: C",
        "    expected: c > 3",
        "    explained in: docs/findings/b.md",
        "2 of 3 claims failed",
    ]


@pytest.mark.parametrize(
    ("name", "count"), [("mine", "1 of 2"), ("first", "1 of 2"), ("mine.first", "0 of 1")]
)
def test_of_some_figures_or_studies(claims, command, name, count):
    assert command(*LIST, "--only", name)[1].splitlines()[-1] == f"{count} claims failed"


def test_what_cannot_be_listed_is_one_line(claims, command):
    assert "did you mean 'mine'" in command(*LIST, "--only", "mien")[2]
    assert "--failed goes with --list" in command("reproduce", "--failed", "--figures", "drawn")[2]
    claims.write_text('[{"id": 3}]')
    assert "is damaged" in command(*LIST)[2]
    claims.unlink()
    assert "is not there: name its folder with --figures" in command(*LIST)[2]


def test_the_repository_lists_its_own_and_imports_no_figure():
    figures = Path(__file__).parents[1] / "figures"
    words = ["ocr-interp", "reproduce", "--list", "--failed", "--figures", str(figures)]
    script = (
        f"import sys; sys.argv = {words}\n"
        "from ocr_interp.cli import main; main()\n"
        "assert not {'torch', 'matplotlib', 'pandas', 'analyses'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    failed = [each["id"] for each in json.loads((figures / "claims.json").read_text()) if not each["holds"]]
    assert [line.split()[0] for line in done.stdout.splitlines()[:-1] if line[0] != " "] == failed
