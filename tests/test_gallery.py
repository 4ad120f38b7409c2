"""The gallery has every picture with one sentence: the figure's own title first."""

import json
import re
from pathlib import Path

from analyses.house import gallery

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


def test_every_picture_is_in_the_gallery():
    shown = re.findall(r"^!\[.+\]\(\.\./figures/(.+)\.png\)$", PAGE, re.MULTILINE)
    assert sorted(shown) == sorted(path.stem for path in (ROOT / "figures").glob("*.png")), "run make readme"


def test_a_sentence_is_the_figures_own_else_that_of_a_page_else_of_its_module(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "FIGURES", tmp_path)
    (tmp_path / "own.json").write_text(json.dumps({"title": "It\nrises"}))
    (tmp_path / "list.json").write_text("[]")
    said = {"own": "of a page", "list": "Of a page."}
    assert gallery.sentence("own", said, "of its module") == "It rises."
    assert gallery.sentence("list", said, "of its module") == "Of a page."
    assert gallery.sentence("absent", said, "Does it?") == "Does it?"


def test_pages_say_something_of_pictures():
    found = gallery.sentences_of_pages()
    assert found["figure_3_losses"].startswith("Losses of told facts and implications")
