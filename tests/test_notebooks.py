"""What a notebook shows: tables and diagrams with labels escaped, and bars of progress."""

import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import pandas as pd
import pytest

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, solve, sweep, train
from ocr_interp.ablation import Site, Zero, run_ablation_study
from ocr_interp.graphs import CircuitGraph, Edge, Effect, Node, mechanism_graph
from ocr_interp.running.progress import progress_bar
from ocr_interp.storage.notebooks import MOST_ROWS, html_table

TASK = FactRecallTask(3, 1, 2, n_noise=1, seq_len=4)
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run():
    recipe = TrainConfig(steps=4, batch_size=12, snapshots=2, device="cpu")
    return train(TASK, ModelConfig(d_head=4), recipe, progress=False)


SHOWN = {
    "run": (lambda run: run, "told"),
    "snapshot": (lambda run: run.at(0), "told"),
    "solution": (lambda run: solve(TASK), "told"),
    "sweep": (
        lambda run: sweep({"seed": [0, 1]}, task=TASK, train=run.config.train, progress=False),
        "train_loss",
    ),
    "study": (
        lambda run: run_ablation_study(
            run, {"no r1": Zero().at(Site("blocks.0.attn.hook_v", tokens=("r1",)))}
        ),
        "accuracy",
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_results_with_a_table_show_it(name, run):
    make, column = SHOWN[name]
    result = make(run)
    shown = result._repr_html_()
    assert "<table" in shown
    assert f"<th>{column}</th>" in shown
    assert type(result).__name__ in shown


def test_texts_of_a_table_are_escaped_and_long_ones_are_cut():
    table = pd.DataFrame({HOSTILE: [HOSTILE] * (3 * MOST_ROWS)})
    shown = html_table(HOSTILE, table)
    assert "<img" not in shown
    assert "</script>" not in shown
    assert shown.count("<tr") < 2 * MOST_ROWS
    assert f"{3 * MOST_ROWS} rows" in shown


def test_a_graph_shows_its_diagram(run):
    root = ElementTree.fromstring(mechanism_graph(run)._repr_svg_().split("?>", 1)[1].split(">", 1)[1])
    assert root.tag.endswith("svg")


def test_a_hostile_label_is_text_in_the_diagram_and_no_edges_is_no_picture():
    nodes = (Node("a", "token", HOSTILE), Node("b", "answer", "\x00"))
    graph = CircuitGraph(HOSTILE, nodes, (Edge("a", "b", 1.0),), (Effect("b", 1.0),), "", "", "f")
    shown = graph._repr_svg_()
    assert "<img" not in shown
    assert "\x00" not in shown
    empty = CircuitGraph("t", (Node("b", "answer", "b"),), (), (Effect("b", 0.0),), "", "", "f")
    assert empty._repr_svg_() is None


class Notebook:
    """What IPython gives in a notebook: a shell with a kernel, and displays that can be drawn again."""

    def __init__(self, monkeypatch):
        self.drawn = []
        shown = SimpleNamespace(
            HTML=lambda text: text, display=lambda text, display_id: self._displayed(text, display_id)
        )
        shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()), display=shown)
        monkeypatch.setitem(sys.modules, "IPython", shell)
        monkeypatch.setitem(sys.modules, "IPython.display", shown)

    def _displayed(self, text, display_id):
        assert display_id is True
        self.drawn.append(text)
        return SimpleNamespace(update=self.drawn.append)


def test_a_bar_in_a_notebook_is_drawn_in_its_place(monkeypatch, capsys):
    notebook = Notebook(monkeypatch)
    monkeypatch.setattr("ocr_interp.running.progress.FRAME", 0.0)
    with progress_bar("boxes", 4, done=1) as move:
        move(3, "two <b>red</b> open")
    assert len(notebook.drawn) == 3
    assert 'value="1" max="4"' in notebook.drawn[0]
    assert 'value="3" max="4"' in notebook.drawn[-1]
    assert "two &lt;b&gt;red&lt;/b&gt; open" in notebook.drawn[-1]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("show", [False, "lines"])
def test_a_notebook_shows_no_bar_that_was_not_wanted(show, monkeypatch):
    notebook = Notebook(monkeypatch)
    with progress_bar("boxes", 4, show=show) as move:
        move(3, "")
    assert notebook.drawn == []
