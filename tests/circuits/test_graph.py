"""Circuit graphs: sums by hand, pruning that hides nothing, JSON there and back, bad input."""

import dataclasses
import json

import numpy as np
import pytest
from snapshots import predicted, random_snapshot
from test_ov_circuit import MICRO, micro

from ocr_interp.circuits.attribution.of_run import attribute_run
from ocr_interp.errors import AttributionError, ConfigError, ModelError, UnknownNameError
from ocr_interp.graphs.building import attribution_graph, prompt_graph
from ocr_interp.graphs.graph import CircuitGraph, Edge, Effect, Node
from ocr_interp.graphs.mechanism_graph import mechanism_graph
from ocr_interp.task import FactRecallTask
from ocr_interp.theory import solve

PROMPT = ["noise0", "s3", "r2", "EOS"]


def test_a_prompt_graph_by_hand():
    graph = prompt_graph(micro(), PROMPT, "c1", "c0")
    assert graph.total == pytest.approx(2)
    assert [n.label for n in graph.nodes if n.kind == "token"] == ["s3", "r2", "noise0", "EOS"]
    assert graph.through("token 0") == pytest.approx(2)
    assert graph.through("token 1") == pytest.approx(0, abs=1e-12)
    assert graph.node("attention 0").label == "attends\n2"
    assert graph.through("answer") == graph.total


@pytest.mark.parametrize("attention", ["linear", "softmax"])
@pytest.mark.parametrize("most", [1, 2, 9])
def test_prompt_graphs_sum_to_the_logit_difference(attention, most):
    run = random_snapshot(dataclasses.replace(MICRO, seq_len=5), 1, d_head=4, attention=attention)
    graph = prompt_graph(run, ["noise0", *PROMPT], "c1", "b0", max_blocks=most)
    assert graph.total == attribute_run(run, ["noise0", *PROMPT], "c1", "b0").total
    into = sum(edge.contribution for edge in graph.edges if edge.target == "answer")
    assert abs(into - graph.total) < 1e-10
    assert sum(n.kind == "ov_block" for n in graph.nodes) == min(most + 1, 4)
    assert "noise (2)" in [n.label for n in graph.nodes]


@pytest.mark.parametrize("attention", ["linear", "softmax"])
@pytest.mark.parametrize("most", [0, 99])
def test_the_mechanism_graph_is_the_mean_of_the_prompts(attention, most, mapped_task):
    for task in (MICRO, mapped_task):
        run = random_snapshot(task, 2, attention=attention)
        graph = mechanism_graph(run, max_subjects=most)
        if attention == "softmax" and task.n_noise > 1:
            continue  # average noise is no sequence of tokens there
        answers = [task.labels[k] for k in task.answer_tokens]
        for split in ("held_out_implication", "training_fact"):
            triples = task.triples.of_split(split)
            totals = []
            for s, r, a in zip(triples.subject, triples.relation, triples.answer, strict=True):
                per_noise = []
                for noise in range(task.n_noise):
                    prompt = [f"noise{noise}", f"s{s}", f"r{r + 1}", "EOS"]
                    logits = np.array([attribute_run(run, prompt, name).total for name in answers])
                    per_noise.append(logits[a] - logits.mean())
                totals.append(np.mean(per_noise))
            assert graph.through(f"answer {split}") == pytest.approx(np.mean(totals))


def test_the_missing_edge_is_the_held_out_coefficient():
    task = FactRecallTask(4, 1, 3, n_noise=1, seq_len=4)
    carried = {}
    for norm in ("nuclear", "frobenius"):
        solution = solve(task, norm)
        graph = mechanism_graph(predicted(task, solution.W))
        carried[norm] = graph.through("held-out subjects → own implication")
        assert graph.through("training subjects → own implication") == pytest.approx(1 - 1 / 4)
        assert graph.through("subjects → set of facts") == pytest.approx(0, abs=1e-12)
        untold = [e for e in graph.edges if e.kind == "untold"]
        assert {e.target for e in untold} == {
            "held-out subjects → own implication",
            "answer held_out_implication",
        }
    assert carried["nuclear"] == pytest.approx((1 - 1 / 4) * 3**-0.5)
    assert carried["frobenius"] == pytest.approx(0, abs=1e-12)


def test_pruning_hides_nothing_and_keeps_the_untold_edge():
    graph = mechanism_graph(random_snapshot(MICRO, 4))
    for share in (0.0, 0.05, 0.3, 1.0):
        pruned = graph.prune(share)
        for effect in pruned.effects:
            into = sum(e.contribution for e in pruned.edges if e.target == effect.node)
            assert into + effect.hidden == pytest.approx(effect.total)
        assert sum(e.kind == "untold" for e in pruned.edges) == 2 + 2 - 1 or share < 1
        assert any(e.kind == "untold" for e in pruned.edges)
        ends = {e.source for e in pruned.edges} | {e.target for e in pruned.edges}
        assert all(n.name in ends or n.kind == "answer" for n in pruned.nodes)
    assert graph.prune(0.3).prune(0.05).pruned_below == 0.3
    assert len(graph.prune(0.3).edges) < len(graph.edges)
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="share must be"):
            graph.prune(share)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_json_there_and_back(share):
    graph = mechanism_graph(random_snapshot(MICRO, 4)).prune(share)
    text = graph.to_json()
    assert CircuitGraph.from_json(text) == graph
    assert CircuitGraph.from_json(text).to_json() == text
    assert json.loads(text)["version"] == 1


def test_damaged_json_is_refused():
    good = json.loads(mechanism_graph(random_snapshot(MICRO, 4)).to_json())
    bad = {
        "must be JSON": "{",
        "must have schema": json.dumps({"schema": "other"}),
        "up to version 2, got 3: update": json.dumps({**good, "version": 3}),
        "is damaged: 'nodes'": json.dumps({k: v for k, v in good.items() if k != "nodes"}),
        "is damaged: .*surprise": json.dumps({**good, "surprise": 1}),
    }
    for message, text in bad.items():
        with pytest.raises(ConfigError, match=message):
            CircuitGraph.from_json(text)
    good["edges"][-1]["contribution"] += 0.5
    with pytest.raises(AttributionError, match=r"edges into .* must sum to"):
        CircuitGraph.from_json(json.dumps(good))


def test_graphs_that_do_not_add_up_or_hang_together_are_refused():
    nodes = (Node("t", "token", "t"), Node("a", "attention", "a"), Node("y", "answer", "y"))
    edges = (Edge("t", "a", 1.0), Edge("a", "y", 1.0))
    good = CircuitGraph("g", nodes, edges, (Effect("y", 1.0),), "", "", "")
    with pytest.raises(AttributionError, match="edges into 'y' must sum to 2"):
        dataclasses.replace(good, effects=(Effect("y", 2.0),))
    with pytest.raises(AttributionError, match="flows through 'a'"):
        dataclasses.replace(good, edges=(Edge("t", "a", 0.5), Edge("a", "y", 1.0)))
    with pytest.raises(UnknownNameError, match="node of an edge 'z'"):
        dataclasses.replace(good, edges=(*edges, Edge("t", "z", 0.0)))
    with pytest.raises(UnknownNameError, match="did you mean 'token'"):
        dataclasses.replace(good, nodes=(Node("t", "tokn", "t"), *nodes[1:]))
    with pytest.raises(UnknownNameError, match="did you mean 'told'"):
        dataclasses.replace(good, edges=(Edge("t", "a", 1.0, "tol"), edges[1]))
    with pytest.raises(ConfigError, match="some twice"):
        dataclasses.replace(good, nodes=(*nodes, nodes[0]))
    with pytest.raises(ConfigError, match="one effect"):
        dataclasses.replace(good, effects=())
    with pytest.raises(UnknownNameError, match=r"edge from 't' to 'y'.*'a'"):
        good.edge("t", "y")
    assert good.edge("t", "a").contribution == 1


def test_a_prompt_must_end_with_the_query():
    with pytest.raises(ModelError, match="must end with the query 'EOS', got 's1 r2'"):
        prompt_graph(random_snapshot(MICRO, 5), ["s1", "r2"], "c0", "c1")


def test_a_graph_of_any_attribution():
    run = random_snapshot(MICRO, 5)
    found = attribute_run(run, PROMPT, "c1", "b0")
    graph = attribution_graph(found)
    assert graph.total == pytest.approx(found.total)
    assert [graph.through(f"token {k}") for k in range(4)] == pytest.approx(found.by_position.tolist())
    assert graph.fingerprint == found.fingerprint
