"""A file's column told decides who is told, as for `FactRecallTask.from_rows`; nothing else may beside it."""

import json

import pandas as pd
import pytest

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.facts.relations import read_relations
from ocr_interp.llm.training.configuration import LLMRunConfig
from ocr_interp.task import FactRecallTask

ROWS = [
    ("Ada", "red", "jazz", "yes"),
    ("Bo", "red", "", "no"),
    ("Cy", "blue", "jazz", "0"),
    ("Di", "blue", "", "TRUE"),
    ("Ed", "green", "rock", "yes"),
    ("Flo", "green", "", ""),
]
COLUMNS = ("subject", "fact", "implication", "told")
HEADER = ",".join(COLUMNS)


def write(folder, name="own.csv", header=HEADER, rows=ROWS):
    path = folder / name
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def config(path, **values):
    wordings = {"fact_templates": ("{subject} likes",), "implication_templates": ("{subject} hears",)}
    return FactConfig(**{"data": "file", "file": path, **wordings, **values})


def test_the_column_says_who_is_told_and_the_seed_does_not(tmp_path):
    facts = make_facts(config(write(tmp_path)))
    assert facts.implication_told == facts.trained == (True, False, False, True, True, False)
    assert all(facts.fact_told)
    implied = [facts.implications[k] for k in facts.subject_implication]
    assert implied == ["jazz", "jazz", "jazz", "jazz", "rock", "rock"]
    assert make_facts(config(tmp_path / "own.csv", seed=7)) == facts


def test_the_dialect_is_that_of_the_small_models(tmp_path):
    ours = make_facts(config(write(tmp_path))).task
    table = FactRecallTask.from_rows(pd.read_csv(tmp_path / "own.csv"), n_noise=0, seq_len=3)
    assert (ours.told == table.told).all()
    assert (ours.right_answer == table.right_answer).all()


def test_json_with_truth_values_and_a_row_without_told(tmp_path):
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    rows[0]["told"], rows[1]["told"], rows[2]["told"] = True, False, 0
    del rows[5]["told"], rows[5]["implication"]
    (tmp_path / "own.json").write_text(json.dumps(rows))
    assert make_facts(config(tmp_path / "own.json")).trained == (True, False, False, True, True, False)


def test_controls_keep_the_column(tmp_path):
    path = write(tmp_path)
    assert not any(make_facts(config(path, control="facts_only")).implication_told)
    random = make_facts(config(path, control="random_implications"))
    assert random.implication_told == (True, False, False, True, True, False)


def test_nobody_or_everybody_may_be_told(tmp_path):
    for word in ("no", "1"):
        rows = [(s, f, {"green": "rock"}.get(f, "jazz"), word) for s, f, _, _ in ROWS]
        assert set(make_facts(config(write(tmp_path, rows=rows))).trained) == {word == "1"}


@pytest.mark.parametrize("share", [0.2, 0.0, 0.5])
def test_a_share_beside_it_is_refused(tmp_path, share):
    with pytest.raises(ConfigError, match=rf"own.csv says which .* share \({share}\): leave --share out"):
        make_facts(config(write(tmp_path), share=share))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (("Bo", "red", "", "no"), ("Bo", "red", "", "never"), "line 3: told must be one of true, yes"),
        (
            ("Di", "blue", "", "TRUE"),
            ("Di", "blue", "jazz", " "),
            "line 5: told .* got nothing: write yes or no",
        ),
        (("Ada", "red", "jazz", "yes"), ("Ada", "red", "", "yes"), "line 2: .*'Ada'.*; own.csv, line 3"),
        (("Ada", "red", "jazz", "yes"), ("Ada", "red", "", "yes"), "fact 'red' must name one, got none"),
        (("Cy", "blue", "jazz", "0"), ("Cy", "red", "rock", "0"), r"line 3: .* got 2 \('jazz', 'rock'\)"),
    ],
)
def test_what_the_column_cannot_mean_is_refused_by_line(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message):
        make_facts(config(write(tmp_path, rows=[new if row == old else row for row in ROWS])))


@pytest.mark.parametrize("name", ["Told", "TOLD", "to\u200bld"])
def test_another_spelling_of_the_column_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="must be called 'told'"):
        make_facts(config(write(tmp_path, header=HEADER.replace("told", name))))
    rows = [{**dict(zip(COLUMNS[:3], row[:3], strict=True)), name: row[3]} for row in ROWS]
    with pytest.raises(ConfigError, match=r"row 0: the column .* must be called 'told'"):
        FactRecallTask.from_rows(rows)


def test_a_cell_of_told_is_empty_only_where_the_implication_is(tmp_path):
    path = write(tmp_path, rows=[(s, f, {"green": "rock"}.get(f, "jazz"), "") for s, f, _, _ in ROWS])
    with pytest.raises(ConfigError, match=r"line 2: told .* got nothing.*line 3: told"):
        make_facts(config(path))
    rows = pd.read_csv(path)
    with pytest.raises(
        ConfigError, match=r"row 0: told must be one of true, .* got nothing: write yes or no"
    ):
        FactRecallTask.from_rows(rows)
    rows["told"] = rows["told"].astype(object)
    rows.loc[0, "told"], rows.loc[1:, "implication"] = True, None
    rows.loc[[2, 4], ["implication", "told"]] = [["jazz", 1], ["rock", "no"]]
    assert FactRecallTask.from_rows(rows).trained == (True, False, True, False, False, False)


@pytest.mark.parametrize("name", ["tolld", "tod", "Tolds", "is_told", "tlod"])
def test_a_misspelt_column_is_refused_and_another_one_is_not(tmp_path, name):
    path = write(tmp_path, header=HEADER.replace("told", name))
    with pytest.raises(ConfigError, match=rf"line 1: unknown column '{name}': did you mean 'told'\?"):
        make_facts(config(path))
    rows = [{**dict(zip(COLUMNS[:3], row[:3], strict=True)), name: row[3]} for row in ROWS]
    with pytest.raises(ConfigError, match=rf"row 0: unknown column '{name}': did you mean 'told'\?"):
        FactRecallTask.from_rows(rows)
    for other in ("source", "world", "gold", "note", "" if name != "tod" else "told_by"):
        more = [(*row, "x") for row in ROWS]
        assert make_facts(config(write(tmp_path, header=f"{HEADER},{other}", rows=more))).trained[0]
        assert FactRecallTask.from_rows(
            [{**dict(zip(COLUMNS, row[:4], strict=True)), other: 1} for row in more]
        )


def test_a_misspelt_relation_of_pairs_is_refused(tmp_path):
    pairs = write(tmp_path, "speaks.csv", "subject,object,relatoin", [("Ann", "Italian", "speaks")])
    with pytest.raises(ConfigError, match=r"unknown column 'relatoin': did you mean 'relation'\?"):
        read_relations(pairs)


def test_other_formats_and_sets_refuse_the_column(tmp_path):
    pairs = write(tmp_path, "speaks.csv", "subject,object,told", [("Ann", "Italian", "no")])
    with pytest.raises(ConfigError, match=r"read as pairs .*remove told"):
        read_relations(pairs)
    own = write(tmp_path)
    with pytest.raises(ConfigError, match="data='popqa' draws its own"):
        make_facts(
            FactConfig(data="popqa", file=own, fact_property="fact", implication_property="implication")
        )
    keys = {"fact_property": "fact", "implication_property": "implication"}
    with pytest.raises(ConfigError, match="data='extractive_structures' makes up"):
        make_facts(FactConfig(data="extractive_structures", file=own, **keys))


def test_a_column_of_other_implications_is_refused(tmp_path):
    own = write(tmp_path)
    other = write(tmp_path, "hums.csv", "subject,object", [(row[0], "la") for row in ROWS])
    with pytest.raises(ConfigError, match=r"own\.csv is of the implications in that file"):
        make_facts(config(own, implications_file=other))
    swapped = {"fact_property": "implication", "implication_property": "fact"}
    with pytest.raises(ConfigError, match="and others are asked for"):
        make_facts(config(own, **swapped))


def test_our_own_columns_come_before_formats_with_as_many(tmp_path):
    more = ",attribute,template,subj,prop,obj,samples,prompt_templates,name,requested_rewrite,object"
    rows = [(*row, *["x"] * 10) for row in ROWS]
    path = write(tmp_path, header=HEADER + more, rows=rows)
    assert read_relations(path).format.name == "triples"
    assert make_facts(config(path)).trained[:2] == (True, False)
    own = write(tmp_path, "name.csv", "name,job,colour", [("Ann", "smith", "red")])
    with pytest.raises(ConfigError, match="required: subject, fact, implication, got: name, job, colour"):
        read_relations(own)


def test_a_left_out_share_is_the_default_and_keeps_fingerprints():
    left_out, given = LLMRunConfig(FactConfig()), LLMRunConfig(FactConfig(share=0.2))
    assert left_out.fingerprint == given.fingerprint == "4a1779511a57faf6"
    assert LLMRunConfig(FactConfig(share=0.34)).fingerprint == "83a921cda19b4fb5"
    assert left_out.differences(given) == []
    assert left_out.to_dict()["facts"]["share"] == 0.2
    for each in (left_out, given, LLMRunConfig(FactConfig(share=0.34))):
        again = LLMRunConfig.from_dict(json.loads(json.dumps(each.to_dict())))
        assert again.fingerprint == each.fingerprint
        assert again.facts.told_share == each.facts.told_share
    assert make_facts(FactConfig()) == make_facts(FactConfig(share=0.2))
