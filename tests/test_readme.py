"""The README's Python runs as it stands, and its tables are those of the files beside it."""

import re
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_first_lines_say_what_ocr_means():
    assert "OCR means out-of-context reasoning" in README[:120]


def test_ten_lines_of_python_run_and_print_what_they_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == re.search(r"argmax\(\)\]\)  # (\w+)", block).group(1)
    assert torch.equal(names["silenced"], torch.zeros_like(names["silenced"]))


def test_paths_in_the_readme_exist():
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path


def test_tables_are_those_of_the_committed_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "analyses")
    from readme_tables import readme_tables

    for name, table in readme_tables().items():
        assert f"<!-- {name} -->\n{table}\n<!-- /{name} -->" in README, "run make readme"
