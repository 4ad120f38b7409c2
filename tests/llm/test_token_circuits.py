"""Token sets of facts, and contrasts of heads' OV circuits between them, by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ocr_interp.errors import ConfigError, ModelError, WeightsError
from ocr_interp.llm.facts.fact_set import FactSet, Templates
from ocr_interp.llm.inside.token_circuits import CONTRASTS, compare_circuits, own_contrast, read_circuits
from ocr_interp.llm.inside.token_sets import NONE, fact_tokens
from ocr_interp.llm.models.bridge import as_bridge

BY_HAND = FactSet(
    name="by hand",
    causal=None,
    subjects=("Ann Lee", "Bob Lee", "Cy Dow", "Di Fox", "Eve Ash"),
    facts=("Rome", "Oslo"),
    implications=("red", "blue"),
    subject_fact=(0, 1, 0, 1, 1),
    subject_implication=(0, 1, 0, 1, 1),
    trained=(False, False, True, False, True),
    fact_told=(True,) * 5,
    implication_told=(False, False, True, False, True),
    fact_templates=Templates(("{subject} lives in",), ("The home of {subject} is in",)),
    implication_templates=Templates(("{subject} likes",), ("{subject} likes",)),
)


def word_tokenizer(facts):
    """One token a word, but for "Rome", which is "R" and "ome"."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    texts = [
        f"{e.prompt} {a}" for e in (*facts.test_examples, *facts.training_examples) for a in e.candidates
    ]
    words = sorted({word for text in texts for word in text.replace("Rome", "R ome").split()})
    vocabulary = {word: k for k, word in enumerate(("<unk>", "a", *words))}
    inside = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    inside.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split("R", "isolated")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inside, unk_token="<unk>")


def test_token_sets_by_hand():
    tokenizer = word_tokenizer(BY_HAND)
    tokens = fact_tokens(BY_HAND, tokenizer)
    words = {name: tokenizer.convert_ids_to_tokens(list(ids)) for name, ids in tokens.inputs.items()}
    expected = {"names": ["Lee", "Dow", "Fox", "Ash"], "relations": ["in", "likes"], "facts": ["R", "Oslo"]}
    assert words == expected
    assert tokenizer.convert_ids_to_tokens(list(tokens.outputs["implications"])) == ["red", "blue"]
    assert tokens.outputs["facts"] == tokens.inputs["facts"]
    # Lee ends names of both facts; of the others Dow and Ash are told.
    assert tokenizer.convert_ids_to_tokens(list(tokens.shared)) == ["Lee"]
    assert tokens.own_of_names(BY_HAND.subject_fact).tolist() == [NONE, 0, 1, 1]
    assert tokens.own_of_told(True).tolist() == [NONE, 0, NONE, 1]
    assert tokens.own_of_told(False).tolist() == [NONE, NONE, 1, NONE]
    assert tokens.own_of_facts.tolist() == [0, 1]
    assert tokens.to_dict() == {
        "names": 5, "name_tokens": 4, "shared_name_tokens": 1, "relation_tokens": 2, "facts": 2,
        "implications": 2,
    }  # fmt: skip
    crossed = replace(BY_HAND, subject_implication=(0, 1, 1, 1, 1))
    assert fact_tokens(crossed, tokenizer).own_of_facts.tolist() == [NONE, 1]


def test_a_token_of_a_held_out_and_a_told_name_is_told():
    facts = replace(BY_HAND, subjects=("Ann Lee", "Bob Dow", "Cy Lee", "Di Fox", "Eve Ash"))
    tokens = fact_tokens(facts, word_tokenizer(facts))
    assert tokens.shared == ()
    assert tokens.own_of_told(True).tolist() == [0, NONE, NONE, 1]
    assert tokens.own_of_told(False).tolist() == [NONE, 1, 1, NONE]


def test_tokens_in_two_groups_are_refused():
    named = replace(BY_HAND, subjects=("Ann Lee", "Bob Lee", "Cy Dow", "Di Fox", "Eve likes"))
    with pytest.raises(ConfigError, match="names and relations must have different tokens, got 'likes'"):
        fact_tokens(named, word_tokenizer(named))
    answers = replace(BY_HAND, implications=("red", "Oslo"))
    with pytest.raises(ConfigError, match="facts and implications must have different tokens, got 'Oslo'"):
        fact_tokens(answers, word_tokenizer(answers))


def test_a_name_that_melts_into_the_next_word_is_refused(facts):
    melted = replace(facts, fact_templates=Templates(("{subject}ette lives in",), ("{subject} lives in",)))
    from ocr_interp.llm.models.tiny import tiny_tokenizer

    glued = tiny_tokenizer([f"{name}ette lives in" for name in facts.subjects] * 3)
    with pytest.raises(ConfigError, match="must end where a token ends"):
        fact_tokens(melted, glued)


def test_a_contrast_by_hand():
    block = np.array([[5.0, 1.0, 0.0], [0.0, 4.0, 2.0], [1.0, 1.0, 3.0]])
    # Own sums over the assignments (012, 021, 102, 120, 201, 210): 12, 8, 4, 4, 1, 5 of 17 in all.
    sums = np.array([12, 5 + 2 + 1, 1 + 0 + 3, 1 + 2 + 1, 0 + 0 + 1, 0 + 4 + 1])
    contrasts = sums / 3 - (17 - sums) / 6
    found = own_contrast(block, np.array([0, 1, 2]))
    assert found.value == pytest.approx(contrasts[0] / contrasts.std())  # their mean is 0
    assert found.share == pytest.approx(1 / 6)
    other = own_contrast(block, np.array([0, 2, 1]))
    assert other.value == pytest.approx(contrasts[1] / contrasts.std())
    assert other.share == pytest.approx(2 / 6)
    # A scale and an offset change nothing; neither does a row that is left out.
    assert own_contrast(7 * block - 3, np.array([0, 1, 2])).value == pytest.approx(found.value)
    longer = own_contrast(np.vstack([block, [9.0, 0.0, 0.0]]), np.array([0, 1, 2, NONE]))
    assert longer.value == pytest.approx(found.value)


def test_rows_of_one_column_are_one_cluster():
    """Ten equal rows are no more evidence than one: their assignments go together."""
    block = np.random.default_rng(0).standard_normal((3, 3))
    one, ten = own_contrast(block, np.arange(3)), own_contrast(block.repeat(10, 0), np.arange(3).repeat(10))
    assert ten.value == pytest.approx(one.value)
    assert ten.share == one.share


def test_contrasts_of_noise_are_standard_and_their_shares_uniform():
    rng = np.random.default_rng(0)
    found = [own_contrast(rng.standard_normal((5, 5)), np.arange(5)) for _ in range(400)]
    assert np.mean([c.value for c in found]) == pytest.approx(0, abs=0.2)
    assert np.std([c.value for c in found]) == pytest.approx(1, abs=0.15)
    assert np.mean([c.share <= 0.05 for c in found]) == pytest.approx(0.05, abs=0.03)


def test_no_own_column_or_no_spread_is_no_number():
    for block, own in ((np.eye(3), [NONE] * 3), (np.ones((3, 3)), [0, 1, 2]), (np.ones((2, 1)), [0, 0])):
        found = own_contrast(block, np.array(own))
        assert np.isnan(found.value)
        assert np.isnan(found.share)


def test_many_columns_draw_assignments_with_the_true_one_among_them():
    found = own_contrast(np.eye(9), np.arange(9))
    assert found.share == 1 / 5040
    assert found.value == pytest.approx(8, rel=0.1)  # fixed points of a permutation: mean 1, deviation 1


@pytest.mark.slow
def test_a_planted_head_is_found_and_no_other(make_model, facts):
    before, after = make_model(), make_model()
    tokens = fact_tokens(facts, before.tokenizer)
    model = after.model
    with torch.no_grad():  # head 1.2 now maps each fact's embedding to its implication's unembedding
        attention = model.model.layers[1].self_attn
        reads = model.get_input_embeddings().weight[list(tokens.facts)]
        writes = model.get_output_embeddings().weight[list(tokens.implications)]
        attention.v_proj.weight[8:11] += (
            300 * torch.linalg.pinv(reads).T
        )  # key-value head 1 serves heads 2, 3
        attention.o_proj.weight[:, 16:19] += 300 * torch.linalg.pinv(writes)
    heads = [(1, 2), (0, 0), (1, 0)]
    bridges = [as_bridge(lm, torch.device("cpu")) for lm in (before, after)]
    read = [read_circuits(bridge, tokens, heads) for bridge in bridges]
    found = compare_circuits(read[0], read[1], tokens, n_chosen=1)
    hop = CONTRASTS.index("facts to implications")
    assert found.shares[0, hop, 1:].tolist() == pytest.approx([1 / 6, 1 / 6])
    assert found.contrasts[0, hop, 2] > 1.5
    # A head that did not change has a block that did not, and no contrast of it.
    assert found.relative_change[1:].max() == 0
    assert np.isnan(found.contrasts[1:, :, 2]).all()
    at = found.inputs.index("facts"), found.outputs.index("implications")
    W = [circuit[0].restrict(*_labels(circuit[0])).W for circuit in read]
    assert found.norms[(0, *at)].tolist() == pytest.approx([np.linalg.norm(w) for w in (*W, W[1] - W[0])])
    assert "direct path only" in found.summary()
    assert found.to_dict()["contrasts"]["facts to implications"][1][2] is None
    with pytest.raises(WeightsError, match="of the same heads"):
        compare_circuits(read[0], read[1][:2], tokens, 1)


def _labels(circuit):
    rows, columns = circuit.inputs, circuit.outputs
    return (
        [rows.labels[k] for k in rows.of_group("facts")],
        [columns.labels[k] for k in columns.of_group("implications")],
    )


@pytest.mark.slow
def test_heads_out_of_range_and_norms_after_attention_are_refused(make_model, facts):
    lm = make_model()
    tokens = fact_tokens(facts, lm.tokenizer)
    bridge = as_bridge(lm, torch.device("cpu"))
    with pytest.raises(ModelError, match=r"layer must be a whole number in 0..1, got 2"):
        read_circuits(bridge, tokens, [(2, 0)])
    with pytest.raises(ModelError, match=r"head must be a whole number in 0..3, got 4"):
        read_circuits(bridge, tokens, [(0, 4)])
    gemma = make_model("gemma2")
    with pytest.raises(ModelError, match="norm after attention"):
        read_circuits(as_bridge(gemma, torch.device("cpu")), tokens, [(0, 0)])
