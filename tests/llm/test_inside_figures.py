"""Figures of what is inside: drawn from the JSONs alone, with the numbers that are in them."""

import json
from types import SimpleNamespace

import pytest

from analyses.llm.studies.plan import FOLDERS, GEMMA, SMOLLM2
from ocr_interp.errors import RunError
from ocr_interp.llm.inside.mean_over_names import REPLACED
from ocr_interp.llm.inside.truncation import kept_words, removed_words

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


def a_new_run(data, model, seed=0, mean=2.0, random=0.5):
    """All kinds of cuts, and two layers: the claims hold unless `mean` or `random` says otherwise."""

    def cut(kind, what, facts, untold):
        ranks = {"training_fact": facts, "held_out_fact": facts, "training_implication": facts}
        return {"kind": kind, "what": what, "rank": {**ranks, "held_out_implication": untold}}

    n = 27 if model.endswith("135m") else 7
    cuts = [cut("none", "after fine-tuning", 0.0, 0.5), cut("parts", "OV put back", 0.1, 0.4)]
    cuts += [cut("parts", "MLP put back", 0.1, 1.3), cut("mean", REPLACED, mean, 2.0)]
    for where in ("", " past layer 0"):
        cuts += [
            cut("heads", f"{n} most changed heads{where} zeroed", 1.5, 1.9),
            cut("heads", f"{n} other heads{where}, drawn at random, zeroed", 0.1, 0.6),
            cut("heads", f"{n} most changed heads{where}, at most half of a layer, zeroed", 1.0, 1.5),
            cut("heads", f"{n} random heads of the same layers{where} zeroed", random, 0.7),
        ]
    for which in ("top", "random"):
        cuts.append(cut("directions", f"of {n} heads 4 {which} directions removed", 0.3, 1.2))
    for k in (1, 16):
        cuts += [cut("truncation", kept_words(k), 0.1, 0.6), cut("truncation", removed_words(k), 0.1, 1.3)]
    tables = {"probe_before": [[0.2, 0.3]] * 2, "probe_after": [[0.4, 0.3], [0.5, 0.9]]}
    tables |= {"own": [[0.5, 0.5], [0.5, 2.0]], "donor": [[0.9, 2.1], [2.2, 0.5]]}
    layers = {"places": ["name", "last"], "blocks": ["0", "1"], "chance": 0.2, "own_unpatched": 0.5}
    return {
        "format_version": 2,
        "config": {"facts": {"data": data, "seed": seed}, "train": {"method": "full", "model": model}},
        "cuts": cuts,
        "circuits": "none",
        "layers": {**layers, "donor_unpatched": 2.2, **tables},
    }


def read(tmp_path, *results):
    from analyses.llm.finished.inside_results import read_runs

    for k, result in enumerate(results):
        (tmp_path / f"{k}.json").write_text(json.dumps(result))
    return read_runs(tmp_path)


NEW = ("mean_over_names", "heads_of_same_layers", "low_rank", "truncation_separates", "probes", "patching")


def test_claims_are_judged_by_every_run_and_old_results_have_none_of_the_new(tmp_path):
    from analyses.llm.finished.inside_claims import inside_claims

    runs = [a_new_run("profession_color", FOLDERS[model]) for model in (SMOLLM2, GEMMA)]
    claims = {claim.id: claim for claim in inside_claims(read(tmp_path, *runs))}
    for name in NEW:
        assert claims[f"llm_inside_{name}"].holds, name
    assert claims["llm_inside_mlp"].holds
    assert not claims["llm_inside_ov_gemma"].holds
    measured = claims["llm_inside_heads_of_same_layers"].measured
    assert measured["gemma_profession_color_full_seed0_past_layer_0"] == [1.0, 0.5, 1.5, 0.7]
    assert claims["llm_inside_truncation_separates"].measured["profession_color_full_seed0"] == [
        removed_words(1),
        removed_words(16),
    ]
    worse = a_new_run("profession_color", FOLDERS[GEMMA], mean=0.9, random=1.0)
    claims = {claim.id: claim for claim in inside_claims(read(tmp_path, runs[0], worse))}
    assert not claims["llm_inside_mean_over_names"].holds
    assert not claims["llm_inside_heads_of_same_layers"].holds
    assert claims["llm_inside_low_rank"].holds
    for run in runs:
        del run["layers"]
        first = [cut for cut in run["cuts"] if cut["kind"] not in ("mean", "truncation")]
        run["cuts"] = [c for c in first if "half of a layer" not in c["what"] and "same" not in c["what"]]
    claims = {claim.id for claim in inside_claims(read(tmp_path, *runs))}
    assert not claims & {f"llm_inside_{name}" for name in NEW}
    assert "llm_inside_heads" in claims


@pytest.mark.slow
def test_new_runs_have_pictures_of_their_own(tmp_path):
    from analyses.llm.inside_figures import draw, pictures

    runs = read(tmp_path, *(a_new_run("profession_color", FOLDERS[model]) for model in (SMOLLM2, GEMMA)))
    wanted = ("llm_inside", "llm_inside_gemma", "llm_inside_truncation", "llm_inside_layers")
    assert pictures(runs) == wanted
    draw(runs, tmp_path / "figures")
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        f"{n}.{end}" for n in wanted for end in ENDS
    }
    drawn = json.loads((tmp_path / "figures" / "llm_inside_truncation.json").read_text())
    own = drawn["mean rank by seed"]["profession_color, full"]["seed 0"]
    assert own["the top {k} removed"]["held_out_implication"] == [1.3, 1.3]
    assert own["only the top {k} kept"]["k"] == [1, 16]


@pytest.mark.slow
def test_every_seed_is_judged_and_drawn(tmp_path):
    from analyses.llm.finished.inside_claims import inside_claims
    from analyses.llm.inside_figures import draw

    good, bad = (a_new_run("profession_color", FOLDERS[SMOLLM2], seed) for seed in (1, 0))
    bad["layers"] |= {"donor": [[1.8, 2.1], [2.2, 0.5]], "probe_after": [[0.4, 0.3], [0.5, 0.7]]}
    runs = read(tmp_path, good, bad)
    claims = {claim.id: claim for claim in inside_claims(runs)}
    for name, values in (("patching", {0: 1.8, 1: 0.9}), ("probes", {0: 0.7, 1: 0.9})):
        claim = claims[f"llm_inside_{name}"]
        assert not claim.holds, "the worse of two seeds"
        assert {f"profession_color_full_seed{s}": v for s, v in values.items()} == {
            key: measured[0] for key, measured in claim.measured.items()
        }
    draw(runs, tmp_path / "figures")
    for picture in ("llm_inside_layers", "llm_inside_truncation"):
        drawn = json.loads((tmp_path / "figures" / f"{picture}.json").read_text())
        of = drawn if picture == "llm_inside_layers" else drawn["mean rank by seed"]
        assert set(of["profession_color, full"]) == {"seed 0", "seed 1"}


def test_the_title_of_token_circuits_counts_the_groups_beyond_chance():
    from analyses.llm.inside_figures import SHARE, circuits_sentence

    def groups(share):
        return {"facts to implications": {"most changed": {"change": [1.0] * 54 + [None], SHARE: share}}}

    within, beyond = groups(round(6 / 54, 6)), groups(round(7 / 54, 6))
    assert circuits_sentence({"a": within}).endswith("neither in the most changed heads nor in others")
    assert circuits_sentence({"a": within, "b": beyond}).endswith("1 of 2 groups of heads exceed chance")


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


def test_a_run_without_circuits_or_new_cuts_is_made_again_and_another_one_is_kept(tmp_path):
    from analyses.llm.inside import RUNS, is_inspected

    mean = {"kind": "mean", "what": "", "rank": {}}
    every = [mean, {**mean, "kind": "truncation"}]

    path, config = tmp_path / "run.json", RUNS[0]
    assert not is_inspected(config, path)
    named = {"format_version": 2, "fingerprint": config.fingerprint, "config": config.to_dict()}
    old = {**named, "cuts": every}
    for result, finished in (
        (old, False),
        ({**old, "circuits": {}}, True),
        ({**old, "circuits": "none"}, True),
        ({**named, "cuts": [], "circuits": {}}, False),
        ({**named, "cuts": [mean], "circuits": {}, "left_out": {"truncation": "why"}}, True),
    ):
        path.write_text(json.dumps(result))
        assert is_inspected(config, path) is finished
    with pytest.raises(SystemExit, match="of another configuration"):
        is_inspected(RUNS[1], path)
    assert path.exists()


def test_a_run_that_was_stopped_is_not_inspected(tmp_path, monkeypatch, make_model):
    from analyses.llm.inside import RUNS, inspect

    monkeypatch.setattr("ocr_interp.llm.models.loading.load_model", lambda _: make_model())
    stopped = SimpleNamespace(status="interrupted", step=3)
    monkeypatch.setattr("ocr_interp.llm.training.finetune.finetune", lambda *_, **__: stopped)
    with pytest.raises(SystemExit, match="was stopped at step 3; the same command makes it again"):
        inspect(RUNS[0], tmp_path / "run.json")
    assert not (tmp_path / "run.json").exists()
