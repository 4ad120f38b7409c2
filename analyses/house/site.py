"""The site of docs/: what lies outside of docs/ is brought in, and links lead to it (a hook of mkdocs.yml).

README.md is the home page, CHANGELOG.md and its like are pages, figures are copied, and files that a page
links to (scripts, tests) are pages of their own under source/. The pages of the API follow from the stubs
that list the public names, so that no name can be left out.

make docs
"""

from __future__ import annotations

import ast
import os.path
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import griffe

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
FRONT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Files of the repository's root -> pages."""
REGISTRIES = {"maps": ("maps", "base.LinearMap"), "optim": ("optimizers", "base.OptimizerKind")}
"""Namespaces without a stub -> their public names."""
FENCE = re.compile(r"^(```|~~~).*?^\1[ ]*$", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^>>> .*(?:\n[^\n]+)*", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")


def place(path: str) -> str:
    """Where a file of the repository stands on the site.

    path: Its path from the root.
    """
    if path in FRONT:
        return FRONT[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("figures/"):
        return path
    return f"source/{path}.md"


def targets(text: str, home: str) -> list[str]:
    """Files of the repository that a page links to, by path from the root.

    text: The page.
    home: The page's own path from the root.
    """
    found = (match[1] for match in LINK.finditer(FENCE.sub("", text)))
    return list(dict.fromkeys(_from_root(link, home) for link in found))


def relinked(text: str, home: str) -> str:
    """The page with links as the site needs them; code keeps its brackets.

    text: The page.
    home: The page's own path from the root.
    """
    here = PurePosixPath(place(home)).parent

    def moved(match: re.Match[str]) -> str:
        there = place(_from_root(match[1], home))
        return os.path.relpath(there, here) + (match[2] or "")

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(moved, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(moved, text[end:])])


def _from_root(link: str, home: str) -> str:
    return os.path.normpath(PurePosixPath(home).parent / link)


def namespaces() -> dict[str, list[str]]:
    """Public namespace -> its public names with the modules that define them, as the stubs list them."""
    found: dict[str, list[str]] = {}
    for stub in sorted((ROOT / "ocr_interp").rglob("__init__.pyi")):
        namespace = ".".join(stub.parent.relative_to(ROOT).parts)
        found[namespace] = [
            f"{namespace}.{line.module}.{alias.name}"
            for line in ast.parse(stub.read_text(encoding="utf-8")).body
            if isinstance(line, ast.ImportFrom) and line.module
            for alias in line.names
        ]
    for folder, names in REGISTRIES.items():
        found[f"ocr_interp.{folder}"] = [f"ocr_interp.{folder}.{name}" for name in names]
    found["ocr_interp.errors"] = []
    return found


def api_page(namespace: str, of_all: dict[str, list[str]]) -> str:
    """The reference of one namespace: its docstring, then every public name with signature and docstring.

    A name that a smaller namespace has too is explained there, and linked.

    namespace: Which one.
    of_all: As `namespaces` gives them.
    """
    head = f"# {namespace}\n\n::: {namespace}\n    options:\n      show_root_heading: false\n"
    head += "      heading_level: 1\n"
    if not of_all[namespace]:
        return head
    parts, elsewhere = [f"{head}      members: false\n"], []
    for name in of_all[namespace]:
        smaller = [other for other in of_all if len(other) > len(namespace) and name in of_all[other]]
        if smaller:
            elsewhere.append(f"- [`{name.rpartition('.')[2]}`][{name}], also in `{smaller[0]}`\n")
        else:
            parts.append(f"\n::: {name}\n")
    return "".join([parts[0], "\n", *elsewhere, *parts[1:]])


def with_examples_as_code(docstring: str) -> str:
    """The docstring with its doctests fenced; else `>>>` would be quotes and lists in their output links.

    docstring: As the source has it, without its indent.
    """
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", docstring)


class ExamplesAsCode(griffe.Extension):
    """Fences the doctests of every docstring (an extension of mkdocstrings in mkdocs.yml)."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Called by griffe for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = with_examples_as_code(obj.docstring.value)


def source_page(path: str) -> str:
    """A file of the repository as a page, left out of the search."""
    code = (ROOT / path).read_text(encoding="utf-8")
    kind = {".py": "python", ".json": "json"}.get(Path(path).suffix, "text")
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n~~~~{kind}\n{code.rstrip()}\n~~~~\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds every file that the pages need."""
    from mkdocs.structure.files import File

    texts = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    texts |= {path: (ROOT / path).read_text(encoding="utf-8") for path in FRONT}
    for path, page in FRONT.items():
        files.append(File.generated(config, page, content=texts[path]))
    public = namespaces()
    for namespace in public:
        files.append(File.generated(config, f"api/{namespace}.md", content=api_page(namespace, public)))
    wanted = {target for home, text in texts.items() for target in targets(text, home)}
    for path in sorted(wanted - texts.keys()):
        there, origin = place(path), ROOT / path
        if files.get_file_from_path(there) is not None or not origin.is_file():
            continue  # it is there already, or the link leads nowhere, which the build says
        if there == path:
            files.append(File.generated(config, there, abs_src_path=str(origin)))
        else:
            files.append(File.generated(config, there, content=source_page(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of pages that are read from outside of the site lead to their places on it."""
    path = page.file.src_uri
    if path.startswith(("api/", "source/")):
        return markdown
    home = {there: here for here, there in FRONT.items()}.get(path, f"docs/{path}")
    return relinked(markdown, home)
