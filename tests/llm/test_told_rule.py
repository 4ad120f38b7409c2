"""Every command on a file of facts says which rule chose who is told, and of how many."""

import importlib
import inspect
from pathlib import Path

import pytest

from ocr_interp.llm import fact_sets
from ocr_interp.llm.facts import sets
from ocr_interp.llm.facts.configuration import FactConfig

WORDINGS = ("--fact-templates", "{subject} likes", "--implication-templates", "{subject} hears")
ROWS = [(f"Name{k}", ("red", "blue")[k % 2], ("jazz", "rock")[k % 2]) for k in range(6)]


@pytest.fixture
def files(tmp_path):
    """Files of the same rows: with.csv has the column told, with 5 yes, without.csv has none."""
    lines = [",".join(row) for row in ROWS]
    (tmp_path / "without.csv").write_text("\n".join(["subject,fact,implication", *lines]))
    told = [f"{line},{'no' if k == 3 else 'yes'}" for k, line in enumerate(lines)]
    (tmp_path / "with.csv").write_text("\n".join(["subject,fact,implication,told", *told]))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("solve", "with.csv"), "told: 5 of 6 subjects, by the column told of with.csv"),
        (
            ("solve", "without.csv"),
            "told: 6 of 6 subjects, every row with an implication, as without.csv has no",
        ),
        (
            ("train", "run", "--facts", "with.csv", "--steps", "1", "--batch-size", "3"),
            "told: 5 of 6 subjects, by",
        ),
        (
            ("llm", "facts", "--data", "file", "--file", "with.csv", *WORDINGS),
            "told: 5 of 6 implications, by the",
        ),
        (
            ("llm", "facts", "--data", "file", "--file", "without.csv", "--share", "0.4", *WORDINGS),
            "told: 2 of 6 implications, 0.4 of each fact's names (--share), as without.csv has no",
        ),
        (
            ("llm", "facts", "--data", "file", "--file", "with.csv", "--control", "facts_only", *WORDINGS),
            "told: 0 of 6 implications, by the control 'facts_only'",
        ),
        (
            ("llm", "facts", "--data", "sport_music", "--n-pairs", "2"),
            "told: 8 of 40 implications, 0.2 of each",
        ),
    ],
)
def test_a_command_says_who_is_told_and_why(words, said, files, command):
    code, out, err = command(*words)
    assert (code, said in out) == (0, True), (out, err)


def test_the_facts_are_shown_with_how_many_are_told(files, command):
    _, out, _ = command("llm", "facts", "--data", "file", "--file", "with.csv", *WORDINGS)
    assert "candidates of an implication: jazz, rock" in out
    assert ["blue", "rock", "2", "of", "3", "names"] in [line.split() for line in out.splitlines()]


def test_the_list_of_sets_is_shown_where_none_is_named(files, command):
    listed = "profession_workplace"
    assert listed in command("llm", "facts")[1]
    code, out, err = command("llm", "facts", "--data", "file", "--file", "nothing.csv", *WORDINGS)
    assert (code, out) == (2, "")
    assert listed not in err
    assert listed in command("llm", "facts", "--data", "professions")[2]


def test_the_help_names_every_set_of_the_registry():
    own = inspect.getdoc(FactConfig).split("file: the file")[0]
    built_in = [
        path.stem for path in Path(sets.__file__).parent.glob("*.py") if hasattr(_module(path.stem), "FACTS")
    ]
    assert set(built_in) <= set(fact_sets.names)
    assert [name for name in built_in if f'"{name}"' not in own] == []


def _module(name):
    return importlib.import_module(f"{sets.__name__}.{name}")
