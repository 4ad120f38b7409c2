"""Circuits of routed experts: one per expert and one per prompt, in tables, attributions and commands."""

import dataclasses

import numpy as np
import pytest
import torch
from test_routed import CPU, KINDS, RECIPE, TASK, config, snapshot

from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.circuits.analysis import analyze_run
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.cli.ablate.specs import default_specs
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.data import noisy_examples
from ocr_interp.errors import ConfigError, ModelError, StaleCircuitError
from ocr_interp.graphs.building import prompt_graph
from ocr_interp.models.hooked39 import build_model
from ocr_interp.models.token_counts import TokenCountModel
from ocr_interp.theory import solve
from ocr_interp.training.long_descent import long_descent
from ocr_interp.training.loop import train


@pytest.mark.parametrize("attention", ["linear", "softmax"])
@pytest.mark.parametrize("kind", ["relation", "relation, read", "sequence"])
def test_the_table_of_routed_prompts_is_that_of_the_logits(kind, attention):
    run = snapshot(KINDS[kind], attention=attention)
    noise_free = dataclasses.replace(run.config.train, data="noise_free")
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, train=noise_free))
    table, n = run.table(), TASK.n_inputs
    for relation, column in (("r1", "fact_margin"), ("r2", "implication_margin_overall")):
        right = TASK.right_answer[("r1", "r2").index(relation)]
        for subject in range(TASK.n_subjects):
            tokens = torch.as_tensor(TASK.tokens(f"s{subject}", relation, "EOS"))[None]
            logits = run.model(tokens)[0, -1, n:].detach().numpy()
            others = np.delete(logits, right[subject])
            assert table[column][subject] == pytest.approx(logits[right[subject]] - others.max(), rel=1e-9)


@pytest.mark.parametrize("kind", ["relation", "relation, read", "sequence"])
def test_circuits_of_experts_and_prompts(kind):
    run = snapshot(KINDS[kind])
    prompt = ["noise0", "noise1", "s1", "r2", "EOS"]
    tokens = torch.as_tensor(TASK.tokens(*prompt))[None]
    mixture = run.mixture(prompt)
    assert mixture.sum() == pytest.approx(1)
    own = OVCircuit.from_run(run, prompt=prompt)
    logits = run.model(tokens)[0, -1, TASK.n_inputs :].detach().numpy()
    np.testing.assert_allclose(own.W[TASK.tokens(*prompt)].sum(0), logits, rtol=1e-9)
    experts = [OVCircuit.from_run(run, expert=expert) for expert in range(len(mixture))]
    mixed = sum(share * expert.W for share, expert in zip(mixture, experts, strict=True))
    np.testing.assert_allclose(mixed, own.W, rtol=1e-9, atol=1e-12)
    for expert, circuit in enumerate(experts):
        circuit.check_fresh(run)
        circuit.check_fresh(run.model)
        assert f"expert {expert} of routed experts" in circuit.summary()
        assert circuit.provenance.head == expert
    own.check_fresh(run)
    with pytest.raises(ModelError, match="depends on the mixture of its run"):
        own.check_fresh(run.model)
    other = snapshot(KINDS[kind], init_scale=2.0)
    with pytest.raises(StaleCircuitError):
        experts[1].check_fresh(other)


def test_hooks_see_and_change_the_gate():
    run = snapshot({"by": "relation"})
    tokens, batch = noisy_examples(TASK, TASK.triples, seed=0, dtype=torch.float64)
    logits, cache = run.model.run_with_cache(tokens)
    assert torch.equal(cache["blocks.0.attn.hook_gate"][:, -1], batch.counts[:, list(TASK.relation_tokens)])
    z = cache["z", 0][:, -1]
    by_head = torch.einsum("bhd,hdm->bhm", z, run.model.W_O[0]) @ run.model.W_U
    torch.testing.assert_close(by_head.sum(1), logits[:, -1], rtol=1e-12, atol=1e-12)
    swapped = run.model.run_with_hooks(
        tokens, fwd_hooks=[("blocks.0.attn.hook_gate", lambda value, hook: value.flip(-1))]
    )
    model = TokenCountModel(TASK, run.config.model, run.weights, CPU)
    flipped = run.weights.ov | {"W_V_0": run.weights.ov["W_V_1"], "W_V_1": run.weights.ov["W_V_0"]}
    flipped |= {"W_O_0": run.weights.ov["W_O_1"], "W_O_1": run.weights.ov["W_O_0"]}
    model.adopt({**flipped, "scores": model.scores}, model.scores, {})
    model.parameters = {
        name: tensor[: TASK.n_inputs] if "W_V" in name else tensor
        for name, tensor in model.parameters.items()
    }
    torch.testing.assert_close(swapped[:, -1], model.batch_logits(batch), rtol=1e-12, atol=1e-12)


def test_another_gate_refuses_the_weights():
    routed_model, plain = snapshot({"by": "relation"}).model, build_model(TASK, ModelConfig(d_head=4))
    with pytest.raises(RuntimeError, match=r"gated|size mismatch"):
        plain.load_state_dict(routed_model.state_dict())
    with pytest.raises(RuntimeError, match="gate_router"):
        routed_model.load_state_dict(snapshot({"by": "sequence"}).model.state_dict())


NO_SINGLE = "no single W_OV is its own: read one per expert, OVCircuit.from_run"


def test_what_needs_one_W_OV_refuses_and_says_what_there_is(tmp_path):
    run = train(TASK, config({"by": "relation"}), RECIPE, progress=False)
    asked = {
        "W_OV": lambda: run.weights.W_OV,
        "circuit": lambda: run.circuit,
        "effective_W": lambda: run.effective_W,
        "from_run": lambda: OVCircuit.from_run(run, raw=True),
        "analyze": lambda: analyze_run(run),
        "specs": lambda: default_specs(run),
    }
    for ask in asked.values():
        with pytest.raises(ModelError, match=NO_SINGLE):
            ask()
    with pytest.raises(ConfigError, match="prompts of this parameterisation are routed to experts"):
        long_descent(TASK, "routed", ov_options={"by": "relation"})


def test_one_expert_is_not_compared_with_the_solution_of_the_whole_task():
    run = train(TASK, config({"by": "relation"}), RECIPE, progress=False)
    with pytest.raises(
        ModelError, match="a prediction is of all prompts of a task, got the circuit of one expert"
    ):
        OVCircuit.from_run(run, expert=1).alignment(solve(TASK))


def test_a_study_of_ones_own_specs_works_on_the_heads():
    from ocr_interp.ablation import Site, Zero

    run = train(TASK, config({"by": "relation"}, dtype="float32"), RECIPE, progress=False)
    specs = {"expert 1": Zero().at(Site.at("z", layer=0, heads=[1]))}
    study = run_ablation_study(run, specs, ["accuracy", "margin"], progress=False)
    shown = study.by_split("margin")
    assert "expert 1" in str(shown)


@pytest.mark.slow
def test_the_command_line_says_it_too(command):
    words = "--n-pairs 3 --m-train 1 --m-test 2 --n-noise 2 --seq-len 5 --steps 10 --batch-size 12"
    model = "--ov routed --ov-options by relation routed_side read --snapshots 2 --log-every 5 --device cpu"
    code, out, err = command("train", "run", *words.split(), *model.split())
    assert code == 0, err
    assert "experts   mean scores" in out
    assert "routed (by relation, routed_side read), d_head" in out
    for verb, then in (
        (("analyze", "run"), "analyze run --expert 0"),
        (("diagram", "run", "--output", "all.json"), "diagram run --expert 0 -o all.json"),
        (("ablate", "run", "--draws", "1"), "ablate run --zero z:0 z:1"),
        (("ablate", "run", "--block", "0"), "ablate run --zero z:0 z:1"),
    ):
        code, _, err = command(*verb)
        assert code != 0
        said = " ".join(err.replace("│", "").split())
        assert "prompts of run are routed to 2 experts (0..1)" in said
        assert f"type ocr-interp {then}" in said
        code, _, err = command(*then.replace(",", "").split())
        assert code == 0, err
    code, out, err = command("analyze", "run", "--expert", "1", "--other", "run", "--json", "one.json")
    assert "same weights" in err
    code, out, err = command("analyze", "run", "--expert", "1")
    assert code == 0, err
    assert "expert 1 alone" in " ".join(out.split())
    for verb, message in (
        (("analyze", "run", "--expert", "2"), "expert must be 0..1, got 2"),
        (("diagram", "run", "--expert", "2", "-o", "x.json"), "expert must be 0..1, got 2"),
        (("diagram", "run", "--expert", "0", "--prompt", "s0", "r2", "-o", "x.json"), "leave one out"),
    ):
        code, _, err = command(*verb)
        assert code != 0
        assert message in err
    code, _, err = command("diagram", "run", "--prompt", "s0", "r2", "-o", "prompt.json")
    assert code == 0, err
    code, _, err = command("info", "run")
    assert code == 0, err


@pytest.mark.parametrize("name", ["relation", "sequence", "hard, then sequence"])
@pytest.mark.parametrize("step", [0, 9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_routed_prompt_is_attributed_in_its_mixture(name, step, dtype):
    """The contributions sum to the logits of the HookedTransformer, and the graph to the same."""
    from ocr_interp.circuits.attribution.attribute import attribute

    run = snapshot(KINDS[name], step, dtype=dtype)
    prompt = ["noise1", "s4", "r2", "noise0", "EOS"]
    logits = run.model(torch.from_numpy(TASK.tokens(*prompt))[None])[0, -1].detach()
    for answer in ("b0", "c2"):
        found = attribute(run, prompt, answer)
        expected = float(logits[TASK.labels.index(answer)])
        assert found.contributions.sum() == pytest.approx(expected, rel=1e-4 if dtype == "float32" else 1e-10)
        assert "mixture of the experts for this prompt" in found.statement
    graph = prompt_graph(run, prompt, "b0", "c2")
    assert graph.total == pytest.approx(
        float(logits[TASK.labels.index("b0")] - logits[TASK.labels.index("c2")]), rel=1e-4
    )
    with pytest.raises(ModelError, match="EOS"):
        attribute(run, prompt[:-1], "b0")


def test_a_routed_prompt_without_a_relation_says_no_expert():
    from ocr_interp.circuits.attribution.attribute import attribute

    with pytest.raises(ModelError, match="hold one relation, which says its expert"):
        attribute(snapshot(KINDS["relation"]), ["s4", "s1", "EOS"], "b0")
