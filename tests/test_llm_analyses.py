"""Claims, groups and tables of the language models, on results made by hand: each claim can hold and fail."""

import copy
import dataclasses
import json

import numpy as np
import pytest

from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.store import COLUMNS


@pytest.fixture
def results():
    from analyses.llm.finished import results as llm_results

    return llm_results


def measured(held_out, facts=0.0, logprob=-0.01):
    """Two pairs, two names each, of every split; ranks as given."""
    split = np.repeat(np.arange(4), 4)
    rank = {0: facts, 1: 0.0, 2: facts, 3: held_out}
    return {
        "split": split.tolist(),
        "fact": [0, 0, 1, 1] * 4,
        "template": [0] * 16,
        "rank": [float(rank[k]) for k in split],
        "logprob": [logprob] * 16,
    }


def made(held_out, *, seed=0, facts=0.0, logprob=-0.01, control="none", data="city_language", **recipe):
    """The JSON of a run whose held-out rank falls from 2 in two logged steps."""
    config = LLMRunConfig(
        FactConfig(data=data, seed=seed, control=control), FinetuneConfig(train_seed=seed, **recipe)
    )
    history = {name: [np.nan] * 3 for name in COLUMNS} | {
        "step": [0, 5, 10],
        "held_out_fact/rank": [2.0, 1.0, facts],
        "held_out_implication/rank": [2.0, (2 + held_out) / 2, held_out],
        "training_implication/logprob": [-2.0, -1.0, logprob],
    }
    return {
        "config": config.to_dict(),
        "history": history,
        "before": measured(2.0, 2.0, -2.0),
        "after": measured(held_out, facts, logprob),
        "step": 10,
        "ov_update": {"relative": [[0.01]]},
    }


def grouped(results, runs):
    """Groups as read_groups makes them."""
    found = {}
    for run in runs:
        facts, train = (run["config"][part] for part in ("facts", "train"))
        kind = results.Kind(
            facts["data"],
            facts["control"],
            train["method"],
            train["optimizer"],
            train["lr"],
            train["batch_size"],
        )
        found.setdefault(kind, []).append(run)
    return {kind: results.Group(kind, tuple(of_kind)) for kind, of_kind in found.items()}


def claim(results, name, runs):
    from analyses.llm.finished import claims as llm_claims

    found = {c.id: c for c in llm_claims.claims(grouped(results, runs))}
    return found.get(f"llm_{name}")


def seeds(held_out, **changes):
    return [made(held_out, seed=seed, **changes) for seed in range(3)]


def muon(held_out, *, adamw=0.5, logprob=-0.01, **changes):
    """Both optimizers of both spurious sets at batch 24."""
    return [
        run
        for data in ("profession_color", "sport_music")
        for optimizer, rank, told in (("adamw", adamw, -0.01), ("muon", held_out, logprob))
        for run in seeds(rank, data=data, optimizer=optimizer, batch_size=24, logprob=told, **changes)
    ]


def test_generalization_needs_low_ranks_and_known_facts(results):
    control = seeds(0.1, control="facts_only")
    assert claim(results, "generalization", seeds(0.2) + control).holds
    assert not claim(results, "generalization", seeds(0.4) + control).holds
    assert not claim(results, "generalization", seeds(0.2, facts=0.5) + control).holds
    assert claim(results, "generalization", seeds(0.2)[:2] + control) is None
    assert claim(results, "generalization", seeds(0.2)) is None


def test_reasoning_is_what_exceeds_facts_alone_in_every_seed(results):
    name, told = "exceeds_control_sport_music", seeds(1.0, data="sport_music")
    for control, holds in ((2.0, True), (1.0, False), (0.5, False)):
        found = claim(results, name, told + seeds(control, data="sport_music", control="facts_only"))
        assert found.holds is holds
        assert found.measured["difference_by_seed"] == [1.0 - control] * 3
    one_against = [
        made(1.0 if s else 3.0, seed=s, data="sport_music", control="facts_only") for s in range(3)
    ]
    assert not claim(results, name, seeds(1.1, data="sport_music") + one_against).holds


def test_rates_compare_seeds_that_all_have(results):
    def over_rates(causal, counterfactual):
        return [
            run
            for data, ranks in (("city_language", causal), ("city_language_counterfactual", counterfactual))
            for lr, rank in zip((3e-5, 1e-4, 3e-4), ranks, strict=True)
            for run in seeds(rank, data=data, lr=lr)[: 2 if (lr, data) == (3e-5, "city_language") else 3]
        ]

    found = claim(results, "learning_rate", over_rates((0.1, 0.1, 0.2), (2.0, 1.0, 1.5)))
    assert found.holds
    assert found.measured["seeds"] == [0, 1]
    assert found.measured["spread_city_language_counterfactual"] == [1.0, 1.0]
    assert not claim(results, "learning_rate", over_rates((0.1, 1.0, 2.0), (2.0, 1.9, 1.8))).holds


def test_lora_ends_alike_within_a_margin(results):
    def both(low_rank):
        return seeds(1.0) + seeds(low_rank, method="lora", lr=1e-3)

    assert claim(results, "lora_city_language", both(1.2)).holds
    assert not claim(results, "lora_city_language", both(1.4)).holds
    assert not claim(results, "lora_city_language", both(0.6)).holds


def test_muon_at_the_same_steps_and_at_the_same_fit(results):
    assert claim(results, "muon_same_steps", muon(1.0)).holds
    assert not claim(results, "muon_same_steps", muon(0.4)).holds
    assert not claim(results, "muon_same_steps", muon(1.0, facts=0.5)).holds
    assert claim(results, "muon_same_fit", muon(1.0)).holds
    # AdamW was at 1.25 when it knew the told implications as well as Muon does at its end: Muon is behind.
    behind = claim(results, "muon_same_fit", muon(1.0, logprob=-1.0))
    assert behind.measured["muon_minus_adamw_sport_music"] == [-0.25] * 3
    assert not behind.holds
    assert claim(results, "muon_same_steps", muon(1.0, logprob=-1.0)).holds
    assert claim(results, "muon_same_steps", muon(1.0)[:6]) is None  # one of the sets is missing


def test_muon_against_a_slower_adamw_at_batch_8_and_on_the_causal_pair(results):
    def slower(rank):
        return muon(1.0) + [
            made(rank, data=data, batch_size=24, lr=6e-5) for data in ("profession_color", "sport_music")
        ]

    found = claim(results, "muon_slower_adamw", slower(0.5))
    assert found.holds
    assert found.measured["muon_minus_slower_adamw_sport_music"] == [0.5]  # seed 0, the only common one
    assert not claim(results, "muon_slower_adamw", slower(1.0)).holds
    assert claim(results, "muon_slower_adamw", slower(0.5)[:-1]) is None

    small = [copy.deepcopy(run) for run in muon(1.0)]
    rivals = [copy.deepcopy(run) for run in slower(0.5)[len(small) :]]
    for run in small + rivals:
        run["config"]["train"]["batch_size"] = 8
    assert claim(results, "muon_batch_8_same_fit", small).holds
    assert claim(results, "muon_batch_8_slower_adamw", small + rivals).holds
    assert claim(results, "muon_batch_8_slower_adamw", small) is None
    slowest = [made(0.5, data=d, batch_size=8, lr=3e-5) for d in ("profession_color", "sport_music")]
    assert claim(results, "muon_batch_8_slowest_adamw", small + slowest).holds
    assert claim(results, "muon_batch_8_slowest_adamw", small + rivals) is None
    rivals[0]["history"]["held_out_implication/rank"][-1] = 1.0
    assert not claim(results, "muon_batch_8_slower_adamw", small + rivals).holds
    assert claim(results, "muon_batch_8", small).holds
    small[-1]["history"]["held_out_implication/rank"][-1] = 0.4  # one seed of one set is against
    assert not claim(results, "muon_batch_8", small).holds
    small[-1]["after"] = measured(0.4)
    assert not claim(results, "muon_batch_8_same_fit", small).holds

    control = seeds(0.1, control="facts_only")
    for rank, holds in ((0.3, True), (0.6, False)):
        adamw = seeds(0.1, optimizer="adamw", batch_size=24)
        both = adamw + seeds(rank, optimizer="muon", batch_size=24)
        assert claim(results, "muon_causal", both + control).holds is holds
        for run in both:
            run["config"]["train"]["batch_size"] = 8
        assert claim(results, "muon_batch_8_causal", both + control).holds is holds


def test_random_pairs_need_every_data_set_and_chance(results):
    def control(rank):
        return [made(rank, data=data, control="random_implications") for data in results.NAMES]

    assert claim(results, "random_control", control(2.0)).holds
    assert not claim(results, "random_control", control(1.5)).holds
    assert claim(results, "random_control", control(2.0)[:4]) is None


def test_a_value_between_logged_steps(results):
    group = grouped(results, [made(1.0)])[results.Kind("city_language")]
    told, held_out = "training_implication/logprob", "held_out_implication/rank"
    assert group.when(told, [-1.5], held_out) == [1.75]  # half way between 2 and 1.5
    assert group.when(told, [-3.0], held_out) == [2.0]
    assert group.when(told, [0.0], held_out) == [1.0]  # never: its last


def test_runs_of_one_kind_differ_in_their_seeds_alone(results, tmp_path):
    for name, run in (("a", made(1.0)), ("b", made(1.0, seed=1)), ("c", made(1.0, seed=2, steps=7))):
        run = copy.deepcopy(run) | {"format_version": 1}
        run["history"] = {k: [None if v != v else v for v in vs] for k, vs in run["history"].items()}
        (tmp_path / f"{name}.json").write_text(json.dumps(run))
    with pytest.raises(SystemExit, match=r"c\.json differs from the other runs of its kind"):
        results.read_groups(tmp_path)
    (tmp_path / "c.json").unlink()
    (group,) = results.read_groups(tmp_path).values()
    assert group.seeds == [0, 1]


def test_no_common_seed_is_no_difference(results):
    one, other = (grouped(results, [made(1.0, seed=s)])[results.Kind("city_language")] for s in (0, 1))
    assert one.difference(other) is None
    assert one.differences(other) == []


def test_the_table_has_a_row_a_data_set_and_leaves_gaps():
    from analyses.house.pages import llm_table

    row = {"row": "full", "data": "a", "held_out_rank": 0.5, "interval": [0.25, 1.0], "seeds": [0, 1]}
    lines = llm_table(
        {
            "names": {"a": "A", "b": "B"},
            "rows": [
                row | {"untrained_rank": 2.0},
                row | {"data": "b", "untrained_rank": 2.1, "row": "full"},
            ],
            "told_minus_facts_only": [],
            "paper": {"Big": [0.0, 1.5]},
        }
    ).splitlines()
    assert lines[0] == "| data set | untrained | full | full minus facts only | Big |"
    assert lines[2] == "| A | 2.00 | 0.50 [0.25, 1.00] (2) |  | 0.00 |"
    assert len(lines) == 4


def test_a_cut_that_no_run_has_is_no_claim(results):
    from analyses.llm.finished.inside_claims import CUTS, cut_claim, inside_claims
    from analyses.llm.inside_figures import Runs

    what = CUTS["ov"][0]

    def runs(untold, facts):
        cut = {"held_out_implication": untold, "held_out_fact": facts, "training_implication": 0.0}
        after = {"what": "after fine-tuning", "kind": "none", "rank": dict(cut, held_out_implication=0.5)}
        return Runs(
            "smollm2",
            "sport_music",
            "full",
            ({"cuts": [after, {"what": what, "kind": "parts", "rank": cut}]},),
        )

    assert cut_claim("ov", [runs(1.5, 0.1)]).holds
    assert not cut_claim("ov", [runs(0.6, 0.1)]).holds
    assert not cut_claim("ov", [runs(1.5, 1.0)]).holds
    assert inside_claims([]) == []
    with pytest.raises(SystemExit, match="have no cut 'MLP put back'"):
        cut_claim("mlp", [runs(1.5, 0.1)])


def test_planned_runs_have_names_of_their_own():
    from analyses.llm import table_1 as table_1_llm

    planned = table_1_llm.all_runs()
    assert len({run.fingerprint for run in planned.values()}) == len(planned)
    for run in planned.values():
        assert run.facts.seed == run.train.train_seed
        assert dataclasses.replace(run.train, train_seed=0).dtype == "float32"


def test_the_table_of_muon_has_a_row_a_rival():
    from analyses.house import pages as readme_tables

    sets = ("profession_color", "sport_music")
    claims = [
        {
            "id": name,
            "measured": {f"muon_minus_adamw_{data}": [0.5, -0.25] for data in sets}
            | {f"ov_change_{who}_{data}": size for who, size in (("muon", 1), ("adamw", 2)) for data in sets},
        }
        for name in readme_tables.MUON_RIVALS
    ]
    lines = readme_tables.muon_table(claims).splitlines()
    assert lines[2] == "| 24 | AdamW at 1e-4, same steps | 0.50, -0.25 | 0.50, -0.25 | 0.50 | **no** |"
    assert len(lines) == 2 + len(readme_tables.MUON_RIVALS)
