"""The table of logits of a run: whose answer is first, ranks, calibration and pairing, by hand."""

import itertools
import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from small_facts import SMALL

from ocr_interp.errors import ConfigError, RunError, UnknownNameError
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts, unseen_examples, unseen_names
from ocr_interp.llm.measuring import recorder as recorder_module
from ocr_interp.llm.measuring.answers import Answers
from ocr_interp.llm.measuring.measure import ranks
from ocr_interp.llm.measuring.recorder import Recorder, columns_of, measure_logits
from ocr_interp.llm.measuring.table import LogitTable, Prompts, read_table, write_table
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.finetune import finetune
from ocr_interp.task import SPLITS

COUNTERFACTUAL = FactConfig(data="city_language_counterfactual", n_pairs=3, n_names=5, n_unseen=4)


def config(facts=COUNTERFACTUAL, **values):
    given = {"model": "tiny", "lr": 1e-2, "steps": 6, "log_every": 2, "batch_size": 6, "device": "cpu"}
    return LLMRunConfig(facts, FinetuneConfig(**{**given, **values}))


def answers(logits, target, world=None, fact=None, unseen=(), template=None):
    logits = np.array(logits, dtype=float)
    n = len(logits)
    zeros = np.zeros(n, dtype=int)
    return Answers(
        logits,
        target=np.array(target),
        world=zeros - 1 if world is None else np.array(world),
        fact=np.array(target) if fact is None else np.array(fact),
        template=zeros if template is None else np.array(template),
        unseen=np.array(unseen, dtype=float).reshape(-1, logits.shape[1]),
        unseen_template=np.zeros(len(unseen), dtype=int),
    )


def test_whose_answer_is_first_by_hand():
    rows = [[3, 1, 0, 0, 0], [0, 2, 1, 0, 0], [0, 0, 5, 1, 0], [2, 2, 0, 0, 0], [1, 0, 0, 0, 3]]
    own = answers(rows, target=[0, 0, 0, 0, 0], world=[1, 1, 1, 1, 1])
    first = own.first_answers()
    assert first.shares() == {"told": 0.2, "pretrained": 0.2, "other": 0.4, "tied": 0.2}
    assert first.chance == pytest.approx((0.2, 0.2, 0.6))
    assert own.top1 == first.told
    assert own.rank.tolist() == [0, 2 + 1, 2 + 1, 0.5, 1]
    same = answers(rows, target=[0] * 5, world=[0] * 5).first_answers()  # causal: there is no other answer
    assert np.isnan(same.pretrained)
    assert (same.told, same.other, same.tied) == (0.2, pytest.approx(0.6), 0.2)
    assert same.chance == pytest.approx((0.2, 0.0, 0.8))
    nothing = answers(np.empty((0, 5)), target=np.empty(0, dtype=int), world=np.empty(0, dtype=int))
    assert np.isnan(nothing.first_answers().told)
    assert np.isnan(nothing.mean_rank)


def test_calibration_subtracts_what_is_said_of_everybody():
    # Everybody gets answer 0; own answers are raised by 1.
    own = answers([[10, 1, 0], [10, 0, 1]], target=[1, 2], unseen=[[11, 0, 0], [9, 0, 0]])
    assert own.mean_rank == 1
    assert own.calibrated().logits.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert own.calibrated().mean_rank == 0
    with pytest.raises(ConfigError, match="n_unseen=60"):
        answers([[1, 0]], target=[0]).calibrated()


def test_the_pairing_contrast_against_brute_force():
    rng = np.random.default_rng(0)
    M = rng.normal(size=(5, 5)) + 3 * np.arange(5) + np.array([[1], [2], [3], [4], [5]])
    pairing = [2, 0, 1, 4, 3]
    M[range(5), pairing] += 0.8
    noise = rng.normal(size=(4, 5, 5))
    rows = np.concatenate(M + noise - noise.mean(0))  # names of a fact differ, their mean is M
    found = answers(rows, target=pairing * 4, fact=list(range(5)) * 4).pairing()

    D = [[M[i, j] - M[i].mean() - M[:, j].mean() + M.mean() for j in range(5)] for i in range(5)]
    np.testing.assert_allclose(found.centred, D, atol=1e-12)
    paired = [D[i][pairing[i]] for i in range(5)]
    others = [D[i][j] for i in range(5) for j in range(5) if j != pairing[i]]
    assert found.nats == pytest.approx(np.mean(paired) - np.mean(others))
    # Row and column means are the same for all assignments: the plain sums say the same.
    sums = [sum(M[i, order[i]] for i in range(5)) for order in itertools.permutations(range(5))]
    own = sum(M[i, pairing[i]] for i in range(5))
    assert found.n_assignments == 120
    assert found.p == sum(value >= own - 1e-9 for value in sums) / 120


def test_the_pairing_contrast_at_its_ends():
    best = answers(np.eye(5), target=range(5)).pairing()
    assert best.p == 1 / 120
    assert best.nats == pytest.approx(1)  # centred: 0.8 on the diagonal, -0.2 beside it
    level = answers(np.zeros((5, 5)), target=range(5)).pairing()
    assert (level.nats, level.p) == (0, 1)  # all assignments are level
    prior = answers(np.eye(3), target=[1, 2, 0], fact=[0, 1, 2])
    assert prior.pairing().p == 1  # a shift hits no one; a swap hits one, the identity three
    assert prior.pairing().nats == pytest.approx(-1 / 3 - 1 / 6)
    assert prior.pairing([0, 1, 2]).p == 1 / 6


def test_what_has_no_pairing_is_said():
    with pytest.raises(ConfigError, match="names of one fact have different answers"):
        answers(np.eye(3), target=[0, 1, 2], fact=[0, 0, 1]).pairing()
    with pytest.raises(ConfigError, match="to one of as many facts"):
        answers(np.eye(3)[:2], target=[0, 1]).pairing()
    with pytest.raises(ConfigError, match="pairs must be <= 9"):
        answers(np.eye(10), target=range(10)).pairing()


def test_the_real_world_answer_of_a_fact():
    for data in ("city_language", "city_language_counterfactual", "sport_music"):
        facts = make_facts(replace(SMALL, data=data))
        examples = [e for e in facts.test_examples if e.relation == 1]
        worlds = [None if e.world is None else e.candidates[e.world] for e in examples]
        real = dict(zip(("Paris", "Rome", "Berlin"), ("French", "Italian", "German"), strict=True))
        if data == "sport_music":
            assert set(worlds) == {None}
            continue
        named = [(facts.facts[e.fact], w, e.answer) for e, w in zip(examples, worlds, strict=True)]
        assert all(real.get(city, w) == w for city, w, _ in named)
        assert all((w == told) == (data == "city_language") for _, w, told in named)
        assert all(e.world is None for e in facts.test_examples if e.relation == 0)
    with pytest.raises(ConfigError, match=r"entails must lie in 0..2"):
        replace(make_facts(SMALL), entails=(0, 1, 3))
    with pytest.raises(ConfigError, match="one entry a fact"):
        replace(make_facts(SMALL), entails=(0,))


def test_unseen_names_are_nobody_told_of():
    facts = make_facts(SMALL)
    names = unseen_names(facts, 60, 0)
    assert len(set(names) | set(facts.subjects)) == 60 + facts.n_subjects
    words = {word for subject in facts.subjects for word in subject.split()}
    assert not words & {word for name in names for word in name.split()}
    assert names == unseen_names(facts, 60, 0) != unseen_names(facts, 60, 1)
    asked = unseen_examples(facts, names)
    assert len(asked) == 2 * 60
    with pytest.raises(ConfigError, match="must be no subjects"):
        unseen_examples(facts, (facts.subjects[0],))
    with pytest.raises(ConfigError, match="n_unseen must be <="):
        unseen_names(facts, 10_000, 0)
    with pytest.raises(ConfigError, match="n_unseen"):
        FactConfig(n_unseen=-1)


@pytest.mark.slow
def test_a_run_keeps_its_table_and_goes_on_to_the_bit(make_model, tmp_path):
    whole = finetune(config(), tmp_path / "whole", lm=make_model())

    def stop(row):
        if row["step"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    first = finetune(config(), tmp_path / "run", lm=make_model(), on_log=stop)
    assert first.logits.steps.tolist() == [0, 2, 4]
    second = finetune(config(), tmp_path / "run", lm=make_model())
    pd.testing.assert_frame_equal(whole.history, second.history, check_exact=True)
    names = [f"{kind}/logits.safetensors" for kind in ("whole", "run")]
    assert (tmp_path / names[0]).read_bytes() == (tmp_path / names[1]).read_bytes()

    table = finetune(config(), tmp_path / "run", lm=make_model()).logits  # read from its file
    np.testing.assert_array_equal(table.logits, whole.logits.logits)
    assert table.steps.tolist() == whole.history["step"].tolist() == [0, 2, 4, 6]
    for split in SPLITS:
        for step, row in whole.history.set_index("step").iterrows():
            own = table.answers(split, int(step))
            assert (own.mean_rank, own.top1) == (row[f"{split}/rank"], row[f"{split}/top1"])
            for name, share in own.first_answers().shares().items():
                np.testing.assert_equal(row[f"{split}/first_{name}"], share)
            assert row[f"{split}/calibrated_rank"] == own.calibrated().mean_rank
    np.testing.assert_array_equal(
        table.answers("held_out_fact").rank, whole.after.rank[whole.after.split == 2]
    )
    assert table.first_answers("held_out_implication")["step"].tolist() == [0, 2, 4, 6]
    assert not np.isnan(table.first_answers("held_out_implication")["pretrained"]).any()
    assert np.isnan(table.first_answers("held_out_fact")["pretrained"]).all()
    frame = table.frame(0)
    assert len(frame) == (2 * 15 + 2 * 4) * 3
    told = frame[(frame["split"] == "training_implication") & (frame["candidate"] == frame["right_answer"])]
    assert told["told"].all()
    assert (told["world_answer"] != told["right_answer"]).all()
    with pytest.raises(ConfigError, match=r"step must be one of \[0, 2, 4, 6\]"):
        table.answers("held_out_fact", 3)
    with pytest.raises(UnknownNameError):
        table.answers("held_out")


def test_a_table_that_was_changed_or_is_gone_is_refused(make_model, tmp_path):
    recipe, path = config(SMALL, steps=0), tmp_path / "run" / "logits.safetensors"
    finetune(recipe, tmp_path / "run", lm=make_model())
    whole, table = path.read_bytes(), read_table(path, recipe.fingerprint)

    def read():
        return finetune(recipe, tmp_path / "run", lm=make_model()).logits

    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunError, match="not that of its digest"):
        read()
    write_table(path, replace(table, steps=np.array([9])), recipe.fingerprint)
    with pytest.raises(RunError, match=r"its digest is not that in result\.json"):
        read()
    write_table(path, table, "another")
    with pytest.raises(RunError, match="belongs to another run"):
        read()
    path.unlink()
    with pytest.raises(RunError, match="is missing"):
        read()
    path.write_bytes(whole)
    np.testing.assert_array_equal(read().logits, table.logits)


def test_only_the_first_and_the_last_of_very_many_logits_are_kept(make_model, monkeypatch):
    monkeypatch.setattr(recorder_module, "MOST_NUMBERS", 100)
    run = finetune(config(SMALL), lm=make_model())
    assert run.logits.steps.tolist() == [0, 6]
    assert run.history["held_out_fact/first_told"].notna().all()


def test_scores_of_more_than_first_tokens_keep_every_bit(make_model, tmp_path):
    scored = replace(SMALL, scoring="whole_answer")
    found, table = measure_logits(make_model(), make_facts(scored), scored, device="cpu")
    for k, split in enumerate(SPLITS):
        np.testing.assert_array_equal(table.answers(split).rank, found.rank[found.split == k])
    write_table(tmp_path / "table", table, "f")
    np.testing.assert_array_equal(read_table(tmp_path / "table", "f").logits, table.logits)
    assert table.tensors()["implication"].dtype == torch.float32
    finer = replace(table, logits=table.logits + 1e-12)
    assert finer.tensors()["implication"].dtype == torch.float64
    np.testing.assert_array_equal(
        LogitTable.with_tensors(table.prompts, finer.tensors()).logits, finer.logits
    )
    own = table.answers("held_out_fact")
    assert own.rank.tolist() == ranks(torch.from_numpy(own.logits), torch.from_numpy(own.target)).tolist()


def test_relations_with_different_numbers_of_answers(tokenizer):
    facts = make_facts(SMALL)
    prompts = replace(Prompts.of(facts), facts=(*facts.facts, "Oslo"))
    logits = np.full((1, len(prompts.split), 4), -np.inf)
    logits[:, :, :3] = 1.0
    logits[0, prompts.relation == 0, 3] = 2.0
    table = LogitTable(prompts, np.array([0]), logits)
    assert table.answers("held_out_fact").logits.shape[1] == 4
    assert table.answers("held_out_implication").mean_rank == 1
    again = LogitTable.with_tensors(prompts, table.tensors())
    np.testing.assert_array_equal(again.logits, logits)
    with pytest.raises(ValueError, match="must have the shape"):
        LogitTable.with_tensors(Prompts.of(facts), table.tensors())


def test_a_checkpoint_of_other_prompts_is_refused(make_model):
    lm, facts = make_model(), make_facts(SMALL)
    recorder, other = (Recorder(facts, lm, replace(SMALL, n_unseen=n)) for n in (0, 2))
    with pytest.raises(RunError, match="logits of other prompts"):
        other.restore(recorder.state())
    assert recorder.restore({"parameter|x": torch.zeros(1)}).keys() == {"parameter|x"}  # an old checkpoint
    assert columns_of(SMALL) != columns_of(replace(SMALL, n_unseen=2))
