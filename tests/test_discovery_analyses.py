"""The study of the induction circuit: claims that hold and fail, and one seed of it for real."""

import dataclasses

import pytest

from analyses.discovery import induction
from analyses.discovery.criteria import FAITHFUL, RANDOM_FAITHFUL, SEEDS, SHARE, TOP_SHARED
from ocr_interp.discovery import attribute_edges, evaluate_circuit, find_circuit

EDGES = ["input->a0.h1<v>", "a0.h1->a1.h2<k>", "a1.h2->logits"]


def in_each(value):
    """Random circuits, whose mean counts."""
    return {way: {"same kinds": [0.0, 2 * value], "connected": [0.1]} for way in induction.WAYS}


def as_hoped(seed):
    return induction.Found(
        seed=seed,
        accuracy=1.0,
        heads=("a0.h1", "a1.h2"),
        attention=(0.9, 0.8),
        n_edges=257,
        edges={"scores": EDGES, "removal": EDGES},
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


def test_claims_hold_and_fail_by_the_criteria():
    ways = induction.WAYS
    assert failed() == set()
    assert failed(faithfulness=dict.fromkeys(ways, 0.89)) == {"faithful_scores", "faithful_removal"}
    assert failed(edges={"scores": EDGES[::2], "removal": EDGES}) == {"heads_scores"}
    assert failed(edges={"scores": EDGES * 9, "removal": EDGES * 9}) == {
        "faithful_scores",
        "faithful_removal",
    }
    assert failed(random=in_each(RANDOM_FAITHFUL + 0.01)) == {"random_scores", "random_removal"}
    assert failed(rank_correlation=0.79) == {"scores_exact"}
    assert failed(shared=TOP_SHARED - 1) == {"scores_exact"}
    assert failed(accuracy=0.9) == {"faithful_scores", "faithful_removal"}


@pytest.mark.slow
def test_the_induction_circuit_of_one_seed():
    """Found without being told which heads, beside random circuits; which claims hold is the study's."""
    model = induction.models().induction_model(0)
    contrast, others = (induction.contrast_of(model, seed) for seed in (1000, 1001))
    scores = attribute_edges(model, contrast, steps=10)
    circuit = find_circuit(model, contrast, size=int(SHARE * scores.nodes.n_edges), scores=scores)
    (previous, induced), attention = induction.heads_by_pattern(model)
    assert attention[0] > 0.4
    assert induced.startswith("a1.")
    reads = [edge for edge in circuit.edges if edge.startswith(f"{previous}->a1.") and edge.endswith("<k>")]
    assert reads
    assert any(f"{edge.split('->')[1].split('<')[0]}->logits" in circuit.edges for edge in reads)
    report = evaluate_circuit(model, circuit, others, random_circuits=5)
    assert report.faithfulness > 0.85
    assert all(values.mean() <= RANDOM_FAITHFUL for values in report.random.values())
