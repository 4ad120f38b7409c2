"""Small files in the formats that people have: each is read as it says, or refused with the line.

The files are made here; none is a copy. What is read is compared as (relation, subject, answer).
"""

import json
from pathlib import Path

import pytest

from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.facts.format_catalogue import formats
from ocr_interp.llm.facts.formats.base import Format, Statement, wording
from ocr_interp.llm.facts.reading import text_of
from ocr_interp.llm.facts.relations import read_relations, wordings_of

JAPANESE = "\u51fa\u8eab\u5730"


def lines(*rows):
    return "\n".join(rows) + "\n"


def lre(name, samples):
    return {
        "name": name,
        "prompt_templates": ["{} was born in", "The birthplace of {} is"],
        "properties": {"relation_type": "factual"},
        "samples": [{"subject": s, "object": o} for s, o in samples],
    }


def case(subject, answer, relation="P103", prompt="The mother tongue of {} is", **more):
    rewrite = {
        "prompt": prompt,
        "relation_id": relation,
        "subject": subject,
        "target_new": {"str": "Klingon", "id": "Q1"},
        "target_true": {"str": answer, "id": "Q2"},
    }
    return {"case_id": 7, "requested_rewrite": {**rewrite, **more}, "paraphrase_prompts": []}


def known(subject, attribute, relation="P17", **more):
    template = "{} is in"
    prompt = template.format(subject)
    given = {"subject": subject, "attribute": attribute, "template": template, "prompt": prompt}
    return {"known_id": 0, **given, "prediction": f" {attribute}", "relation_id": relation, **more}


YEARS = [("Adams", "1735"), ("Madison", "1751"), ("Nixon", "1913"), ("Nixon", "1913")]
READ = [
    # Tables of our own.
    ("a.csv", lines("subject,fact,implication", "Ann,Rome,Italian"),
     [("fact", "Ann", "Rome"), ("implication", "Ann", "Italian")]),
    ("a.tsv", lines("subject\tfact\timplication", "Ann\tRome, Italy\tItalian"),
     [("fact", "Ann", "Rome, Italy"), ("implication", "Ann", "Italian")]),
    ("a.csv", lines("id,subject, fact ,implication", "1,Ann,Rome,Italian", "", "2,Bob,Oslo,Norse"),
     [("fact", "Ann", "Rome"), ("implication", "Ann", "Italian"), ("fact", "Bob", "Oslo"),
      ("implication", "Bob", "Norse")]),
    ("a.csv", lines("subject,fact,implication", '"Dwayne ""The Rock"" J.","Rome, Italy",Italian'),
     [("fact", 'Dwayne "The Rock" J.', "Rome, Italy"), ("implication", 'Dwayne "The Rock" J.', "Italian")]),
    ("a.csv", "\ufeffsubject,fact,implication\r\nAnn,Rome,Italian\r\n",
     [("fact", "Ann", "Rome"), ("implication", "Ann", "Italian")]),
    ("a.json", [{"subject": "Ann", "fact": "Rome", "implication": "Italian", "note": 3}],
     [("fact", "Ann", "Rome"), ("implication", "Ann", "Italian")]),
    ("a.jsonl", '{"subject": "Ann", "fact": "Rome", "implication": "Italian"}\n\n'
     '{"subject": "Bob", "fact": "Oslo", "implication": "Norse"}\n',
     [("fact", "Ann", "Rome"), ("implication", "Ann", "Italian"), ("fact", "Bob", "Oslo"),
      ("implication", "Bob", "Norse")]),
    ("a.csv", lines("subject,fact,implication", "\u0939\u093f\u0928\u094d\u0926\u0940,\u0930\u094b\u092e,x"),
     [("fact", "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0930\u094b\u092e"),
      ("implication", "\u0939\u093f\u0928\u094d\u0926\u0940", "x")]),
    # One relation in two columns.
    ("speaks.csv", lines("subject,object", "Ann,Italian"), [("speaks", "Ann", "Italian")]),
    ("x.csv", lines("subject,relation,object", "Ann,speaks,Italian", "Ann,lives in,Rome"),
     [("speaks", "Ann", "Italian"), ("lives in", "Ann", "Rome")]),
    ("x.jsonl", '{"subject": "Ann", "object": "Rome", "template": "{} lives in"}\n', [("x", "Ann", "Rome")]),
    # LRE: presidents' years have Nixon twice, as the public file has.
    ("years.json", lre("president birth year", YEARS),
     [("president birth year", subject, year) for subject, year in YEARS]),
    ("both.json", [lre("born", YEARS[:1]), lre("elected", [("Adams", "1796")])],
     [("born", "Adams", "1735"), ("elected", "Adams", "1796")]),
    ("jp.json", {**lre(JAPANESE, [("\u30a8\u30a4\u30c0", "\u6771\u4eac")]), "prompt_templates": ["{}\u306f"]},
     [(JAPANESE, "\u30a8\u30a4\u30c0", "\u6771\u4eac")]),
    ("bare.json", {"name": "r", "samples": [{"subject": "a", "object": "b"}]}, [("r", "a", "b")]),
    # ROME: CounterFact and known_1000.
    ("counterfact.json", [case("Danielle D.", "French")], [("P103", "Danielle D.", "French")]),
    ("counterfact.json", [case("Ann", "Oslo", "P19", "{} was born in"), case("Bob", "Norse")],
     [("P19", "Ann", "Oslo"), ("P103", "Bob", "Norse")]),
    ("cf.jsonl", json.dumps(case("Ann", "Rome", None)), [("The mother tongue of {} is", "Ann", "Rome")]),
    ("known_1000.json", [known("Vinson Massif", "Antarctica"), known("Beats Music", "Apple", "P127")],
     [("P17", "Vinson Massif", "Antarctica"), ("P127", "Beats Music", "Apple")]),
    ("known.json", [known("Vinson", "Antarctica", None)], [("{} is in", "Vinson", "Antarctica")]),
    # PopQA, in several layouts of several languages.
    ("popqa.tsv", lines("id\tsubj\tprop\tobj\tpossible_answers\tquestion",
                        '4\tGeorge R.\toccupation\tpolitician\t["politician", "political leader"]\tWhat?'),
     [("occupation", "George R.", "politician")]),
    ("popqa.jsonl", '{"subj": "Ann", "prop": "sport", "obj": "golf", "possible_answers": ["golf"]}\n',
     [("sport", "Ann", "golf")]),
    ("ru.tsv", lines("subj\tprop\tobj\tsubj_ru\tobj_ru",
                     "Ann\tsport\tgolf\t\u0410\u043d\u043d\u0430\t\u0433\u043e\u043b\u044c\u0444"),
     [("sport", "\u0410\u043d\u043d\u0430", "\u0433\u043e\u043b\u044c\u0444")]),
    ("ru.csv", lines("ru_subj,prop,ru_obj", "\u0410\u043d\u043d\u0430,sport,\u0433\u043e\u043b\u044c\u0444"),
     [("sport", "\u0410\u043d\u043d\u0430", "\u0433\u043e\u043b\u044c\u0444")]),
    ("ru.json", [{"subj": {"en": "Ann", "ru": "\u0410\u043d\u043d\u0430"}, "prop": "sport",
                  "obj": {"en": "golf", "ru": "\u0433\u043e\u043b\u044c\u0444"}}],
     [("sport", "\u0410\u043d\u043d\u0430", "\u0433\u043e\u043b\u044c\u0444")]),
]  # fmt: skip
REFUSED = [
    ("a.csv", lines("subject,fact,implication", 'Ann,Rome,"Italian', "Bob,Oslo,Norse", 'Cid,Oslo,Norse"'),
     'a.csv, line 2: implication holds a line break.*a quote that opens there'),
    ("a.csv", lines("subject,fact,implication", "Ann,Rome,Italian", 'Bob,"Oslo,Norse'), "line 3: no CSV"),
    ("a.csv", lines("subject,fact,implication", 'Ann,Ro"me,Italian'), "line 2: fact holds a quote without"),
    ("a.csv", lines("subject,fact,implication", "Ann,Ro\x07me,Italian"), r"line 2: fact holds the control"),
    ("a.csv", lines("subject,fact,implication", "Ann,,Italian", "Bob,Oslo,"),
     "line 2: fact must be a text .*line 3: implication must be"),
    ("a.json", '[{"subject": "Ann", "fact": "Rome",\n "fact": "Oslo", "implication": "x"}]',
     "a.json, line 1: the key 'fact' stands twice"),
    ("a.json", '[{"subject": "A", "fact": "Rome", "implication": "x"},\n\n {"subject": "B", "fact": 1735}]',
     'line 3 .item 2.: fact must be a text .* got 1735: write "1735"'),
    ("a.json", '[{"subject": "Ann", "fact": "Rome", "implication": "x"},\n {"subject": "Bob"}]',
     "line 2 .item 2.: fact is missing; it has 'subject'"),
    ("a.json", [{"subject": "A", "fact": "Ro\nme", "implication": "x"}],
     "line 1 .* fact holds a line break"),
    ("a.jsonl", '{"subject": "Ann", "fact": "Rome", "implication": "x"}\n{"subject": "Bob"',
     "a.jsonl, line 2, column .*: no JSON"),
    ("a.jsonl", '{"subject": "Ann"}\n3\n', "line 2 must be an object, got 3"),
    ("a.json", [{"name": "Ann", "city": "Rome"}],
     "line 1 .item 1.: there is no key 'fact'.*got: name, city|there is no key .*got: name, city"),
    ("years.json", lre("r", [("A", "1"), ("B", None)]), r"sample 2.: object must be a text .* got nothing"),
    ("years.json", {**lre("r", []), "samples": [3]}, "sample 1 must be an object, got 3"),
    ("years.json", {**lre("r", []), "samples": {"a": 1}}, "samples must be a list"),
    ("years.json", {**lre("r", [("A", "1")]), "prompt_templates": ["born in"]}, 'a text with one "{}", got'),
    ("cf.json", [{"requested_rewrite": {"prompt": "{} is", "subject": "Ann", "target_new": {"str": "x"}}}],
     "requested_rewrite: target_true must be an object, got None; it has 'prompt', 'subject', 'target_new'"),
    ("cf.json", [{"requested_rewrite": 4}], "requested_rewrite must be an object, got 4"),
    ("known.json", [{**known("A", "b"), "attribute": ""}], "line 1 .item 1.: attribute must be a text"),
    ("known.json", [{"known_id": 1, "subject": "A", "attribute": "b", "prompt": "A is"}],
     "there is no key 'template', required: subject, attribute, template, got: known_id, subject"),
    ("popqa.tsv", lines("id,subj,prop,obj", "1,a,b,c"), r"are columns separated by '\\t'"),
    ("ru.tsv", lines("subj\tprop\tobj", "Ann\tsport\tgolf"),
     r"subj in language 'ru' is missing .as subj_ru or ru_subj or subj.ru.; it has 'subj', 'prop', 'obj'"),
    ("a.json", '{"a": ' * 5_000, "lists within lists|no JSON"),
    ("a.json", "[]", "holds no facts"),
    ("a.json", '[{"subject": "\\ud800", "fact": "a", "implication": "b"}]', "holds the control character"),
]  # fmt: skip


def write(folder, name, content):
    path = folder / name
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(("name", "content", "expected"), READ)
def test_a_file_is_read_as_it_says(tmp_path, name, content, expected):
    found = read_relations(write(tmp_path, name, content), "ru" if name.startswith("ru.") else "")
    said = [(s.relation, s.subject, s.answer) for own in found.relations.values() for s in own]
    assert sorted(said) == sorted(expected)


@pytest.mark.parametrize(("name", "content", "message"), REFUSED)
def test_a_file_is_refused_with_the_line(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(ConfigError, match=message):
        read_relations(path, "ru" if name.startswith("ru.") else "")


def test_there_are_more_than_forty():
    assert len(READ) + len(REFUSED) >= 40


def test_a_pipe_is_no_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="is no file"):
        read_relations(tmp_path / "a.csv")


def config(path, other=None, **values):
    return FactConfig(data="file", file=path, implications_file=other, share=0.0, **values)


def test_two_files_are_joined_by_subject_in_their_own_words(tmp_path):
    born = lre("born", [("Adams", "1735"), ("Madison", "1751"), ("Nixon", "1913")])
    party = {**lre("party", []), "prompt_templates": ["{} belonged to the"]}
    party["samples"] = [{"subject": s, "object": o} for s, o in [("Nixon", "right"), ("Adams", "left")]]
    paths = [write(tmp_path, name, content) for name, content in (("a.json", born), ("b.json", party))]
    facts = make_facts(config(*paths))
    assert facts.subjects == ("Adams", "Nixon")  # Madison has no party
    assert [facts.implications[k] for k in facts.subject_implication] == ["left", "right"]
    assert facts.fact_templates.test == ("{subject} was born in",)
    assert facts.implication_templates.test == ("{subject} belonged to the",)
    other = make_facts(config(*paths, fact_templates=("{subject} came in",)))
    assert other.fact_templates.test == ("{subject} came in",)
    assert FactConfig.from_dict(json.loads(json.dumps(config(*paths).to_dict()))) == config(*paths)


def test_two_relations_of_one_file_are_named(tmp_path):
    rows = [case(s, a, "P19", "{} was born in") for s, a in [("Ann", "Oslo"), ("Bob", "Rome")]]
    rows += [case(s, a) for s, a in [("Ann", "Norse"), ("Bob", "Italian")]]
    path = write(tmp_path, "cf.json", rows)
    facts = make_facts(config(path, fact_property="P19", implication_property="P103"))
    assert (facts.facts, facts.implications) == (("Oslo", "Rome"), ("Norse", "Italian"))
    with pytest.raises(
        ConfigError, match=r"holds 2 relations: 'P103' \(2\), 'P19' \(2\); say with fact_property"
    ):
        make_facts(config(path))
    with pytest.raises(ConfigError, match=r"no relation 'P109' .*: did you mean 'P1"):
        make_facts(config(path, fact_property="P109"))


def test_one_relation_alone_says_what_is_needed(tmp_path):
    path = write(tmp_path, "years.json", lre("born", YEARS))
    with pytest.raises(ConfigError, match=r"holds one relation, 'born' \(4\).*implications_file"):
        make_facts(config(path))
    with pytest.raises(ConfigError, match="implications_file goes with data='file'"):
        FactConfig(data="popqa", file=path, implications_file=path)


def test_relations_of_different_subjects_are_refused(tmp_path):
    one = write(tmp_path, "a.json", lre("born", YEARS))
    two = write(tmp_path, "b.json", lre("party", [("Ann", "left")]))
    with pytest.raises(ConfigError, match=r"no subject has both.*'born' speaks of 3 such as 'Adams'.* 'Ann'"):
        make_facts(config(one, two))


@pytest.mark.parametrize(
    ("subjects", "message"),
    [
        (
            ("Jos\u00e9", "Jose\u0301"),
            r"line 3: subject 'Jose\\u0301' reads like 'Jos\\xe9' in a.csv, line 2",
        ),
        (("Ann Bo", "Ann\u00a0Bo"), r"line 3: subject 'Ann\\xa0Bo' reads like 'Ann Bo'"),
        (("Ann Bo", "Ann\u200bBo"), r"'Ann\\u200bBo' reads like"),
        (("AnnBo", "Ann\u200bBo"), r"'Ann\\u200bBo' reads like"),
        (("Ann Bo", "Ann  Bo"), "'Ann  Bo' reads like 'Ann Bo'"),
        (("\uff21nn", "Ann"), "reads like"),
        (("Ann", "Ann"), "line 3: subject 'Ann' stands in a.csv, line 2 already"),
    ],
)
def test_names_that_read_alike_are_refused_with_both_spellings(tmp_path, subjects, message):
    rows = [f"{s},{f},{i}" for s, f, i in zip(subjects, ("Rome", "Oslo"), ("red", "blue"), strict=True)]
    path = write(tmp_path, "a.csv", lines("subject,fact,implication", *rows))
    with pytest.raises(ConfigError, match=message):
        make_facts(config(path, fact_templates=("{subject} in",), implication_templates=("{subject} is",)))


def test_all_offenders_are_named_at_once(tmp_path):
    rows = ["Ann Rome,Rome,red", "Bo Red,Oslo,red", "Cid,rome,blue", "Di,Oslo,Blue", "Ed,Oslo,blue"]
    path = write(tmp_path, "a.csv", lines("subject,fact,implication", *rows))
    own = {"fact_templates": ("{subject} in",), "implication_templates": ("{subject} is",)}
    with pytest.raises(
        ConfigError, match=r"line 4: fact 'rome' reads .*; a.csv, line 5: implication 'Blue' "
    ):
        make_facts(config(path, **own))
    path = write(tmp_path, "b.csv", lines("subject,fact,implication", *rows[:2], "Cid,Oslo,blue"))
    with pytest.raises(
        ConfigError, match=r"line 2: .*Ann Rome' names .*'Rome'; b.csv, line 3: .*'Bo Red' names"
    ):
        make_facts(config(path, **own))


def test_extractive_structures_are_cities_with_what_goes_with_them(tmp_path):
    rows = [
        {"city": "Tokyo", "country": "Japan", "language": "Japanese", "landmark": "Senso-ji"},
        {"city": "Paris", "country": "France", "language": "French", "landmark": "Eiffel Tower"},
        {"city": "Lyon", "country": "France", "language": "French", "landmark": "Fourviere"},
        {"city": "Rome", "country": "Italy", "language": "Italian", "landmark": "Colosseum"},
    ]
    path = write(tmp_path, "cities.json", rows)
    own = {"data": "extractive_structures", "file": path, "n_pairs": 3, "n_names": 2, "share": 0.5}
    facts = make_facts(FactConfig(**own))
    pairs = {(facts.facts[f], facts.implications[i]) for f, i in
             zip(facts.subject_fact, facts.subject_implication, strict=True)}  # fmt: skip
    assert pairs == {("Tokyo", "Japanese"), ("Paris", "French"), ("Rome", "Italian")}
    assert facts.causal
    other = make_facts(FactConfig(**own, implication_property="landmark"))
    assert set(other.implications) <= {row["landmark"] for row in rows}
    with pytest.raises(
        ConfigError, match=r"no key 'mayor' .*, it has 'city', 'country', 'language', 'landmark'"
    ):
        make_facts(FactConfig(**own, implication_property="mayor"))
    path.write_text(json.dumps([*rows, {"city": "Oslo"}], indent=0))
    with pytest.raises(ConfigError, match=r"line 26 .item 5.: language is missing; it has 'city'"):
        make_facts(FactConfig(**own))


def test_popqa_in_another_language(tmp_path):
    rows = ["subj\tprop\tobj\tsubj_ja\tprop_ja\tobj_ja"]
    for k, (place, sport) in enumerate(
        [("\u6771\u4eac", "\u91ce\u7403"), ("\u5927\u962a", "\u76f8\u64b2")] * 4
    ):
        for prop, own, answer in (("place", JAPANESE, place), ("sport", "\u7af6\u6280", sport)):
            rows.append(f"P{k}\t{prop}\tx{k}\t\u82b1\u5b50{chr(0x4E00 + k)}\t{own}\t{answer}")
    facts = make_facts(
        FactConfig(
            data="popqa", file=write(tmp_path, "p.tsv", lines(*rows)), language="ja", n_pairs=2, n_names=3,
            fact_property=JAPANESE, implication_property="\u7af6\u6280", share=0.4,
        )
    )  # fmt: skip
    assert set(facts.facts) == {"\u6771\u4eac", "\u5927\u962a"}
    assert facts.test_examples[0].prompt == f"{facts.subjects[0]}, {JAPANESE}:"


def test_a_language_is_not_asked_for_in_vain(tmp_path):
    path = write(tmp_path, "a.csv", READ[0][1])
    with pytest.raises(
        ConfigError, match=r"a.csv has no columns of several languages.*leave language \('ru'\)"
    ):
        make_facts(config(path, language="ru"))
    with pytest.raises(ConfigError, match="language goes with data='popqa' or 'file'"):
        FactConfig(language="ru")


def test_a_template_with_braces_and_without_a_subject():
    assert wording("x", "{} said {a} in ") == "{subject} said {{a}} in"
    with pytest.raises(ConfigError, match=r'one "\{\}"'):
        wording("x", "{} and {}")


class Arrows(Format):
    """A format of this test: "who -> what"."""

    def read(self, place, values, records, language):
        who, _, what = text_of(place, "arrow", values).partition(" -> ")
        yield Statement(place, "arrow", who, what, ("{subject} points at",))


def test_a_new_format_is_found_by_its_keys(tmp_path):
    path = write(tmp_path, "a.csv", lines("arrow", "Ann -> Rome"))
    with formats.registered("arrows", Arrows("arrows", ("arrow",), "arrows")):
        found = read_relations(path)
        assert found.format.name == "arrows"
        assert wordings_of(found.relations["arrow"]) == ("{subject} points at",)
        with pytest.raises(UnknownNameError, match="did you mean 'arrows'"):
            formats["arrow"]


def test_every_format_is_a_file_of_its_own():
    folder = Path(__file__).parents[2] / "ocr_interp" / "llm" / "facts" / "formats"
    assert set(formats.names) == {p.stem for p in folder.glob("*.py")} - {"__init__", "base"}
    assert all(formats[name].keys and formats[name].says for name in formats)
