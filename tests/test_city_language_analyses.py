"""The figure of SmolLM2 from city to language: claims follow from the JSON, also those that fail."""

import json

import numpy as np
import pytest

from analyses.whole_models import city_language

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
