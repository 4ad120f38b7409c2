"""Every fact set keeps what the base class promises; one is written for this test and taken through all."""

import dataclasses
import hashlib
import json

import pytest

from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.llm import FactConfig, FactPool, fact_sets, make_facts, measure, read_result
from ocr_interp.llm.encoding import encode
from ocr_interp.llm.facts.fact_set import FactSet, Templates
from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer
from ocr_interp.task import SPLITS

PETS = FactPool(
    name="pets",
    title="Pets",
    colour="#56b4e9",
    pairing="causal",
    facts=("cat", "dog", "cow", "duck"),
    implications=("meows", "barks", "moos", "quacks"),
    fact_templates=("{subject} has a", "The animal of {subject} is a"),
    implication_templates=("The animal of {subject}", "What {subject} has"),
    names=tuple(f"Person{chr(65 + k)}" for k in range(24)),
)
FILES = {
    "file": (
        "subject,fact,implication\n"
        + "".join(f"Person{k},{['red', 'blue'][k % 2]},{['jazz', 'rock'][k % 2]}\n" for k in range(8)),
        {"fact_templates": ("{subject} likes",), "implication_templates": ("{subject} hears",)},
    ),
    "popqa": (
        "subj,prop,obj\n"
        + "".join(f"Person{k},place of birth,Town{'ABC'[k % 3]}\n" for k in range(9))
        + "".join(f"Player{k},sport,{['golf', 'chess', 'rugby'][k % 3]}\n" for k in range(9)),
        {"n_pairs": 2, "n_names": 4},
    ),
    "extractive_structures": (
        "city,country,language\n"
        + "".join(f"Town{k},Land{k},{w}\n" for k, w in enumerate(["red", "blue", "pink", "red"])),
        {"n_pairs": 3, "n_names": 4},
    ),
}
ALL = [*fact_sets.names, "pets"]


@pytest.fixture(autouse=True)
def pets():
    """The set of this test, as if its file stood in the folder."""
    with fact_sets.registered("pets", PETS):
        yield


@pytest.fixture
def config_of(tmp_path):
    """A small configuration of any set, with the file that it may need."""

    def made(name, **values):
        given = {"n_pairs": 4, "n_names": 3, "share": 0.5}
        if fact_sets[name].needs_file:
            content, given = FILES[name]
            (tmp_path / "facts.csv").write_text(content)
            given = {**given, "file": tmp_path / "facts.csv", "share": 0.5}
        return FactConfig(data=name, **{**given, **values})

    return made


def digest(facts):
    drawn = dataclasses.asdict(facts)
    del drawn["entails"]  # came later, and is no part of what is drawn
    return hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", ALL)
def test_a_fact_set_can_be_drawn_told_and_asked(name, config_of):
    config = config_of(name)
    facts, again, other = make_facts(config), make_facts(config), make_facts(config_of(name, seed=1))
    assert facts == again
    assert facts != other
    assert facts.causal is {"causal": True, None: None}.get(fact_sets[name].pairing, False)
    texts = [f"{e.prompt} {answer}" for e in facts.test_examples for answer in e.candidates]
    assert len(encode(tiny_tokenizer(texts), facts.test_examples)) == len(facts.test_examples)
    assert all(facts.count(split) for split in SPLITS)
    assert FactConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", ALL)
def test_a_source_says_what_it_is(name):
    source = fact_sets[name]
    assert source.name == name
    assert source.title
    assert len(source.colour) == 7
    int(source.colour.removeprefix("#"), 16)
    colours = [fact_sets[other].colour for other in fact_sets if other != "pets"]
    assert len(set(colours)) == len(colours)


@pytest.mark.parametrize("name", [*(n for n in fact_sets if isinstance(fact_sets[n], FactPool)), "pets"])
def test_all_answers_of_a_pool_make_one_valid_set(name):
    source = fact_sets[name]
    every = range(max(len(source.facts), len(source.implications)))
    flags = (False,) * len(every)
    FactSet(  # which checks that answers are distinct and that no wording or name gives one away
        name=name,
        causal=None,
        subjects=tuple(f"Nobody{k}" for k in every),
        facts=source.facts,
        implications=source.implications,
        subject_fact=tuple(k % len(source.facts) for k in every),
        subject_implication=tuple(k % len(source.implications) for k in every),
        trained=flags,
        fact_told=flags,
        implication_told=flags,
        fact_templates=Templates(source.fact_templates, source.fact_templates),
        implication_templates=Templates(source.implication_templates, source.implication_templates),
    )


DRAWN = {
    "city_language": "874589d7f8021fab",
    "city_language_counterfactual": "d8db6a701fe820f1",
    "country_code": "00300c42c489335d",
    "profession_color": "4cffb05b98eb37e3",
    "sport_music": "9f0ecfda53c30e89",
}


@pytest.mark.parametrize("name", DRAWN)
def test_facts_are_drawn_as_they_were_for_the_committed_results(name):
    """Digests from before fact sets were objects: all controls, seeds 0 to 2, two sizes."""
    small = {"n_pairs": 3, "n_names": 7, "share": 0.5, "train_templates": (0, 2), "test_templates": (1, 3)}
    found = [
        digest(make_facts(FactConfig(data=name, control=control, seed=seed, **changes)))
        for changes in ({}, small)
        for control in ("none", "random_implications", "facts_only", "implications_only")
        for seed in range(3)
    ]
    assert hashlib.sha256(" ".join(found).encode()).hexdigest()[:16] == DRAWN[name]


@pytest.mark.slow
def test_a_new_fact_set_goes_through_the_command_line(tmp_path, command):
    words = {"data": "pets", "n_pairs": 3, "n_names": 4, "share": 0.5}
    facts = make_facts(FactConfig(**words))
    texts = [f"{e.prompt} {answer}" for e in facts.test_examples for answer in e.candidates]
    lm = tiny_model("llama", tiny_tokenizer(texts))
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    asked = [part for name, value in words.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    code, out, err = command("llm", "facts", *asked)
    assert code == 0, err
    assert "told: 6 of 12 implications, 0.5 of each fact's names" in out
    listed = "pets                            Pets                              causal"
    assert listed in command("llm", "facts")[1]
    held_out = facts.subjects[facts.trained.index(False)]
    assert f"held out implication    asked only  The animal of {held_out} " in out
    recipe = ("--model", "base", "--steps", "40", "--log-every", "20", "--lr", "0.01", "--device", "cpu")
    code, out, err = command("llm", "finetune", "run", *asked, *recipe)
    assert code == 0, err
    assert "pets (causal): 3 facts, 3 implications, 12 names, 6 of them training names" in out
    result = read_result(tmp_path / "run" / "result.json")
    assert (result["data"], result["causal"]) == ("pets", True)
    assert result["history"]["train_loss"][2] < result["history"]["train_loss"][1]
    code, evaluated, err = command("llm", "evaluate", "base", *asked, "--device", "cpu")
    assert code == 0, err
    before = measure(lm, facts, device="cpu").mean("held_out_implication", "rank")
    row = next(line for line in evaluated.splitlines() if line.startswith("held out implication"))
    assert f"{before:8.2f}" in row
    code, _, err = command("llm", "facts", "--data", "pet")
    assert code == 2
    assert "unknown data set 'pet': did you mean 'pets'" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fact_templates": ("has a",)}, "template 'has a' must hold {subject} once"),
        ({"facts": ("cat", "dog")}, "of the same number, in the same order, got 2 and 4"),
        ({"pairing": None}, "pairing of pets must be 'causal', 'counterfactual' or 'spurious'"),
    ],
)
def test_a_bad_pool_says_what_is_wrong(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(PETS, **changes)


def test_a_file_goes_with_the_sets_that_read_one(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"file goes with data='extractive_structures' or 'file' or 'popqa' and only .* got data='pets'",
    ):
        FactConfig(data="pets", file=tmp_path / "facts.csv")
    with pytest.raises(UnknownNameError, match="did you mean 'pets'"):
        FactConfig(data="petz")
