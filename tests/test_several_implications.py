"""Several implications of a fact: the task by hand, and one run through everything that reads it."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from ocr_interp import (
    FactRecallTask,
    ModelConfig,
    OVCircuit,
    TrainConfig,
    certify,
    held_out_beta,
    load_run,
    sweep,
    train,
)
from ocr_interp.ablation import ov_block, run_ablation_study, task_examples, tokens_of_kind
from ocr_interp.circuits.analysis import analyze_run
from ocr_interp.circuits.geometry.answer_blocks import answer_blocks
from ocr_interp.circuits.geometry.cosine_groups import FURTHER_GROUPS, group_masks, vector_labels
from ocr_interp.data import NoisyBatches, exhaustive, noisy_examples, token_counts
from ocr_interp.errors import ConfigError
from ocr_interp.graphs.answers import right_answer
from ocr_interp.graphs.mechanism_graph import mechanism_graph
from ocr_interp.models.starts import symmetric_factors
from ocr_interp.training.columns import column_meaning
from ocr_interp.training.long_descent import long_descent
from ocr_interp.viz.geometry import PairGeometry
from ocr_interp.viz.heatmaps import plot_ov_circuit
from ocr_interp.viz.mechanism import OwnAnswerStrength
from ocr_interp.viz.text.analysis import describe_analysis
from ocr_interp.viz.text.run import describe_columns, describe_run

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5, implied_relations=2)
MIXED = FactRecallTask.from_mapping([0, 0, 1, 1], [[0, 1], [1, 0]], [[True, False] * 2, [False, True] * 2])
MODEL = ModelConfig(ov="factorized", d_head=14, init_scale=0.3, attention_init="uniform")
RECIPE = TrainConfig(steps=120, lr=0.02, batch_size=30, log_every=40, weight_decay=0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(TASK, MODEL, RECIPE, tmp_path_factory.mktemp("several") / "run")


def test_tokens_and_triples_by_hand():
    assert TASK.labels[9:] == ("r1", "r2", "r3", "noise0", "noise1", "EOS", *TASK.labels[15:])
    assert TASK.labels[15:] == ("b0", "b1", "b2", "c0", "c1", "c2", "d0", "d1", "d2")
    assert TASK.relation_tokens == (9, 10, 11)
    assert list(TASK.noise_tokens) == [12, 13]
    assert TASK.n_inputs == 15
    assert TASK.d_vocab == 24
    assert TASK.implication_counts == (3, 3)
    triples = TASK.triples
    assert len(triples) == 27
    assert triples.answer[triples.subject == 4].tolist() == [1, 4, 7]  # s4 has fact 1
    assert triples.split[triples.subject == 3].tolist() == [0, 1, 1]  # told
    assert triples.split[triples.subject == 4].tolist() == [2, 3, 3]
    assert len(TASK.training_triples) == 9 + 2 * 3


def test_a_mapping_has_a_mask_and_a_map_per_relation():
    assert MIXED.right_answer.tolist() == [[0, 0, 1, 1], [2, 2, 3, 3], [5, 5, 4, 4]]
    assert MIXED.told[1:].tolist() == [[True, False] * 2, [False, True] * 2]
    # every subject lacks one implication, so all facts are those of held-out subjects
    assert np.bincount(MIXED.triples.split, minlength=4).tolist() == [0, 4, 4, 4]
    shared = FactRecallTask.from_mapping([0, 0, 1, 1], [[0, 1], [1, 0]], [True, False] * 2)
    assert shared.balanced_sizes == (2, 1, 1)
    assert shared == FactRecallTask.from_mapping([0, 0, 1, 1], [[0, 1], [1, 0]], [[True, False] * 2] * 2)
    for task in (MIXED, shared, TASK):
        assert FactRecallTask.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    one = FactRecallTask.from_mapping([0, 0, 1, 1], [[0, 1]], [True, False] * 2)
    assert one == FactRecallTask.from_mapping([0, 0, 1, 1], [0, 1], [True, False] * 2)


def test_one_implication_is_the_task_that_it_was():
    assert FactRecallTask(4, 1, 2) == FactRecallTask(4, 1, 2, implied_relations=1)
    assert FactRecallTask(4, 1, 2).relation_tokens == (12, 13)


LISTS = {"fact_of_subject": (0, 1), "trained": (True, False), "implied_relations": 2}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"implied_relations": 0}, "implied_relations must be >= 1"),
        ({"implied_relations": 16}, "implied_relations must be <= 15"),
        ({"names": ("r3", *"abcdefghijklmnopq"), "implied_relations": 2, "n_pairs": 3, "m_test": 2}, "r3"),
        ({**LISTS, "implication_of_fact": (0, 1, 0)}, "an entry per fact for each of 2 relations"),
        ({**LISTS, "implication_of_fact": (0, 1, 0, 0)}, "implication_of_fact of r3 must name at least 2"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ConfigError, match=message):
        FactRecallTask(**fields)


def test_bad_mappings():
    with pytest.raises(ConfigError, match="one for each of 2, as many as implication_of_fact"):
        FactRecallTask.from_mapping([0, 1], [[0, 1], [1, 0]], [[True, False]] * 3)
    with pytest.raises(ConfigError, match="as many entries for every relation"):
        FactRecallTask.from_mapping([0, 1], [[0, 1], [1, 0, 1]], [True, False])
    with pytest.raises(ConfigError, match=r"implied_relations=2: task\.answer_of_fact"):
        _ = TASK.fact_implication
    with pytest.raises(ConfigError, match=r"task\.told has them by relation"):
        _ = MIXED.subject_trained


def test_sequences_hold_their_relation():
    tokens, batch = noisy_examples(TASK, TASK.triples, 0, dtype=torch.float64)
    assert torch.equal(token_counts(TASK, tokens, torch.float64), batch.counts)
    relation = torch.as_tensor(TASK.triples.relation)
    assert torch.equal(batch.counts[:, list(TASK.relation_tokens)].argmax(1), relation)
    source = NoisyBatches(TASK, 30, 0)
    assert torch.equal(token_counts(TASK, source.tokens(3)), source.batch(3).counts)
    assert float(exhaustive(TASK).weight.sum()) == pytest.approx(1.0)


def test_training_learns_and_writes_a_column_per_relation(run):
    last = run.history.iloc[-1]
    assert last["training_implication/accuracy_in_set"] == 1.0
    parts = [last[f"held_out_implication/{r}/loss"] for r in ("r2", "r3")]
    assert last["held_out_implication/loss"] == pytest.approx(np.mean(parts), rel=1e-5)
    assert last["held_out_implication/margin"] == min(
        last[f"held_out_implication/{r}/margin"] for r in ("r2", "r3")
    )
    for relation in ("r2", "r3"):
        expected = held_out_beta(run.effective_W.astype(float), TASK, relation).projection
        assert last[f"beta/{relation}"] == pytest.approx(expected, rel=1e-5)
    assert all(column_meaning(str(name)) for name in run.history.columns)
    assert load_run(run.path).task == TASK
    assert load_run(run.path).history.equals(run.history)
    one = train(FactRecallTask(3, 1, 2, n_noise=2, seq_len=5), MODEL, RECIPE)
    assert [name for name in one.history.columns if "r2" in name] == []


def test_margins_and_losses_in_the_right_set_by_hand(run):
    """The right set of an implication is its relation's answers: computed afresh from a HookedTransformer."""
    from ocr_interp.training.tracking import Tracker

    tracker = Tracker(TASK, run.config.train, torch.float32, torch.device("cpu"), certificates=False)
    examples = tracker.examples
    logits = examples.counts.double() @ torch.as_tensor(run.effective_W).double()
    chosen = (examples.split == 3) & (examples.target >= TASK.token("d0"))
    own, answers = logits[chosen], logits[chosen, TASK.token("d0") :]
    right = examples.target[chosen]
    rival = answers.scatter(1, (right - TASK.token("d0"))[:, None], -torch.inf).amax(1)
    margin = float((own.gather(1, right[:, None])[:, 0] - rival).min())
    assert run.history.iloc[-1]["held_out_implication/r3/margin"] == pytest.approx(margin, rel=1e-4)


def test_a_run_through_circuit_certificate_ablation_and_figures(run):
    circuit = run.circuit
    assert circuit.subjects_and_relations.W.shape == (12, 9)
    assert circuit.attention_by_kind.kinds[2:5] == ("r1", "r2", "r3")
    assert circuit.attention_by_kind.share.sum() == pytest.approx(1.0)
    assert circuit.energy.counts[0].tolist() == [3, 6, 6, 12, 0]  # 3 training subjects: b, and c with d
    proof = certify(run.effective_W, TASK, inputs="noise_eos", outputs="vocabulary")
    assert proof.dual <= proof.primal
    names = [block.name for block in answer_blocks(circuit.subjects_and_relations)]
    assert names[0] == "relation block (2)"
    assert names[1] == "large pair patterns (2)"
    analysis = analyze_run(run)
    assert {group.name for group in analysis.alignment.measured.groups} >= set(FURTHER_GROUPS)
    assert "r3" in describe_analysis(analysis)

    examples = task_examples(TASK)
    assert examples.other_answer is None
    s4_r3 = examples.rivals[[4 + 18]] - TASK.n_inputs
    assert s4_r3.tolist() == [[6, 7, 8]]
    cut = {"untold": ov_block(TASK, "held-out subjects", "implications")}
    study = run_ablation_study(run, cut)
    accuracy = study.by_split("accuracy")
    assert (
        accuracy.loc["untold", "held_out_implication"] < accuracy.loc["untold", "training_implication"] == 1.0
    )
    assert tokens_of_kind(TASK, "relations") == TASK.relation_tokens
    assert tokens_of_kind(TASK, "implications") == tuple(range(18, 24))
    assert tokens_of_kind(TASK, "r3") == (11,)

    graph = mechanism_graph(run)
    assert {"token r1", "token r2", "token r3"} <= {node.name for node in graph.nodes}
    assert right_answer(run, ["s4", "r3", "EOS"]) == "d1"
    figure, ax = plt.subplots()
    W = run.subjects_and_relations_W
    plot_ov_circuit(ax, W, TASK, 1.0, "logits")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["$b$", "$c$", "$d$"]
    plt.close(figure)
    strength = OwnAnswerStrength.of(W.astype(float), TASK)
    beta = held_out_beta(W.astype(float), TASK).projection
    assert strength.held_out_implication / strength.training_implication == pytest.approx(beta)
    assert "r3" in describe_run(run)
    assert "held_out_implication/r3/margin" in describe_columns(run)
    assert run.table()["relation"].tolist() == ["r2"] * 9 + ["r3"] * 9
    assert OVCircuit.from_run(run, raw=True).inputs.labels[9:12] == ("r1", "r2", "r3")
    inputs, outputs = np.ones((12, 3)), np.ones((9, 3))
    with pytest.raises(ConfigError, match="one implication of a fact"):
        PairGeometry.of(inputs, outputs, TASK)


def test_cosines_of_every_kind_are_counted_once():
    masks, labels = group_masks(TASK), vector_labels(TASK)
    pairs = {name: [(labels[i], labels[j]) for i, j in np.argwhere(mask)] for name, mask in masks.items()}
    assert pairs["relations"] == [("r1", "r2"), ("r1", "r3")]
    assert pairs["implication_relations"] == [("r2", "r3")]
    assert pairs["implications_of_two_relations_same_pair"] == [("c0", "d0"), ("c1", "d1"), ("c2", "d2")]
    assert len(pairs["implication_implication_other_pair"]) == 6
    assert ("s3+r3", "d1") in pairs["implication_train"]
    assert len(pairs["implication_held_out"]) == 12


def test_the_symmetric_start_has_a_dimension_per_relation():
    W_V, W_O = symmetric_factors(TASK, 6, 0.1)
    W = W_V @ W_O
    assert W[TASK.token("r3"), TASK.token("d0") :].tolist() == pytest.approx([0.01] * 3)
    assert float(W[TASK.token("r3"), : TASK.token("d0")].abs().max()) == 0.0
    with pytest.raises(ConfigError, match=r"n_pairs \+ 3 = 6"):
        symmetric_factors(TASK, 5, 0.1)


def test_a_task_with_masks_of_its_own_trains_and_its_circuit_is_refused():
    run = train(MIXED, ModelConfig(), TrainConfig(steps=2, log_every=1, batch_size=4, data="exhaustive"))
    columns = [f"held_out_implication/{relation}/loss" for relation in ("r2", "r3")]
    assert np.isfinite(run.history[columns].to_numpy()).all()
    assert "relation" in run.table()
    with pytest.raises(ConfigError, match="tells every relation to subjects of its own"):
        _ = run.circuit


def test_sweeps_over_the_number_of_implications():
    task = FactRecallTask(2, 1, 1, n_noise=0, seq_len=3)
    recipe = TrainConfig.gradient_descent(steps=2, log_every=2)
    found = sweep({"implied_relations": [1, 2], "seed": [0, 1]}, task=task, train=recipe)
    assert len(found.runs) == 4
    last = found.table[found.table["step"] == 2].set_index("implied_relations")
    assert last.loc[2, "held_out_implication/r3/loss"].notna().all()
    assert last.loc[1, "held_out_implication/r3/loss"].isna().all()
    alone = train(FactRecallTask(2, 1, 1, n_noise=0, seq_len=3, implied_relations=2), ModelConfig(), recipe)
    assert alone.history["beta"].iloc[-1] == last.loc[2, "beta"].iloc[0]


@pytest.mark.slow
def test_descent_goes_to_the_saddle_of_two_implications():
    from ocr_interp.theory import saddle_solution

    task = FactRecallTask(3, 1, 2, n_noise=0, seq_len=3, implied_relations=2)
    found = long_descent(task, log10_time=30, entries=1e-6)
    assert found.beta == pytest.approx(saddle_solution(task).beta, abs=0.02)
