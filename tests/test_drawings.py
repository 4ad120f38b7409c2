"""Pictures drawn from the numbers of their JSON: one sentence, readable, every legend entry occurs."""

import json
import sys
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb, to_rgba_array
from matplotlib.lines import Line2D
from matplotlib.text import Text
from mpl_toolkits.mplot3d import Axes3D
from PIL import Image

from analyses.house import drawing
from analyses.house.discovery import find_figures
from analyses.house.drawing import SMALLEST, WIDTH, Drawing, read_numbers
from ocr_interp.errors import UnknownNameError
from ocr_interp.viz.style import figure_style

FIGURES = Path(__file__).resolve().parents[1] / "figures"
SHOWN = [found for found in find_figures() if "drawings=" in found.path.read_text(encoding="utf-8")]
WIDEST = 6.9
"""Width in inches that no committed picture exceeds: that of a page, with what stands out at the sides."""

STILL_WIDE: set[str] = set()
"""Pictures that are still wider. Shorten this list; nothing may be added to it."""

BOTH = {"numbers": [0.123456789, 2.0]}


def a_line(numbers):
    fig, ax = plt.subplots(figsize=(WIDTH, 2), layout="constrained")
    ax.plot(numbers["numbers"], "o", label="a number")
    ax.legend()
    return fig


def unreadable(fig):
    """What a reader cannot read at the width of a page, in words."""
    fig.draw_without_rendering()  # laid out, without pixels
    found = []
    width = fig.get_tightbbox().width
    if width > WIDTH + 0.2:
        found.append(f"{width:.2f} in wide")
    for text in fig.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text.get_fontsize() < SMALLEST:
            found.append(f"{text.get_text()!r} in {text.get_fontsize():.1f} points")
    return found


def written(artist):
    """The texts of a figure that are drawn: no labels of axes that are off, or of ticks beyond the limits."""
    found = []
    for child in artist.get_children():
        if not child.get_visible() or (isinstance(child, Axis) and not child.axes.axison):
            continue
        if isinstance(child, Text) and child.get_text().strip():
            found.append(child)
        if isinstance(child, Axis):
            low, high = sorted(child.get_view_interval())
            slack = 1e-9 * (high - low)
            ticks = [*child.get_major_ticks(), *child.get_minor_ticks()]
            shown = [tick for tick in ticks if low - slack <= tick.get_loc() <= high + slack]
            found += [text for tick in shown for text in written(tick)]
            found += [text for text in (child.label, child.offsetText) if text.get_text().strip()]
        elif not isinstance(child, Axes3D):
            found += written(child)
    return list(dict.fromkeys(found))


def overlapping(fig):
    """Pairs of texts of which one covers a quarter of the other's height; those in space are left out."""
    fig.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in written(fig)]
    found = []
    for (one, a), (other, b) in combinations(boxes, 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if width > 2 and height > min(a.height, b.height) / 4:
            found.append((one, other))
    return found


def absent(fig):
    """Labels of legend entries whose marker, line or colour no panel has."""
    lines = [line for ax in fig.axes for line in ax.lines]
    patches = [patch for ax in fig.axes for patch in ax.patches]
    scattered = [one for ax in fig.axes for one in ax.collections if len(one.get_offsets())]
    colors = {to_rgb(patch.get_facecolor()) for patch in patches} | {
        to_rgb(line.get_color()) for line in lines
    }
    colors |= {to_rgb(color) for one in scattered for color in one.get_facecolor()}
    markers = {line.get_marker() for line in lines}
    styles = {line.get_linestyle() for line in lines}
    found = []
    for legend in [*fig.legends, *(ax.get_legend() for ax in fig.axes if ax.get_legend())]:
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            if isinstance(handle, Line2D):
                marked = handle.get_marker() not in ("None", "", None)
                there = handle.get_marker() in markers if marked else handle.get_linestyle() in styles
            else:
                there = to_rgb(to_rgba_array(handle.get_facecolor())[0]) in colors
            found += [] if there else [text.get_text()]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("found", SHOWN, ids=lambda found: found.script)
def test_a_picture_is_readable_and_says_the_sentence_of_its_json(found):
    figure = found.load()
    assert set(figure.drawings) <= set(figure.pictures)
    for name, one in figure.drawings.items():
        path = FIGURES / f"{name}.json"
        sentence = one.sentence(read_numbers(path))
        assert json.loads(path.read_text(encoding="utf-8"))["title"] == sentence, "draw it again"
        fig = one.picture(read_numbers(path))
        try:
            assert " ".join(fig.get_suptitle().split()) == sentence
            assert unreadable(fig) == []
            assert absent(fig) == []
            assert overlapping(fig) == []
        finally:
            plt.close(fig)


@pytest.mark.slow
def test_measuring_and_drawing_again_give_the_same_files(tmp_path):
    one = Drawing("Two numbers", a_line)
    one.write(tmp_path / "new", BOTH)
    assert json.loads((tmp_path / "new.json").read_text()) == {
        "title": "Two numbers",
        "numbers": [0.123457, 2.0],
    }
    one.write(tmp_path / "again", read_numbers(tmp_path / "new.json"))
    for suffix in (".png", ".svg", ".json"):
        assert (tmp_path / "new").with_suffix(suffix).read_bytes() == (tmp_path / "again").with_suffix(
            suffix
        ).read_bytes()
    Drawing("All digits", a_line, digits=None).write(tmp_path / "exact", BOTH)
    assert json.loads((tmp_path / "exact.json").read_text())["numbers"] == BOTH["numbers"]


def too_wide(folder):
    """Names of the pictures of a folder that are wider than a page at their resolution."""
    found = set()
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            if image.width / image.info["dpi"][0] > WIDEST:
                found.add(path.stem)
    return found


def test_committed_pictures_are_as_wide_as_a_page_but_for_those_that_are_named():
    assert too_wide(FIGURES) == STILL_WIDE, "draw a wide picture anew, or take one that is no longer wide off"


def without_sentence(folder):
    """Pictures whose JSON has no title, or one of fewer than four words."""
    found = {}
    for path in sorted(folder.glob("*.png")):
        numbers = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        title = numbers.get("title") if isinstance(numbers, dict) else None
        if not isinstance(title, str) or len(title.split()) < 4:
            found[path.stem] = title
    return found


def test_every_committed_picture_says_a_sentence():
    assert without_sentence(FIGURES) == {}, "make it a Drawing with a sentence as title"


def test_a_picture_without_a_sentence_is_found(tmp_path):
    contents = {"none": {"x": 1}, "label": {"title": "Beta by rank"}, "list": [1], "empty": {"title": ""}}
    for name, content in {**contents, "said": {"title": "Two factors deduce more"}}.items():
        (tmp_path / f"{name}.png").touch()
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert without_sentence(tmp_path) == {"none": None, "label": "Beta by rank", "list": None, "empty": ""}


@pytest.mark.slow
def test_a_title_may_be_chosen_by_the_numbers(tmp_path):
    def sentence(numbers):
        return "It rises with the number" if numbers["numbers"][-1] > 1 else "It does not rise"

    one = Drawing(sentence, a_line)
    for last, said in ((2.0, "It rises with the number"), (0.5, "It does not rise")):
        one.write(tmp_path / "chosen", {"numbers": [0.1, last]})
        assert json.loads((tmp_path / "chosen.json").read_text())["title"] == said
        assert one.picture(read_numbers(tmp_path / "chosen.json")).get_suptitle() == said


@pytest.mark.slow
def test_a_wide_picture_is_found(tmp_path):
    for name, width in (("page", WIDTH), ("wide", WIDEST + 0.2)):
        fig, ax = plt.subplots(figsize=(width, 1))
        ax.axis("off")
        fig.savefig(tmp_path / f"{name}.png", dpi=200)
        plt.close(fig)
    assert too_wide(tmp_path) == {"wide"}


def test_the_checks_find_a_wide_picture_small_text_and_an_absent_entry():
    with figure_style():
        fig, ax = plt.subplots(figsize=(12, 3))
        ax.plot([0, 1], "x")
        ax.text(0, 0, "tiny", fontsize=4)
        ax.legend(
            handles=[Line2D([], [], ls="", marker="D", label="nowhere"), Line2D([], [], label="a line")]
        )
    assert absent(fig) == ["nowhere", "a line"]
    assert [text.split(" ")[0] for text in unreadable(fig)][1:] == ["'tiny'"]
    plt.close(fig)


def test_texts_over_each_other_are_found_and_those_that_are_not_drawn_are_not():
    with figure_style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3), layout="constrained")
        left.plot([0, 1], label="a line")
        left.set_xlabel("first")
        fig.supxlabel("below both", fontsize=9)
        assert overlapping(fig) == []
        fig.legend(loc="outside lower center")
        assert overlapping(fig) == [("below both", "a line")]
        right.set_xticks([0.5], ["a tick"])
        right.text(0.5, -0.05, "here", ha="center", va="top")
        assert {"here", "a tick"} in [set(pair) for pair in overlapping(fig)]
        right.axis("off")
        assert overlapping(fig) == [("below both", "a line")]
        right.text(0.5, -0.05, "there", ha="center", va="top")
        assert ("here", "there") in overlapping(fig)
    plt.close(fig)


def test_an_unknown_picture_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["drawing", "phase_entrys", "--figures", str(tmp_path)])
    with pytest.raises(UnknownNameError, match="picture that is drawn from its numbers"):
        drawing.main()
