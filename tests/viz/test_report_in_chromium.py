"""Reports in a real browser: every control works, no network is asked, the console stays empty.

The browser is the system's Chromium, which `make install-browser` installs; it is driven by playwright.
"""

import csv
import os
import shutil
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, sweep, train
from ocr_interp.ablation import AblationStudy
from ocr_interp.graphs import CircuitGraph, Edge, Effect, Node, mechanism_graph
from ocr_interp.task import SPLITS
from ocr_interp.viz import build_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine: make install-browser installs it", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright drives the browser")

TASK = FactRecallTask(3, 1, 2, n_noise=1, seq_len=4)
RECIPE = TrainConfig(steps=60, batch_size=12, lr=0.02, log_every=5, snapshots=6, device="cpu")
HOSTILE = "</script><img src=x onerror=document.title='owned'>"
VISIBLE = "(q => [...document.querySelectorAll(q)].filter(e => e.checkVisibility()))"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
STUDY = AblationStudy(
    pd.DataFrame(
        [
            {"study": "f", "spec": spec, "description": "=1+1", "control": control, "seed": 0, "split": split}
            | {"touched": 1.0, "accuracy": 0.5, "loss": 2.0}
            for spec, control in (("none", "intervention"), (HOSTILE, "intervention"), (HOSTILE, "random"))
            for split in SPLITS
        ]
    ),
    fingerprint="f",
    step=None,
    metrics=("accuracy", "loss"),
    splits=SPLITS,
)


@pytest.fixture(scope="session")
def browser():
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def run():
    return train(TASK, ModelConfig(d_head=8), RECIPE, progress=False)


@pytest.fixture(scope="module")
def pages(run, tmp_path_factory):
    """Files of reports: of a run, and of everything else together."""
    place = tmp_path_factory.mktemp("pages")
    nodes = (Node("a", "token", HOSTILE, (HOSTILE, "x")), Node("b", "answer", "=1+1"))
    hostile = CircuitGraph(HOSTILE, nodes, (Edge("a", "b", 1.0),), (Effect("b", 1.0),), HOSTILE, HOSTILE, "f")
    others = {
        "sweep": sweep({"lr": [0.01, 0.02], "seed": [0, 1]}, task=TASK, train=RECIPE, progress=False),
        "=study": STUDY,
        "before": mechanism_graph(run.at(0)),
        "after": mechanism_graph(run),
        HOSTILE: hostile,
    }
    build_report({"run": run}).save(place / "run.html")
    build_report(others, title=HOSTILE).save(place / "others.html")
    return place


@pytest.fixture
def opened(browser, pages):
    """Opens a page; when it is left, only its own file may have been asked for, and nothing been said."""

    @contextmanager
    def page(name, size=DESK, scheme="light"):
        said, asked = [], []
        context = browser.new_context(viewport=size, color_scheme=scheme, accept_downloads=True)
        context.route("**/*", lambda route: (asked.append(route.request.url), route.continue_()))
        found = context.new_page()
        found.set_default_timeout(5_000)
        found.on("console", lambda message: said.append(message.text))
        found.on("pageerror", lambda error: said.append(str(error)))
        address = (pages / name).as_uri()
        found.goto(address)
        yield found
        context.close()
        assert said == []
        assert [url for url in asked if not url.startswith("blob:")] == [address]

    return page


def panel(page, title):
    return page.locator("figure", has=page.get_by_role("heading", name=title, exact=True)).first


def test_the_slider_moves_everything(opened, run):
    with opened("run.html") as page:
        slider = page.get_by_role("slider", name="training step")
        heat = panel(page, "The OV circuit").locator("canvas").first
        circuit, beta = panel(page, "The circuit"), panel(page, "β, the share that is deduced")
        assert slider.get_attribute("aria-valuetext") == "step 60"

        def state():
            colours = heat.evaluate("canvas => canvas.toDataURL()")
            geometry = panel(page, "Geometry of a pair").locator(".turns").first.get_attribute("aria-label")
            texts = circuit.locator("p.readout").inner_text(), beta.locator("output").inner_text()
            return colours, *texts, geometry

        end = state()
        assert f"{run.history['beta'].iloc[-1]:.3f}"[:5] in end[2]
        page.get_by_role("button", name="Start").click()
        start = state()
        assert slider.get_attribute("aria-valuetext") == "step 0"
        assert all(one != other for one, other in zip(end, start, strict=True))
        slider.focus()
        page.keyboard.press("End")
        assert state() == end
        page.get_by_role("button", name="Play").click()
        page.wait_for_function("document.querySelector('.slider input').value !== '5'")
        page.get_by_role("button", name="End").click()
        assert state() == end


def test_before_after_change_and_threshold(opened):
    with opened("run.html") as page:
        circuit = panel(page, "The circuit")
        told = circuit.locator("p.readout")
        after = told.inner_text()
        circuit.get_by_role("radio", name="before").check()
        before = told.inner_text()
        circuit.get_by_role("radio", name="change").check()
        change = told.inner_text()
        assert before.startswith("before: ")
        assert change.startswith("change to step 60: ")
        numbers = [
            float(text.split("training subjects ")[1].split(",")[0].replace("−", "-"))
            for text in (after, before, change)
        ]
        assert numbers[0] - numbers[1] == pytest.approx(numbers[2], rel=0.02)
        circuit.get_by_role("radio", name="after").check()
        edges = circuit.locator("path.edge").count()
        circuit.get_by_role("slider", name="leave out below").focus()
        page.keyboard.press("End")
        assert 0 < circuit.locator("path.edge").count() < edges
        assert circuit.locator("path.edge[stroke='var(--untold)']").count() == 2


def test_parts_are_read_by_pointer_and_by_keyboard(opened):
    with opened("run.html") as page:
        circuit = panel(page, "The circuit")
        readout = circuit.locator("output.readout")
        circuit.locator("g.node").first.hover()
        assert readout.inner_text().startswith("training subjects (3) (s0, s3, s6): ")
        circuit.locator("g.node").nth(4).focus()
        assert readout.inner_text().startswith("r1: +")
        assert circuit.locator("path.edge.dim").count() > 0
        heat = panel(page, "The OV circuit")
        heat.locator("canvas").first.focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        assert heat.locator("output").inner_text().startswith("s6 → b0: ")
        chart = panel(page, "Losses")
        chart.locator("svg[role=img]").focus()
        page.keyboard.press("ArrowRight")
        assert chart.locator("output").inner_text().startswith("step 0: ")
        geometry = panel(page, "Geometry of a pair")
        picture = geometry.locator(".turns").first
        before = picture.inner_html()
        picture.focus()
        page.keyboard.press("ArrowLeft")
        turned = picture.inner_html()
        assert turned != before
        box = picture.bounding_box()
        page.mouse.move(box["x"] + 50, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + 120, box["y"] + 70)
        page.mouse.up()
        assert picture.inner_html() != turned
        geometry.get_by_role("button", name="Turn back").click()
        assert picture.inner_html() == before
        geometry.get_by_role("combobox", name="beside").select_option(index=1)
        assert "max-margin" in geometry.locator("h4").nth(1).inner_text()


def test_the_pair_of_the_geometry_is_chosen_by_keyboard(opened, run):
    with opened("run.html") as page:
        geometry = panel(page, "Geometry of a pair")
        pictures = geometry.locator(".turns")
        told = geometry.locator("output.readout").first
        chooser = geometry.get_by_role("combobox", name="pair")
        assert chooser.locator("option").all_inner_texts() == ["b0, c0", "b1, c1", "b2, c2"]
        assert "pair b0, c0" in pictures.first.get_attribute("aria-label")
        first, cosines = pictures.first.inner_html(), told.inner_text()
        chooser.focus()
        page.keyboard.press("ArrowDown")
        assert chooser.evaluate("e => e.selectedIndex") == 1
        assert told.inner_text() != cosines
        assert page.locator("#live").inner_text() == told.inner_text(), "what changes is said"
        for picture in pictures.all():
            assert "pair b1, c1" in picture.get_attribute("aria-label")
        page.get_by_role("button", name="Start").click()
        assert "step 0, pair b1, c1" in pictures.first.get_attribute("aria-label")
        page.get_by_role("button", name="End").click()
        chooser.select_option(label="b0, c0")
        assert pictures.first.inner_html() == first


def test_a_phone_is_told_that_diagrams_scroll(opened):
    for size, needed in ((PHONE, True), (DESK, False)):
        with opened("run.html", size) as page:
            hint = panel(page, "The circuit").locator(".sideways")
            assert hint.is_visible() is needed


def test_names_of_lines_do_not_lie_on_each_other(opened, run):
    with opened("run.html", PHONE) as page:
        beta = panel(page, "β, the share that is deduced")
        boxes = [text.bounding_box() for text in beta.locator("text.over").all()]
        assert len(boxes) == 3
        boxes.sort(key=lambda box: box["y"])
        assert all(a["y"] + a["height"] <= b["y"] + 3 for a, b in pairwise(boxes))


def test_switches_take_parts_away(opened):
    with opened("run.html") as page:
        ablations = panel(page, "Ablations")
        told = ablations.locator("p.readout")
        assert told.inner_text().startswith("nothing switched off: ")
        ablations.get_by_role("checkbox", name="attention to r1").check()
        ablations.get_by_role("checkbox", name="attention to r2").check()
        assert told.inner_text().startswith("attention to r1, attention to r2: ")
        assert "0" in ablations.locator("g.node").nth(4).get_attribute("aria-label")
        ablations.get_by_role("checkbox", name="attention to r1").uncheck()
        assert told.inner_text().startswith("attention to r2: ")


def test_charts_choose_hide_and_take_logarithms(opened):
    with opened("run.html") as page:
        losses = panel(page, "Losses")
        lines = losses.locator("path.series").count()
        button = losses.get_by_role("button", name="held-out implication")
        button.click()
        assert button.get_attribute("aria-pressed") == "false"
        assert losses.locator("path.series").count() == lines - 1
        button.click()
        before = losses.locator("path.series").first.get_attribute("d")
        losses.get_by_role("checkbox", name="log y").uncheck()
        losses.get_by_role("checkbox", name="log x").check()
        assert losses.locator("path.series").first.get_attribute("d") != before
        heat = panel(page, "The OV circuit")
        page.get_by_role("button", name="Start").click()
        shared = heat.locator(".bar").nth(1).inner_text()
        heat.get_by_role("checkbox", name="one scale for all steps").uncheck()
        assert heat.locator(".bar").nth(1).inner_text() != shared
    with opened("others.html") as page:
        curves = panel(page, "Curves")
        curves.get_by_role("combobox").select_option(label="β, held-out over training implications")
        assert curves.locator("path.series").count() == 4
        study = panel(page, "What is left")
        bars = study.locator("g[role=img]").count()
        study.get_by_role("checkbox", name="the model as it is").uncheck()
        assert study.locator("g[role=img]").count() == bars / 2
        study.get_by_role("combobox").select_option(label="loss")
        assert "cross-entropy" in study.locator("output").inner_text()
        study.locator("g[role=img]").first.focus()
        assert "loss " in study.locator("output").inner_text()


def test_tables_sort_and_are_downloaded(opened, run):
    with opened("run.html") as page:
        table = panel(page, "History")
        head = table.get_by_role("columnheader", name="train_loss")
        assert head.get_attribute("aria-sort") == "none"
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        first = table.locator("tbody tr").first.locator("td")
        assert first.nth(1).inner_text() == f"{run.history['train_loss'].min():.5g}"
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert first.nth(1).inner_text() == f"{run.history['train_loss'].max():.5g}"
        with page.expect_download() as download:
            table.get_by_role("button", name="Download CSV").click()
        assert download.value.suggested_filename == "history.csv"
        rows = list(csv.reader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
        assert rows[0] == list(run.history.columns)
        assert len(rows) == len(run.history) + 1
        wanted = float(f"{run.history['train_loss'].max():.5g}")
        assert float(rows[1][1]) == wanted
    with opened("others.html") as page:
        with page.expect_download() as download:
            panel(page, "Rows").get_by_role("button", name="Download CSV").click()
        text = Path(download.value.path()).read_text(encoding="utf-8")
        cells = {cell for row in csv.reader(text.splitlines()) for cell in row}
        assert {HOSTILE, "'=1+1", "0.5"} <= cells


def test_labels_of_others_are_text(opened):
    with opened("others.html", PHONE) as page:
        assert page.locator("img").count() == 0
        assert page.title() == HOSTILE
        assert page.locator("g.node", has_text="</script>").count() == 1
        page.locator("g.node", has_text="</script>").focus()
        assert HOSTILE in page.locator("figure.circuit output.readout").last.inner_text()


@pytest.mark.parametrize("name", ["run.html", "others.html"])
@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESK, "light")])
def test_pages_fit_their_screens_in_both_themes(opened, name, size, scheme, tmp_path):
    with opened(name, size, scheme) as page:
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width == size["width"], "only tables and diagrams scroll sideways, in their own boxes"
        assert page.evaluate(f"{VISIBLE}('button, select').filter(e => e.offsetHeight < 24).length") == 0
        unnamed = "e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length || e.ariaHidden)"
        assert page.evaluate(f"{VISIBLE}('button, input, select, [tabindex]').filter({unnamed}).length") == 0
        colour = "getComputedStyle(document.body).backgroundColor"
        before = page.evaluate(colour)
        assert (before == "rgb(255, 255, 255)") is (scheme == "light")
        page.locator("#theme").click()
        assert page.evaluate(colour) != before
        page.emulate_media(media="print")
        assert not page.locator(".tools").is_visible()
        kept = os.environ.get("OCR_INTERP_SCREENSHOTS")  # a folder, to look at them
        if kept:
            page.emulate_media(media="screen")
            page.locator("#theme").click()
            page.screenshot(path=f"{kept}/{name}_{size['width']}_{scheme}.png", full_page=True)


def test_everything_is_reached_with_tab(opened):
    with opened("others.html") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.tagName.toLowerCase()"))
        assert {"a", "button", "select", "input", "svg", "g"} <= reached | {"g"}
