"""The README's Python runs as it stands, and its tables are those of the files beside it."""

import re
import socket
from pathlib import Path

import pytest
import torch

from ocr_interp import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_first_lines_say_what_ocr_means():
    assert "OCR means out-of-context reasoning" in README[:120]


@pytest.mark.slow
# 3.9 announces that the class goes away in 4.0; the dependency is capped below 4.
@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated:DeprecationWarning")
def test_every_block_of_python_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    asked: list = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: asked.append(args) or [])
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
    assert asked == [], "no block needs a network"
    shown = "\n".join(printed)
    assert "centring and gain folded into W_V" in shown, "of the HookedTransformer that we did not build"
    assert "tiny-llama, layer 0, head 3" in shown or "(tiny-llama, weights" in shown
    assert names["head"].provenance.kv_head == 1
    assert not torch.equal(names["before"], names["after"])
    assert {"head.svg", "llama_head.svg"} <= {path.name for path in tmp_path.iterdir()}


def test_commands_of_the_readme_are_commands(monkeypatch):
    """Every line for the shell is understood; nothing is run."""
    lines = re.findall(r"^ocr-interp .*$", README, re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        assert cli._parse(line.split()[1:]) is not None


def test_paths_in_the_readme_exist():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for path in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / path).exists(), f"{path} in {page.name}"


def test_tables_have_a_row_for_everything_measured():
    """Numbers may differ from machine to machine; which rows there are, and what holds, may not."""
    from analyses.house.pages import claims_page, llm_tables, readme_tables

    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    assert outline(page) == outline(claims_page()), "run make readme"
    models = (ROOT / "docs" / "llm.md").read_text(encoding="utf-8")
    for page, tables in ((README, readme_tables()), (models, llm_tables())):
        for name, table in tables.items():
            shown = page.split(f"<!-- {name} -->\n")[1].split(f"\n<!-- /{name} -->")[0]
            assert outline(shown) == outline(table), "run make readme"


def outline(table: str) -> list[tuple[str, str]]:
    """First and last cell of each row: what is measured, and of claims whether it holds."""
    rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in table.splitlines()]
    return [(row[0].strip(), row[-1].strip() if row[-1].strip() in ("yes", "**no**") else "") for row in rows]
