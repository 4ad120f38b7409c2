"""Prior knowledge and the MLP study: computations behind the figures, by hand and by other code."""

from __future__ import annotations

import numpy as np
import pytest
import torch


def test_one_step_of_the_ring_flow_is_gradient_descent_on_its_loss():
    from analyses.prior.circulant import ring_flow

    p, told, n, new = 2.0, 1, 5, 3
    path = ring_flow(p**2, told, 1e-9, n=n, new=new, step=1e-4)
    # the same subjects and answers, written out: W = values @ features, loss by torch
    ring = torch.eye(n, dtype=torch.float64)
    features = p * (ring - 1 / n).repeat(2, 1)  # [answer, direction]
    values = torch.zeros(n * new, n, dtype=torch.float64, requires_grad=True)
    pair = torch.arange(n).repeat_interleave(new)
    first = torch.arange(n * new) % new < told
    logits = values @ features.T
    facts = torch.nn.functional.cross_entropy(logits[:, :n], pair, reduction="sum")
    told_logits, told_answer = logits[first, n:], (pair[first] + 1) % n
    implications = torch.nn.functional.cross_entropy(told_logits, told_answer, reduction="sum")
    loss = (facts + implications) / (n * (new + told))
    (gradient,) = torch.autograd.grad(loss, values)
    moved = -gradient @ features.T  # logits per unit of time
    eta = 10 ** path.log10_time[0]
    untold = moved[1]  # second subject of pair 0
    assert path.fact[0] == pytest.approx(eta * float(untold[0] - untold[1:n].mean()), rel=1e-9)
    assert path.recalled[0] == pytest.approx(eta * float(untold[n] - untold[n + 1 :].mean()), rel=1e-9)


def test_features_by_hand_compete_as_the_ring_flow_says():
    from analyses.prior.circulant import ring_flow
    from analyses.prior.competition_runs import constructed, course
    from analyses.prior.stages import pretrain

    before = pretrain("factorized", 0, log10_time=2.0)
    by_hand = constructed(before, 0)
    assert by_hand.feature_squared() == pytest.approx(before.feature_squared(), rel=0.02)
    assert by_hand.feature_ratio() == pytest.approx(1.0, abs=0.01)
    found = course("constructed", by_hand, 3, 2.0, 0, [1.0, 2.0, 3.0, 4.0])
    path = ring_flow(by_hand.feature_squared(), 3, found.fact[-1])
    for name in ("recalled", "deduced"):
        law = np.interp(found.fact, path.fact, getattr(path, name) / path.fact)
        np.testing.assert_allclose(getattr(found, name)[1:], law[1:], atol=0.04)


@pytest.mark.slow
def test_a_fine_tuning_measured_on_the_way_ends_where_one_without_stops_ends():
    from analyses.prior.stages import fine_tune, new_task, over_time, pretrain

    before, task = pretrain("factorized", 0, log10_time=2.0), new_task("mislead", 2)
    at_once, _ = fine_tune(before, task, 0, log10_time=3.0)
    (_, (last, _)) = over_time(before, task, 0, [2.0, 3.0])
    assert last.fact == pytest.approx(at_once.fact, rel=0.02)
    assert last.recall == pytest.approx(at_once.recall, abs=0.01)


def test_nothing_told_leaves_no_crossing():
    from analyses.prior.competition_runs import Course

    never = Course("", 0, 2.0, 0, 20, None, 4.0, [1.0, 2.0], [1.0, 2.0], [0.9, 0.8], [0.0, 0.1], [])
    assert np.isnan(never.crossing()).all()
    crosses = Course("", 1, 2.0, 0, 20, None, 4.0, [1.0, 3.0], [2.0, 6.0], [0.6, 0.2], [0.2, 0.6], [])
    assert crosses.crossing() == pytest.approx((1.0, 2.0))


def test_what_the_spans_of_a_cut_hold():
    from analyses.prior.circuits import pair_directions, subspaces

    rng = np.random.default_rng(0)
    before = rng.standard_normal((24, 20))
    after = before + 0.1 * rng.standard_normal((24, 20))
    old, added = subspaces(before, after)
    assert old.shape == added.shape == (24, 9)
    np.testing.assert_allclose(old.T @ added, 0, atol=1e-12)
    both = np.add(*pair_directions(before))
    np.testing.assert_allclose(old @ (old.T @ both), both, atol=1e-12)


@pytest.mark.parametrize("name", ["OV, MLP", "two attention layers"])
def test_a_stacked_model_gives_what_one_question_at_a_time_gives(name):
    from analyses.mlp.models import ARCHITECTURES, D_MODEL, data, forward, start

    architecture, of = ARCHITECTURES[name], data()
    weights = start(architecture, [0.3, 0.1], [0, 1])
    logits = forward(architecture, weights, of.tokens).logits(weights)
    run, example = 1, 37
    w = {key: value[run] for key, value in weights.items()}
    x = w["E"][of.tokens[example]]
    for layer in range(architecture.layers):
        scores = x @ w[f"QK{layer}"] @ x.T / D_MODEL**0.5
        last = torch.softmax(scores[1], dim=0)
        values = x @ w[f"V{layer}"] @ w[f"O{layer}"]
        x = x + torch.stack([values[0], last @ values])  # the first position sees itself alone
    x = x[1]
    if architecture.mlp:
        x = x + torch.relu(x @ w["in"] + w["bias"][0]) @ w["out"]
    torch.testing.assert_close(logits[run, example], x @ w["U"], rtol=1e-4, atol=1e-6)


def test_stacked_adamw_is_torch_adamw():
    from analyses.mlp.criteria import ADAM_RATE
    from analyses.mlp.models import ARCHITECTURES, data, forward, losses, start
    from analyses.mlp.training import train

    architecture, of = ARCHITECTURES["OV, MLP"], data()
    found = train(architecture, start(architecture, [0.1, 0.1], [0, 3]), of, "adamw", max_steps=6)
    weights = {k: v.requires_grad_() for k, v in start(architecture, [0.1], [3]).items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=ADAM_RATE, weight_decay=0.0)
    for _ in range(5):  # the sixth loss is measured after five updates
        optimizer.zero_grad()
        losses(forward(architecture, weights, of.tokens).logits(weights), of.answer).sum().backward()
        optimizer.step()
    for key, value in weights.items():
        torch.testing.assert_close(found.weights[key][1], value[0].detach(), rtol=1e-4, atol=1e-6)


def test_parts_write_the_whole_coefficient():
    from analyses.mlp.cuts import cut_everywhere, parts_of
    from analyses.mlp.models import ARCHITECTURES, data, start

    architecture, of = ARCHITECTURES["OV, MLP"], data()
    parts = parts_of(architecture, start(architecture, [0.3, 0.3], [0, 1]), of)
    shares = sum(parts.share(name, of) for name in parts.written)
    torch.testing.assert_close(shares, torch.ones(2), rtol=1e-3, atol=1e-3)
    # without what OV says of the subject every subject gets the same answers
    none = cut_everywhere(architecture, parts, of, "attention 1")
    assert none.accuracy.tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (0.5, "0.5"),
        ([1.0, 3.0, 2.0], "1 to 3"),
        ([1.0, None, 1.0], "1 (1 of 3 none)"),
        ([float("nan"), 2.0, 4.0], "2 to 4 (1 of 3 none)"),
        ([None, None], "none"),
        (True, "1"),
    ],
)
def test_a_range_says_what_is_missing(values, shown):
    from analyses.house.claims import span

    assert span(values) == shown
