"""Writes docs/gallery.md: every picture of figures/ with one sentence.

The sentence is the figure's own title, the entry "title" of its JSON; where there is none, what a page of
docs/ says of the picture, else the first sentence of the module that draws it.

python -m analyses.house.gallery   (make readme)
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from analyses.house.discovery import Found, find_figures

ROOT = Path(__file__).resolve().parents[2]
FIGURES, DOCS = ROOT / "figures", ROOT / "docs"
HEAD = """# Gallery

Every figure of the repository with one sentence. Below a picture stand the numbers that it shows and the
script that draws it: `ocr-interp reproduce --only SCRIPT`. What the figures mean is in the
[findings](findings.md); what of it holds, in the [claims](claims.md). This page is written by `make readme`.
"""


def gallery_page() -> str:
    """The whole page: a heading per study, then its figures in the order of the code."""
    said = sentences_of_pages()
    parts, study = [HEAD.rstrip("\n")], ""
    for found in find_figures():
        of_study, of_module = found.script.split(".")[0], first_sentence(found)
        entries = [
            entry(name, sentence(name, said, of_module), found)
            for name in found.load().pictures
            if (FIGURES / f"{name}.png").is_file()
        ]
        if entries and of_study != study:
            study = of_study
            parts.append(f"## {study}")
        parts += entries
    return "\n\n".join(parts) + "\n"


def entry(name: str, text: str, found: Found) -> str:
    """One figure: its picture, its sentence, its numbers and its script."""
    script = f"../analyses/{found.script.replace('.', '/')}.py"
    links = f"[numbers](../figures/{name}.json), [SVG](../figures/{name}.svg), [`{found.script}`]({script})"
    return f'<a id="{name}"></a>\n![{_alternative(text)}](../figures/{name}.png)\n\n{text} {links}'


def sentence(name: str, said: dict[str, str], of_module: str) -> str:
    """The sentence of a picture, which ends in a full stop."""
    numbers = FIGURES / f"{name}.json"
    content = json.loads(numbers.read_text(encoding="utf-8")) if numbers.is_file() else None
    own = content.get("title") if isinstance(content, dict) else None
    text = " ".join(str(own or said.get(name) or of_module).split())  # a title may be in lines
    return text if text.endswith((".", "?", "!")) else f"{text}."


def sentences_of_pages() -> dict[str, str]:
    """Name of a picture -> what the pages write beside it for those who cannot see it."""
    pages = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if path.name != "gallery.md")]
    shown = re.compile(r"!\[([^\]]+)\]\((?:\.\./)*figures/([^)]+)\.(?:png|svg)\)")
    found: dict[str, str] = {}
    for page in pages:
        for text, name in shown.findall(page.read_text(encoding="utf-8")):
            found.setdefault(name, " ".join(text.split()))
    return found


def first_sentence(found: Found) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(found.path.read_text(encoding="utf-8"))) or found.script
    return re.split(r"(?<=[.?!])\s+(?=[A-Z])", " ".join(text.split()), maxsplit=1)[0]


def _alternative(text: str) -> str:
    return text.replace("[", "(").replace("]", ")")


def main() -> None:
    (DOCS / "gallery.md").write_text(gallery_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
