"""What carries city to language when it is patched: claims and picture from numbers made by hand."""

import json

import numpy as np

from analyses.whole_models import carriers, city_columns
from analyses.whole_models.carriers_run import drawn_like
from analyses.whole_models.city_columns_criteria import KEPT

PARTS = [(f"L{k // 9}H{k % 9}", "head") for k in range(270)] + [(f"MLP {k}", "mlp") for k in range(30)]


def patched(together=0.8, random=0.1, shared=True):
    generator = np.random.default_rng(1)
    names = [name for name, _ in PARTS]
    result = {}
    for when in carriers.TIMES:
        start = 0 if shared or when == "before" else 20
        result[when] = {
            "nodes": names,
            "shares": {"city": generator.random(300).tolist(), "after": generator.random(300).tolist()},
            "top": names[start : start + 10],
            "lost_together": together,
            "lost_random": [0.5 * random, random],
        }
    return result


def test_carriers_are_judged_by_what_was_written_before():
    def judge(made):
        return [claim.holds for claim in carriers.claims(carriers.measured(made))]

    assert judge(patched()) == [True, True, True]
    assert judge(patched(together=0.3, shared=False)) == [False, False, False]
    assert judge(patched(random=0.3)) == [True, False, True]
    assert carriers.claims({}) == []


def test_carriers_are_drawn_from_the_json_alone(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(patched()))
    monkeypatch.setattr(carriers, "RESULT", path)
    carriers.draw(tmp_path, tmp_path)
    assert (tmp_path / f"{carriers.PICTURE}.png").stat().st_size > 10_000


def test_random_nodes_are_of_the_carriers_layers():
    nodes = [(layer, head) for layer in range(4) for head in (0, 1, 2, None)]
    top = [(1, 0), (1, 2), (3, None), (0, 0), (0, 1), (0, 2)]
    drawn = drawn_like(top, nodes, np.random.default_rng(0))
    layers = [layer for layer, head in drawn if head is not None]
    assert sorted(layers) == [0, 0, 0, 1, 1]
    assert [node for node in drawn if node[1] is None] == [(2, None)], "the nearest MLP that is none of them"


def columns(few=0.8, many=0.4, random=0.2):
    curve = [few if count == 10 else many if count == 30 else 1.0 for count in KEPT]
    one = dict.fromkeys(("city", "after", "both"), curve) | {"random after": [0.0, random]}
    return {"kept": list(KEPT), "before": one, "after": one}


def test_columns_are_judged_by_what_was_written_before():
    def judge(made):
        return [claim.holds for claim in city_columns.claims(made)]

    assert judge(columns()) == [True, True, True]
    assert judge(columns(few=0.4, many=0.6, random=0.3)) == [False, False, False]
    assert city_columns.claims({}) == []
    assert city_columns.sentence(columns()).endswith("keep most of its language")
    assert city_columns.sentence(columns(few=0.4)).startswith("How much")


def test_columns_are_drawn_from_the_json_alone(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(columns()))
    monkeypatch.setattr(city_columns, "RESULT", path)
    city_columns.draw(tmp_path, tmp_path)
    assert (tmp_path / f"{city_columns.PICTURE}.png").stat().st_size > 10_000
