"""The README's Python runs as it stands, and its tables are those of the files beside it."""

import re
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_first_lines_say_what_ocr_means():
    assert "OCR means out-of-context reasoning" in README[:120]


def test_every_block_of_python_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    promised = re.findall(r"^print.*  # (c\d|beta .*)$", README, re.MULTILINE)
    assert len(promised) == 2
    assert [line for line in promised if line not in printed] == []
    assert torch.equal(names["silenced"], torch.zeros_like(names["silenced"]))


def test_paths_in_the_readme_exist():
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path


def test_tables_have_a_row_for_everything_measured(monkeypatch):
    """Numbers may differ from machine to machine; which rows there are, and what holds, may not."""
    monkeypatch.syspath_prepend(ROOT / "analyses")
    from readme_tables import readme_tables

    for name, table in readme_tables().items():
        shown = README.split(f"<!-- {name} -->\n")[1].split(f"\n<!-- /{name} -->")[0]
        assert outline(shown) == outline(table), "run make readme"


def outline(table: str) -> list[tuple[str, str]]:
    """First and last cell of each row: what is measured, and of claims whether it holds."""
    rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in table.splitlines()]
    return [(row[0].strip(), row[-1].strip() if row[-1].strip() in ("yes", "**no**") else "") for row in rows]
