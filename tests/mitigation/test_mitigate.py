"""Mitigations against oracles and by hand, bad input, and a method of one's own."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from ocr_interp import FactRecallTask
from ocr_interp.errors import ConfigError, RunError, TrainingDivergedError, UnknownNameError
from ocr_interp.mitigation import Aim, Descent, Mitigation, compare, mitigate, mitigations
from ocr_interp.mitigation.going_on import Beside
from ocr_interp.mitigation.measured import logits_of, measure
from ocr_interp.mitigation.methods.counter_examples import CounterExamples
from ocr_interp.mitigation.methods.frozen_features import FrozenFeatures
from ocr_interp.mitigation.methods.optimizer import Optimizer
from ocr_interp.mitigation.methods.penalty import Penalty
from ocr_interp.mitigation.methods.projection import Projection
from ocr_interp.mitigation.methods.routed import Routed
from ocr_interp.mitigation.methods.truncation import Truncation
from ocr_interp.training.long_descent import long_descent

TASK = FactRecallTask(4, 1, 2, n_noise=0, seq_len=3, implied_relations=2)
AIM = Aim.of(TASK, "r3")


def begun(method, entries=0.3, seed=0):
    linear_map = method.linear_map(AIM, seed)
    start = method.start(AIM, linear_map, entries, seed)
    return Descent(AIM, method.told(AIM, seed), linear_map, method.routes(AIM), start)


# --- how methods are named ------------------------------------------------------------------------


@pytest.mark.slow
def test_compare_takes_lists_of_methods():
    methods = ("one_matrix", Penalty, Penalty(weight=2.0), Routed(side="write"))
    table = compare(TASK, "r3", methods, seeds=(0,), margin=1.0, go_on=False)
    assert list(table["label"]) == ["one_matrix", "penalty", "penalty(weight=2.0)", "routed(side='write')"]
    assert list(compare(TASK, "r3", "start", seeds=(0,), margin=1.0, go_on=False)["label"]) == ["start"]


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (["none", "own_matrx"], "did you mean 'own_matrix'"),
        ({"a": "truncatoin"}, "did you mean 'truncation'"),
        (["penalty", Penalty()], "each once, got penalty twice"),
        ([], "at least one method"),
        ({}, "at least one method"),
        ([3], "method must be a name"),
        (7, "method must be a name"),
    ],
)
def test_compare_refuses_before_training(methods, said, monkeypatch):
    monkeypatch.setitem(compare.__globals__, "mitigate", lambda *args, **kwargs: 1 / 0)
    with pytest.raises((ConfigError, UnknownNameError), match=said):
        compare(TASK, "r3", methods)


def test_findings_say_how_each_method_is_called():
    from analyses.mitigation.criteria import ADDED, SETTINGS, VARIANTS
    from analyses.mitigation.pareto import method_of, task_of

    page = (Path(__file__).parents[2] / "docs" / "findings" / "mitigation.md").read_text(encoding="utf-8")
    table = page.split("| method | called |")[1].split("\n\n")[0].splitlines()[2:]
    rows = [re.split(r" (?<!\\)\| ", line) for line in table]
    shown = {row[0].strip("| *").removeprefix("control: "): row[1] for row in rows}
    aim = Aim.of(task_of(SETTINGS[0]), SETTINGS[0].unwanted)
    assert shown.keys() == (VARIANTS | ADDED).keys()
    for label, variant in (VARIANTS | ADDED).items():
        name, given = re.fullmatch(r"`(\w+)(?:\((.*)\))?`", shown[label].replace("\\|", "|")).groups()
        assert eval(f"made({given or ''})", {"made": mitigations[name]}) == method_of(variant, aim)


# --- a method of one's own ------------------------------------------------------------------------


@dataclass(frozen=True)
class Dropout(Mitigation):
    """Values lose random entries at every step; it is not told which relation is unwanted."""

    name: ClassVar[str] = "dropout"
    label: ClassVar[str] = "dropout"

    share: float = 0.1

    def steering(self, descent, seed):
        generator = torch.Generator().manual_seed(seed)

        def moves(pull):
            found = descent.pull_back(pull)
            kept = torch.rand(found["W_V"].shape, generator=generator) >= self.share
            return {**found, "W_V": found["W_V"] * kept}

        return moves


@pytest.mark.slow
def test_a_method_of_ones_own_goes_through_everything():
    with mitigations.registered("dropout", Dropout):
        table = compare(
            TASK, "r3", {"own": "dropout", "more": Dropout(share=0.5)}, seeds=(0, 1), margin=2.0, go_on=False
        )
    assert list(table["label"]) == ["own", "own", "more", "more"]
    assert (table["told_margin"] >= 2).all()
    assert table["options"].iloc[-1] == "share=0.5"


# --- oracles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", "routed", "own_matrix", "frozen_features"])
def test_moves_are_the_gradient_of_the_logarithm_of_the_loss(name):
    descent = begun(mitigations[name]())
    leaves = {key: value.clone().requires_grad_() for key, value in descent.parameters.items()}
    W = descent.linear_map.product(leaves)
    routes, told = descent.routes, AIM.told
    logits = torch.stack(
        [
            (W if W.dim() == 2 else W[routes[relation]])[[subject, TASK.n_subjects + relation]].sum(0)
            for subject, relation in zip(told.subject, told.relation, strict=True)
        ]
    )
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(told.answer)).log()
    wanted = torch.autograd.grad(-loss, list(leaves.values()))
    for move, gradient in zip(descent.pull_back(descent.pull()).values(), wanted, strict=True):
        torch.testing.assert_close(move, gradient)


@pytest.mark.slow
def test_nothing_is_gradient_descent():
    """At the same margin W is that of long_descent, whose steps differ, from the same start."""
    found = mitigate(TASK, "r3", margin=10.0, go_on=False, seed=3)
    method = mitigations["none"]()
    start = method.start(AIM, method.linear_map(AIM, 3), 0.01, 3)
    other = long_descent(TASK, d_head=TASK.n_answers, start=start, log10_time=7.0)
    at = float(np.interp(10.0, other.history["margin"], other.history["beta"]))
    assert found.measured.wanted_beta == pytest.approx(at, abs=0.01)
    assert found.measured.unwanted_beta == pytest.approx(at, abs=0.01)


def test_an_untold_subjects_values_never_move_where_it_was_never_asked():
    descent = begun(Routed())
    before = descent.parameters["W_V_1"].clone()
    descent.advance(50)
    told = TASK.told[2]
    after = descent.parameters["W_V_1"][: TASK.n_subjects]
    assert torch.equal(after[~told], before[: TASK.n_subjects][~told])
    assert not torch.equal(after[told], before[: TASK.n_subjects][told])
    assert Routed().routes(AIM) == (0, 0, 1)


def test_a_penalty_moves_along_its_gradient():
    method = Penalty(weight=2.0, subjects=1)
    descent = begun(method)
    moves = method.steering(descent, 0)(torch.zeros(len(descent.told), TASK.n_answers, dtype=torch.float64))
    asked = method.asked(AIM, 0)
    assert len(asked) == TASK.n_facts
    leaves = {key: value.clone().requires_grad_() for key, value in descent.parameters.items()}
    W = leaves["W_V"] @ leaves["W_O"]
    logits = (W[asked.subject] + W[TASK.n_subjects + 2])[:, TASK.answer_relation == 2]
    even = torch.full_like(logits, 1 / logits.shape[1])
    divergence = torch.nn.functional.kl_div(logits.log_softmax(1), even, reduction="batchmean")
    wanted = torch.autograd.grad(-2.0 * divergence, list(leaves.values()))
    for move, gradient in zip(moves.values(), wanted, strict=True):
        torch.testing.assert_close(move, gradient)


def test_projection_takes_out_the_answers_features_from_what_others_tell():
    descent = begun(Projection())
    pull = descent.pull()
    moves, plain = Projection().steering(descent, 0)(pull), descent.pull_back(pull)
    features = descent.parameters["W_O"][:, TASK.answer_relation == 2]
    untold = torch.from_numpy(~TASK.told[2])
    assert (moves["W_V"][: TASK.n_subjects][untold] @ features).abs().max() < 1e-12
    assert (plain["W_V"][: TASK.n_subjects][untold] @ features).abs().max() > 1e-3
    torch.testing.assert_close(moves["W_V"][-1], plain["W_V"][-1])  # r3's own row is moved by r3 alone
    torch.testing.assert_close(moves["W_O"], plain["W_O"])


def test_measured_by_hand():
    task = FactRecallTask(2, 1, 1, n_noise=0, seq_len=3, implied_relations=2)
    aim, W = Aim.of(task, "r3"), np.zeros((3, 7, 6))
    # subjects s0 (told) and s1 of b0, s2 (told) and s3 of b1; columns b0 b1 c0 c1 d0 d1
    for pair, (told, untold) in enumerate(((0, 1), (2, 3))):
        W[0, [told, untold], pair] = 4.0
        W[1, told, 2 + pair], W[1, untold, 2 + pair] = 4.0, 1.0
        W[2, told, 4 + pair] = 2.0
    W[2, 1, 5] = 1.0  # s1 is answered with the other's
    W[2, 3, 5] = np.log(3.0)
    found = measure(aim, W, aim.told, aim.untold)
    assert (found.wanted_accuracy, found.wanted_beta) == (1.0, 0.25)
    assert found.wanted_probability == pytest.approx(np.e / (np.e + 1))
    assert found.unwanted_accuracy == 0.5
    assert found.unwanted_beta == pytest.approx((np.log(3.0) - 1) / 2 / 2)
    assert found.unwanted_probability == pytest.approx((1 / (1 + np.e) + 0.75) / 2)
    assert (found.fact_accuracy, found.told_accuracy, found.told_margin) == (1.0, 1.0, 2.0)


def test_counter_examples_are_other_answers_for_some():
    found = CounterExamples(subjects=1).told(AIM, 0)
    assert len(found) == len(AIM.told) + TASK.n_facts
    extra = found.select(np.arange(len(AIM.told), len(found)))
    assert set(extra.relation) == {2}
    assert (TASK.answer_relation[extra.answer] == 2).all()
    assert (extra.answer != TASK.right_answer[2, extra.subject]).all()
    assert sorted(TASK.subject_fact[extra.subject]) == list(range(TASK.n_facts))
    assert not TASK.told[2, extra.subject].any()
    assert len(AIM.without(found)) == len(AIM.untold) - TASK.n_facts


@pytest.mark.slow
def test_who_is_told_another_pairs_answer_deduces_that_pairs_other_implication():
    """Found after the study's runs: a counter-example costs its subject the wanted deduction."""
    task = FactRecallTask(8, 1, 3, n_noise=0, seq_len=3, implied_relations=2)
    found = mitigate(task, "r3", CounterExamples(), go_on=False)
    aim, told = found.aim, found.method.told(found.aim, 0)
    extra = told.select(np.arange(len(aim.told), len(told)))
    untold = aim.untold.select(aim.untold.relation == 1)
    logits = logits_of(aim, found.W, untold)[:, task.answer_relation == 1]
    given = np.isin(untold.subject, extra.subject)
    pair_of_answer = dict(zip(extra.subject, extra.answer - task.answer_of_fact[2, 0], strict=True))
    theirs = [pair_of_answer[subject] for subject in untold.subject[given]]
    assert (logits[given].argmax(1) == theirs).mean() >= 0.75
    np.testing.assert_array_equal(logits[~given].argmax(1), task.subject_fact[untold.subject[~given]])


def test_truncation_by_hand():
    W = np.zeros((1, *AIM.shape))
    W[0, range(5), range(5)] = (5.0, 4.99, 3.0, 2.0, 1.0)
    top = Truncation("top", 1).finished(W, AIM, 0)
    np.testing.assert_allclose(np.diag(top[0])[:5], (0, 0, 3, 2, 1), atol=1e-12)  # blocks, not directions
    tail = Truncation("tail", 3).finished(W, AIM, 0)
    np.testing.assert_allclose(np.diag(tail[0])[:5], (5, 4.99, 3, 0, 0), atol=1e-12)
    random = Truncation("random", 2).finished(np.eye(AIM.shape[1])[None], AIM, 0)
    assert np.trace(random[0]) == pytest.approx(AIM.shape[1] - 2)


@pytest.mark.parametrize(("known", "wanted", "unwanted"), [("wanted", 0.5, 0.0), ("unwanted", 0.0, 0.5)])
def test_features_have_the_cosines_that_they_promise(known, wanted, unwanted):
    F = FrozenFeatures(0.5, known, type_size=1.0).features(AIM)
    gram, n = F.T @ F, TASK.n_facts
    of_type = np.kron(np.eye(3), np.ones((n, n)))
    expected = np.eye(3)
    expected[0, 1] = expected[1, 0] = wanted
    expected[0, 2] = expected[2, 0] = unwanted
    np.testing.assert_allclose(gram - of_type, np.kron(expected, np.eye(n)), atol=1e-12)


def test_an_update_beside_matrices_is_added_to_each():
    base = torch.randn(2, 3, 4, dtype=torch.float64)
    factors = {"W_V": torch.randn(3, 2, dtype=torch.float64), "W_O": torch.randn(2, 4, dtype=torch.float64)}
    both = Beside(base=base, d_head=2)
    torch.testing.assert_close(both.product(factors)[1], base[1] + factors["W_V"] @ factors["W_O"])
    grad = torch.randn(2, 3, 4, dtype=torch.float64)
    ours, autograd = both.gradients(factors, grad), super(Beside, both).gradients(factors, grad)
    for name, value in ours.items():
        torch.testing.assert_close(value, autograd[name])


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unwanted", "error", "says"),
    [
        ("r4", UnknownNameError, "unknown relation 'r4'.*'r3'"),
        ((), ConfigError, "must name one or several implied relations.*got none"),
        ("r1", ConfigError, "must name one or several implied relations"),
        (("r3", "r3"), ConfigError, "each once"),
        (("r2", "r3"), ConfigError, "must leave a relation whose deduction is wanted"),
    ],
)
def test_an_aim_that_is_none_is_refused(unwanted, error, says):
    with pytest.raises(error, match=says):
        mitigate(TASK, unwanted)


def test_a_task_without_untold_subjects_is_refused():
    with pytest.raises(ConfigError, match="must be told to some subjects and not to others, got 8 of 8"):
        mitigate(FactRecallTask(4, 2, 0, n_noise=0, seq_len=3, implied_relations=2), "r3")


@pytest.mark.parametrize(
    ("method", "error", "says"),
    [
        ("penality", UnknownNameError, "did you mean 'penalty'"),
        (3, ConfigError, "method must be a name.*got 3: make one"),
        (CounterExamples(subjects=3), ConfigError, "got 3 for a fact with 2: lower subjects"),
        (CounterExamples(subjects=2), ConfigError, "must leave an untold subject to measure"),
        (Penalty(subjects=3), ConfigError, "got 3 for a fact with 2"),
        (Routed(experts="r1+r2|r5"), UnknownNameError, "unknown relation 'r5'"),
        (Routed(experts="r1|r2"), ConfigError, "got none for r3"),
        (Truncation(count=99), ConfigError, "count must be < 12"),
        (Optimizer(lr=1e300), TrainingDivergedError, "diverged at step"),
    ],
)
def test_a_method_that_does_not_fit_is_refused(method, error, says):
    with pytest.raises(error, match=says):
        mitigate(TASK, "r3", method, margin=1.0)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: Penalty(weight=0), "weight must be a finite number > 0"),
        (lambda: CounterExamples(subjects=0), "subjects must be >= 1"),
        (lambda: CounterExamples(of="r3"), "of must be one of 'unwanted', 'wanted'"),
        (lambda: Routed(side="left"), "side must be one of"),
        (lambda: Routed(by="subject", experts="r1|r2"), "no use for experts"),
        (lambda: Truncation(drop="middle"), "drop must be one of"),
        (lambda: FrozenFeatures(cosine=1.0), "cosine must be >= 0 and < 1"),
        (lambda: Optimizer(optimizer="moun"), "did you mean 'muon'"),
    ],
)
def test_options_are_checked(made, says):
    with pytest.raises(ConfigError, match=says):
        made()


def test_a_margin_that_is_not_reached_is_an_error():
    with pytest.raises(RunError, match=r"told margin of .* after max_steps=5, required 20"):
        mitigate(TASK, "r3", max_steps=5)
