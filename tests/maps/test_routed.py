"""Routed experts: one expert is the plain model, gates are their formulas, and no single W_OV is made up."""

import math
import warnings

import numpy as np
import pytest
import torch

from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.data import noisy_examples, population
from ocr_interp.errors import ConfigError, ModelError, UnknownNameError
from ocr_interp.maps import routed
from ocr_interp.maps.routed import Routed
from ocr_interp.maps.routing import Load, RouterCollapsedWarning, gate
from ocr_interp.models.starts import initial_weights
from ocr_interp.models.token_counts import TokenCountModel
from ocr_interp.sweeps.sweep import sweep
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.norms.by_expert import NuclearByExpert
from ocr_interp.training.columns import column_meaning
from ocr_interp.training.loop import train
from ocr_interp.training.run import Snapshot
from ocr_interp.training.store import load_run
from ocr_interp.viz.text.run import describe_run

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=20, batch_size=12, log_every=5, checkpoint_every=5, snapshots=2, device="cpu")
CPU = torch.device("cpu")

KINDS = {
    "relation": {"by": "relation"},
    "relation, read": {"by": "relation", "routed_side": "read"},
    "relation, write": {"by": "relation", "routed_side": "write"},
    "subject": {"by": "subject", "n_experts": 3, "assignment": "random", "assignment_seed": 2},
    "token": {"by": "token", "n_experts": 3, "top_k": 2, "balance": 0.3, "entropy": -0.2},
    "sequence": {"by": "sequence", "n_experts": 3, "temperature": 0.5, "balance": 0.3, "entropy": 0.2},
    "hard, then token": {"by": "token", "soft_from_step": 8, "anchor": 0.1, "entropy": 0.1},
    "hard, then sequence": {"by": "sequence", "soft_from_step": 8, "anchor": 0.1, "routed_side": "read"},
    "hard, then its router": {"by": "sequence", "soft_from_step": 8, "soft_trains": "router"},
}


def config(options, **fields):
    return ModelConfig(ov="routed", ov_options=options, **{"d_head": 4, "dtype": "float64", **fields})


def snapshot(options, step=0, **fields):
    """A run that was not trained, with large entries, so that mixtures are not even."""
    found = config(options, **{"init_scale": 3.0, **fields})
    weights = initial_weights(TASK, found, 3)
    weights = type(weights)(weights.linear_map.staged(step), weights.ov, weights.W_QK)
    return Snapshot(RunConfig(TASK, found, TrainConfig(seed=3)), step, weights)


@pytest.mark.parametrize(
    "options",
    [
        {"by": "relation", "experts": "r1+r2"},
        {"by": "subject", "n_experts": 1},
        {"by": "token", "n_experts": 1},
        {"by": "sequence", "n_experts": 1, "soft_from_step": 7, "experts": "r2+r1"},
    ],
)
@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_one_expert_is_the_factorized_model_to_the_bit(options, attention):
    fields = {"d_head": 4, "attention": attention}
    plain = train(TASK, ModelConfig(**fields), RECIPE, progress=False)
    one = train(TASK, ModelConfig(ov="routed", ov_options=options, **fields), RECIPE, progress=False)
    assert torch.equal(one.weights.ov["W_V_0"], plain.weights.ov["W_V"])
    assert torch.equal(one.weights.ov["W_O_0"], plain.weights.ov["W_O"])
    assert torch.equal(one.weights.W_QK, plain.weights.W_QK)
    for column in ("train_loss", "nuclear_norm", "held_out_implication/loss"):
        assert one.history[column].equals(plain.history[column])


IN_STAGES = pytest.mark.parametrize(
    ("options", "step"),
    [
        pytest.param(options, step, id=f"{name}, step {step}")
        for name, options in KINDS.items()
        for step in ((0, 9) if "hard" in name else (0,))
    ],
)


@IN_STAGES
@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_the_hooked_transformer_has_the_same_logits(options, step, attention):
    run = snapshot(options, step, attention=attention)
    tokens, batch = noisy_examples(TASK, TASK.triples, seed=0, dtype=torch.float64)
    model = TokenCountModel(TASK, run.config.model, run.weights, CPU)
    counted = model.batch_logits(batch)
    torch.testing.assert_close(model.logits(batch.counts), counted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(run.model(tokens)[:, -1], counted, rtol=1e-12, atol=1e-12)


def by_hand(model, leaves, batch, options):
    """The loss of a model from its definition, for autograd."""
    linear_map, n = model.linear_map, TASK.n_inputs
    factors = [linear_map.expert_factors(leaves, expert) for expert in range(linear_map.size)]
    counts = batch.counts
    if linear_map.route_by == "relation":
        mixture = counts[:, list(TASK.relation_tokens)]
    elif linear_map.route_by == "subject":
        mixture = torch.nn.functional.one_hot(torch.tensor(linear_map.expert_of_token), linear_map.size)
    else:
        router = leaves["router"]
        logits = router if linear_map.by == "token" else counts @ router / TASK.seq_len
        score = torch.softmax(logits / linear_map.temperature, -1)
        least = score.topk(linear_map.top_k or linear_map.size, -1).values[..., -1:]
        kept = score * (score >= least)
        mixture = kept / kept.sum(-1, keepdim=True)
    logits = 0
    for expert, (W_V, W_O) in enumerate(factors):
        share = mixture[:, expert, None]
        attended = counts * leaves["scores"]
        logits = logits + (
            share * (attended @ W_V[:n] @ W_O)
            if linear_map.n_routes
            else attended @ (share * (W_V[:n] @ W_O))
        )
    loss = (torch.nn.functional.cross_entropy(logits, batch.target, reduction="none") * batch.weight).sum()
    if linear_map.has_router:
        item = batch.weight if linear_map.n_routes else (batch.weight[:, None] * counts / TASK.seq_len).sum(0)
        first = score.detach().topk(linear_map.top_k or 1, -1).indices
        chosen = torch.zeros_like(score).scatter(-1, first, 1.0)
        mean, share = (item[:, None] * score).sum(0), (item[:, None] * chosen).sum(0)
        entropy = -(item[:, None] * score * score.log()).sum()
        loss = loss + options.get("balance", 0) * (mean * share).sum() - options.get("entropy", 0) * entropy
    return loss


@IN_STAGES
def test_gradients_equal_autograd_through_the_definition(options, step):
    run = snapshot(options, step)
    model = TokenCountModel(TASK, run.config.model, run.weights, CPU)
    for value in model.anchor.values():
        value += 0.25
    _, batch = noisy_examples(TASK, TASK.training_triples, seed=0, dtype=torch.float64)
    model.loss_and_gradients(batch)
    leaves = {name: p.detach().clone().requires_grad_() for name, p in model.parameters.items()}
    loss = by_hand(model, leaves, batch, options)
    if model.anchor and not model.linear_map.hard:
        for name, value in model.anchor.items():
            loss = loss + options["anchor"] * (leaves[name] - value).square().sum()
    wanted = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    for (name, p), expected in zip(model.parameters.items(), wanted, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["relation", "token", "hard, then token", "hard, then sequence"])
def test_a_stacked_and_a_resumed_run_have_the_bits_of_a_run_alone(kind, tmp_path):
    model = config(KINDS[kind], dtype="float32")
    whole = train(TASK, model, RECIPE, progress=False)
    stacked = sweep({"seed": [0, 1]}, task=TASK, model=model, train=RECIPE, keep_weights=True, progress=False)
    of_seed = {stacked.config(name).train.seed: stacked.run(name) for name in stacked.runs["run"]}
    for stop in (5, 15) if "hard" in kind else (5,):

        class Killed(BaseException):
            pass

        def kill(row, stop=stop, killed=Killed):
            if row["step"] == stop + 5:
                raise killed

        with pytest.raises(Killed):
            train(TASK, model, RECIPE, tmp_path / f"{stop}", progress=False, on_log=kill)
        resumed = train(TASK, model, RECIPE, tmp_path / f"{stop}", progress=False)
        again = load_run(tmp_path / f"{stop}")
        for other in (of_seed[0], resumed, again):
            assert other.history.equals(whole.history)
            assert other.weights.linear_map == whole.weights.linear_map
            for name, tensor in whole.weights.tensors().items():
                assert torch.equal(other.weights.tensors()[name], tensor), name


def test_the_first_stage_is_that_of_independent_experts_and_the_second_moves_only_the_router():
    recipe = TrainConfig(**{**vars(RECIPE), "snapshots": 5, "weight_decay": 0.1})
    alone = train(TASK, config({"by": "relation"}), recipe, progress=False)
    soft = train(
        TASK, config(KINDS["hard, then its router"] | {"soft_from_step": 10}), recipe, progress=False
    )
    first, last = soft.at(10).weights, soft.weights
    for name in ("W_V_0", "W_V_1", "W_O_0", "W_O_1"):
        assert torch.equal(first.ov[name], alone.at(10).weights.ov[name])
        acting = slice(0, TASK.n_inputs) if name.startswith("W_V") else slice(None)
        assert torch.equal(first.ov[name][acting], last.ov[name][acting])
    routers = [weights.ov["router"][: TASK.n_inputs] for weights in (soft.at(0).weights, first, last)]
    assert torch.equal(routers[0], routers[1])
    assert not torch.equal(routers[1], routers[2])
    assert first.linear_map.hard
    assert not last.linear_map.hard
    assert math.isnan(soft.history["router/entropy"].iloc[2])
    assert soft.history["router/entropy"].iloc[3] > 0


def test_an_anchor_holds_the_experts_where_the_router_found_them():
    moved = {}
    for weight in (0.0, 10.0):
        options = {"by": "sequence", "soft_from_step": 10, "anchor": weight}
        run = train(TASK, config(options), RECIPE.gradient_descent(
            steps=20, lr=0.02, log_every=5, snapshots=5, device="cpu"), progress=False)  # fmt: skip
        first, last = run.at(10).weights.ov, run.weights.ov
        moved[weight] = float((last["W_V_0"] - first["W_V_0"]).norm())
        shown = run.history["router/anchor_loss"]
        assert math.isnan(shown.iloc[2])
        if weight:
            squared = sum(
                float((last[name] - first[name])[: TASK.n_inputs if "V" in name else None].square().sum())
                for name in ("W_V_0", "W_V_1", "W_O_0", "W_O_1")
            )
            assert shown.iloc[4] == pytest.approx(weight * squared, rel=1e-9)
    assert 0 < moved[10.0] < moved[0.0]


def test_gates_by_hand():
    logits = torch.tensor([[0.0, math.log(2), math.log(5)]], dtype=torch.float64)
    whole, two = gate(logits, 1.0, 0), gate(logits, 1.0, 2)
    torch.testing.assert_close(whole.mixture, torch.tensor([[0.125, 0.25, 0.625]], dtype=torch.float64))
    torch.testing.assert_close(two.mixture, torch.tensor([[0, 2 / 7, 5 / 7]], dtype=torch.float64))
    assert whole.chosen.tolist() == [[False, False, True]]
    assert two.chosen.tolist() == [[False, True, True]]
    hot = gate(logits, 1e3, 0).mixture
    torch.testing.assert_close(hot, torch.full_like(hot, 1 / 3), rtol=2e-3, atol=0)


def test_the_balance_loss_by_hand_and_the_sign_of_the_entropy():
    even, peaked = (gate(torch.tensor(rows), 1.0, 0) for rows in ([[0.0, 0.0]] * 2, [[9.0, 0.0], [0.0, 9.0]]))
    half = torch.tensor([0.5, 0.5])
    one = Load.of(peaked, half)
    assert float(one.balance_loss(2.0, 0.0)) == pytest.approx(2 * 0.5)
    assert float(Load.of(even, half).entropy) == pytest.approx(math.log(2))
    raised = [float(Load.of(found, half).balance_loss(0.0, 1.0)) for found in (even, peaked)]
    assert raised[0] < raised[1]  # entropy > 0: even routing is cheaper
    lowered = [float(Load.of(found, half).balance_loss(0.0, -1.0)) for found in (even, peaked)]
    assert lowered[0] > lowered[1]


def test_loads_are_logged_and_columns_say_what_they_are(tmp_path):
    run = train(TASK, config({"by": "relation"}, dtype="float32"), RECIPE, tmp_path / "run", progress=False)
    last = run.history.iloc[-1]
    # Twice as many facts of held-out subjects as of told ones: 6 + 3 facts, 3 implications, equal draws each.
    facts = sum(TASK.training_triples.relation == 0) / len(TASK.training_triples)
    assert last["expert0/score"] == pytest.approx(facts)
    assert last["expert1/share"] == pytest.approx(1 - facts)
    assert all(math.isnan(last[f"router/{name}"]) for name in ("entropy", "balance_loss", "anchor_loss"))
    assert all(math.isnan(last[f"{kind}_nuclear"]) for kind in ("gap", "excess", "cosine"))
    for name in run.history.columns:
        assert column_meaning(str(name)), name
    rows = TASK.n_subjects + 2
    experts = [OVCircuit.from_run(run, expert=expert).W[:rows] for expert in (0, 1)]
    stacked = np.linalg.svd(np.concatenate(experts), compute_uv=False)
    assert last["nuclear_norm"] == pytest.approx(stacked.sum(), rel=1e-5)
    text = describe_run(load_run(tmp_path / "run"))
    assert "of 2 experts, one below the other" in text
    assert "no single W_OV" in text
    assert "experts   mean scores" in text


def test_beta_is_that_of_the_experts_which_answer():
    run = snapshot({"by": "sequence", "n_experts": 3})
    model = TokenCountModel(TASK, run.config.model, run.weights, CPU)
    batch = population(TASK, ("training_implication", "held_out_implication"), dtype=torch.float64)
    from ocr_interp.theory.certificate import held_out_beta
    from ocr_interp.training.tracking import Tracker

    W = np.zeros((TASK.d_vocab, TASK.d_vocab))
    for subject in batch.subject.tolist():
        prompt = (TASK.labels[subject], "r2", "EOS")
        own = OVCircuit.from_run(run, outputs="vocabulary", prompt=prompt)
        W[subject, TASK.n_inputs + TASK.n_facts :] = own.W[subject, TASK.n_inputs + TASK.n_facts :]
    found = Tracker(TASK, RECIPE, torch.float64, CPU).measure(model)["beta"]
    assert found == pytest.approx(held_out_beta(W, TASK).projection, rel=1e-9)


def test_a_number_of_experts_is_n_experts():
    with pytest.raises(ConfigError, match=r"use n_experts for a number, experts names relations such as 'r1"):
        config({"by": "sequence", "experts": 3})


def test_help_names_options_that_there_are(command):
    code, out, _ = command("train", "--help")
    said = " ".join(out.replace("│", " ").split())
    about = said.split("--ov-options")[1].split("--attention")[0]
    assert code == 0
    assert {name for name in Routed.options() if name in about} == {
        "by",
        "routed_side",
        "n_experts",
        "experts",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "word"}, "by must be one of 'relation', 'subject', 'token', 'sequence', got 'word'"),
        ({"routed_side": "left"}, "routed_side must be one of 'read', 'write', 'both', got 'left'"),
        ({"temperature": 0.0}, "temperature must be a finite number > 0, got 0"),
        ({"temperature": -1.0}, "temperature must be a finite number > 0, got -1"),
        ({"n_experts": 2, "top_k": 3}, "top_k must be <= the number of experts, 2, got 3"),
        ({"n_experts": 2, "top_k": 1}, "top_k must be 0 or >= 2: a single kept weight"),
        ({"balance": -1.0}, "balance must be a finite number >= 0"),
        ({"by": "relation", "experts": "r1+r2|r2"}, "name every relation once, got .* with r2 twice"),
        ({"by": "relation", "experts": "r1||r2"}, r"experts must name relations, as in 'r1\+r2\|r3'"),
        ({"by": "relation", "temperature": 2.0}, "by='relation' has no use for temperature: leave it out"),
        ({"by": "token", "experts": "r1|r2"}, "no use for experts: leave it out or set soft_from_step"),
        ({"by": "token", "assignment": "random"}, "by='token' has no use for assignment"),
        ({"soft_trains": "router"}, "experts that do not change, which need a source: set soft_from_step"),
        ({"soft_trains": "router", "soft_from_step": 3, "anchor": 1.0}, "anchor holds experts that are"),
    ],
)
def test_options_that_are_not_allowed(options, message):
    with pytest.raises(ConfigError, match=message):
        config(options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"by": "relation", "experts": "r1|r3"}, UnknownNameError, "unknown relation 'r3'"),
        ({"by": "relation", "experts": "r1"}, ConfigError, r"every relation of the task \(r1, r2\).* for r2"),
        ({"by": "subject", "n_experts": 10}, ConfigError, r"experts as subjects \(9\), got 10"),
        ({"by": "token", "n_experts": 15}, ConfigError, r"experts as input tokens \(14\), got 15"),
        ({"by": "sequence", "n_experts": 13}, ConfigError, r"experts as training examples \(12\), got 13"),
        ({"top_k": 3}, ConfigError, "top_k must be <= the number of experts, 2, got 3"),
        ({"soft_from_step": 3, "n_experts": 3}, ConfigError, "n_experts must be 0 or 2, the number"),
    ],
)
def test_options_that_do_not_go_with_the_task(options, error, message):
    with pytest.raises(error, match=message):
        config(options).placed_map(TASK)


def test_experts_and_prompts_that_there_are_not():
    routed_run, plain = snapshot({"by": "relation"}), Snapshot(
        RunConfig(TASK, ModelConfig(), TrainConfig()), 0, initial_weights(TASK, ModelConfig(), 0)
    )  # fmt: skip
    for run, expert, message in (
        (routed_run, 2, r"expert must be 0\.\.1, got 2"),
        (routed_run, -1, r"expert must be 0\.\.1, got -1"),
        (plain, 0, "only routed experts have an expert"),
    ):
        with pytest.raises(ModelError, match=message):
            OVCircuit.from_run(run, expert=expert)
    with pytest.raises(ModelError, match="pass expert or prompt, not both"):
        OVCircuit.from_run(routed_run, expert=0, prompt=["s0", "r1", "EOS"])
    with pytest.raises(ModelError, match="must hold one relation, which says its expert, got 's0 EOS'"):
        routed_run.mixture(["s0", "EOS"])
    with pytest.raises(ConfigError, match="must end with EOS"):
        routed_run.mixture(["s0", "r1"])
    for run in (plain, snapshot({"by": "token"})):
        with pytest.raises(ModelError, match="a mixture per prompt needs a model that routes prompts"):
            run.mixture(["s0", "r1", "EOS"])


@pytest.mark.slow
def test_a_collapsed_router_is_told_once_with_its_loads(tmp_path):
    model = config({"by": "sequence", "entropy": -20.0, "balance": 0.0}, dtype="float32")
    recipe = TrainConfig(**{**vars(RECIPE), "steps": 60, "lr": 0.2})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run = train(TASK, model, recipe, tmp_path / "run", progress=False)
    told = [each for each in told if each.category is RouterCollapsedWarning]
    assert len(told) == 1
    assert min(run.history[["expert0/score", "expert1/score"]].iloc[-1]) < 0.05
    assert "mean scores of the experts" in str(told[0].message)


def test_the_norm_of_subjects_that_are_routed():
    by_subject = {"by": "subject", "n_experts": 2}
    placed = config(by_subject).placed_map(TASK)
    assert isinstance(placed, Routed)
    assert placed.norm == NuclearByExpert((0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0))
    assert config(by_subject | {"routed_side": "read"}).placed_map(TASK).norm == "nuclear"
    run = train(TASK, config(by_subject, dtype="float32"), RECIPE, progress=False)
    assert run.history["gap_nuclear_by_expert"].notna().all()
    again = config({**by_subject, "assignment": "random", "assignment_seed": 4}).placed_map(TASK)
    assert (
        again.norm
        == config({**by_subject, "assignment": "random", "assignment_seed": 4}).placed_map(TASK).norm
    )
    assert again.norm != placed.norm


def test_reading_alone_cannot_tell_subjects_apart():
    """Every token reads in one expert alone: with a shared W_O that is one W_V, whose rows are its own."""
    options = {"by": "subject", "n_experts": 2, "routed_side": "read"}
    routed_run = train(TASK, config(options), RECIPE, progress=False)
    weights = routed_run.weights
    expert_of = weights.linear_map.expert_of_token
    rows = torch.stack([weights.ov[f"W_V_{expert}"][token] for token, expert in enumerate(expert_of)])
    torch.testing.assert_close(rows @ weights.ov["W_O"], weights.W_OV[: TASK.n_inputs])


def test_numbers_that_are_kept_for_a_gpu_serve_a_later_gradient():
    values = (1, 0, 1)
    with torch.inference_mode():
        routed._kept_numbers(values, CPU)
    w = torch.randn(2, requires_grad=True)
    (w * w)[routed._kept_numbers(values, CPU)].sum().backward()
    assert routed._kept_numbers(values, CPU) is routed._kept_numbers(values, CPU)
    torch.testing.assert_close(w.grad, 2 * w.detach() * torch.tensor([1.0, 2.0]))
