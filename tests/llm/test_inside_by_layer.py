"""Probes and patching by layer, against cases that are known and a computation by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_facts import SMALL

from analyses.architectures.tiny import tiny_architecture
from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.inside.by_layer import PLACES, _check_last, _donors, by_layer, nearest_mean
from ocr_interp.llm.inside.inside import inspect_models
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.task import SPLITS

CPU = torch.device("cpu")


def untold(facts):
    return [e for e in facts.test_examples if SPLITS[e.split] == "held_out_implication"]


def test_the_nearest_mean_leaves_the_name_itself_out():
    labels = np.array([0, 0, 1, 1])
    apart = np.array([[0.0, 7], [0.1, 7], [5, 7], [5.1, 7]])
    assert nearest_mean(apart, labels) == 1
    # Each stands alone on its own side: its class without it is the other side.
    assert nearest_mean(np.array([[0.0], [5], [0.1], [5.1]]), labels) == 0
    assert nearest_mean(np.ones((4, 3)), labels) == 0.5
    assert nearest_mean(apart * [1e6, 1], labels) == 1  # columns are put to one scale


def test_patching_is_that_of_the_model_asked_by_hand(facts, make_model):
    before, after = make_model(), make_model(seed=1)
    found = by_layer(before, after.model, facts, CPU)
    assert found.blocks == ("model.layers.0", "model.layers.1")
    examples = untold(facts)
    donors = _donors(examples, 0)
    for one, donor in zip(examples, donors, strict=True):
        assert examples[donor].fact != one.fact
        assert examples[donor].target != one.target
    encode = before.tokenizer

    def logits(prompt, patch=None):
        handle = None
        if patch is not None:
            layer, place, value = patch

            def hook(module, args, output):
                first = output[0] if isinstance(output, tuple) else output
                first[0, place] = value
                return output

            handle = after.model.model.layers[layer].register_forward_hook(hook)
        ids = torch.tensor([encode(prompt).input_ids])
        with torch.no_grad():
            states = after.model(ids, output_hidden_states=True)
        if handle:
            handle.remove()
        return states

    def places(example):
        """Ends of the name and of the prompt: the name stands first in these wordings."""
        name = encode(facts.subjects[example.subject]).input_ids
        return len(name) - 1, len(encode(example.prompt).input_ids) - 1

    # Only the first block: hidden_states of the last one are normed.
    for place in range(len(PLACES)):
        own, theirs = [], []
        for one, k in zip(examples, donors, strict=True):
            donor = examples[k]
            value = logits(donor.prompt).hidden_states[1][0, places(donor)[place]]
            answer = [encode(f" {word}").input_ids[0] for word in one.candidates]
            scores = logits(one.prompt, (0, places(one)[place], value)).logits[0, -1, answer]
            own.append(int((scores > scores[one.target]).sum()))
            theirs.append(int((scores > scores[donor.target]).sum()))
        assert found.own[0, place] == pytest.approx(np.mean(own))
        assert found.donor[0, place] == pytest.approx(np.mean(theirs))
    # At the end of the last layer the answer is the donor's.
    assert found.donor[-1, 1] == pytest.approx(np.mean([_rank(logits, encode, examples[k]) for k in donors]))


def _rank(logits, encode, example):
    answer = [encode(f" {word}").input_ids[0] for word in example.candidates]
    scores = logits(example.prompt).logits[0, -1, answer]
    return int((scores > scores[example.target]).sum())


@pytest.mark.parametrize(
    "name",
    [
        "LlamaForCausalLM",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("Gemma3ForCausalLM", "GPT2LMHeadModel", "OPTForCausalLM", "JambaForCausalLM")
        ),
    ],
)
def test_every_family_is_patched_and_left_as_it_was(name, tokenizer, facts):
    before, after = (
        LanguageModel(name, tiny_architecture(name, s, vocab_size=len(tokenizer)).eval(), tokenizer)
        for s in (0, 1)
    )
    kept = {key: p.detach().clone() for key, p in after.model.named_parameters()}
    found = by_layer(before, after.model, facts, CPU)
    assert found.own.shape == found.probe_after.shape == (len(found.blocks), 2)
    assert len(found.blocks) == after.model.config.get_text_config().num_hidden_layers
    assert ((found.probe_after >= 0) & (found.probe_after <= 1)).all()
    assert f"unpatched {found.donor_unpatched:.2f}" in found.summary()
    assert set(found.to_dict()) >= {"places", "blocks", "donor", "probe_before"}
    for key, parameter in after.model.named_parameters():
        assert torch.equal(parameter, kept[key])
    with torch.no_grad():  # no hook is left
        after.model(torch.tensor([[1, 2]]))


def test_blocks_that_do_not_leave_the_stream_are_refused():
    ones = np.ones((2, 3))
    _check_last(ones, ones, "a block", "first_token")
    with pytest.raises(ModelError, match="output of a block the logits are not the donor's"):
        _check_last(ones, 2 * ones, "a block", "first_token")


def test_too_few_untold_names_are_refused(make_model):
    facts = make_facts(replace(SMALL, n_names=2, share=0.5))
    lm = make_model()
    with pytest.raises(ConfigError, match="two untold names of each, got 3 facts and one name of"):
        by_layer(lm, lm.model, facts, CPU)


@pytest.mark.slow
def test_inspecting_by_layer_is_asked_for(make_model, facts):
    before, after = make_model("gemma2"), make_model("gemma2", seed=1)
    inside = inspect_models(before, after, facts, 2, "cpu", cuts=(), layers=True)
    assert not isinstance(inside.layers, str)
    assert inside.layers is not None
    assert "probes; chance 0.33" in inside.summary()
    assert len(inside.to_dict()["layers"]["donor"]) == 2
    assert inspect_models(before, after, facts, 2, "cpu", cuts=()).layers is None
