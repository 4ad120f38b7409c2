"""Figures of what is inside: drawn from the JSONs alone, with the numbers that are in them."""

import json

import pytest

from ocr_interp.errors import RunError

ENDS = ("json", "png", "svg")
CONTRASTS = ("facts to implications", "names to facts")


def a_run(method, seed, held_out, circuits=True):
    """Two cuts, and the circuits of two most changed and one other head."""
    ranks = {"training_fact": 0.0, "held_out_fact": 0.25, "training_implication": None}
    cuts = [
        {"kind": kind, "what": what, "rank": {**ranks, "held_out_implication": held_out}}
        for kind, what in (("none", "after fine-tuning"), ("heads", "2 most changed heads zeroed"))
    ]
    values = [[0.0, 1.0, 2.0 + seed], [1.0, 1.0, -1.0], [0.5, None, None]]
    shares = [[0.5, 0.5, 0.01], [0.5, 0.5, 0.8], [0.5, None, None]]
    found = {
        "n_chosen": 2,
        "contrasts": dict.fromkeys(CONTRASTS, values),
        "shares": dict.fromkeys(CONTRASTS, shares),
    }
    return {
        "format_version": 1,
        "config": {"facts": {"data": "sport_music", "seed": seed}, "train": {"method": method}},
        "cuts": cuts,
        "circuits": found if circuits else "no token sets",
    }


@pytest.mark.slow
def test_figures_hold_the_numbers_of_every_seed(tmp_path):
    from analyses.llm.inside_figures import draw, read_runs

    runs = (a_run("full", 0, 0.5), a_run("full", 1, 1.0), a_run("lora", 0, 2.0, circuits=False))
    for k, result in enumerate(runs):
        (tmp_path / f"{k}.json").write_text(json.dumps(result))
    found = read_runs(tmp_path)
    assert [run.key for run in found] == ["sport_music, full", "sport_music, lora"]
    draw(found, tmp_path / "figures")
    names = {
        f"{name}.{end}" for name in ("llm_inside", "llm_token_circuits") for end in ("png", "svg", "json")
    }
    assert {path.name for path in (tmp_path / "figures").iterdir()} == names
    cuts = json.loads((tmp_path / "figures" / "llm_inside.json").read_text())["mean rank by seed"]
    assert cuts["sport_music, full"]["after fine-tuning"]["held_out_implication"] == [0.5, 1.0]
    assert cuts["sport_music, full"]["after fine-tuning"]["training_implication"] == [None, None]
    circuits = json.loads((tmp_path / "figures" / "llm_token_circuits.json").read_text())
    assert list(circuits) == ["title", "sport_music, full"]
    shown = circuits["sport_music, full"]["names to facts"]
    assert shown["most changed"]["change"] == [2.0, -1.0, 3.0, -1.0]
    assert shown["most changed"]["change among top 5%"] == 0.5
    assert shown["random"]["before"] == [0.5, 0.5]
    assert shown["random"]["change among top 5%"] is None


def test_nothing_inspected_draws_nothing_and_a_damaged_file_is_told(tmp_path):
    from analyses.llm.inside_figures import draw, read_runs

    draw(read_runs(tmp_path), tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
    (tmp_path / "a.json").write_text('{"format_version": 1, "con')
    with pytest.raises(RunError, match=r"a.json is damaged .* delete it"):
        read_runs(tmp_path)


def test_a_run_without_circuits_is_made_again_and_another_one_is_kept(tmp_path):
    from analyses.llm.inside import RUNS, is_inspected

    path, config = tmp_path / "run.json", RUNS[0]
    assert not is_inspected(config, path)
    old = {"format_version": 2, "fingerprint": config.fingerprint, "config": config.to_dict()}
    for result, finished in (
        (old, False),
        ({**old, "circuits": {}}, True),
        ({**old, "circuits": "none"}, True),
    ):
        path.write_text(json.dumps(result))
        assert is_inspected(config, path) is finished
    with pytest.raises(SystemExit, match="of another configuration"):
        is_inspected(RUNS[1], path)
    assert path.exists()
