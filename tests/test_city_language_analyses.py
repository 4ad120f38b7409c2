"""The figure of SmolLM2 from city to language: claims follow from the JSON, also those that fail."""

import json

import numpy as np
import pytest

from analyses.whole_models import carriers, city_language
from analyses.whole_models.carriers_run import drawn_like

PARTS = [(f"L{k // 9}H{k % 9}", "head") for k in range(270)] + [(f"MLP {k}", "mlp") for k in range(30)]


def content(after, without_top=1.0):
    values = np.random.default_rng(0).standard_normal(300)
    names = [name for name, _ in PARTS]
    common = {
        "kinds": {**dict(PARTS), "b_U": "bias"},
        "total": 3.0,
        "all_heads": 3.0,
        "without_top": without_top,
        "without_random": [2.9, 2.6],
        "faithfulness": 0.5,
    }
    before = dict(zip(names, values.tolist(), strict=True))
    later = dict(zip(names, after(values).tolist(), strict=True))
    change = [[name, kind, 0.1, 0.2 + 0.1 * k, 0.1] for name in names for k, kind in enumerate(("OV", "QK"))]
    return {"before": {**common, "parts": before}, "after": {**common, "parts": later}, "change": change}


def judged(made):
    return [claim.holds for claim in city_language.claims(city_language.measured(made))]


def test_claims_hold_and_fail_as_the_criteria_say():
    assert judged(content(lambda values: 1.1 * values)) == [True, True, True]
    assert judged(content(lambda values: values[::-1])) == [False, False, True]
    assert judged(content(lambda values: values, without_top=2.5)) == [True, True, False]  # 0.5 < 2 x 0.4
    found = city_language.measured(content(lambda values: values))
    assert found["shared"] == 10
    assert found["rank correlation"] == pytest.approx(1.0)
    assert found["shared by chance, 99th percentile"] <= 3
    assert found["change"]["L0H0"] == ["QK", pytest.approx(3.0)]
    assert len(found["parts"]) == 300  # biases are no parts that carry


def test_the_figure_is_drawn_from_the_json_alone(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content(lambda values: 1.1 * values)))
    monkeypatch.setattr(city_language, "RESULT", path)
    city_language.draw(tmp_path, tmp_path)
    kept = json.loads((tmp_path / f"{city_language.PICTURE}.json").read_text())
    assert "top before" in json.dumps(kept)
    assert (tmp_path / f"{city_language.PICTURE}.png").stat().st_size > 10_000


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
