"""A user's own facts from files, and errors that name the line."""

import json

import pytest

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.facts.sets.file import read_triples

GOOD = "subject,fact,implication\n" + "".join(
    f"Person {name},{fact},{implication}\n"
    for name, fact, implication in [
        ("A", "red", "jazz"),
        ("B", "red", "jazz"),
        ("C", "blue", "rock"),
        ("D", "blue", "rock"),
    ]
)


def config(file, **values):
    return FactConfig(
        data="file",
        file=file,
        fact_templates=("{subject} likes",),
        implication_templates=("{subject} hears",),
        **values,
    )


def test_csv_and_json_give_the_same_facts(tmp_path):
    (tmp_path / "own.csv").write_text("﻿" + GOOD, encoding="utf-8")
    rows = [dict(zip(("subject", "fact", "implication"), line.split(","), strict=True))
            for line in GOOD.splitlines()[1:]]  # fmt: skip
    (tmp_path / "own.json").write_text(json.dumps(rows))
    from_csv, from_json = (make_facts(config(tmp_path / f"own.{s}", share=0.5)) for s in ("csv", "json"))
    assert from_csv == from_json
    assert from_csv.subjects == ("Person A", "Person B", "Person C", "Person D")
    assert (from_csv.facts, from_csv.implications) == (("red", "blue"), ("jazz", "rock"))
    assert from_csv.subject_fact == from_csv.subject_implication == (0, 0, 1, 1)
    assert from_csv.causal is None
    assert [sum(from_csv.trained[:2]), sum(from_csv.trained[2:])] == [1, 1]
    assert from_csv.training_examples[0].prompt == "Person A likes"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "subject,fact\nA,b\n", r"a.csv, line 1: the header has no column 'implication'"),
        ("a.csv", "subject,facts,implication\n", r"no column 'fact' \(is it 'facts'\?\)"),
        ("a.csv", "", r"line 1: the header has no column 'subject'.*got: nothing"),
        ("a.csv", "subject,fact,implication\n", "holds no facts"),
        ("a.csv", "subject,fact,implication\nA,b,c\nB,,c\n", "line 3: fact must be a text .* got nothing"),
        ("a.csv", "subject,fact,implication\nA,b\n", "line 2: implication must be a text .* got nothing"),
        ("a.csv", "subject,fact,implication\nA,b,c,d\n", "line 2: more cells than the header's 3"),
        ("a.csv", 'subject,fact,implication\n"A"x,b,c\n', "line 2: no CSV"),
        ("a.csv", "subject,fact,implication\nA,b,c\nB,b,c\nA,b,c\n", "line 4: .*A' stands in a.csv, line 2"),
        ("a.csv", "subject,fact,implication\nA,b,c\nMr B,b,c\n", "line 3: .*Mr B' names the answer 'b'"),
        ("a.csv", "subject;fact;implication\nA;b;c\n", r"\(are columns separated by ','\?\)"),
        ("a.csv", "subject,fact,implication,fact\nA,b,c,d\n", "line 1: the header has 2 columns 'fact'"),
        ("a.csv", "subject,fact,implication\nX,b,c\nY,B,c\n", "line 3: fact 'B' .* 'b' in a.csv, line 2"),
        ("a.json", "[" * 99_999, "lists within lists"),
        ("a.json", '[{"subject": "A"}]', r"item 1\): there is no key 'fact', required: .*got: subject;"),
        ("a.json", '[{"subject": "A",\n}]', "a.json, line 2, column 1: no JSON"),
        ("a.json", '{"subject": "A"}', "line 1: there is no key 'fact'"),
        ("a.json", "[3]", "item 1 must be an object, got 3"),
        ("a.json", '[{"subject": "A", "fact": 3, "implication": "c"}]', "fact must be a text .* got 3"),
        ("a.txt", "", r"must end with .csv, .tsv, .json or .jsonl, got '.txt'"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_by_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_triples(tmp_path / name)


def test_a_file_that_is_not_there_or_not_utf8(tmp_path):
    with pytest.raises(ConfigError, match="is no file"):
        read_triples(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes("subject,fact,implication\nJosé,b,c\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_triples(tmp_path / "b.csv")


def test_capitals_in_the_suffix_do_not_matter(tmp_path):
    (tmp_path / "OWN.CSV").write_text(GOOD)
    assert len(read_triples(tmp_path / "OWN.CSV")) == 4


def test_every_fact_of_a_file_needs_a_training_name(tmp_path):
    (tmp_path / "own.csv").write_text(GOOD + "Person E,green,jazz\n")
    with pytest.raises(ConfigError, match=r"got 0.3 of the 1 of 'green', which rounds to 0: raise it"):
        make_facts(config(tmp_path / "own.csv", share=0.3))


def test_a_file_needs_wordings_and_no_sizes(tmp_path):
    (tmp_path / "own.csv").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"fact_templates \(--fact-templates\) must be given"):
        make_facts(FactConfig(data="file", file=tmp_path / "own.csv"))
    with pytest.raises(ConfigError, match="n_names must be None"):
        make_facts(config(tmp_path / "own.csv", n_names=3))


POPQA = "id\tsubj\tprop\tobj\tquestion\n" + "".join(
    f"{k}\tReal Person {k}\t{prop}\t{obj}\tq\n"
    for k, (prop, obj) in enumerate(
        [("place of birth", f"Town{j}") for j in range(4)]
        + [("sport", f"game{j}") for j in range(4)]
        + [("capital", "Paris")]
    )
)


def test_popqa_names_are_real_and_pairs_random(tmp_path):
    (tmp_path / "popqa.tsv").write_text(POPQA)
    facts = make_facts(
        FactConfig(data="popqa", file=tmp_path / "popqa.tsv", n_pairs=2, n_names=4, share=0.25)
    )
    assert set(facts.subjects) == {f"Real Person {k}" for k in range(8)}
    assert all(answer.startswith("Town") for answer in facts.facts)
    assert all(answer.startswith("game") for answer in facts.implications)
    assert facts.test_examples[0].prompt == f"{facts.subjects[0]} was born in"
    with pytest.raises(ConfigError, match="<= 8, the names of popqa, got 9"):
        make_facts(FactConfig(data="popqa", file=tmp_path / "popqa.tsv", n_pairs=3, n_names=3))
    with pytest.raises(ConfigError, match=r"no relation 'religion'.*'place of birth' \(4\), .*'capital'"):
        make_facts(FactConfig(data="popqa", file=tmp_path / "popqa.tsv", fact_property="religion"))
