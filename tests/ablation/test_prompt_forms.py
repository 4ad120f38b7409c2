"""Prompts as people have them: texts, what a tokenizer returns, columns; nodes by their names in tables."""

import pandas as pd
import pytest
import torch

from ocr_interp.ablation import Edges, Examples, Mean, Patch, Zero, ablated, run_ablation_study
from ocr_interp.circuits import direct_attribution
from ocr_interp.discovery import Contrast
from ocr_interp.errors import ModelError
from ocr_interp.llm.models.bridge import as_bridge
from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer

TEXTS = ["Mia plays tennis", "Leo plays tennis"]
DONORS = ["Mia plays hockey", "Leo plays hockey"]


@pytest.fixture(scope="module")
def bridge():
    tokenizer = tiny_tokenizer([*TEXTS, *DONORS, "Mia plays hockey on Mondays"] * 2)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    return as_bridge(tiny_model("olmo", tokenizer), torch.device("cpu"))


def given(tokenizer, kind):
    ids = [tokenizer.encode(text) for text in DONORS]
    return {
        "texts": DONORS,
        "column": pd.DataFrame({"donor": DONORS})["donor"],
        "column of ids": pd.Series(ids),
        "encoding": tokenizer(DONORS, return_tensors="pt"),
        "encoding of lists": tokenizer(DONORS),
        "dict": {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(2, 3)},
        "encodings": [tokenizer(text) for text in DONORS],
        "padded": tokenizer.pad(tokenizer(DONORS), padding="max_length", max_length=5, return_tensors="pt"),
        "generator": (text for text in DONORS),
        "tensors": [torch.tensor(row) for row in ids],
    }[kind]


KINDS = (
    *("texts", "column", "column of ids", "encoding", "encoding of lists", "dict", "encodings", "padded"),
    *("generator", "tensors"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_donors_and_attributed_prompts_in_every_form(bridge, kind):
    tokenizer = bridge.tokenizer
    tokens, ids = (torch.tensor([tokenizer.encode(t) for t in texts]) for texts in (TEXTS, DONORS))
    with torch.no_grad(), ablated(bridge, Patch(donor=ids).at(Edges("m0->logits"))):
        wanted = bridge(tokens)
    with torch.no_grad(), ablated(bridge, Patch(donor=given(tokenizer, kind)).at(Edges("m0->logits"))):
        assert torch.equal(bridge(tokens), wanted)
    found = direct_attribution(bridge, given(tokenizer, kind), " tennis", " hockey")
    each = [direct_attribution(bridge, row.tolist(), " tennis", " hockey").totals[0] for row in ids]
    assert found.totals == pytest.approx(each)
    contrast = Contrast.of(bridge, TEXTS, given(tokenizer, kind), " tennis", " hockey")
    assert torch.equal(contrast.donors, ids)


def test_a_mask_comes_with_the_tokenizers_result(bridge):
    """Padding is no token: a mean over padded references, a study of padded prompts."""
    tokenizer = bridge.tokenizer
    longer = [TEXTS[0], "Mia plays hockey on Mondays"]
    padded = tokenizer(longer, padding=True, return_tensors="pt")
    tokens = torch.tensor([tokenizer.encode(TEXTS[1])])
    place = Edges("m0->logits")
    seen = []
    for mean in (Mean(padded), Mean(padded["input_ids"], attention_mask=padded["attention_mask"])):
        with torch.no_grad(), ablated(bridge, mean.at(place)):
            seen.append(bridge(tokens))
    assert torch.equal(*seen)
    answer = tokenizer.encode(" tennis") * 2
    by_itself = Examples(padded["input_ids"], answer, attention_mask=padded["attention_mask"])
    tables = [
        run_ablation_study(bridge, {"cut": Zero().at(place)}, ["loss"], examples=each, progress=False)
        for each in (Examples(padded, answer), by_itself)
    ]
    assert tables[0].by_split("loss").equals(tables[1].by_split("loss"))


@pytest.mark.parametrize(
    ("donor", "message"),
    [
        (pd.DataFrame({"text": DONORS, "n": [1, 2]}), "one column of a table, got a table with 'text', 'n'"),
        ({"prompt": DONORS}, "got a mapping with 'prompt'"),
        ([], "at least one prompt"),
        (["Mia", "Leo"], "as many tokens as the prompts, 3, got 2"),  # one prompt of two tokens
        (DONORS * 2, "one for each of 2 prompts, got 4"),
    ],
)
def test_other_forms_say_what_is_allowed(bridge, donor, message):
    tokens = torch.tensor([bridge.tokenizer.encode(text) for text in TEXTS])

    def run():
        with torch.no_grad(), ablated(bridge, Patch(donor=donor).at(Edges("m0->logits"))):
            bridge(tokens)

    with pytest.raises(ModelError, match=message):
        run()


def test_nodes_by_the_names_of_tables(bridge):
    """ "L0H1" and "MLP 0" stand in every table; in edges they are the same nodes."""
    tokens = torch.tensor([bridge.tokenizer.encode(text) for text in TEXTS])
    seen = []
    names = ["a0.h1->a1.h2<q>", "m0->m1", "a1.h3->logits"]
    for edges in (names, ["L0H1->L1H2<q>", "MLP 0->M1", "L1H3->logits"]):
        with torch.no_grad(), ablated(bridge, Zero().at(Edges(edges))):
            seen.append(bridge(tokens))
    assert torch.equal(*seen)
    for edge in ("L0H1->L1H2<k>", "a0.h1->a1.h2<v>", "L0H1->L1H2"):
        with pytest.raises(ModelError, match=r"a1\.h2 shares its keys and values with other heads: name"):
            ablated(bridge, Zero().at(Edges(edge))).__enter__()


def test_a_prompt_longer_than_the_context_says_so(bridge):
    import copy

    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(bridge.tokenizer), n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=0
    )
    config.architectures = ["GPT2LMHeadModel"]
    lm = type(tiny_model("olmo", bridge.tokenizer))(
        "short", GPT2LMHeadModel(config).eval(), copy.deepcopy(bridge.tokenizer)
    )
    short = as_bridge(lm, torch.device("cpu"))
    with pytest.raises(ModelError, match="at most 8 tokens, the model's context, got 9: shorten"):
        direct_attribution(short, [[5] * 9], 6)
