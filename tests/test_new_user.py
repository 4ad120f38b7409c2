"""What a new user reads: noise comes from the recipe, numbers name what they are of, nan has its reason."""

import dataclasses
import math
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, attribute, sweep, train
from ocr_interp.ablation import Mean, Patch, Site, Zero, ablated, run_ablation_study
from ocr_interp.ablation import Path as KeyPath
from ocr_interp.circuits.analysis import analyze_run
from ocr_interp.errors import ModelError, OcrInterpError, UnknownNameError
from ocr_interp.graphs import circuit_graph, mechanism_graph, prompt_graph
from ocr_interp.maps import maps
from ocr_interp.maps.base import LinearMap
from ocr_interp.training.columns import column_meaning, glossary
from ocr_interp.training.tracking import COLUMNS, history_columns
from ocr_interp.viz import describe_analysis, describe_run, describe_study, describe_sweep

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=20, batch_size=12, lr=0.02, log_every=10, snapshots=2, device="cpu")


@pytest.fixture(scope="module")
def noisy():
    return train(TASK, ModelConfig(d_head=4), RECIPE)


@pytest.fixture(scope="module")
def quiet():
    return train(TASK, ModelConfig(d_head=4), dataclasses.replace(RECIPE, data="noise_free"))


# --- noise comes from the recipe -----------------------------------------------------------------


@pytest.mark.slow
def test_a_run_without_noise_shows_none(noisy, quiet):
    for run, shown in ((noisy, True), (quiet, False)):
        found = analyze_run(run)
        assert ("noise" in describe_analysis(found).split("note:")[0]) is shown
        assert ("noise0" in found.circuit.inputs.labels) is shown
        assert ("\nnoise " in run.circuit.summary()) is shown
        assert found.attention.tokens_in_prompt[found.attention.kinds.index("noise")] == 2 * shown
        assert found.attention.share.sum() == pytest.approx(1)
        assert bool(found.attention.share[found.attention.kinds.index("noise")] > 0) is shown
        graph = mechanism_graph(run)
        assert any("noise" in node.name for node in graph.nodes) is shown
    assert "noise0" in quiet.circuit.inputs.labels, "the circuit itself has every row"
    assert "note: trained without noise" in describe_analysis(analyze_run(quiet))


def test_a_mechanism_without_noise_has_the_logits_of_prompts_without_noise(quiet):
    graph = mechanism_graph(quiet)
    wanted = []
    for s in np.flatnonzero(~TASK.subject_trained):
        own = f"c{TASK.subject_fact[s]}"
        logits = {
            label: attribute(quiet, [f"s{s}", "r2", "EOS"], label).total
            for label in TASK.labels[TASK.n_inputs :]
        }
        wanted.append(logits[own] - np.mean(list(logits.values())))
    effects = {effect.node: effect.total for effect in graph.effects}
    assert effects["answer held_out_implication"] == pytest.approx(np.mean(wanted), rel=1e-6)
    assert "exact, prompts without noise" in graph.statement


# --- numbers name their answer set or reference --------------------------------------------------


@pytest.mark.slow
def test_texts_name_answer_sets_and_references(noisy):
    shown = describe_run(noisy)
    assert re.search(r"loss +accuracy +accuracy +margin\n.*all tokens +all answers +its set +its set", shown)
    assert "cosine with the nuclear-norm solution" in shown
    assert "smallest training margin among all answers" in shown
    analysis = describe_analysis(analyze_run(noisy))
    assert re.search(r"cosine of W +with it +with nuclear +with frobenius", analysis)
    study = run_ablation_study(noisy, {"r1": Zero().at(Site.at("v", layer=0, tokens=["r1"]))}, eval_draws=1)
    text = describe_study(study, ["accuracy", "margin"])
    assert "accuracy: share of prompts whose right answer beats all other answers" in text
    assert "margin: smallest logit difference to another answer of the right answer's own set" in text


def test_every_column_of_a_history_has_its_meaning_here_and_in_the_docs():
    for name in {*COLUMNS, *history_columns(("nuclear", "frobenius", "spectral"))}:
        assert column_meaning(name), name
    assert "all other answers" in str(column_meaning("held_out_fact/accuracy"))
    assert all("noise before training" in str(column_meaning(name)) for name in ("beta", "beta/r3"))
    assert "spectral-norm max-margin solution" in str(column_meaning("cosine_spectral"))
    assert column_meaning("beta2") is column_meaning("middle_fact/loss") is None
    docs = (Path(__file__).parents[1] / "docs" / "formats.md").read_text()
    for name, meaning in glossary():
        assert f"| `{name}` | {meaning} |" in docs


# --- undefined numbers come with their reason ----------------------------------------------------


def test_what_is_undefined_says_why():
    nobody = FactRecallTask(3, 1, 0, n_noise=2, seq_len=5)
    run = train(nobody, ModelConfig(d_head=1), dataclasses.replace(RECIPE, steps=1, log_every=1))
    shown, analysis = describe_run(run), describe_analysis(analyze_run(run))
    for text in (shown, analysis):
        assert not re.search(r"\b(nan|inf)\b", text)
    assert "- : the task has no held out facts" in shown
    assert "no held-out coefficient beta: the implications have no held-out subjects" in shown
    assert "no certified gap, since a training margin is -" in shown
    assert "- : no beta" in analysis
    assert "90.0*" in analysis
    assert "* 90 degrees for want of a direction: the circuit has rank 1, the prediction" in analysis


@pytest.mark.slow
def test_undefined_in_unequal_groups_and_in_sweeps(mapped_task):
    run = train(mapped_task, ModelConfig(d_head=3), RECIPE)
    shown, analysis = describe_run(run), describe_analysis(analyze_run(run))
    assert "no closed form of this task to compare with" in shown
    assert "- : no cosine: the closed forms are of tasks with equal groups" in analysis
    assert "nan" not in shown + analysis
    task = FactRecallTask(3, 1, 0, n_noise=2, seq_len=5)
    text = describe_sweep(sweep({"seed": [0, 1]}, task=task, train=RECIPE, progress=False))
    assert "nan" not in text
    assert "- : the task has no held-out implications" in text
    assert "accuracy: the right answer beats all other answers" in text


# --- two runs of one kind ------------------------------------------------------------------------


def test_another_run_of_the_same_kind_is_a_baseline(noisy):
    other = train(TASK, ModelConfig(d_head=4), dataclasses.replace(RECIPE, seed=1))
    found = analyze_run(noisy, other=other)
    (sibling,) = found.alignment.of_role("other run")
    assert sibling.beta == pytest.approx(analyze_run(other).alignment.measured.beta)
    assert "other run: fact-recall factorized, layer 0, head 0, step 20, seed 1" in describe_analysis(found)
    with pytest.raises(ModelError, match="other must be another model, got the same weights"):
        analyze_run(noisy, other=noisy)


# --- summaries and graphs ------------------------------------------------------------------------


def test_an_attribution_has_one_row_per_position():
    noisy = train(dataclasses.replace(TASK, seq_len=66), ModelConfig(d_head=4), RECIPE)
    prompt = ["noise0", "s1", "noise1", "noise0", "r2", "EOS"]
    found = attribute(noisy, prompt, "c0", "c1")
    rows = found.summary().splitlines()[1:-3]
    assert [row.split()[:2] for row in rows] == [[str(k), token] for k, token in enumerate(prompt)]
    assert [float(row.split()[-1]) for row in rows] == pytest.approx(list(found.by_position), rel=1e-5)
    long = attribute(noisy, ["noise0"] * 60 + prompt, "c0").summary().splitlines()
    assert len(long) < 50
    assert any("26 other positions" in line for line in long)


def test_a_prompt_graph_finds_answer_and_rival_itself(noisy):
    graph = prompt_graph(noisy, ["s1", "r2", "EOS"])
    logits = {
        label: attribute(noisy, ["s1", "r2", "EOS"], label).total
        for label in TASK.labels[TASK.n_inputs :]
        if label != "c0"
    }
    rival = max(logits, key=lambda label: logits[label])
    assert graph == prompt_graph(noisy, ["s1", "r2", "EOS"], "c0", rival)


def test_a_graph_without_pairs_says_what_a_mean_entry_is(noisy):
    circuit = noisy.circuit.subjects_and_relations
    assert "tells none from another (pairs=" in circuit_graph(circuit).statement
    assert "mean entry" not in circuit_graph(circuit, pairs=[("s0", "b0")]).statement


def test_a_readable_graph_shows_no_zero(noisy, quiet):
    from ocr_interp.viz.diagram.node_values import node_values

    for graph in (mechanism_graph(noisy), mechanism_graph(quiet), prompt_graph(noisy, ["s1", "r2", "EOS"])):
        readable = graph.readable()
        assert len(readable.edges) <= len(graph.edges)
        largest = max(abs(edge.contribution) for edge in graph.edges)
        attention = {node.name for node in graph.nodes if node.kind == "attention"}
        for edge in readable.edges:
            if edge.target not in attention and edge.kind == "told":
                assert abs(edge.contribution) >= 0.005 * largest
        zero = [
            n
            for n in readable.nodes
            if n.kind == "ov_block" and not float(_plain(node_values(readable)[n.name]))
        ]
        assert all("never" in n.name or "own implication" in n.name for n in zero)


def _plain(shown: str) -> str:
    return shown.replace("−", "-").removesuffix(" missing").split()[0]


# --- small things --------------------------------------------------------------------------------


def test_the_repr_of_a_circuit_is_short(noisy):
    assert len(repr(noisy.circuit)) < 150
    assert repr(noisy.circuit).startswith(
        "OVCircuit(14 inputs x 6 outputs, effective, fact-recall factorized"
    )


def test_a_mapping_needs_no_counts():
    mapping = {"fact_of_subject": (0, 0, 1), "implication_of_fact": (0, 1), "trained": (True, False, True)}
    assert FactRecallTask(**mapping) == FactRecallTask.from_mapping(**mapping, n_noise=5, seq_len=16)


def test_a_sweep_is_selected_by_options_in_a_dict():
    @dataclasses.dataclass(frozen=True)
    class Scaled(LinearMap):
        name: ClassVar[str] = "scaled"
        label: ClassVar[str] = "scaled"
        colour: ClassVar[str] = "#000000"
        factor: float = 2.0

        def shapes(self, n_in, n_out):
            return {"W": (n_in, n_out)}

        def start(self, draw):
            return {"W": draw.normal("W", draw.n_tokens, draw.n_tokens)}

        def product(self, parameters):
            return self.factor * parameters["W"]

    axes = [{"ov": "scaled", "ov_options": {"factor": f}} for f in (2.0, 3.0)] + [{"ov": "factorized"}]
    with maps.registered("scaled", Scaled):
        recipe = dataclasses.replace(RECIPE, steps=1, log_every=1)
        found = sweep(axes, task=TASK, train=recipe, progress=False)
        for factor in (2.0, 3.0):  # 2 is the default, which a configuration leaves out
            (run,) = found.select(ov_options={"factor": factor}).runs["run"]
            assert vars(found.config(run).model.linear_map)["factor"] == factor
        assert len(found.select(ov_options={}).runs) == 2
        with pytest.raises(OcrInterpError, match="no run of this sweep has"):
            found.select(ov_options={"factor": 4.0})


@pytest.mark.parametrize("place", [Site.at("z", layer=0), KeyPath(("s0", "s1"), layer=0, head=0)])
def test_donors_and_references_in_words(noisy, place):
    ids = TASK.tokens("s0", "r2", "EOS").tolist()
    logits = []
    prompt = np.array([TASK.tokens("s1", "r2", "EOS")])
    for donor in (
        ids,
        [ids],
        np.array(ids),
        ["s0", "r2", "EOS"],
        [["s0", "r2", "EOS"]],
        (ids[0], "r2", "EOS"),
    ):
        import torch

        with ablated(noisy.model, Patch(donor=donor).at(place), labels=TASK.labels):
            logits.append(noisy.model(torch.as_tensor(prompt)).detach().numpy())
    assert all(np.array_equal(each, logits[0]) for each in logits)
    mean = Mean([["s0", "r2", "EOS"], ["s1", "r2", "EOS"]])
    study = run_ablation_study(noisy, {"mean": mean.at(Site.at("z", layer=0))}, ["loss"], eval_draws=1)
    assert math.isfinite(study.table["loss"].iloc[-1])
    unknown = Patch(donor=["s00", "r2", "EOS"]).at(place)
    with (
        pytest.raises(UnknownNameError, match="did you mean"),
        ablated(noisy.model, unknown, labels=TASK.labels),
    ):
        pass
    with (
        pytest.raises(ModelError, match="prompts of one length"),
        ablated(noisy.model, Patch(donor=[["s0", "EOS"], ["s0", "r2", "EOS"]]).at(place), labels=TASK.labels),
    ):
        pass
    with pytest.raises(ModelError, match="goes with token ids"):
        Patch(donor=["s0", "r2", "EOS"], attention_mask=[[1, 1, 1]])
