"""The pages: Python runs, commands are understood, links lead somewhere, tables are whole."""

import ast
import re
import shlex
import socket
from pathlib import Path

import pytest
import torch

from ocr_interp import cli
from ocr_interp.ablation import edits
from ocr_interp.llm import fact_sets, methods
from ocr_interp.maps import maps
from ocr_interp.mitigation import mitigations
from ocr_interp.optim import optimizers
from ocr_interp.theory import norms

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCK = re.compile(r"(?:<!-- from (\S+) -->\n)?```python\n(.*?)```", re.DOTALL)
"""A block of Python, and the file that it is taken from, where the page names one."""
WITH_PYTHON = [name for name, text in PAGES.items() if BLOCK.search(text)]
PRINTED = re.compile(r"^print\(.*  # prints (.*)$", re.MULTILINE)


def test_first_lines_say_what_ocr_means():
    assert "OCR means out-of-context reasoning" in README[:120]


def test_the_readme_is_a_front_page():
    assert len(README.splitlines()) <= 150
    assert len(README) <= 9_600
    assert len(re.findall(r"!\[", README)) <= 3


@pytest.mark.slow
# 3.9 announces that the class goes away in 4.0; the dependency is capped below 4.
@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated:DeprecationWarning")
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_every_block_of_python_runs_and_prints_what_it_says(page, tmp_path, monkeypatch, capsys):
    """Each page alone: in a namespace and a folder of its own, without a network."""
    asked: list = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: asked.append(args) or [])
    monkeypatch.chdir(tmp_path)
    for registry in (maps, norms, optimizers, edits, mitigations, methods, fact_sets):
        monkeypatch.setattr(registry, "_registered", {})
    names: dict = {"__name__": "page"}
    for found in BLOCK.finditer(PAGES[page]):
        above = "\n" * PAGES[page].count("\n", 0, found.start(2))  # so that a traceback names the page's line
        exec(compile(above + found[2], str(ROOT / page), "exec", dont_inherit=True), names)
    shown = capsys.readouterr().out
    for promised in PRINTED.findall(PAGES[page]):
        assert promised in shown.splitlines()
    assert asked == [], "no block needs a network"
    understood(PAGES[page])
    if page == "README.md":
        assert torch.equal(names["silenced"], torch.zeros_like(names["silenced"]))
    if page == "docs/circuits.md":
        assert "centring and gain folded into W_V" in shown, "of the HookedTransformer that we did not build"
        assert "tiny-llama, layer 0, head 3" in shown or "(tiny-llama, weights" in shown
        assert names["head"].provenance.kv_head == 1
        assert {"head.svg", "llama_head.svg"} <= {path.name for path in tmp_path.iterdir()}


def test_pages_promise_what_is_printed():
    """So that the check of printed lines has something to check."""
    assert {page for page, text in PAGES.items() if PRINTED.search(text)} >= {
        "README.md",
        "docs/circuits.md",
        "docs/theory.md",
        "docs/extending.md",
    }


def test_examples_of_variants_are_those_of_the_tests():
    """Every class, constant and whole module that a page takes from a test stands there word for word."""
    taken = [(source, block) for text in PAGES.values() for source, block in BLOCK.findall(text) if source]
    assert len(taken) >= 7, "one for each kind of variant"
    for source, block in taken:
        text = (ROOT / source).read_text(encoding="utf-8")
        if block.strip() in text:
            continue
        statements = [
            node for node in ast.parse(block).body if not isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert statements
        for node in statements:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            lines = block.splitlines()[first - 1 : node.end_lineno]
            assert "\n".join(lines) in text, f"{lines[0]} of {source}"


def test_commands_of_the_pages_are_commands():
    """Every line for the shell is understood; nothing is run."""
    for page, least in (("README.md", 5), ("docs/circuits.md", 6), ("docs/llm.md", 3), ("docs/sweeps.md", 3)):
        assert len(commands(PAGES[page])) >= least
    for page, text in PAGES.items():
        if page != "docs/extending.md":  # whose variants its blocks register first
            understood(text)


def test_links_lead_somewhere():
    """Files, pictures, and places within pages: a heading, or an anchor that is set."""
    for page, text in PAGES.items():
        for path, place in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", text):
            target = (ROOT / page).parent / path if path else ROOT / page
            assert target.exists(), f"{path} in {page}"
            if place:
                assert place in places(target.read_text(encoding="utf-8")), f"{path}#{place} in {page}"


def test_tables_have_a_row_for_everything_measured():
    """Numbers may differ from machine to machine; which rows there are, and what holds, may not."""
    from analyses.house.pages import all_tables, claims_page

    assert outline(PAGES["docs/claims.md"]) == outline(claims_page()), "run make readme"
    tables = {str(path.relative_to(ROOT)): of_page for path, of_page in all_tables().items()}
    assert {page: list(of_page) for page, of_page in tables.items()} == {
        "README.md": ["counts"],
        "docs/findings/parameterisations.md": ["maps"],
        "docs/speed.md": ["speed", "maps", "sweeps", "solvers"],
        "docs/findings/llm_families.md": ["families", "table 1"],
        "docs/findings/llm_parts.md": [
            "parts",
            "parts at equal told loss",
            "parts at equal divergence",
            "parts gemma",
        ],
        "docs/findings/llm_mitigation.md": ["mitigation"],
        "docs/findings/llm_optimisers.md": ["muon"],
    }
    for page, of_page in tables.items():
        for name, table in of_page.items():
            shown = PAGES[page].split(f"<!-- {name} -->\n")[1].split(f"\n<!-- /{name} -->")[0]
            assert outline(shown) == outline(table), "run make readme"


def test_every_claim_has_its_row():
    from analyses.house.pages import read_json

    rows = [line for line in PAGES["docs/claims.md"].splitlines() if line.startswith('| <a id="')]
    ids = [line.split('"')[1] for line in rows]
    claims = {claim["id"]: claim["holds"] for claim in read_json("figures/claims.json")}
    assert ids == list(claims)
    assert [line.endswith("| yes |") for line in rows] == list(claims.values())


def outline(table: str) -> list[tuple[str, str]]:
    """First and last cell of each row: what is measured, and of claims whether it holds."""
    rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in table.splitlines()]
    return [(row[0].strip(), row[-1].strip() if row[-1].strip() in ("yes", "**no**") else "") for row in rows]


def commands(text: str) -> list[str]:
    """The lines of a page that call the command."""
    return re.findall(r"^ocr-interp .*$", text, re.MULTILINE)


def understood(text: str) -> None:
    for line in commands(text):
        assert cli._parse(shlex.split(line)[1:]) is not None, line


def places(text: str) -> set[str]:
    """What a link into a page can name: headings as GitHub writes them, and anchors."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))
