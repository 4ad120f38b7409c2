"""Titles of the language models' figures, which follow the numbers: each says something else of others."""

from analyses.llm import families, parts, step_size, wording
from analyses.llm.finished import inside_curves
from analyses.llm.mitigation import drawing
from analyses.llm.studies.families import CITY
from analyses.predictions import known_pairs, ratio, recall


def ranks(model, data, control, mean):
    return {"model": model, "data": data, "control": control, "rank": {"mean": mean}}


def test_families_counts_the_cases_if_one_is_not_nearer():
    told, alone = (0.1, 1.0, 0.5), (0.2, 2.0, 1.9)
    sets = (CITY, "country_code", "sport_music")
    rows = [ranks("gemma", d, "none", m) for d, m in zip(sets, told, strict=True)]
    rows += [ranks("gemma", d, "facts_only", m) for d, m in zip(sets, alone, strict=True)]
    strong = ranks(families.STRONG, "sport_music", "none", 9.0)  # is in no picture
    assert families.sentence({"rows": [*rows, strong]}).startswith("Known languages are recalled")
    rows[1]["rank"]["mean"] = 2.5
    assert families.sentence({"rows": rows}).endswith("in 1 of 2 cases")
    rows[1]["rank"]["mean"], rows[3]["rank"]["mean"] = 1.0, 1.0  # the known set is not recalled
    assert families.sentence({"rows": rows}).endswith("in 2 of 2 cases")


def test_parts_names_the_arm_that_separates_or_who_deduces_most_and_least():
    def arm(title, *ranks, data="profession_color", told=0.0):
        known = {"fact_rank": [0.0] * len(ranks), "told_rank": [told] * len(ranks)}
        return {"data": data, "title": title, "rank": {"by_seed": list(ranks)}, **known}

    def said(rows, model="SmolLM2"):
        return parts.sentence({"model": model, "rows": rows})

    rows = [arm("MLPs", 1.2, 2.0), arm("attention", 0.3), arm("LoKr", 0.0, data="city_language")]
    assert said(rows).endswith("least by MLPs (mean rank 1.60), most by attention (0.30)")
    assert said(rows, "Gemma").startswith("On Gemma 3 no part")
    forgot = arm("OV", 2.0, told=0.5)  # deduces least, but does not know what it was told
    assert said([*rows, forgot]).endswith("least by MLPs (mean rank 1.60), most by attention (0.30)")
    assert "not known" in said(rows[:1])
    rows = [arm("MLPs", 1.6, 2.0), arm("attention", 0.3), arm("MLPs", 0.3, data="city_language")]
    assert (
        said(rows) == "Causal answers are kept and spurious ones not deduced if this alone is trained: MLPs"
    )
    rows[2] = arm("MLPs", 0.3, data="city_language", told=0.5)  # what was told is not known
    assert said(rows).startswith("No part")
    rows[2], rows[0] = arm("MLPs", 0.3, data="city_language"), arm("MLPs", 1.6, 2.0, told=0.5)
    assert said(rows).startswith("No part")
    rows[0] = arm("MLPs", 1.6, 2.0)
    rows.append(arm("attention", 0.4, data="sport_music"))  # MLPs were not run on every spurious set
    assert "not known" in said(rows)


def test_parts_correlate_the_arms_that_know_what_they_were_told():
    def arm(title, causal, spurious, known=True):
        return parts.Shown(title, [(causal, known)], [(spurious, True), (spurious, True)])

    shown = [arm("a", 0.1, 0.5), arm("b", 0.2, 1.5), arm("c", 0.3, 1.0), arm("d", 2.0, 0.1, known=False)]
    found = parts.going_together(shown)
    assert found == {"arms": ["a", "b", "c"], "correlation": 0.5}
    assert parts.going_together(shown[:1])["correlation"] is None


def test_recall_says_falling_only_of_falling_shares():
    def numbers(known, told=(0.1, 0.2), model="smollm2"):
        return {
            "rows": [
                {
                    "arm": recall.arm_name(share, model),
                    "first_pretrained": {"mean": one},
                    "first_told": {"mean": other},
                }
                for share, one, other in zip((0.0, 0.4), known, told, strict=True)
            ]
        }

    assert recall.sentence(numbers((0.9, 0.5))).endswith("stays ahead of the told one")
    assert recall.sentence(numbers((0.9, 0.1))).endswith("the answer that SmolLM2 knew")
    assert recall.sentence(numbers((0.5, 0.6))) == (
        "Of untold names 50% get the answer that SmolLM2-135M knew if 0% of the others are told, "
        "60% if 40% are"
    )
    both = {"rows": numbers((0.9, 0.5))["rows"] + numbers((0.9, 0.3), model="gemma")["rows"]}
    assert recall.sentence(both).startswith("The more other names are told")
    assert "SmolLM2 and Gemma knew" in recall.sentence(both)
    both["rows"][-1]["first_pretrained"]["mean"] = 0.95
    assert "Gemma 3 270M knew if 0%" in recall.sentence(both)


def test_what_was_known_better_is_said_of_the_models_of_which_it_holds():
    def said(**by_seed):
        runs = [
            {"model": m, "seed": seed, "correlation": c}
            for m, v in by_seed.items()
            for seed, c in enumerate(v)
        ]
        return known_pairs.sentence({"runs": runs})

    assert said(smollm2=[0.1, 0.2], gemma=[0.2]).startswith("A pair that was known better")
    assert said(smollm2=[-0.1, 0.9], gemma=[0.2]).endswith("on Gemma 3 270M alone")
    assert said(smollm2=[0.9, -0.1], gemma=[0.0]).startswith("How well a pair was known before does not say")
    assert "once it was measured" in said()


def test_ratio_names_what_decides_more_once_every_size_is_there():
    def row(name, mean):
        return {"arm": name, "matched": {"mean": mean}}

    ranks = {"2of10": 0.6, "8of40": 0.8, "4of8": 0.1, "4of40": 1.5, "4of20": 0.7}
    said = ratio.sentence({"rows": [row(*one) for one in ranks.items()]})
    assert said.startswith("How much is deduced follows the told share more")
    assert said.endswith("differ by 0.20 at equal share and by 1.40 at equal number")
    said = ratio.sentence({"rows": [row(*one) for one in (ranks | {"2of10": 2.3}).items()]})
    assert said.startswith("How much is deduced follows the number of told names more")
    alike = ranks | {"4of8": 0.7, "4of40": 0.9}
    assert ratio.sentence({"rows": [row(*one) for one in alike.items()]}).startswith("Neither the told share")
    missing = [row(*one) for one in (ranks | {"4of8": None}).items()]  # never told so well
    assert "once all are trained" in ratio.sentence({"rows": missing})
    assert "once all are trained" in ratio.sentence({"rows": []})


def test_optimisers_are_compared_where_weights_moved_as_far():
    def row(optimizer, moved, largest, rank, fitted=True):
        sizes = {"moved": moved, "largest": largest}
        far = {size: {step_size.SHOWN: {"mean": value}} for size, value in sizes.items()}
        return {"method": "full", "optimizer": optimizer, "rank": {"mean": rank}, "fitted": fitted, **far}

    rows = [row("adamw", 0.001, 0.1, 2.0), row("adamw", 0.1, 10, 1.0), row("muon", 0.01, 0.1, 1.6)]
    said = step_size.movement_sentence({"rows": rows})
    assert "is 1.60 beside AdamW's 1.50 where weights moved as far in Frobenius norm" in said
    assert said.endswith("1.60 beside 2.00 where their largest direction did")
    further = [row("muon", 0.5, 1, 0.0)]  # farther than any run of AdamW in one norm, not in the other
    said = step_size.movement_sentence({"rows": rows + further})
    assert "is 1.60 beside AdamW's 1.50 where" in said
    assert said.endswith("0.80 beside 1.75 where their largest direction did")
    rows[2]["fitted"] = False  # does not know what it was told: not compared
    assert step_size.movement_sentence({"rows": rows}).startswith("How much")
    assert step_size.movement_sentence({"rows": further}).startswith("How much")


def test_wording_says_first_only_if_no_other_wording_deduces():
    def cell(trained, asked, mean):
        return {"data": "profession_color", "trained": trained, "asked": asked, "mean": mean}

    rows = [cell(0, 0, 0.4), cell(0, 2, 1.5), cell(2, 0, 1.6), cell(2, 2, 1.4)]
    assert wording.sentence({"rows": rows}).endswith("far less otherwise")
    rows[3]["mean"] = 0.3
    said = "Asked in a wording that was not trained, untold colors are deduced less: mean rank 1.55,"
    assert wording.sentence({"rows": rows}) == f"{said} in the trained one 0.35"
    rows[0]["mean"] = 3.0
    assert "deduced no less: mean rank 1.55" in wording.sentence({"rows": rows})
    assert "not known" in wording.sentence({"rows": rows[:1]})
    assert "not known" in wording.sentence({"rows": []})


def patched(donor):
    return {"places": ["name", "last"], "donor": donor}


def test_layers_name_the_turn_only_if_every_run_has_one():
    one, other = patched([[0.9, 2.0], [1.0, 1.9], [2.0, 0.5]]), patched([[0.9, 2.0], [2.0, 0.7], [2.1, 0.5]])

    def sentence(**runs):
        names = {
            "smol": "city_language, full",
            "codes": "country_code, full",
            "gemma": "gemma, city_language, full",
        }
        seeds = {name: of if isinstance(of, list) else [of] for name, of in runs.items()}
        return inside_curves.layers_sentence(
            {names[name]: {f"seed {k}": one for k, one in enumerate(of)} for name, of in seeds.items()}
        )

    said = sentence(smol=one)
    assert said.endswith("moves from it to the prompt's last token at layer 2 of 3 on SmolLM2")
    both = sentence(smol=one, gemma=other)
    assert both.endswith("at layer 2 of 3 on SmolLM2, layer 1 of 3 on Gemma 3 270M")
    for more in (sentence(smol=one, codes=other), sentence(smol=[one, other])):
        assert more.endswith("at layer 1 or 2 of 3 on SmolLM2")
    back = patched([[0.9, 2.0], [2.0, 0.7], [0.8, 2.0]])
    for unlike in (back, patched([[2.0, 1.0]] * 3), patched([[1.0, 2.0]] * 3)):
        for said in (sentence(smol=one, gemma=unlike), sentence(smol=[one, unlike])):
            assert said.startswith("Where facts of untold names can be read")


def test_truncation_says_apart_only_if_what_was_told_is_kept():
    def numbers(*seeds, kept=(0.7, 0.0)):
        own = {"k": [1, 8], "training_implication": [0.0, 0.1], "held_out_implication": [0.6, 1.3]}
        backwards = {name: values[::-1] for name, values in own.items()}
        curves = {
            f"seed {k}": {
                "the top {k} removed": {**own, "held_out_fact": facts},
                "only the top {k} kept": {**backwards, "held_out_fact": list(kept)},
            }
            for k, facts in enumerate(seeds)
        }
        return {"mean rank by seed": {"city_language, full": curves}, "chance": 2.0}

    said = inside_curves.truncation_sentence(numbers([0.0, 0.1]))
    assert said.startswith("Without the largest directions of every update what was deduced is lost before")
    assert said.endswith("in 1 of 1 runs, with them alone in 0")
    said = inside_curves.truncation_sentence(numbers([0.0, 0.7], [0.0, 0.1], kept=(0.1, 0.0)))
    assert said.endswith("in 1 of 2 runs, with them alone in 2")
    said = inside_curves.truncation_sentence(numbers([0.0, 0.1], kept=(0.1, 0.0)))
    assert said == "Whichever end of every update is cut, what was deduced is lost before what was told"
    assert inside_curves.truncation_sentence(numbers([0.0, 0.7])).startswith(
        "What is told and what is deduced"
    )


def test_methods_that_separate_alike_stand_by_name():
    """The order of a set differs from process to process; a picture must not."""
    names = ["f", "b", "e", "a", "d", "c"]
    rows = [{"method": name, "causal": {"mean": 0.5}, "spurious": {"mean": 1.5}} for name in names]
    best = {"method": "0", "causal": {"mean": 0.1}, "spurious": {"mean": 1.9}}
    assert drawing.by_separation([best, *rows]) == [*sorted(names), "0"]
