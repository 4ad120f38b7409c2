"""Live edges: against sets of positions followed edge by edge, and against what real ablation changes."""

import hooked_models
import numpy as np
import pytest
import torch

from ocr_interp.discovery import Contrast, evaluate_circuit, faithfulness_of, find_circuit, patch_every_edge
from ocr_interp.discovery.paths import differs_at_query, largest_live, live, shortest_path
from ocr_interp.discovery.runner import CircuitRunner
from ocr_interp.errors import ConfigError
from ocr_interp.stream.nodes import INPUT, LOGITS, StreamNodes

LENGTH = 5
GRAPHS = [StreamNodes(2, 2, 2, (True, True)), StreamNodes(3, 2, 1, (True, False, True), parallel=True)]
WHERE = {
    "the last token": [[4]],
    "all tokens": [[0, 1, 2, 3, 4]],
    "the first token": [[0]],
    "two tokens in the middle": [[1, 3]],
    "other tokens in every prompt": [[1], [3], [0, 2]],
    "before the query in one, at the query in another": [[1], [4]],
}


def by_positions(nodes, mask, differing, query):
    """Live edges of one prompt: all positions at which something can differ, and at which it matters."""
    every = set(range(LENGTH))
    written = {INPUT: set(differing)}
    edges = [tuple(name.split("->")) for name in nodes.names(mask)]
    for writer in nodes.writers[1:]:
        written[writer] = set()
        for index in nodes.nodes_reading(writer):
            reader = nodes.readers[index]
            seen = set().union(*(written[w] for w, r in edges if r == reader and w in written))
            if reader.endswith(("<k>", "<v>")):
                seen = {p for p in every if seen and p >= min(seen)}
            written[writer] |= seen
    matters = {reader: set() for reader in nodes.readers} | {LOGITS: {query}}
    for writer in nodes.writers[:0:-1]:
        out = set().union(*(matters[r] for w, r in edges if w == writer))
        for index in nodes.nodes_reading(writer):
            reader = nodes.readers[index]
            if reader.endswith(("<k>", "<v>")):
                matters[reader] |= {p for p in every if out and p <= max(out)}
            else:
                matters[reader] |= out
    return {f"{w}->{r}" for w, r in edges if written[w] & matters[r]}


@pytest.mark.parametrize("nodes", GRAPHS)
@pytest.mark.parametrize("query", [4, 2, 0])
@pytest.mark.parametrize("where", WHERE)
def test_live_edges_are_those_of_positions_followed_one_by_one(nodes, query, where):
    prompts = torch.zeros(len(WHERE[where]), LENGTH, dtype=torch.long)
    donors = prompts.clone()
    for row, differing in enumerate(WHERE[where]):
        donors[row, differing] = 1
    at = torch.full((len(prompts),), query)
    contrast = Contrast(prompts, donors, torch.zeros_like(at), query=at)
    if all(min(differing) > query for differing in WHERE[where]):
        with pytest.raises(ConfigError, match="at the query or before it"):
            differs_at_query(contrast, "donor", 0)
        return
    at_query = differs_at_query(contrast, "donor", 0)
    rng = np.random.default_rng(0)
    for share in np.linspace(0.05, 1, 25):
        mask = (rng.random(nodes.allowed.shape) < share) & nodes.allowed
        wanted = set().union(*(by_positions(nodes, mask, each, query) for each in WHERE[where]))
        assert set(nodes.names(live(nodes, mask, at_query))) == wanted
    for most in range(nodes.n_edges + 1):
        found = largest_live(nodes, rng.random(nodes.allowed.shape), most, at_query)
        assert found.sum() <= most
        assert (live(nodes, found, at_query) == found).all()


def test_by_hand():
    nodes = StreamNodes(2, 2, 2, (True, False))
    only_mlp = ["input->m0", "m0->logits"]
    by_query = ["input->a1.h0<q>", "a1.h0->logits"]
    by_value = ["input->m0", "m0->a1.h1<v>", "a1.h1->logits"]
    queries_later = ["input->a0.h0<k>", "a0.h0->a1.h0<q>", "a1.h0->logits"]
    for path, moves in ((only_mlp, False), (by_query, False), (by_value, True), (queries_later, True)):
        mask = nodes.mask(path)
        assert (live(nodes, mask) == mask).all()
        assert live(nodes, mask, at_query=False).sum() == (len(path) if moves else 0)


def paths_of(nodes, mask, at_query):
    """All paths that carry a difference, edge by edge."""
    found, started = [], [("input", at_query, ())]
    edges = [name.split("->") for name in nodes.names(mask)]
    owners = {}
    for writer in nodes.writers[1:]:
        for index in nodes.nodes_reading(writer):
            owners.setdefault(nodes.readers[index], []).append(writer)
    while started:
        at, arrived, path = started.pop()
        for writer, reader in edges:
            if writer != at:
                continue
            longer = (*path, f"{writer}->{reader}")
            if reader == LOGITS and arrived:
                found.append(longer)
            moved = arrived or reader.endswith(("<k>", "<v>"))
            started += [(owner, moved, longer) for owner in owners.get(reader, [])]
    return found


@pytest.mark.parametrize("at_query", [True, False])
def test_shortest_paths_are_those_of_all_paths(at_query):
    nodes, rng = GRAPHS[0], np.random.default_rng(0)
    lengths = set()
    for share in np.linspace(0.1, 0.5, 30):
        mask = (rng.random(nodes.allowed.shape) < share) & nodes.allowed
        every, found = paths_of(nodes, mask, at_query), shortest_path(nodes, mask, at_query)
        least = min(map(len, every), default=0)
        lengths.add(least)
        assert found.sum() == least
        if least:
            assert set(nodes.names(found)) in [set(path) for path in every]
    assert {0, 2, 3} <= lengths


def test_a_small_circuit_is_found_where_the_first_path_comes_with_many_edges():
    """Ten edges of MLPs and one to a head matter more than what the head writes: all come at once."""
    nodes, sizes = StreamNodes(4, 1, 1, (True,) * 4), np.zeros((9, 17))
    order = [*(f"input->m{k}" for k in range(3)), "input->a3.h0<v>", *(f"m{k}->a3.h0<v>" for k in range(3))]
    order += ["a3.h0->logits"]
    for rank, name in enumerate(order):
        sizes[nodes.mask([name])] = 10 - rank
    found = {most: set(nodes.names(largest_live(nodes, sizes, most, at_query=False))) for most in range(1, 9)}
    assert found[1] == set()
    shortest = {"input->a3.h0<v>", "a3.h0->logits"}
    assert found[2] == shortest
    assert found[4] == shortest | {"input->m0", "m0->a3.h0<v>"}
    assert found[8] == set(order)
    assert all(len(edges) <= most for most, edges in found.items())


def contrasts(model):
    """Prompts that differ from their donors in the places of WHERE."""
    generator = torch.Generator().manual_seed(0)
    for where in WHERE.values():
        prompts = torch.randint(0, 16, (len(where), LENGTH), generator=generator)
        donors = prompts.clone()
        for row, differing in enumerate(where):
            donors[row, differing] += 7
        yield Contrast.of(model, prompts, donors, 3, 4)


@pytest.mark.parametrize(("norm", "kv_heads"), [("LN", None), ("RMS", 2)])
def test_dead_edges_change_nothing_and_live_ones_something(norm, kv_heads):
    """Of a model's every edge by real ablation; and a circuit measures as much as its live part."""
    model = hooked_models.hooked_transformer(norm, 2, False, kv_heads)
    rng = np.random.default_rng(1)
    for contrast in contrasts(model):
        runner = CircuitRunner(model, contrast)
        nodes = runner.stream.nodes
        effects = np.abs(patch_every_edge(model, contrast).scores)
        first = not bool((contrast.prompts != contrast.donors)[:, 1:].any())
        marked = live(nodes, nodes.allowed, runner.at_query)
        assert effects[~marked].max() < 1e-12
        if not first:  # the first token attends to itself whatever its query
            assert effects[marked].min() > 1e-12
        masks = [(rng.random(nodes.allowed.shape) < share) & nodes.allowed for share in (0.1, 0.2, 0.4, 0.6)]
        parts = [live(nodes, mask, runner.at_query) for mask in masks]
        torch.testing.assert_close(runner.measured(masks), runner.measured(parts), rtol=0, atol=1e-11)


def test_circuits_of_mlps_alone_are_not_found_where_attention_must_move_the_difference():
    model = hooked_models.hooked_transformer("LN", 2, False, None)
    model.blocks[1].mlp.W_out.data *= 30
    contrast = next(each for each in contrasts(model) if bool((each.prompts == each.donors)[:, -1].all()))
    for size in (4, 6, 12, 30):
        circuit = find_circuit(model, contrast, size=size)
        assert any(edge.endswith(("<k>", "<v>")) for edge in circuit.edges)
        assert abs(faithfulness_of(model, [circuit], contrast)[0]) > 1e-6
    report = evaluate_circuit(model, circuit, contrast, random_circuits=3)
    assert max(report.random_sizes["connected"]) <= len(circuit)


def test_every_ablation_has_its_differences():
    prompts = torch.tensor([[1, 2, 3], [4, 2, 3]])
    answer = torch.tensor([0, 0])
    donors = torch.tensor([[5, 2, 3], [6, 2, 3]])
    contrast = Contrast(prompts, donors, answer)
    found = {name: differs_at_query(contrast, name, 0) for name in ("donor", "mean", "zero", "resample")}
    assert found == {"donor": False, "mean": False, "zero": True, "resample": False}
    alike = Contrast(prompts[:1].expand(2, -1), donors, answer)
    assert not differs_at_query(alike, "mean", 0)  # the mean over donors
    with pytest.raises(ConfigError, match="'resample' puts instead must differ"):
        differs_at_query(alike, "resample", 0)
    with pytest.raises(ConfigError, match="must differ in some token"):
        differs_at_query(Contrast(alike.prompts, None, answer), "mean", 0)
    early = Contrast(prompts, donors, answer, query=torch.tensor([-3, 0]))
    assert differs_at_query(early, "donor", 0)
