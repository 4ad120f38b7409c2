"""Studies of language models: plans, what they teach, cuts, matching, and each claim on made results."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from made_arms import parts_arm

from analyses.house.tables.studies import families_table
from analyses.llm import again, families, mitigated, parts, runs, step_size, wording
from analyses.llm.finished import studied
from analyses.llm.mitigation import drawing as mitigation_drawing
from analyses.llm.mitigation import training
from analyses.llm.mitigation.methods import CUTS, METHODS, cut_update, known_sentences
from analyses.llm.mitigation.taught import COLOR, FACT, GROUPS, Taught
from analyses.llm.studies import families as families_study
from analyses.llm.studies import known_before, neutral
from analyses.llm.studies import mitigation as mitigation_study
from analyses.llm.studies.plan import PlannedRun, recipe
from analyses.predictions import known_pairs, ratio, recall
from ocr_interp import llm
from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.measuring.intervals import run_interval
from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer
from ocr_interp.llm.training.configuration import FORMAT_VERSION
from ocr_interp.llm.training.files.result import config_of_result, write_result
from ocr_interp.llm.training.trainable import make_trainable


def test_every_planned_run_has_a_name_of_its_own_and_seeds_come_one_after_the_other():
    planned = runs.planned()
    assert len({run.name for run in planned}) == len(planned)
    seeds = [run.seed for run in planned if not run.study.startswith("pilot")]
    assert seeds == sorted(seeds)
    for run in planned:
        assert run.config.train.train_seed == run.seed


def test_every_criterion_has_a_claim_or_a_reason():
    """So that none that was written before the runs is forgotten when it fails."""
    text = (Path(runs.__file__).parents[2] / "figures" / "claims.json").read_text(encoding="utf-8")
    statements = [claim["statement"] for claim in json.loads(text)]
    judged = {
        (study.name, name): any(criterion in statement for statement in statements)
        for study in runs.STUDIES.values()
        for name, criterion in study.criteria.items()
    }
    without = {(study.name, name) for study in runs.STUDIES.values() for name in study.unjudged}
    assert {key for key, found in judged.items() if not found} == without


def test_a_result_of_another_configuration_is_refused(tmp_path):
    run = parts.STUDY.planned()[0]
    other = dataclasses.replace(run, config=recipe("sport_music", 0))
    path = runs.result_path(run, tmp_path)
    path.parent.mkdir()
    found = {"format_version": FORMAT_VERSION, "fingerprint": other.config.fingerprint}
    write_result(path, {**found, "config": other.config.to_dict()})
    with pytest.raises(SystemExit, match="another configuration of the same name"):
        runs.is_finished(run, tmp_path)


def test_a_run_that_another_study_has_made_is_copied(tmp_path, capsys):
    by_name = {run.name: run for run in runs.planned()}
    names = (
        "families/gemma--profession_color--gentle",
        "parts_gemma/profession_color--full",
        "parts_gemma/profession_color--mlp",
    )
    made, same, other = (by_name[f"{name}--seed0"] for name in names)
    assert made.config == same.config
    for run in (made, same):
        runs.result_path(run, tmp_path).parent.mkdir()
    assert not runs._copied(same, tmp_path)
    found = {"format_version": FORMAT_VERSION, "fingerprint": made.config.fingerprint}
    write_result(runs.result_path(made, tmp_path), {**found, "config": made.config.to_dict()})
    runs.result_path(made, tmp_path).with_suffix(".logits.safetensors").write_bytes(b"logits")
    assert runs._copied(same, tmp_path)
    assert runs.is_finished(same, tmp_path)
    assert runs.result_path(same, tmp_path).with_suffix(".logits.safetensors").read_bytes() == b"logits"
    assert "copied from families/gemma--profession_color--gentle--seed0" in capsys.readouterr().out
    assert not runs._copied(other, tmp_path)


@pytest.mark.parametrize("data", ["city_language", "profession_workplace", "month_sign"])
def test_both_implications_are_told_of_the_same_people_and_half_of_the_others_is_never_used(data):
    taught = Taught(FactConfig(data=data, seed=3, n_unseen=5))
    told = [{e.subject for e in taught.told if e.relation == r} for r in range(3)]
    assert len(told[FACT]) == 100
    assert told[1] == told[COLOR]
    assert len(told[COLOR]) == 20
    groups = {e.subject: taught.group(e) for e in taught.asked}
    assert [sum(g == name for g in groups.values()) for name in GROUPS] == [20, 40, 40]
    used = {e.subject for e in taught.for_methods}
    assert used == {s for s, g in groups.items() if g == "seen_by_method"}
    right = {(e.subject, e.relation): e.target for e in taught.asked}
    counter = taught.counter_examples(2)
    assert len(counter) == 10
    for e in counter:
        assert e.subject in used
        assert e.target != right[e.subject, COLOR]


def test_cuts_are_those_of_the_singular_value_decomposition():
    torch.manual_seed(0)
    up, down = torch.randn(12, 8), torch.randn(8, 10)
    whole = up @ down
    left, values, right = torch.linalg.svd(whole, full_matrices=False)
    for k in (1, 2, 4):
        top = (left[:, :k] * values[:k]) @ right[:k]
        torch.testing.assert_close(cut_update(f"top_{k}", up, down), top, atol=1e-4, rtol=0)
        torch.testing.assert_close(cut_update(f"without_top_{k}", up, down), whole - top, atol=1e-4, rtol=0)
    cut = cut_update("without_0.1_of_entries", up, down)
    assert int((cut == 0).sum()) == 12
    assert whole[cut == 0].abs().min() > cut.abs().max()


def test_divergence_on_ordinary_sentences_is_that_of_two_distributions():
    before = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    after = torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log()
    by_hand = (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)) / 2
    assert neutral.neutral_kl(before, after) == pytest.approx(by_hand, rel=1e-5)
    assert neutral.neutral_kl(before, before) == 0


def test_interval_over_runs_is_students():
    found = run_interval([1.0, 2.0, 4.0])  # t(0.975, 2) = 4.302653, sd = 1.527525
    assert found.mean == pytest.approx(7 / 3)
    assert found.high - found.mean == pytest.approx(4.302653 * 1.527525 / math.sqrt(3), rel=1e-5)
    assert not found.excludes_zero
    assert run_interval([1.0, 1.1, 0.9]).excludes_zero
    alone = run_interval([1.0])
    assert math.isnan(alone.low)
    assert not alone.excludes_zero
    with pytest.raises(ConfigError, match="finite number a run"):
        run_interval([1.0, math.nan])


@pytest.fixture(scope="module")
def tiny():
    """A tiny model whose tokenizer knows the words of the study."""
    taught = Taught(FactConfig(data="profession_workplace", seed=0, n_unseen=5))
    texts = [f"{e.prompt} {answer}" for e in taught.asked for answer in e.candidates]
    texts += [*neutral.SENTENCES, *(e.sentence for e in known_sentences(0)), "In an invented story, "]
    tokenizer = tiny_tokenizer([*texts, " ".join(known_sentences(0)[0].candidates)], vocab_size=3000)
    return lambda: tiny_model("llama", tokenizer, max_position_embeddings=128)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lora", "read_by_relation", "last_six_apart", "keep_untold", "project_gradients", "full"]
)
def test_an_arm_is_trained_measured_and_written(name, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LOGGED", (1, 2))
    monkeypatch.setattr(training, "DRIFT", 1)
    monkeypatch.setattr(mitigation_study, "LOGGED", (1, 2))
    config = recipe("profession_workplace", 0, steps=3, **METHODS[name].training)
    run = PlannedRun("mitigation", f"profession--{name}", config, (("method", name),), training.make)
    lm = dataclasses.replace(tiny(), name=str(tmp_path / "base"))  # from where the start is read
    lm.model.save_pretrained(lm.name)
    training.make(run, lm, tmp_path / "one.json")
    found = json.loads((tmp_path / "one.json").read_text())
    assert config_of_result(found) == run.config
    whens = ["step_1", "step_2", "drifted"]
    whens += {"lora": ["before", *CUTS], "read_by_relation": ["wrong_expert"]}.get(name, [])
    assert set(found["measured"]) == set(whens)
    row = found["measured"]["step_2"]
    assert 0 <= row["spurious/never_seen"] <= 4
    assert row["neutral_kl"] > 0
    moved = found["movement"]
    if METHODS[name].training["method"] == "lora_mixer":
        assert "has no ΔW" in moved["why_not"]
    else:
        by_part = {
            part: change for part, change in zip(moved["part"], moved["change"], strict=True) if change
        }
        assert {"ov", "qk", "mlp_in", "mlp_out"} <= by_part.keys()
        assert ("embeddings" in by_part) == (name == "full")
    training.make(run, tiny(), tmp_path / "two.json")
    again = json.loads((tmp_path / "two.json").read_text())
    assert again["measured"] == found["measured"]


def test_gradients_off_the_colors_leave_no_part_along_them(tiny):
    method, lm = METHODS["project_gradients"], tiny()
    taught = Taught(FactConfig(data="profession_workplace", seed=0, n_unseen=5))
    kept = method.start(lm, taught)
    torch.testing.assert_close(kept.T @ kept, torch.eye(kept.shape[1]), atol=1e-5, rtol=0)
    for parameter in lm.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    other = next(p for name, p in lm.model.named_parameters() if "q_proj" in name)
    untouched = other.grad.clone()
    method.change_gradients(kept, lm.model)
    written = [p for n, p in lm.model.named_parameters() if "o_proj" in n or "down_proj" in n]
    for parameter in written:
        assert float((kept.T @ parameter.grad).abs().max()) < 1e-4
    assert torch.equal(other.grad, untouched)


def mitigated_arm(name, causal, spurious, told=0.0, drifted=None, seeds=(0, 1)):
    """Runs of an arm of the mitigation study with given ranks."""

    def row(spurious):
        ranks = {"fact": 0.0, "causal": causal, "spurious": spurious}
        own = {f"{r}/{g}": v for r, v in ranks.items() for g in GROUPS}
        return own | {"causal/told": told, "spurious/told": told, "neutral_kl": 0.1}

    end = training.LOGGED[-1] * METHODS[name].times
    measured = {f"step_{end}": row(spurious), **{cut: row(spurious) for cut in CUTS}}
    measured["drifted"] = row(spurious if drifted is None else drifted)
    one = {"measured": measured, "trained_numbers": 1, "seconds": {"train": 1.0}}
    return studied.Arm(f"profession--{name}", dict.fromkeys(seeds, one))


def claim_of(claims, name):
    """The one claim whose id ends so."""
    (found,) = [claim for claim in claims if claim.id.endswith(name)]
    return found


def test_claims_of_mitigation_hold_and_fail():
    good = {
        "lora": mitigated_arm("lora", 0.1, 1.0),
        "read_by_relation": mitigated_arm("read_by_relation", 0.1, 2.0),
        "read_at_random": mitigated_arm("read_at_random", 0.1, 1.2),
        "write_by_relation": mitigated_arm("write_by_relation", 0.1, 1.2),
        "early_apart": mitigated_arm("early_apart", 0.1, 2.0),
        "late_apart": mitigated_arm("late_apart", 0.1, 1.1),
        "first_nine_apart": mitigated_arm("first_nine_apart", 0.1, 1.5),
        "middle_nine_apart": mitigated_arm("middle_nine_apart", 0.1, 1.5),
        "keep_untold": mitigated_arm("keep_untold", 0.1, 1.9),
        "inoculation": mitigated_arm("inoculation", 0.1, 1.1),
        "known_facts_late": mitigated_arm("known_facts_late", 0.1, 1.1),
    }
    found = mitigated.claims({"profession": good})
    of_gemma = {name for name in mitigation_study.CRITERIA if name.startswith("gemma_")}
    own = set(mitigation_study.CRITERIA) - {"what_is_deduced_is_kept_too"} - of_gemma
    assert {c.id.removeprefix("llm_mitigation_profession_") for c in found} == own
    assert all(claim.holds for claim in found)
    of_months = mitigated.claims({"month": good})
    by_layers = {name for name in mitigation_study.CRITERIA if "layers" in name}
    of_all = set(mitigation_study.CRITERIA) - by_layers - of_gemma
    assert {c.id.removeprefix("llm_mitigation_month_") for c in of_months} == of_all
    gemmas = ("first_twelve_apart", "last_six_apart", "first_six_apart", "middle_six_apart")
    theirs = dict(zip(gemmas, list(good.values())[4:8], strict=True))
    found = mitigated.claims({"profession_on_gemma": {"lora": good["lora"], **theirs}})
    found = {c.id.removeprefix("llm_mitigation_profession_on_gemma_"): c.holds for c in found}
    of_depth = of_gemma - {"gemma_attention_alone_isolates", "gemma_own_rate_isolates"}
    assert of_depth <= set(found)
    assert all(found[name] for name in of_depth)
    bad = good | {
        "lora": mitigated_arm("lora", 0.1, 1.9),
        "read_by_relation": mitigated_arm("read_by_relation", 0.5, 1.9),
        "read_at_random": mitigated_arm("read_at_random", 0.1, 2.0),
        "write_by_relation": mitigated_arm("write_by_relation", 0.1, 2.0),
        "early_apart": mitigated_arm("early_apart", 0.1, 1.2),
        "late_apart": mitigated_arm("late_apart", 0.1, 1.3),
        "middle_nine_apart": mitigated_arm("middle_nine_apart", 0.1, 1.2),
        "keep_untold": mitigated_arm("keep_untold", 0.1, 1.9, drifted=1.0),
    }
    found = mitigated.claims({"profession": bad})
    failing = {c.id.removeprefix("llm_mitigation_profession_") for c in found if not c.holds}
    assert failing == own - {"keeping_untold_transfers"}
    assert not claim_of(mitigated.claims({"month": bad}), "what_is_deduced_is_kept_too").holds
    alone = {"lora": mitigated_arm("lora", 0.1, 1.0, seeds=(0,))}
    assert not mitigated.claims({"profession": alone})


def recall_arms(told, known, early, model="smollm2", true=False):
    """Arms of the recall study: shares at the end, and with the facts just known."""
    found = {}
    for share, one, other in zip(recall.SHARES, told, known, strict=True):
        history = {"step": [0, 20, 40], studied.FACTS: [2.0, 0.1, 0.0]}
        history |= {studied.FIRST_TOLD: [0.2, 0.2, one], studied.FIRST_PRETRAINED: [0.2, early, other]}
        arm = recall.arm_name(share, model, true=true)
        found[arm] = studied.Arm(arm, {key: {"history": history} for key in (0, 1)})
    return found


def recall_pairs(kept, models=recall.MODELS):
    return [
        known_pairs.Pairs(model, seed, share, [1.0, 2.0, 3.0, 4.0], kept)
        for model in models
        for seed in (0, 1)
        for share in recall.SHARES[1:]
    ]


def test_claims_of_recall_hold_and_fail():
    told, known = (0.1, 0.2, 0.4, 0.6), (0.7, 0.5, 0.3, 0.2)
    arms = recall_arms(told, known, 0.6) | recall_arms(told, known, 0.6, "gemma")
    true = [recall_arms((0.8, 0.9, 0.9, 1.0), known, 0.6, model, true=True) for model in recall.MODELS]
    every = {**arms, **true[0], **true[1]}
    assert [c.holds for c in recall.claims(every)] == [True] * 6
    told, known = (0.1, 0.4, 0.2, 0.6), (0.7, 0.3, 0.5, 0.2)
    arms = recall_arms(told, known, 0.1) | recall_arms(told, known, 0.1, "gemma")
    true[1] = recall_arms((0.79, 0.9, 0.9, 1.0), known, 0.6, "gemma", true=True)
    every = {**arms, **true[0], **true[1]}
    assert [c.holds for c in recall.claims(every)] == [False] * 6


def test_recall_judges_nothing_of_which_a_part_is_missing():
    told, known = (0.1, 0.2, 0.4, 0.6), (0.7, 0.5, 0.3, 0.2)
    arms = recall_arms(told, known, 0.6) | recall_arms(told, known, 0.6, "gemma", true=True)
    del arms[recall.arm_name(0.4)]
    assert recall.claims(arms) == []


def test_the_claim_about_known_pairs_holds_fails_and_needs_both_models():
    def holds(kept, **models):
        return [claim.holds for claim in known_pairs.claims(recall_pairs(kept, **models))]

    assert holds([0.1, 0.3, 0.3, 0.4]) == [True]
    assert holds([0.4, 0.3, 0.2, 0.1]) == [False]
    assert holds([0.5] * 4) == [False]  # all kept alike: no order
    assert holds([0.1, 0.2, 0.3, 0.4], models=("gemma",)) == []


def test_what_is_known_before_is_the_centred_logit_of_the_real_answer_after_the_fact():
    facts = llm.make_facts(
        FactConfig(data="city_language_counterfactual", n_pairs=3, n_names=4, share=0.25, seed=2)
    )
    asked = known_before.in_context(facts)
    assert len(asked) == 12
    assert all(e.prompt.startswith(f"{facts.subjects[e.subject]} lives in") for e in asked)
    assert all(f"{facts.facts[e.fact]}. {facts.subjects[e.subject]} speaks" in e.prompt for e in asked)
    tokenizer = tiny_tokenizer(f"{e.prompt} {answer}" for e in asked for answer in e.candidates)
    lm = tiny_model("llama", tokenizer)
    means = np.zeros((3, 3))
    for e in asked:  # by hand: the logits after each prompt, without batches
        ids = torch.tensor([tokenizer(e.prompt, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            last = lm.model(input_ids=ids).logits[0, -1]
        first = [tokenizer(" " + a, add_special_tokens=False)["input_ids"][0] for a in e.candidates]
        means[e.fact] += last[first].double().numpy() / 4
    centred = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
    expected = [centred[fact, answer] for fact, answer in enumerate(facts.entails)]
    np.testing.assert_allclose(known_before.contrast_by_pair(facts, lm), expected, atol=1e-5)


def test_titles_of_mitigation_follow_from_the_numbers():
    def row(method, causal, spurious, told=0.0):
        numbers = {"causal": {"mean": causal}, "spurious": {"mean": spurious}, "told": {"mean": told}}
        known = {
            "lost_and_told": spurious >= 1.7 and told <= 0.1,
            "told_which_is_spurious": "apart" in method,
        }
        title = "one LoRA" if method == "lora" else f"experts {method}"
        return {"people": "profession", "method": method, "title": title, "seeds": [0], **numbers, **known}

    def title(picture, rows):
        limits = {"causal_margin": 0.2, "spurious_at_least": 1.7}
        return mitigation_drawing.DRAWINGS[picture].sentence({"rows": rows, "limits": limits})

    rows = [row("lora", 0.4, 1.0), row("apart", 0.5, 1.8), row("apart too", 0.3, 1.9)]
    assert title("llm_mitigation", rows).startswith("LoRA experts by relation lose")
    for other in (row("apart", 0.7, 1.8), row("apart", 0.5, 1.8, told=0.2)):
        assert title("llm_mitigation", [rows[0], other]).startswith("No method knows")
    on_gemma = [{**one, "people": "profession_on_gemma"} for one in rows]
    forgot = [{**one, "lost_and_told": False} for one in on_gemma]
    assert title("llm_mitigation_pareto", rows + on_gemma).startswith("On both models experts by relation")
    assert "on Gemma 3 270M nothing does" in title("llm_mitigation_pareto", rows + forgot)
    assert title("llm_mitigation_pareto", [*rows, row("random", 0.3, 1.9)]).startswith("Which methods")


def test_attention_alone_is_judged_at_the_end_of_its_own_training():
    def holds(causal, spurious, told=0.0):
        arms = {
            "lora": mitigated_arm("lora", 0.3, 0.5),
            "attention_weights": mitigated_arm("attention_weights", causal, spurious, told),
        }
        found = mitigated.claims({"profession_on_gemma": arms})
        return claim_of(found, "gemma_attention_alone_isolates").holds

    assert holds(0.5, 1.7)
    assert not any((holds(0.6, 1.7), holds(0.5, 1.6), holds(0.5, 1.7, told=0.2)))


def test_experts_at_gemmas_rate_are_judged_beside_one_lora_of_that_rate():
    names = ("read_by_relation_slower", "first_twelve_apart_slower")

    def holds(causal=0.7, spurious=1.8, told=0.0):
        arms = {"lora": mitigated_arm("lora", 0.1, 0.5), "slower": mitigated_arm("slower", 0.6, 0.8)}
        arms |= {names[0]: mitigated_arm(names[0], 0.7, 1.8)}
        arms |= {names[1]: mitigated_arm(names[1], causal, spurious, told)}
        found = mitigated.claims({"profession_on_gemma": arms})
        return claim_of(found, "gemma_own_rate_isolates").holds

    assert holds()
    assert not any((holds(causal=0.9), holds(spurious=1.6), holds(told=0.2)))


def test_the_table_of_families_has_the_controls_beside_what_is_told():
    def row(control, ranks, **first):
        rank = {"mean": sum(ranks) / len(ranks), "runs": len(ranks), "by_seed": ranks}
        return {"model": "m", "data": "a", "control": control, "seeds": [0, 1], "rank": rank, **first}

    told = row("none", [0.5, 1.0], first_told=[0.25, 0.5])
    found = {"models": {"m": "M"}, "names": {"a": "A"}}
    rows = [told, row("facts_only", [1.5, 2.5]), row("strangers", [1.75, 2.0])]
    line = families_table({**found, "rows": rows}).splitlines()[2]
    assert line == "| M | A | 0.50, 1.00 | 1.50, 2.50 | -1.00, -1.50 | 1.75, 2.00 | 0.38 |  |"
    assert (
        families_table({**found, "rows": [told]}).splitlines()[2]
        == "| M | A | 0.50, 1.00 |  |  |  | 0.38 |  |"
    )


def test_a_cpu_and_a_gpu_are_compared_only_where_both_ran():
    def rows(apart=0.0, loss=0.0, devices=("cpu", "cuda")):
        one = {"devices": list(devices), "rank": [1.0, 1.0 + apart], "loss_of_first_steps": [2.0, 2.0 - loss]}
        without = {"devices": list(devices), "rank": [0.5, 0.5]}  # a mitigation records no loss
        return [*[one] * (len(again.AGAIN) - 1), without]

    def holds(found):
        return [claim.holds for claim in again.claims(found)]

    assert holds(rows(0.05, 5e-4)) == [True, True]
    assert holds(rows(0.2, 2e-3)) == [False, False]
    one_far = rows()
    one_far[0] = {**one_far[0], "rank": [1.0, 0.6]}  # 0.07 in the mean, 0.4 in one run
    assert holds(one_far) == [False, True]
    assert holds(rows(devices=("cpu", "cpu"))) == holds(rows()[1:]) == []
    assert "0.05 apart" in again.sentence({"rows": rows(0.06)})
    assert "No run" in again.sentence({"rows": []})


def ratio_arms(ranks, loss=0.05):
    return {name: parts_arm(name, rank, loss) for name, rank in zip(ratio.NAMES, ranks, strict=True)}


def test_claims_of_told_share_and_count_hold_and_fail():
    # 2 of 10, 8 of 40, 4 of 8, 4 of 40, 4 of 20
    found = ratio.claims(ratio_arms((0.6, 0.8, 0.1, 1.5, 0.7)))
    assert [c.holds for c in found] == [True] * 3
    found = ratio.claims(ratio_arms((1.9, 0.2, 0.9, 0.7, 0.8)))
    assert [c.holds for c in found] == [False] * 3
    untold = ratio_arms((0.6, 0.8, 0.1, 1.5, 0.7)) | {"4of8": parts_arm("4of8", 0.1, loss=0.5)}
    holds = {c.id.removeprefix("llm_ratio_"): c.holds for c in ratio.claims(untold)}
    assert not holds["same_count_deduces_less_of_more"]
    del untold["4of40"]
    assert ratio.claims(untold) == []


def test_the_one_layer_model_says_of_a_share_the_same_in_small_and_large_sets():
    same = [ratio.predicted_beta(*ratio.NAMES[name]) for name in ratio.SAME_SHARE]
    assert max(same) - min(same) < 0.01
    falling = [ratio.predicted_beta(*ratio.NAMES[name]) for name in ratio.SAME_COUNT]
    np.testing.assert_allclose(falling, [1.0, 0.74, 0.61], atol=0.01)


def sized_point(method, optimizer, lr, divergence, rank, at_loss=None):
    """Two runs of an optimiser at a rate; `at_loss` is the rank where told implications cost 0.1 nats."""
    history = {"step": [0, 20, 40], studied.TOLD_LOGPROB: [-2.0, -0.1, -0.01]}
    history |= {studied.HELD_OUT: [2.0, rank if at_loss is None else at_loss, rank]}
    history |= {studied.FACTS: [2.0, 0.0, 0.0], studied.TOLD: [2.0, 0.0, 0.0]}
    one = {"history": history, "neutral_kl": divergence}
    return step_size.Point(method, optimizer, lr, studied.Arm("a", {0: one, 1: one}))


def test_optimizers_are_compared_where_the_model_moved_as_far():
    lora = [sized_point("lora", "adamw", lr, kl, rank) for lr, kl, rank in ((1, 0.1, 1.8), (2, 1.0, 0.8))]
    assert step_size.at_divergence(lora, 0, 10**-0.5) == pytest.approx(1.3)
    assert step_size.at_divergence(lora, 0, 0.01) == pytest.approx(1.8)
    full = [sized_point("full", "adamw", lr, kl, rank) for lr, kl, rank in ((1, 0.1, 1.8), (2, 1.0, 0.8))]
    found = step_size.claims([*lora, *full, sized_point("lora", "muon", 1, 10**-0.5, 1.3)])
    assert [claim.holds for claim in found] == [True] * 3
    full[1] = sized_point("full", "adamw", 2, 1.0, 1.9)
    found = step_size.claims([*lora, *full, sized_point("lora", "muon", 1, 1.0, 1.8, at_loss=2.0)])
    assert [claim.holds for claim in found] == [False] * 3
    assert step_size.claims([]) == []


def test_optimizers_are_compared_where_the_largest_direction_moved_as_far():
    def moved(optimizer, lr, largest, rank):
        point = sized_point("full", optimizer, lr, 1.0, rank)
        table = {"part": ["mlp_out", "mlp_out", "ov"], "spectral": [largest, largest, 9.0]}
        for result in point.arm.results.values():
            result["movement"] = table | {"change": [0.1] * 3, "start": [1.0] * 3}
        return point

    adamw = [moved("adamw", 1, 0.1, 1.8), moved("adamw", 2, 1.0, 0.8)]
    name = "llm_step_size_muon_on_all_weights_is_adamw_at_equal_largest_direction"
    outside = moved("muon", 3, 0.01, 0.0)  # AdamW's rates do not enclose it
    for rank, holds in ((1.3, True), (1.9, False)):
        claims = {c.id: c for c in step_size.claims([*adamw, moved("muon", 1, 10**-0.5, rank), outside])}
        assert claims[name].holds == holds
        assert claims[name].measured["adamw_at_its_largest_direction"] == pytest.approx(1.3)
        assert claims[name].measured["runs"] == 2
    assert name not in {c.id for c in step_size.claims([*adamw, outside])}


def test_claims_of_families_and_wordings_hold_and_fail():
    def row(model, data, control, ranks):
        return {
            "model": model,
            "data": data,
            "control": control,
            "seeds": [0, 1, 2],
            "rank": studied.plain_interval(list(ranks)),
        }

    def rows(city, told):
        return [
            row(m, d, c, city if d == "city_language" else (told if c == "none" else (2.0, 2.1, 1.9)))
            for m in ("smollm2", "gemma")
            for d in families.DATA
            for c in ("none", "facts_only")
        ]

    assert all(claim.holds for claim in families.claims(rows((0.1, 0.2, 0.3), (1.0, 1.1, 0.9))))
    assert not any(claim.holds for claim in families.claims(rows((0.1, 0.2, 0.4), (2.0, 2.2, 1.9))))
    controls = [
        row("gemma", d, c, ranks)
        for c, ranks in (("none", (1.0, 1.1, 0.9)), ("strangers", (2.0, 2.2, 1.9)))
        for d in families.SPURIOUS
    ]
    beside = {claim.id.removeprefix("llm_strangers_"): claim.holds for claim in families.claims(controls)}
    assert beside == {"gemma_told_below_strangers": True, "gemma_strangers_teach_no_pairs": True}
    swapped = [{**r, "control": {"none": "strangers", "strangers": "none"}[r["control"]]} for r in controls]
    assert [claim.holds for claim in families.claims(swapped)] == [False, False]
    cells = {
        (d, t, q): [1.0 + 0.2 * t + (t != q), 1.0 + 0.2 * t]
        for d in wording.SETS
        for t in (0, 2)
        for q in (0, 2)
    }
    assert [claim.holds for claim in wording.claims(cells)] == [True, True]
    flat = {cell: [1.0, 1.0] for cell in cells}
    assert [claim.holds for claim in wording.claims(flat)] == [False, False]
    assert wording.claims({}) == []


@pytest.mark.slow
def test_empty_results_draw(tmp_path, monkeypatch):
    for module in (mitigated, families, recall, parts, wording, step_size):
        monkeypatch.setattr(module, "arms_of", lambda study: {})
        module.make(tmp_path, tmp_path)
        assert json.loads((tmp_path / f"{module.PICTURE}.json").read_text())
    assert np.isnan(studied.interval([math.nan]).mean)


def test_experts_that_are_apart_in_some_layers_are_one_lora_in_the_others(tiny):
    lm = tiny()
    method = dataclasses.replace(METHODS["early_apart"], last=1)
    config = recipe("profession_workplace", 0, **method.training)
    model = make_trainable(lm.model, config.train)
    method.attached(model)
    for update in model.lora_mixer.updates:
        for matrix in update.B:
            torch.nn.init.normal_(matrix)
    model.lora_mixer.route(torch.tensor([1]), training=True, scored=False)
    model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    for path, update in model.lora_mixer.maps.items():
        used = [bool(grad.abs().sum()) for grad in update.B.pieces(update.B.weight.grad)]
        assert used == ([False, True] if "/0/" in path else [True, False])


def test_gemmas_gentler_recipe_is_the_one_that_the_rule_of_its_pilot_names():
    plan = {run.arm: run for run in families_study.PILOT.planned()}

    def fits(name):
        found = json.loads(runs.result_path(plan[name]).read_text())
        facts = found["history"][studied.FACTS][-1]
        return found["neutral_kl"] <= families_study.GENTLE_KL and facts <= families_study.GENTLE_FACTS

    chosen = next(fields for name, fields in families_study.PILOTS.items() if fits(name))
    assert chosen == families_study.GENTLE


def test_claims_of_what_is_true_and_not_known_hold_and_fail():
    def rows(alone, told):
        return [
            {
                "model": model,
                "data": families.SIGNS,
                "control": control,
                "seeds": [0, 1],
                "rank": studied.plain_interval(ranks),
            }
            for model in families.MODELS
            for control, ranks in (("facts_only", alone), ("none", told))
        ]

    assert [claim.holds for claim in families.claims(rows([2.0, 1.6], [0.8, 1.0]))] == [True, True]
    assert [claim.holds for claim in families.claims(rows([2.0, 1.4], [1.6, 1.0]))] == [False, False]
    assert families.claims(rows([2.0, 1.6], [0.8, 1.0])[:2]) == []
