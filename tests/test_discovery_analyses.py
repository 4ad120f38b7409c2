"""The study of the induction circuit: claims that hold and fail, and one seed of it for real."""

import dataclasses

import numpy as np
import pytest
import torch

from analyses.circuits import worked_models
from analyses.discovery import curves, heads, heads_needed, induction, measuring
from analyses.discovery.criteria import COMPOSED, FAITHFUL, RANDOM_FAITHFUL, SEEDS, SHARE, TOP_SHARED
from analyses.discovery.curves_criteria import SAME_CURVE, SAME_SCORES, SIZES
from analyses.discovery.kept import kept
from analyses.discovery.plain_methods import PlainModel, Task, top
from ocr_interp.discovery import attribute_edges, evaluate_circuit, faithfulness_of, find_circuit
from ocr_interp.discovery.paths import live

ROLES = heads.Roles(
    previous="a0.h1",
    induction="a1.h2",
    measure=10.0,
    falls=[0.0, 1.0, 6.0],
    random_falls=[1.0, 5.0],
    compositions=[0.5, COMPOSED, 1.0],
    before=[0.1, 0.9, 0.0],
    after=[0.1, 0.1, 0.8],
    sharing=["a1.h2"],
    without={"a1.h2": 6.0},
)
EDGES = ["input->a0.h1<v>", "a0.h1->a1.h2<k>", "a1.h2->logits"]


def in_each(value):
    """Random circuits, whose mean counts."""
    return {way: {"same kinds": [0.0, 2 * value], "connected": [0.1]} for way in induction.WAYS}


def as_hoped(seed):
    return measuring.Found(
        seed=seed,
        accuracy=1.0,
        heads=("a0.h1", "a1.h2"),
        attention=(0.9, 0.8),
        roles=ROLES,
        n_edges=257,
        edges=dict.fromkeys(induction.WAYS, EDGES),
        faithfulness=dict.fromkeys(induction.WAYS, FAITHFUL),
        completeness=dict.fromkeys(induction.WAYS, 1.0),
        needed=dict.fromkeys(induction.WAYS, 1.0),
        random=in_each(RANDOM_FAITHFUL),
        curve=[1.0] * len(induction.SIZES),
        rank_correlation=0.9,
        shared=TOP_SHARED,
        large_rank_correlation=0.95,
    )


def failed(**changed):
    found = [as_hoped(seed) for seed in SEEDS]
    found[-1] = dataclasses.replace(found[-1], **changed)
    return {
        claim.id.removeprefix("discovery_induction_") for claim in induction.claims(found) if not claim.holds
    }


def every(name):
    return {f"{name}_{way}" for way in induction.WAYS}


def test_claims_hold_and_fail_by_the_criteria():
    ways = induction.WAYS
    some = dict.fromkeys(ways, EDGES)
    assert failed() == set()
    assert failed(faithfulness=dict.fromkeys(ways, 0.89)) == every("faithful")
    assert failed(edges=some | {"scores": EDGES[::2]}) == {"heads_scores", "heads_by_effect_scores"}
    assert failed(edges=dict.fromkeys(ways, EDGES * 9)) == every("faithful")
    assert failed(random=in_each(RANDOM_FAITHFUL + 0.01)) == every("random")
    assert failed(rank_correlation=0.79) == {"scores_exact"}
    assert failed(shared=TOP_SHARED - 1) == {"scores_exact"}
    assert failed(accuracy=0.9) == every("faithful")
    assert failed(heads=("a0.h1", "a1.h0")) == every("heads")
    for changed in (
        {"induction": "a1.h0"},
        {"random_falls": [7.0]},
        {"compositions": [0.5, COMPOSED - 0.1]},
    ):
        assert failed(roles=dataclasses.replace(ROLES, **changed)) == every("heads_by_effect")


def test_curves_hold_and_fail_by_the_criteria():
    line = [0.5] * len(SIZES)
    names = ("exact", "eap", "eap_ig")
    one = curves.Curves(
        0,
        dict.fromkeys(names, SAME_SCORES),
        dict.fromkeys(names, line),
        {"eap_ig": [0.499 + SAME_CURVE] * len(SIZES), "factors": line},
        [20] * len(SIZES),
        [(30, 0.9)],
    )
    assert [claim.holds for claim in curves.claims([one])] == [True, True]
    other = dataclasses.replace(one, differences=one.differences | {"eap": 2 * SAME_SCORES})
    assert [claim.holds for claim in curves.claims([one, other])] == [False, True]
    apart = dataclasses.replace(one, published={"eap_ig": [0.6] * len(SIZES), "factors": line})
    assert [claim.holds for claim in curves.claims([apart, one])] == [True, False]
    assert "not that" in curves.title([apart])


def test_plain_methods_and_heads_of_a_model_with_random_weights():
    """The published methods, written by themselves, against the library; no head is the induction head."""
    model = worked_models.untrained_induction_model()
    generator = torch.Generator().manual_seed(0)
    for block in model.blocks:
        for bias in (block.attn.b_Q, block.attn.b_K, block.attn.b_V, block.attn.b_O):
            bias.data = torch.randn(bias.shape, generator=generator) / 10
    model.requires_grad_(False)
    contrast = measuring.contrast_of(model, 1000).rows(slice(4))
    task = Task(PlainModel(model), contrast.prompts, contrast.donors, contrast.values)
    middles = {1: [1.0], 5: [(k + 0.5) / 5 for k in range(5)]}
    scores = {1: attribute_edges(model, contrast, steps=None), 5: attribute_edges(model, contrast, steps=5)}
    for steps, ours in scores.items():
        assert (task.model.edges == ours.nodes.allowed).all()
        theirs = task.attribution(middles[steps])
        assert np.abs(ours.scores - theirs).max() < 1e-5 * np.abs(theirs).max()
    assert np.corrcoef(task.by_factors(middles[5]).ravel(), theirs.ravel())[0, 1] > 0.9
    for count in (40, 90, 257):
        mask = top(theirs, count, 8)
        assert (live(ours.nodes, mask) == mask).all()
        assert mask.sum() <= count
        assert task.faithfulness(mask) == pytest.approx(
            faithfulness_of(model, [ours.with_edges(mask)], contrast)[0], abs=1e-4
        )
    everything, nothing = task.acdc(-1e9), task.acdc(1e9)
    assert task.full != task.empty
    assert everything.sum() == 257
    assert not nothing.any()
    found = heads.roles(model)
    assert found.falls[int(found.induction[-1])] == max(found.falls)
    assert found.without[found.induction] == pytest.approx(max(found.falls))


def test_results_are_kept_while_their_sources_are_the_same(tmp_path, monkeypatch):
    path = tmp_path / "some" / "seed.json"
    assert kept(path, ("heads",), lambda: {"a": 1}) == {"a": 1}
    assert kept(path, ("heads",), lambda: {"a": 2}) == {"a": 1}
    assert kept(path, ("heads", "kept"), lambda: {"a": 3}) == {"a": 3}


@pytest.mark.slow
def test_the_induction_circuit_of_one_seed():
    """Found without being told which heads, beside random circuits; which claims hold is the study's."""
    model = worked_models.induction_model(0)
    contrast, others = (measuring.contrast_of(model, seed) for seed in (1000, 1001))
    scores = attribute_edges(model, contrast, steps=10)
    circuit = find_circuit(model, contrast, size=int(SHARE * scores.nodes.n_edges), scores=scores)
    (previous, induced), attention = heads.heads_by_pattern(model)
    assert attention[0] > 0.4
    assert induced.startswith("a1.")
    reads = [edge for edge in circuit.edges if edge.startswith(f"{previous}->a1.") and edge.endswith("<k>")]
    assert reads
    assert any(f"{edge.split('->')[1].split('<')[0]}->logits" in circuit.edges for edge in reads)
    report = evaluate_circuit(model, circuit, others, random_circuits=5)
    assert report.faithfulness > 0.85
    assert all(values.mean() <= RANDOM_FAITHFUL for values in report.random.values())


def test_heads_needed_says_so_only_if_the_short_seeds_need_more():
    def said(short, others):
        needed = {0: others[0], 1: others[0], 4: others[1], 2: short[0], 3: short[1]}
        return heads_needed.sentence({"seeds": [{"seed": k, "needed": n} for k, n in needed.items()]})

    assert said((8, 9), (5, 6)).endswith("spread over 8 to 9 heads, elsewhere over 5 to 6")
    assert said((6, 9), (5, 6)).startswith("How many of 16 heads")
