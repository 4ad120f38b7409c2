"""What parts and parameterisations deduce: how arms are matched, and each claim on made results."""

import math

import numpy as np
import pytest
from made_arms import parts_arm

from analyses.house.tables.studies import divergence_table, parts_table
from analyses.llm import parts
from analyses.llm.finished import studied
from analyses.llm.parameterisation import divergence
from analyses.llm.studies.parts import (
    ADDED_SETS,
    ALL_SETS,
    GEMMA_KNOWN,
    GEMMA_PILOT_RATES,
    GEMMA_RATES,
    LONGER,
    ON_ALL_SETS,
    OV_LONGER,
    PILOT_ON_GEMMA,
    SLOWER,
    SMALL,
    SPURIOUS,
)


def test_arms_are_compared_where_told_implications_cost_the_same():
    history = {
        "step": [0, 20, 40],
        studied.TOLD_LOGPROB: [-2.0, -0.4, -0.05],
        studied.HELD_OUT: [2.0, 1.6, 1.0],
    }
    arm = studied.Arm("a", {0: {"history": history}})
    share = math.log(0.4 / 0.1) / math.log(0.4 / 0.05)
    assert arm.at_told_loss(studied.HELD_OUT, 0.1) == [pytest.approx(1.6 - 0.6 * share)]
    assert math.isnan(arm.at_told_loss(studied.HELD_OUT, 0.01)[0])
    assert arm.last(studied.HELD_OUT) == [1.0]


def test_arms_are_compared_where_the_model_is_as_far_from_its_base():
    history = {"step": [0, 20, 40], studied.HELD_OUT: [2.0, 1.6, 1.0]}
    arm = studied.Arm("a", {0: {"history": history, "neutral_kl_by_row": [-1e-9, 0.1, 0.4]}})
    share = math.log(0.2 / 0.1) / math.log(0.4 / 0.1)
    assert arm.at_divergence(studied.HELD_OUT, 0.2) == [pytest.approx(1.6 - 0.6 * share)]
    assert arm.at_divergence(studied.HELD_OUT, 0.1) == [pytest.approx(1.6)]
    assert math.isnan(arm.at_divergence(studied.HELD_OUT, 0.5)[0])


def test_claims_of_parts_need_every_arm_and_can_fail():
    color = {name: parts_arm(name, 1.0) for name in parts.ARMS} | {"ov": parts_arm("ov", 1.9)}
    city = {name: parts_arm(name, 0.1) for name in parts.ARMS}
    found = parts.claims(parts.Found({"profession_color": color, "city_language": city}, {}))
    assert [c.holds for c in found] == [True] * 4
    assert found[-1].measured["n_separate"] == 1
    color |= {
        "full": parts_arm("full", 1.9),
        "ov": parts_arm("ov", 1.0, loss=0.5),
        "lora_r1": parts_arm("lora_r1", 2.0),
    }
    del city["mlp"]
    found = parts.claims(parts.Found({"profession_color": color, "city_language": city}, {}))
    assert {c.id: c.holds for c in found} == {
        "llm_parts_every_arm_fits": True,
        "llm_parts_ov_alone_deduces_less": False,
        "llm_parts_rank_of_lora_does_not_decide": False,
    }


def test_claims_of_all_five_sets_judge_the_spurious_ones_together():
    def of(spurious, small, causal=0.1):
        arms = {name: parts_arm(name, small if name in SMALL else spurious) for name in parts.ARMS}
        city = {name: parts_arm(name, causal) for name in parts.ARMS}
        return {"city_language": city} | dict.fromkeys(parts.SPURIOUS, arms)

    names = ("no_arm_separates_on_all_sets", "small_updates_deduce_less_elsewhere_too")

    def held(arms):
        found = {c.id.removeprefix("llm_parts_"): c.holds for c in parts.claims(parts.Found(arms, {}))}
        return tuple(found.get(name) for name in names)

    assert held(of(1.0, 1.7)) == (True, True)
    assert held(of(1.0, 1.8)) == (False, True)
    assert held(of(1.0, 1.9, causal=0.4)) == (True, True)
    assert held(of(1.0, 1.0)) == (True, False)
    some = of(1.0, 1.7)
    some["country_code"] = {name: arm for name, arm in some["country_code"].items() if name != "mlp"}
    assert held(some) == (None, True)


def test_attention_alone_is_judged_by_what_it_knows():
    def found(ranks, told=0.0, slower=1.9):
        gemma = {
            data: {LONGER: parts_arm(LONGER, ranks.get(data, 0.1))}
            for data in ("profession_color", "city_language", "country_code", "sport_music")
        }
        for data in ("profession_color", "city_language"):
            gemma[data][LONGER].results[2] = gemma[data][LONGER].results[0]
        gemma["city_language"][LONGER].results[1]["history"][studied.TOLD][-1] = told
        smollm2 = {"profession_color": slower, "city_language": ranks.get("city_language", 0.1)}
        of_smollm2 = {data: {SLOWER: parts_arm(SLOWER, rank)} for data, rank in smollm2.items()}
        claims = parts.claims(parts.Found({}, gemma, of_smollm2))
        return {c.id.removeprefix("llm_parts_"): c.holds for c in claims}

    names = ("attention_slower_separates", "gemma_attention_longer_deduces")
    names += ("gemma_attention_alone_separates", "gemma_attention_alone_separates_elsewhere")
    spurious = dict.fromkeys(("profession_color", "country_code", "sport_music"), 1.8)
    assert found({}) == dict(zip(names, (True, True, False, False), strict=True))
    assert found(spurious) == dict(zip(names, (True, False, True, True), strict=True))
    assert not any(found({**spurious, "city_language": 0.4})[name] for name in names[:3])
    assert not any(found(spurious, told=0.1)[name] for name in names[1:3])
    assert not found({**spurious, "sport_music": 1.7})[names[3]]
    assert not found({}, slower=1.7)[names[0]]


def test_v_and_o_alone_are_judged_beside_attention_in_every_seed():
    def found(*ranks, seeds=3):
        arms = {LONGER: parts_arm(LONGER, 1.9), OV_LONGER: parts_arm(OV_LONGER, 1.4)}
        for arm in arms.values():
            arm.results[2] = {"history": dict(arm.results[0]["history"])}
        arms[OV_LONGER].results[2]["history"][studied.HELD_OUT] = list(ranks)
        if seeds < 3:
            del arms[OV_LONGER].results[2]
        claims = parts.claims(parts.Found({}, {"profession_color": arms}))
        return {c.id.removeprefix("llm_parts_gemma_"): c.holds for c in claims}

    name = "ov_deduces_more_than_attention"
    assert found(2.0, 1.8)[name]
    assert not found(2.0, 1.9)[name]
    assert name not in found(2.0, 1.8, seeds=2)


def test_rates_on_gemma_are_what_its_pilot_chooses():
    """The rule, applied to the committed results of the pilot."""
    pilot = studied.arms_of(PILOT_ON_GEMMA)
    for arm, others in GEMMA_PILOT_RATES.items():
        ends = {lr: pilot[f"{arm}--lr{lr:g}"] for lr in (parts.ARMS[arm]["lr"], *others)}
        worst = {lr: (run.last(studied.FACTS)[0], run.last(studied.TOLD)[0]) for lr, run in ends.items()}
        fitting = [lr for lr, both in worst.items() if max(both) <= GEMMA_KNOWN]
        chosen = min(fitting) if fitting else min(worst, key=lambda lr: sum(worst[lr]))
        assert GEMMA_RATES[arm] == chosen, arm


def test_claims_of_parts_on_gemma():
    def found(ranks, told=0.0):
        color = {name: parts_arm(name, ranks.get(name, 1.0)) for name in parts.ARMS}
        city = {name: parts_arm(name, 0.1) for name in parts.ARMS}
        color["mlp"].results[0]["history"][studied.FACTS][-1] = told
        of_smollm2 = {name: parts_arm(name, k / 10) for k, name in enumerate(parts.ARMS)}
        own = parts.Found(
            {"profession_color": of_smollm2}, {"profession_color": color, "city_language": city}
        )
        claims = parts.claims(own)
        assert all(claim.statement.startswith("Gemma 3 270M") for claim in claims if "gemma" in claim.id)
        return {c.id.removeprefix("llm_parts_gemma_"): c.holds for c in claims if "gemma" in c.id}

    small = dict.fromkeys(SMALL, 1.5)
    assert found(small) == {
        "one_arm_separates": False, "small_updates_deduce_less": True, "orders_arms_as_smollm2": True,
    }  # fmt: skip
    assert found({"mlp": 1.9})["one_arm_separates"]
    assert not found({"mlp": 1.9}, told=0.2)["one_arm_separates"]
    backwards = {name: 2 - k / 10 for k, name in enumerate(parts.ARMS)}
    assert not found(backwards)["orders_arms_as_smollm2"]


def test_arms_on_gemma_with_all_five_sets_are_judged_by_the_spurious_ones_together():
    def found(spurious=(), causal=(), counterfactual=2.4, told=(), without=()):
        causal, spurious, told = dict(causal), dict(spurious), dict(told)
        ranks = {"city_language": causal, **dict.fromkeys(SPURIOUS, spurious)}
        arms = {
            data: {
                name: parts_arm(
                    name,
                    ranks.get(data, {}).get(
                        name,
                        counterfactual if data == ADDED_SETS[2] else 0.1 if data == "city_language" else 1.0,
                    ),
                )
                for name in ON_ALL_SETS
                if (data, name) not in without
            }
            for data in ALL_SETS
        }
        for name, rank in told.items():
            arms["sport_music"][name].results[1]["history"][studied.FACTS][-1] = rank
        claims = parts.claims(parts.Found({}, arms))
        return {c.id.removeprefix("llm_parts_gemma_"): c.holds for c in claims}

    small = {f"{name}_own_rate": 1.5 for name in GEMMA_RATES if name != "lora_r8"} | {"lokr": 1.5}
    good = found({**small, LONGER: 1.9})
    assert {name: good[name] for name in (
        "own_rates_fit", "no_other_arm_separates_on_all_sets", "attention_separates_on_all_sets",
        "ov_longer_separates", "small_updates_deduce_less_at_own_rates",
    )} == {
        "own_rates_fit": True, "no_other_arm_separates_on_all_sets": True,
        "attention_separates_on_all_sets": True, "ov_longer_separates": False,
        "small_updates_deduce_less_at_own_rates": True,
    }  # fmt: skip
    other = found({OV_LONGER: 1.9, LONGER: 1.9}, counterfactual=1.2)
    assert other["ov_longer_separates"]
    assert not other["no_other_arm_separates_on_all_sets"]
    assert not other["attention_separates_on_all_sets"]
    assert not other["small_updates_deduce_less_at_own_rates"]
    unknown = found({OV_LONGER: 1.9}, told={OV_LONGER: 0.2, "compacter_own_rate": 0.2})
    assert unknown["no_other_arm_separates_on_all_sets"]
    assert not unknown["ov_longer_separates"]
    assert not unknown["own_rates_fit"]
    assert not found({OV_LONGER: 1.9}, {OV_LONGER: 0.4})["ov_longer_separates"]
    missing = found(without=[("sport_music", "mlp"), (ADDED_SETS[2], LONGER)])
    assert "no_other_arm_separates_on_all_sets" not in missing
    assert "attention_separates_on_all_sets" not in missing


def divergent_row(name, matched, at_divergence, seeds=(0, 1)):
    of = {"matched": matched, "at_divergence": at_divergence, "rank": 1.0, "neutral_kl": at_divergence}
    numbers = {
        key: studied.plain_interval([math.nan if value is None else value] * len(seeds))
        for key, value in of.items()
    }
    return {"arm": name, "title": name, "seeds": list(seeds), **numbers}


def test_claims_at_equal_divergence_hold_fail_and_need_every_arm():
    def rows(color, backwards=False):
        order = dict(zip(parts.ARMS, np.linspace(0.8, 1.6, len(parts.ARMS)), strict=True))
        return [divergent_row(n, 3 - r if backwards else r, r) for n, r in (order | color).items()]

    def held(*args, **kwargs):
        found = divergence.claims(rows(*args, **kwargs))
        return {c.id.removeprefix("llm_divergence_"): c.holds for c in found}

    names = ("matching_does_not_order_the_arms", "small_updates_deduce_less")
    assert held({"full": 0.5}) == dict.fromkeys(names, True)
    assert not held({"full": 0.5}, backwards=True)[names[0]]
    assert not held({"full": 1.7})[names[1]]
    assert not held({"compacter": None})[names[1]]
    assert divergence.claims(rows({})[1:]) == []
    assert divergence.claims([divergent_row("full", 1.0, 1.0, (0,)), *rows({})[1:]]) == []


def test_arms_that_never_come_so_far_are_not_ordered():
    """Neither is an arm that comes so far in one seed of two."""
    rows = [divergent_row(n, k, k) for k, n in enumerate(("full", "mlp", "ov"), 1)]
    half = divergent_row("lokr", 0.0, 9.0)
    half["at_divergence"] = studied.plain_interval([9.0, math.nan])
    assert divergence.order([*rows, divergent_row("compacter", 0.0, None), half]) == (
        1,
        ["full", "mlp", "ov"],
    )
    assert divergence.order(rows[:2]) == (None, ["full", "mlp"])


def test_shares_of_the_first_steps_are_those_of_runs_that_deduce():
    row = {"steps": [0, 20, 40], "neutral_kl_by_row": [[0.0, 0.3, 0.4], [0.0, 0.1, 0.9]]}
    row["rank_by_row"] = [[2.0, 1.8, 1.0], [2.0, 1.9, 1.9]]  # the second hardly deduces
    assert divergence.early_shares([row]) == (0.75, 0.2)
    assert divergence.early_shares([]) == (None, None)
    said = divergence.sentence({"share_of_divergence_early": 0.75, "share_of_deduction_early": 0.2})
    assert said.endswith("is 75% as far from its base as at the end, but has deduced 20% of what it will")
    as_much = divergence.sentence({"share_of_divergence_early": 0.75, "share_of_deduction_early": 0.5})
    assert as_much.endswith("and has deduced 50% of what it will")


def test_a_table_of_parts_brackets_what_was_not_learned():
    def row(title, data, ranks, fact, told, **training):
        numbers = {"rank": {"by_seed": ranks}, "matched": {"by_seed": [None, *ranks[1:]]}}
        known = {"fact_rank": fact, "told_rank": told, "neutral_kl": {"by_seed": [0.1, 0.3]}}
        cost = {"trained_numbers": 12345}
        return {"title": title, "data": data, "training": training, **numbers, **known, **cost}

    one = row("LoRA", "a", [0.5, 1.0], [0.0, 0.06], [0.0, 0.0])
    alone = row("facts", "a", [1.5, 2.0], [0.0, 0.0], [2.0, 2.0], control="facts_only")
    found = {"names": {"a": "A"}, "rows": [one], "further_rows": [alone]}
    assert parts_table(found).splitlines()[2:] == [
        "| LoRA | 0.50, (1.00) | 0.20 | 12,345 |", "| facts | 1.50, 2.00 | 0.20 | 12,345 |",
    ]  # fmt: skip
    assert parts_table(found, "matched").splitlines()[2:] == ["| LoRA | never, (1.00) |"]


def test_the_table_at_equal_divergence_has_what_was_told_beside_what_was_not():
    both = {"at_divergence": {"by_seed": [1.2, None]}, "told_at_divergence": {"by_seed": [0.05, None]}}
    ends = {"rank": {"by_seed": [0.5, 1.0]}, "neutral_kl": {"by_seed": [0.1, 0.3]}}
    row = {"title": "LoRA", "data": "a", **both, **ends}
    table = divergence_table({"names": {"a": "A"}, "rows": [row]})
    assert table.splitlines()[0] == "| trained | A | at the end | KL elsewhere at the end |"
    assert table.splitlines()[2] == "| LoRA | 1.20 (0.05), never | 0.50, 1.00 | 0.20 |"
