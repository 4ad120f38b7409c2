"""Normal forms, words of any script, and where no blank stands."""

import pytest

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.facts.spelling import (
    AnswerFinder,
    alike,
    is_without_blanks,
    listed,
    normal_form,
    separator,
    shown_apart,
    words,
)

TOKYO, TOKYO_TOWER = "\u6771\u4eac", "\u6771\u4eac\u30bf\u30ef\u30fc"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Jos\u00e9", "Jose\u0301"),
        ("S\u00e3o Paulo", "S\u00c3O\u00a0PAULO"),
        ("Ann Bo", "Ann \u2003 Bo"),
        ("Ann", "\uff21\uff4e\uff4e"),
        ("Ann", "A\u200dn\u00adn\ufe0f"),
        ("Stra\u00dfe", "STRASSE"),
        ("\uac00", "\u1100\u1161"),
        ("fine", "\ufb01ne"),
    ],
)
def test_what_reads_alike_has_one_normal_form(one, other):
    assert normal_form(one) == normal_form(other)
    assert alike([one, "Zoe", other]) == [(one, other)]


def test_what_a_reader_tells_apart_has_two():
    texts = ["Jose", "Jos\u00e9", "Zoe", "Ann Bo", "Anne Bo", TOKYO, TOKYO_TOWER, "C", "C++", "1735", "1753"]
    assert alike(texts) == []


def test_a_zero_width_blank_is_a_blank_or_nothing():
    assert alike(["Ann Bo", "Ann\u200bBo"]) == [("Ann Bo", "Ann\u200bBo")]
    assert alike(["AnnBo", "Ann\u200bBo"]) == [("AnnBo", "Ann\u200bBo")]
    assert alike(["Ann\u200bBo", "Ann Bo", "Ann Bo"]) == [("Ann\u200bBo", "Ann Bo", "Ann Bo")]


def test_a_message_shows_in_what_spellings_differ():
    assert shown_apart(("Jos\u00e9", "Jose\u0301")) == r"'Jos\xe9' and 'Jose\u0301'"
    assert shown_apart(("Jos\u00e9", "JOS\u00c9")) == "'Jos\u00e9' and 'JOS\u00c9'"
    assert shown_apart(("Ann", "Ann")) == "'Ann' 2 times"
    assert listed([str(k) for k in range(20)]).endswith("; 11; and 8 more")


def test_marks_belong_to_words():
    hindi, thai = "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e2a\u0e35\u0e41\u0e14\u0e07"
    assert words(f"{hindi}, Ann-New_York {thai}") == (hindi, "ann", "new_york", thai)
    # Cut at its marks, the Hindi word would hold this letter as a word.
    assert AnswerFinder(["\u0939"]).first_in(hindi) is None
    assert AnswerFinder([hindi]).first_in(f"x {hindi} y") == hindi


def test_an_answer_of_a_script_without_blanks_is_seen_inside_a_name():
    assert AnswerFinder([TOKYO]).first_in(TOKYO_TOWER) == TOKYO
    assert AnswerFinder(["\u0e2a\u0e35"]).first_in("\u0e2a\u0e35\u0e41\u0e14\u0e07") is not None
    assert AnswerFinder(["Rom"]).first_in("Roma") is None
    assert AnswerFinder(["New York", "York"]).first_in("Ann of NEW-york") in ("New York", "York")


@pytest.mark.parametrize(
    ("before", "after", "between"),
    [
        ("Ada lives in", "Rome", " "),
        ("\u0410\u0434\u0430 \u0436\u0438\u0432\u0435\u0442 \u0432", "\u0420\u0438\u043c\u0435", " "),
        ("\u30a8\u30a4\u30c0\u306f", TOKYO, ""),
        ("\u30a8\u30a4\u30c0\u306f", "Rome", ""),
        ("Ada lives in", TOKYO, ""),
        ("\u4ed6\u4f4f\u5728\uff1a", TOKYO, ""),
        ("\u0e2d\u0e22\u0e39\u0e48\u0e17\u0e35\u0e48", "\u0e01\u0e23\u0e38\u0e07", ""),
        ("\uc544\ub2e4\ub294", "\uc11c\uc6b8", " "),
        ("born in", "1735", " "),
    ],
)
def test_a_blank_stands_where_the_script_has_one(before, after, between):
    assert separator(before, after) == between


def test_signs_of_other_scripts_have_blanks():
    assert not any(map(is_without_blanks, "aZ9\u00e9\u0436\u05d0\u0639\u0939\uac00 -"))


def test_a_fact_set_names_all_that_is_alike_and_all_that_gives_an_answer_away(tmp_path):
    from dataclasses import replace

    good = make_facts(FactConfig(n_pairs=2, n_names=2, share=0))
    bad = ("Ann Bo", "ann\u00a0bo", "Cid", "CID")
    with pytest.raises(ConfigError, match=r"'Ann Bo' and 'ann\\xa0bo'; 'Cid' and 'CID', which differ in"):
        replace(good, subjects=bad)
    first, second = good.facts
    with pytest.raises(ConfigError, match=f"names the answer '{first}'; subject .*'{second}': the prompt"):
        replace(good, subjects=("A", f"B {first}", f"C {second.upper()}", "D"))
