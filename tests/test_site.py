"""The site of docs/: built without warnings, complete, and nothing on it comes from another machine."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from analyses.house.site import (
    FRONT,
    api_page,
    namespaces,
    place,
    relinked,
    targets,
    with_examples_as_code,
)

ROOT = Path(__file__).resolve().parents[1]
FINDINGS = sorted((ROOT / "docs" / "findings").glob("*.md"))


class Read(HTMLParser):
    """Ids, links and loaded resources of one page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and "canonical" not in given.get("rel", ""):
            self.loaded.append(given.get("href"))
        elif tag in ("script", "img", "iframe", "source", "video", "audio") and given.get("src"):
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Path on the site -> page, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path: Read(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    return folder, pages


@pytest.mark.slow
def test_every_page_of_docs_is_on_the_site(site):
    folder, pages = site
    written = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in ROOT.glob("docs/**/*.md")}
    written |= {Path(page).with_suffix(".html") for page in FRONT.values()}
    assert written <= {path.relative_to(folder) for path in pages}


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site):
    folder, pages = site
    for path, page in pages.items():
        for loaded in page.loaded:
            assert not re.match(r"(https?:)?//", loaded), f"{path.name} loads {loaded}"
    for style in folder.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style.name


@pytest.mark.slow
def test_every_link_anchor_and_image_of_the_site_is_there(site):
    _, pages = site
    checked = 0
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links start at the root, wherever that will be
        for link in page.links + page.loaded:
            if re.match(r"[a-z]+:|//", link):
                continue
            there, _, anchor = unquote(link.split("?")[0]).partition("#")
            target = (path.parent / there).resolve() if there not in ("", ".") else path
            if target.is_dir():
                target = target / "index.html"
            assert target.is_file(), f"{link} in {path}"
            if anchor and target in pages:
                assert anchor in pages[target].ids, f"{link} in {path}"
            checked += 1
    assert checked > 5_000


@pytest.mark.slow
def test_every_public_name_is_explained(site):
    folder, pages = site
    for namespace, names in namespaces().items():
        text = (folder / "api" / f"{namespace}.html").read_text(encoding="utf-8")
        page = pages[folder / "api" / f"{namespace}.html"]
        for name in names:
            assert name in page.ids or f"#{name}" in "".join(page.links), f"{name} of {namespace}"
        assert "doc-contents" in text
    theory = re.sub(r"<[^>]+>", "", (folder / "api/ocr_interp.theory.html").read_text(encoding="utf-8"))
    assert "Float[ndarray" in theory, "signatures have their axes"
    assert "Bounds of the optimal norm from any weights" in theory, "and docstrings stand below"


def test_every_namespace_has_its_page_in_the_contents():
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for namespace, names in namespaces().items():
        assert f"{namespace}: api/{namespace}.md" in contents
        page = api_page(namespace, namespaces())
        assert all(name in page for name in names)


def test_links_lead_to_where_files_stand_on_the_site():
    text = "[a](../figures/x.png) [b](../README.md#house)\n```\n[e](f.md)\n```\n[g](../tests/h.py)"
    assert relinked(text, "docs/findings.md") == (
        "[a](figures/x.png) [b](index.md#house)\n```\n[e](f.md)\n```\n[g](source/tests/h.py.md)"
    )
    assert relinked("[a](../../figures/x.png)", "docs/findings/y.md") == "[a](../figures/x.png)"
    assert targets(text, "docs/findings.md") == ["figures/x.png", "README.md", "tests/h.py"]
    assert place("docs/findings/y.md") == "findings/y.md"
    assert place("figures/x.json") == "figures/x.json"
    assert place("CITATION.cff") == "source/CITATION.cff.md"


def test_doctests_of_docstrings_are_code_on_the_site():
    docstring = "Draws.\n\n>>> names(\n...     1)\n['a', 'b']\n\nMore.\n\n>>> 1\n1"
    assert with_examples_as_code(docstring) == (
        "Draws.\n\n```pycon\n>>> names(\n...     1)\n['a', 'b']\n```\n\nMore.\n\n```pycon\n>>> 1\n1\n```"
    )


@pytest.mark.parametrize(
    "page", [page for page in FINDINGS if page.stem != "paper"], ids=lambda page: page.stem
)
def test_a_finding_has_its_claim_figure_numbers_controls_and_limits(page):
    text = page.read_text(encoding="utf-8")
    assert re.match(r"# .+\n\n\*\*[^*]+\*\*\n\n!\[", text, re.DOTALL), "title, claim and figure come first"
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["Numbers", "Controls", "Limits"]
    assert "(../claims.md#" in text
    assert f"(findings/{page.name})" in (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")


def test_the_glossary_explains_the_words_of_the_front_page():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").casefold()
    words = (
        "pair fact implication told untold β margin ov-svm saddle certificate hallucination generalization"
    )
    for word in (*words.split(), "circuit block", "out-of-context reasoning", "m_train", "max-margin"):
        assert f"**{word}" in text or f", {word}" in text or word in text.split("**")[1::2], word
    entries = re.findall(r"<a id=\"[^\"]+\"></a>\*\*.*?(?=\n\n|\Z)", text, re.DOTALL)
    assert len(entries) >= 35
    assert all(len(entry.splitlines()) <= 3 for entry in entries)
