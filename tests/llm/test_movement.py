"""How far every part of every layer moved, against numpy's SVD; and what it is not defined for."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from small_facts import SMALL
from ten_families import tiny

from ocr_interp.errors import ConfigError, WeightsError
from ocr_interp.llm.layers.movement import OUTSIDE, Movement, change_spectrum, movement, places_of
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.llm.models.tiny import tiny_model
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.finetune import finetune
from ocr_interp.llm.training.text import describe_finetuning


def config(folder, **values):
    given = {"model": str(folder), "lr": 1e-2, "steps": 4, "log_every": 2, "batch_size": 6, "device": "cpu"}
    return LLMRunConfig(SMALL, FinetuneConfig(**{**given, **values}))


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    lm = tiny_model("llama", tokenizer)
    lm.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def start_of(base):
    from safetensors.torch import load_file

    return load_file(base / "model.safetensors")


def by_hand(names, start, now):
    """start, change, relative, nuclear over Frobenius, spectral of some weights, with numpy."""
    W = [start[name].double().numpy() for name in names]
    D = [now[name].detach().double().numpy() - w for name, w in zip(names, W, strict=True)]
    norm, change = (np.sqrt(sum((x**2).sum() for x in xs)) for xs in (W, D))
    values = [np.linalg.svd(d, compute_uv=False) for d in D if d.ndim == 2]
    if not values:
        return norm, change, change / norm, np.nan, np.nan
    s = np.concatenate(values)
    return norm, change, change / norm, s.sum() / np.sqrt((s**2).sum()), s.max()


BLOCK = "model.layers.1."
ROWS = {
    ("embeddings", OUTSIDE): ["model.embed_tokens.weight", "lm_head.weight"],
    ("norms", OUTSIDE): ["model.norm.weight"],
    ("norms", 1): [f"{BLOCK}input_layernorm.weight", f"{BLOCK}post_attention_layernorm.weight"],
    ("ov", 1): [f"{BLOCK}self_attn.v_proj.weight", f"{BLOCK}self_attn.o_proj.weight"],
    ("qk", 1): [f"{BLOCK}self_attn.q_proj.weight", f"{BLOCK}self_attn.k_proj.weight"],
    ("mlp_in", 1): [f"{BLOCK}mlp.gate_proj.weight", f"{BLOCK}mlp.up_proj.weight"],
    ("mlp_out", 1): [f"{BLOCK}mlp.down_proj.weight"],
}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_every_row_is_what_numpy_says(method, base, tmp_path):
    run = finetune(config(base, method=method, lora_rank=2), tmp_path / "run")
    moved, start, now = run.movement, start_of(base), dict(run.lm.model.named_parameters())
    assert isinstance(moved, Movement)
    rows = list(zip(moved.part, moved.layer.tolist(), strict=True))
    assert set(rows) == {*ROWS, *((part, 0) for part, layer in ROWS if layer == 1)}
    columns = ("start", "change", "relative", "nuclear_to_frobenius", "spectral")
    for place, names in ROWS.items():
        got = [getattr(moved, column)[rows.index(place)] for column in columns]
        if method == "lora" and place[0] in ("embeddings", "norms"):
            assert got[1] == got[2] == 0
            assert np.isnan(got[3])  # what did not move has no rank
            continue
        wanted = by_hand(names, start, now)
        np.testing.assert_allclose(got, wanted, rtol=2e-5, err_msg=str(place))
    if method == "lora":
        out = moved.nuclear_to_frobenius[rows.index(("mlp_out", 1))]
        assert 1 <= out <= np.sqrt(2) + 1e-3  # rank 2, but for the rounding of the merge
    every = moved.of_parts()["all"]
    assert every == pytest.approx(by_hand(list(now), start, now)[2])
    again = finetune(config(base, method=method, lora_rank=2), tmp_path / "run").movement  # only read
    assert isinstance(again, Movement)
    assert again.part == moved.part
    np.testing.assert_allclose(again.relative, moved.relative, rtol=1e-5)
    assert moved.summary() in describe_finetuning(run)
    assert "whose answer is first" in describe_finetuning(run)
    assert len(moved.table().splitlines()) == 1 + len(rows)


@pytest.mark.slow
def test_movement_at_every_measurement_goes_on_to_the_bit(base, tmp_path):
    recipe = config(base, movement="logged")
    whole = finetune(recipe).history
    columns = [name for name in whole.columns if name.startswith("movement/")]
    parts = ("embeddings", "norms", "qk", "ov", "mlp_in", "mlp_out", "all")
    assert columns == [f"movement/{part}" for part in parts]
    assert (whole[columns].iloc[0] == 0).all()
    assert (whole[columns].diff().iloc[1:] > 0).all(axis=None)

    def stop(row):
        if row["step"] == 4:
            raise LookupError

    with pytest.raises(LookupError):
        finetune(config(base, movement="logged", checkpoint_every=2), tmp_path / "run", on_log=stop)
    again = finetune(recipe, tmp_path / "run").history
    pd.testing.assert_frame_equal(whole, again, check_exact=True)
    assert recipe.fingerprint == config(base).fingerprint  # what is recorded is no part of the recipe
    with pytest.raises(ConfigError, match="movement='logged' needs a method that trains the model's own"):
        config(base, movement="logged", method="lora")


def moved(recipe, lm=None):
    found = finetune(recipe, lm=lm).movement
    return found if isinstance(found, str) else ""


@pytest.mark.slow
def test_what_has_no_movement_says_why(base, make_model, tokenizer, tmp_path):
    run = finetune(
        config(base, method="compacter_plus", steps=1, method_options={"phm_dim": 2}), tmp_path / "run"
    )
    assert "has no ΔW" in str(run.movement)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["movement"] == {"why_not": run.movement}
    assert "is no folder on this machine" in moved(config("tiny", steps=1), make_model())
    assert "asked for" in moved(config(base, steps=1, movement="none"))
    # A model in memory is compared with the folder that it is named after.
    same = LanguageModel(str(base), make_model().model, tokenizer)
    assert isinstance(finetune(config(base, steps=1), lm=same).movement, Movement)
    assert "the model in memory is not the one in" in moved(config(base, steps=1), same)
    with pytest.raises(ConfigError, match="movement='logged' needs the start of training"):
        finetune(config("tiny", movement="logged"), lm=make_model())


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (5000, 3)])
def test_a_spectrum_in_blocks_of_rows_is_that_of_the_difference(shape):
    one, other = (torch.randn(shape, generator=torch.Generator().manual_seed(k)) for k in range(2))
    values = np.linalg.svd((other.double() - one.double()).numpy(), compute_uv=False)
    np.testing.assert_allclose(change_spectrum(one, other).numpy()[::-1], values, rtol=1e-9)
    assert change_spectrum(one, one).tolist() == [0.0] * min(shape)
    rank_one = change_spectrum(one, one + torch.outer(torch.ones(shape[0]), torch.ones(shape[1])))
    assert float(rank_one.sum() / rank_one.norm()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "MambaForCausalLM", "MixtralForCausalLM"])
def test_every_weight_of_other_families_has_one_place(name):
    model = tiny(name)
    places = places_of(model)
    assert set(places) == {parameter for parameter, _ in model.named_parameters()}
    assert "other" not in {part for part, _ in places.values()}
    expected = {"GPT2LMHeadModel": {"qkv", "o", "mlp_in", "mlp_out"}, "MambaForCausalLM": {"attention"}}
    assert expected.get(name, {"ov", "qk"}) <= {part for part, layer in places.values() if layer >= 0}
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    moved = movement(model, start.__getitem__)
    assert moved.change.tolist() == [0.0] * len(moved.part)
    with pytest.raises(WeightsError, match="must start as"):
        movement(model, lambda n: start[n][..., :1])
