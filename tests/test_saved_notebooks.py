"""The notebooks of notebooks/: saved with outputs of the code that stands beside them, and they run."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from analyses.house.notebooks import SOURCES, executed, saved

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(params=SOURCES, ids=lambda source: source.stem)
def source(request):
    return request.param


def test_there_are_two():
    assert [source.stem for source in SOURCES] == ["the_paper_in_twenty_minutes", "your_own_model"]


def test_a_saved_notebook_holds_the_cells_of_its_source(source):
    written, kept = jupytext.read(source), nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert [(cell.cell_type, cell.source) for cell in kept.cells] == [
        (cell.cell_type, cell.source) for cell in written.cells
    ], "run make notebooks"


def test_a_saved_notebook_shows_its_outputs(source):
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run once, from the top"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [
        output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert len(text) < 1_000_000
    assert str(ROOT) not in text
    assert str(Path.home()) not in text


def test_links_of_notebooks_lead_somewhere(source):
    cells = [cell.source for cell in jupytext.read(source).cells if cell.cell_type == "markdown"]
    links = re.findall(r"\]\((?!http)([^)#]+)", "\n".join(cells))
    assert len(links) >= 3
    for link in links:
        assert (source.parent / link).exists(), link


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client", "ignore::RuntimeWarning:zmq")
def test_every_cell_runs(source, tmp_path, monkeypatch):
    """From another folder, since nobody has to start it in ours; a cell that raises ends the test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = executed(source, tmp_path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert nbformat.reads(saved(notebook), as_version=4).cells


def test_what_differs_between_runs_is_not_saved():
    cell = nbformat.v4.new_code_cell("1 + 1", metadata={"execution": {"started": "now"}})
    cell.outputs = [nbformat.v4.new_output("stream", name="stderr", text="a warning of /home")]
    notebook = nbformat.v4.new_notebook(
        cells=[cell], metadata={"language_info": {"name": "python", "version": "3"}}
    )
    text = saved(notebook)
    assert "now" not in text
    assert "/home" not in text
    assert "language_info" not in text
