"""A run as the weights of its HookedTransformer, from Python and from the command line."""

import warnings

import pytest
import torch
from run_files import MODELS, TASK, train_into
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.errors import RunError
from ocr_interp.models.hooked39 import build_model


@pytest.fixture(scope="module", params=["factorized", "non_factorized", "softmax"])
def run(request, tmp_path_factory):
    return train_into(tmp_path_factory.mktemp("runs") / request.param, model=MODELS[request.param])


@pytest.mark.slow
def test_an_export_is_the_state_dict_of_the_model(run, command, tmp_path):
    target = tmp_path / "made" / "model.safetensors"
    code, out, err = command("export", str(run.path), str(target))
    assert (code, err) == (0, "")
    assert str(target) in out
    other = build_model(TASK, run.config.model, seed=9, device="cpu")
    other.load_state_dict(load_file(target))
    words = (("s0", "noise0", "noise1", "r1", "EOS"), ("s2", "s2", "s2", "s2", "EOS"))
    tokens = torch.tensor([TASK.tokens(*each).tolist() for each in words])
    assert torch.equal(other(tokens), run.model(tokens))
    run.at(5).export(target)
    assert not torch.equal(load_file(target)["blocks.0.attn.W_V"], other.state_dict()["blocks.0.attn.W_V"])
    code, _, err = command("export", str(run.path), str(target), "--step", "5")
    assert code == 0
    other.load_state_dict(load_file(target))
    assert torch.equal(other(tokens), run.at(5).model(tokens))


@pytest.mark.slow
def test_bad_exports_are_one_line(run, command, tmp_path):
    for words, message in (
        ((str(run.path), "model.pt"), "model.pt must end in .safetensors"),
        ((str(tmp_path), "model.safetensors"), "is no run directory"),
        ((str(run.path), "model.safetensors", "--step", "7"), "has no snapshot at step 7"),
    ):
        code, out, err = command("export", *words)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
    with pytest.raises(RunError, match="cannot write"):
        run.export(tmp_path / "missing" / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_plain_hooked_transformer_takes_softmax_attention_and_refuses_linear_attention(tmp_path):
    for attention in ("softmax", "linear"):
        run = train_into(None, model=ModelConfig(attention=attention))
        config = HookedTransformerConfig.from_dict(run.model.cfg.to_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            plain = HookedTransformer(config)
        state = load_file(run.export(tmp_path / f"{attention}.safetensors"))
        if attention == "linear":
            with pytest.raises(RuntimeError, match=r"Unexpected key.*blocks\.0\.attn\.linear"):
                plain.load_state_dict(state)
            continue
        plain.load_state_dict(state)
        tokens = torch.as_tensor(TASK.tokens("noise0", "s1", "r2", "EOS"))[None]
        torch.testing.assert_close(plain(tokens), run.model(tokens))
