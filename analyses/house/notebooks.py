"""Runs the notebooks and saves them with their outputs: notebooks/*.py -> notebooks/*.ipynb.

The percent files are what is edited; the saved notebooks are what is read.

python -m analyses.house.notebooks   (make notebooks)
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import jupytext
import nbformat
from nbclient import NotebookClient

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
SECONDS = 300
"""Longest time of one cell."""


def executed(source: Path, folder: Path) -> NotebookNode:
    """A notebook with the outputs of its cells.

    source: The percent file.
    folder: Where it runs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; the message has its code and the traceback.
    """
    notebook = jupytext.read(source)
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return notebook


def saved(notebook: NotebookNode) -> str:
    """The text of a notebook's file: the same for the same code and outputs.

    What differs from machine to machine is left out: times of execution, the interpreter, warnings with
    their paths.
    """
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("execution", None)
        cell["outputs"] = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        if cell.cell_type != "code":
            del cell["outputs"]
    notebook.metadata.pop("language_info", None)
    return nbformat.writes(notebook) + "\n"


def main() -> None:
    for source in SOURCES:
        began = time.perf_counter()
        text = saved(executed(source, source.parent))
        source.with_suffix(".ipynb").write_text(text, encoding="utf-8")
        print(f"{source.stem}: {time.perf_counter() - began:.0f} s, {len(text) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
