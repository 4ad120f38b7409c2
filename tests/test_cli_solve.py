"""ocr-interp solve on a file of facts: readable rows with the file's names, and one-line complaints."""

import re
from pathlib import Path

import pandas as pd
import pytest

FACTS = """subject,fact,implication,told
Ada,Rome,Italian,yes
Bo,Rome,,no
Cy,Milan,Italian,no
"O'Hara, Di",Milan,Italian,no
Ed,Lima,Spanish,yes
Flo,Lima,Spanish,no
"""


@pytest.fixture
def solve(command):
    """Runs `ocr-interp solve` in an empty folder; gives (exit code, stdout, stderr)."""
    return lambda *words: command("solve", *words)


def test_one_command_says_who_is_deduced(solve, tmp_path):
    (tmp_path / "facts.csv").write_text(FACTS, encoding="utf-8")
    code, out, err = solve("facts.csv", "--table", "margins.csv")
    assert (code, err) == (0, "")
    assert "3 facts, 2 implications, 6 subjects (2 in training)" in out
    rows = {
        tuple(line.split()[:3]): line for line in out.splitlines() if line.split()[2:3] in (["yes"], ["no"])
    }
    assert "Cy; O'Hara, Di" in rows["Milan", "Italian", "no"]
    assert rows["Rome", "Italian", "yes"].split()[-5:] == ["1.000", "1.000", "1.000", "0", "Italian"]
    assert "(2 of 4)" in out
    assert "deduced without being told: Bo; Flo" in out
    assert "error bars        held-out margins ±" in out
    table = pd.read_csv(tmp_path / "margins.csv").set_index("subject")
    assert table.loc["Flo", "told"] == False  # noqa: E712  # a numpy bool
    assert table.loc["O'Hara, Di", "fact"] == "Milan"
    assert table.loc["Flo", "implication_margin"] > 0.5
    assert solve("facts.csv", "--norm", "frobenius")[0] == 0


@pytest.mark.slow
def test_json_rows_without_told(solve, tmp_path):
    (tmp_path / "facts.json").write_text(
        '[{"subject": "A", "fact": "x", "implication": "u"}, {"subject": "B", "fact": "y", '
        '"implication": "v"}, {"subject": "C", "fact": "y", "implication": ""}]',
        encoding="utf-8",
    )
    code, out, _ = solve("facts.json")
    assert code == 0
    assert "3 subjects (2 in training)" in out


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (FACTS, ("--n-pairs", "3"), "leave out --n-pairs, --m-train, --m-test"),
        (FACTS.replace("Italian,no", "Latin,no", 1), (), "facts.csv, line 4: fact 'Milan' implies|line 5"),
        (
            FACTS.replace("Bo,Rome", "Ada,Rome"),
            (),
            "facts.csv, line 3: subject 'Ada' stands in facts.csv, line 2",
        ),
        (
            FACTS.replace("Flo,Lima,Spanish,no", "Flo,Lima,Spanish,never"),
            (),
            "facts.csv, line 7: told must be one of",
        ),
        (FACTS.replace("Italian", ""), (), "got none for 'Rome'; 'Milan'"),
        (FACTS.replace("Flo", "ada"), (), "subject 'Ada' and subject 'ada'"),
        ("subject,fact\nAda,Rome\n", (), "no column is called 'implication', required"),
        ("name,city,language\nAda,Rome,Italian\n", (), "the file has 'name', 'city', 'language': rename"),
        ("subject,city,fact\nAda,Rome,x\n", (), "called 'implication', required .* has 'subject', 'city'"),
        ("subject,fact,implication\n", (), "has no rows"),
        (FACTS, ("--table", "margins.txt"), r"\.csv"),
        (FACTS, ("--margin-tolerance", "0"), "margin_tolerance must be a finite number > 0"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(solve, tmp_path, content, words, message):
    (tmp_path / "facts.csv").write_text(content, encoding="utf-8")
    code, out, err = solve("facts.csv", *words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert re.search(message, err)


@pytest.mark.slow
def test_train_takes_the_same_file_and_keeps_its_names(command, tmp_path):
    from ocr_interp import FactRecallTask, load_run

    (tmp_path / "own facts.tsv").write_text(FACTS.replace('"O\'Hara, Di"', "Di").replace(",", "\t"))
    words = ("train", "run", "--facts", "own facts.tsv", "--steps", "2", "--n-noise", "2", "--seq-len", "5")
    code, out, err = command(*words)
    assert code == 0, err
    rows = pd.read_csv(tmp_path / "own facts.tsv", sep="\t")
    assert load_run(tmp_path / "run").task == FactRecallTask.from_rows(rows, n_noise=2, seq_len=5)
    assert "Flo" in load_run(tmp_path / "run").task.labels
    code, out, err = command(*words)
    assert (code, "step 2 of 2" in out) == (0, True), "the same command shows it"
    code, _, err = command(*words, "--lr", "0.5")
    assert "goes on with: ocr-interp train run --facts 'own facts.tsv' --steps 2" in err
    (tmp_path / "own facts.tsv").write_text(FACTS.replace('"O\'Hara, Di"', "Dan").replace(",", "\t"))
    code, _, err = command(*words)
    assert (code, "task.names" in err) == (2, True)


@pytest.mark.parametrize("words", [("--m-test", "4"), ("--trained", "True", "False"), ("--names", "a", "b")])
def test_train_refuses_sizes_beside_a_file(command, tmp_path, words):
    (tmp_path / "facts.csv").write_text(FACTS)
    code, _, err = command("train", "run", "--facts", "facts.csv", *words)
    assert code == 2, err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("a/facts.csv", "from_rows(pandas.read_csv('a/facts.csv'))"),
        (Path("facts.tsv"), "from_rows(pandas.read_csv('facts.tsv', sep=\"\\t\"))"),
        ("facts.json", "from_rows(pandas.read_json('facts.json'))"),
    ],
)
def test_a_path_is_no_table(path, call):
    from ocr_interp import FactRecallTask
    from ocr_interp.errors import ConfigError

    with pytest.raises(ConfigError, match=re.escape(call)):
        FactRecallTask.from_rows(path)
