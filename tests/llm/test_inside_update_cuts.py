"""The update replaced by its mean over names, truncated by k, and heads matched by layer: against oracles."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_facts import SMALL

from analyses.architectures.tiny import tiny_architecture
from ocr_interp.errors import ConfigError, ModelError, UnknownNameError
from ocr_interp.llm.encoding import asking_batch
from ocr_interp.llm.inside.cuts import KINDS, USUAL_KINDS, heads_of_same_layers, most_changed_of_layers
from ocr_interp.llm.inside.inside import inspect_models
from ocr_interp.llm.inside.mean_over_names import REPLACED, ask_with_means, mean_cuts
from ocr_interp.llm.inside.truncation import (
    check_top_k,
    leading_directions,
    top_part,
    truncated,
    truncated_maps,
    truncation_cuts,
)
from ocr_interp.llm.inside.updates import OVUpdate
from ocr_interp.llm.measuring.measure import Questions, measure
from ocr_interp.llm.models.forward import answer_logits
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.finetune import finetune

CPU = torch.device("cpu")


def asked(lm, facts, **values):
    return Questions(facts, lm.tokenizer, lm.pad, **values)


def states(make, *names):
    """A model before and after: other weights, all of them or those whose names have a word."""
    before, after = make(seed=0), make(seed=0)
    other = dict(make(seed=1).model.named_parameters())
    with torch.no_grad():
        for name, parameter in after.model.named_parameters():
            if not names or any(word in name for word in names):
                parameter.copy_(other[name])
    return before, after


def kept_weights(lm):
    return {name: p.detach().clone() for name, p in lm.model.named_parameters()}


def assert_same(lm, kept):
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, kept[name]), name


# --- the mean over names ----------------------------------------------------------------------------


def test_the_mean_over_names_is_that_of_a_computation_by_hand(facts, make_model):
    """One map, prompts one by one without padding: W x + mean of ΔW x at the place from the end."""
    longer = f"{facts.subjects[0]} van der Meer"
    facts = replace(facts, subjects=(longer, *facts.subjects[1:]))
    before, after = states(make_model, "layers.0.mlp.down_proj")
    kept, path = kept_weights(after), "model.layers.0.mlp.down_proj"
    questions = asked(after, facts, batch_size=7)
    found = ask_with_means(before, after.model, questions, CPU)
    assert_same(after, kept)
    old, new = (lm.model.get_submodule(path).weight for lm in (before, after))

    def by_hand(hook):
        """Scores of every prompt, asked alone, with a hook that also gets the prompt's relation."""
        scores = []
        for one in questions.encoded:
            relation = one.example.relation
            handle = after.model.get_submodule(path).register_forward_hook(
                lambda module, args, output, r=relation: hook(r, args[0][0])
            )
            with torch.no_grad():
                scores.append(after.model(torch.tensor([one.prompt])).logits[0, -1, list(one.candidates)])
            handle.remove()
        return torch.stack(scores).numpy()

    read = {}  # (relation, place from the end) -> what the map reads there, over names

    def note(relation, x):
        for place in range(len(x)):
            read.setdefault((relation, len(x) - place), []).append(x[place])

    by_hand(note)
    assert len({len(xs) for xs in read.values()}) > 1  # prompts of several lengths
    means = {key: torch.stack(xs).mean(0) @ (new - old).T for key, xs in read.items()}

    def shifted(relation, x):
        mean = torch.stack([means[relation, len(x) - place] for place in range(len(x))])
        return (x @ old.T + mean)[None]

    assert found.scores == pytest.approx(by_hand(shifted), abs=1e-5)
    for end in (before, after):
        assert found.scores != pytest.approx(measure(end, facts, device="cpu").scores, abs=1e-4)


def test_an_update_that_is_the_same_for_all_names_is_its_mean(facts, make_model):
    """Biases alone change: the mean is the update."""
    before, after = make_model("qwen2"), make_model("qwen2")
    with torch.no_grad():
        for lm in (before, after):
            for layer in lm.model.model.layers:
                layer.input_layernorm.weight[0] = 0
        for name, parameter in after.model.named_parameters():
            if name.endswith("v_proj.bias"):
                parameter.copy_(torch.linspace(-1, 1, len(parameter)))
            if name.endswith("v_proj.weight"):  # a changed matrix whose change reads nothing
                parameter[:, 0] += 1
    replaced = ask_with_means(before, after.model, asked(after, facts), CPU)
    ends = [measure(lm, facts, device="cpu").scores for lm in (before, after)]
    assert replaced.scores == pytest.approx(ends[1], abs=1e-5)
    assert ends[0] != pytest.approx(ends[1], abs=1e-2)


@pytest.mark.parametrize(
    "name",
    [
        "LlamaForCausalLM",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                *("GPT2LMHeadModel", "OPTForCausalLM", "Gemma3ForCausalLM", "GPTNeoXForCausalLM"),
                *("BloomForCausalLM", "Phi3ForCausalLM"),
            )
        ),
    ],
)
def test_the_mean_over_one_name_is_its_own_update(name, tokenizer, facts):
    """Each prompt alone in its relation: with the mean it is the model after fine-tuning."""
    before, after = (
        LanguageModel(name, tiny_architecture(name, seed, vocab_size=len(tokenizer)), tokenizer)
        for seed in (0, 1)
    )
    with torch.no_grad():  # the vectors of norms stay as they are
        theirs = dict(before.model.named_parameters())
        for key, parameter in after.model.named_parameters():
            if parameter.ndim == 1 and ("norm" in key or "ln_" in key):
                parameter.copy_(theirs[key])
    kept = kept_weights(after)
    first = [next(e for e in facts.test_examples if e.relation == relation) for relation in (0, 1)]
    replaced = ask_with_means(before, after.model, asked(after, facts, examples=first), CPU)
    ends = [
        asked(lm, facts, examples=first).ask(lambda batch, m=lm.model: answer_logits(m, batch), CPU).scores
        for lm in (before, after)
    ]
    assert replaced.scores == pytest.approx(ends[1], abs=1e-4)
    assert ends[0] != pytest.approx(ends[1], abs=1e-2)
    assert_same(after, kept)


@pytest.mark.slow
def test_answers_of_several_tokens_are_averaged_by_what_was_said(facts, make_model):
    before, after = states(make_model, "mlp")
    cuts = mean_cuts(before, after.model, asked(after, facts, scoring="whole_answer"), CPU)
    assert all(np.isfinite(list(cut.ranks.values())).all() for cut in cuts)


@pytest.mark.slow
def test_experts_in_a_stack_have_no_mean_and_say_so(tokenizer, facts):
    before, after = (
        LanguageModel(
            "mixtral",
            tiny_architecture("MixtralForCausalLM", s, vocab_size=len(tokenizer)).float(),
            tokenizer,
        )
        for s in (0, 1)
    )
    inside = inspect_models(before, after, facts, n_heads=1, device="cpu", cuts=("mean", "truncation"))
    assert "gate.weight belongs to a MixtralTopKRouter" in inside.left_out["mean"]
    assert "no cut of the kind 'mean': the mean over names needs" in inside.summary()
    assert inside.to_dict()["left_out"] == inside.left_out
    assert {cut.kind for cut in inside.cuts} == {"none", "truncation"}


def test_a_map_that_runs_at_no_known_position_is_refused(facts, make_model):
    before, after = states(make_model, "layers.0.mlp.down_proj")
    module = after.model.model.layers[0].mlp
    inner = module.forward
    module.forward = lambda x: inner(inner(x))  # runs twice a pass
    try:
        with pytest.raises(ModelError, match=r"once a pass, but \S+ ran 2 times in 1"):
            mean_cuts(before, after.model, asked(after, facts), CPU)
        module.forward = lambda x: torch.cat([inner(x[:, :1]), inner.__self__.gate_proj(x)[:, 1:, :32]], 1)
        with pytest.raises(ModelError, match=r"needs \[batch, position, width\] .*down_proj gives \("):
            mean_cuts(before, after.model, asked(after, facts), CPU)
    finally:
        del module.forward


# --- truncation by k --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6)])
def test_the_top_part_is_that_of_a_singular_value_decomposition(shape):
    torch.manual_seed(0)
    start, now = torch.randn(shape), torch.randn(shape)
    U, s, V = torch.linalg.svd(now.double() - start.double(), full_matrices=False)
    directions = leading_directions(start, now, 4)
    for k in (1, 2, 4):
        wanted = (U[:, :k] * s[:k]) @ V[:k]
        torch.testing.assert_close(top_part(start, now, directions[:, :k]), wanted)


def test_truncated_models_have_truncated_weights_and_come_back(make_model):
    before, after = states(make_model)
    kept = kept_weights(after)
    maps = truncated_maps(before.model, after.model)
    assert sorted({name.split(".")[-2] for name in maps}) == sorted(
        f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")
    )
    leading = {
        n: leading_directions(before.model.get_parameter(n), after.model.get_parameter(n), 2) for n in maps
    }
    for keep in (True, False):
        with truncated(before.model, after.model, leading, 2, keep=keep):
            for name, parameter in after.model.named_parameters():
                if name not in maps:
                    assert torch.equal(parameter, kept[name]), name
                    continue
                old = before.model.get_parameter(name).double()
                U, s, V = torch.linalg.svd(kept[name].double() - old, full_matrices=False)
                part = slice(0, 2) if keep else slice(2, None)
                wanted = old + (U[:, part] * s[part]) @ V[part]
                torch.testing.assert_close(parameter.double(), wanted, atol=1e-6, rtol=1e-5)
        assert_same(after, kept)


@pytest.mark.slow
def test_a_lora_update_is_whole_from_its_rank_on(make_model, facts):
    given = {"model": "tiny", "method": "lora", "lora_rank": 2, "lr": 1e-2, "steps": 10, "log_every": 10}
    run = finetune(LLMRunConfig(SMALL, FinetuneConfig(**given, device="cpu")), lm=make_model())
    before, after = make_model(), run.lm
    questions = asked(after, facts)
    maps = truncated_maps(before.model, after.model)
    assert maps
    leading = {
        n: leading_directions(before.model.get_parameter(n), after.model.get_parameter(n), 3) for n in maps
    }
    batch = asking_batch(questions.encoded[:9], after.pad, "cpu")
    with torch.no_grad():
        ends = [answer_logits(lm.model, batch) for lm in (before, after)]
        for k, keep, end in ((2, True, 1), (3, True, 1), (2, False, 0)):
            with truncated(before.model, after.model, leading, k, keep=keep):
                torch.testing.assert_close(answer_logits(after.model, batch), ends[end], atol=1e-5, rtol=1e-5)
        with truncated(before.model, after.model, leading, 1, keep=True):
            assert not torch.allclose(answer_logits(after.model, batch), ends[1], atol=1e-4)
    cuts = truncation_cuts(before, after.model, questions, CPU, (2, 1))
    assert [cut.what for cut in cuts] == [
        "of every ΔW only the top 1 kept",
        "of every ΔW only the top 2 kept",
        "of every ΔW the top 1 removed",
        "of every ΔW the top 2 removed",
    ]
    assert cuts[1].ranks == pytest.approx(
        {s: measure(after, facts, device="cpu").mean(s, "rank") for s in cuts[1].ranks}
    )


@pytest.mark.parametrize("top_k", [(), (0,), (1, 1), (-1, 2)])
def test_numbers_of_singular_values_that_there_are_not_are_refused(top_k):
    with pytest.raises(ConfigError, match="top_k must be different whole numbers from 1 on"):
        check_top_k(top_k)


# --- heads matched by layer -------------------------------------------------------------------------


def update_of(relative):
    return OVUpdate(*(np.array(relative, dtype=float) for _ in range(4)))


def test_matched_heads_lie_in_the_same_layers():
    rng = np.random.default_rng(0)
    relative = rng.random((5, 6))
    relative[0] += 9  # all heads of layer 0 are the most changed
    relative[3] = np.nan  # a layer without attention
    update = update_of(relative)
    heads = most_changed_of_layers(update, 8)
    layers = Counter(layer for layer, _ in heads)
    assert layers[0] == 3
    assert 3 not in layers
    assert max(layers.values()) <= 3
    assert len(heads) == 8
    best = sorted(relative[0], reverse=True)[:3]
    assert [relative[place] for place in heads if place[0] == 0] == best
    draws = heads_of_same_layers(heads, update)
    assert draws == heads_of_same_layers(heads, update)
    assert draws != heads_of_same_layers(heads, update, seed=1)
    for draw in draws:
        assert Counter(layer for layer, _ in draw) == layers
        assert not set(draw) & set(heads)
        assert len(set(draw)) == len(draw)
    assert len(most_changed_of_layers(update, 99)) == 12
    assert all(layer > 0 for layer, _ in most_changed_of_layers(update, 4, first_layer=1))
    assert most_changed_of_layers(update_of(np.ones((3, 1))), 2) == ()
    with pytest.raises(ConfigError, match="got 4 of layer 0, which has 2 others"):
        heads_of_same_layers([(0, head) for head in range(4)], update)


@pytest.mark.slow
def test_inspecting_makes_the_kinds_that_are_asked_for(make_model, facts):
    before, after = states(make_model)
    kept = kept_weights(after)
    inside = inspect_models(before, after, facts, n_heads=2, device="cpu", cuts=KINDS, top_k=(1, 4))
    assert {cut.kind for cut in inside.cuts} == {"none", *KINDS}
    assert not inside.left_out
    words = [cut.what for cut in inside.cuts]
    for what in (
        "2 most changed heads, at most half of a layer, zeroed",
        "2 random heads of the same layers zeroed",
        "2 random heads of the same layers past layer 0 zeroed",
        REPLACED,
        "of every ΔW the top 4 removed",
    ):
        assert what in words
        assert what in inside.summary()
    assert_same(after, kept)
    assert "left_out" not in inside.to_dict()
    usual = inspect_models(before, after, facts, n_heads=2, device="cpu")
    assert {cut.kind for cut in usual.cuts} == {"none", *USUAL_KINDS}
    one = inspect_models(before, after, facts, n_heads=2, device="cpu", cuts=("mean",))
    assert [cut.kind for cut in one.cuts] == ["none", "none", "mean"]


def test_kinds_that_there_are_not_are_refused_before_anything_is_asked(make_model, facts):
    lm = make_model()
    with pytest.raises(UnknownNameError, match="unknown kind of cut 'means': did you mean 'mean'"):
        inspect_models(lm, lm, facts, cuts=("parts", "means"))
    with pytest.raises(ConfigError, match="top_k must be"):
        inspect_models(lm, lm, facts, cuts=("truncation",), top_k=())


def test_the_command_has_the_defaults_of_the_library():
    from ocr_interp.cli.llm import Inspect
    from ocr_interp.llm.inside.truncation import TOP_K

    command = Inspect(Path("run"))
    assert command.cuts == USUAL_KINDS
    assert command.top_k == TOP_K
