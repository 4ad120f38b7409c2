"""The figure of SmolLM2 from city to language: claims follow from the JSON, also those that fail."""

import json

import numpy as np
import pytest

from analyses.whole_models import city_circuit, city_language
from analyses.whole_models.city_circuit_criteria import (
    FAITHFUL,
    NODES_FAITHFUL,
    NODES_RANDOM_FAITHFUL,
    RANDOM_FAITHFUL,
)

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


@pytest.mark.slow
def test_the_figure_is_drawn_from_the_json_alone(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content(lambda values: 1.1 * values)))
    monkeypatch.setattr(city_language, "RESULT", path)
    city_language.draw(tmp_path, tmp_path)
    kept = json.loads((tmp_path / f"{city_language.PICTURE}.json").read_text())
    assert "top before" in json.dumps(kept)
    assert (tmp_path / f"{city_language.PICTURE}.png").stat().st_size > 10_000


def sizes(faithfulness, others=None, random=0.0, edges=5000, of_nodes=NODES_FAITHFUL, nodes=60, drawn=0.0):
    one = {"edges": edges, "heads": 9, "found on": faithfulness, "others": others or faithfulness}
    small = {"edges": 20, "heads": 2, "found on": 0.1, "others": 0.1}
    of_random = {"random": {"same kinds": [random, random], "connected": [0.0, 0.1]}}
    ways = dict.fromkeys(city_circuit.NODE_WAYS, of_nodes)
    few = {"nodes": 5, "edges": 20, **dict.fromkeys(ways, 0.1)}
    enough = {"nodes": nodes, "edges": 900, **ways, "random": {"sets": [drawn, drawn]}}
    return {
        "sizes": {"20": small, "5120": one | of_random},
        "of nodes": {"sizes": {"5": few, str(nodes): enough}},
        "n_edges": 70_651,
        "full": 2.0,
        "empty": -2.0,
        "measure of others": [2.1, -2.1],
        "method": "EAP-IG, 5 steps",
    }


def test_the_circuit_by_size_holds_and_fails_as_its_criteria_say():
    def held(made):
        return [claim.holds for claim in city_circuit.claims(city_circuit.measured(made))]

    assert held(sizes(FAITHFUL)) == [True, True, True, True]
    assert held(sizes(FAITHFUL, edges=8000)) == [False, True, True, True]
    assert held(sizes(FAITHFUL, random=RANDOM_FAITHFUL + 0.01)) == [True, False, True, True]
    fails = sizes(FAITHFUL, others=FAITHFUL - 0.01)
    assert held(fails) == [False, False, True, True], "no circuit, so no random ones"
    assert held(sizes(FAITHFUL, of_nodes=NODES_FAITHFUL - 0.01)) == [True, True, False, False]
    assert held(sizes(FAITHFUL, nodes=80)) == [True, True, False, True]
    assert held(sizes(FAITHFUL, drawn=NODES_RANDOM_FAITHFUL + 0.01)) == [True, True, True, False]
    assert city_circuit.claims({}) == []
