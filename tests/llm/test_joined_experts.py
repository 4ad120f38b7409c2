"""Experts side by side in one parameter: a plain loop over them, Muon, names in files, resuming."""

import copy
import os
import signal

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from small_facts import SMALL
from ten_families import IDS, tiny

from ocr_interp.errors import ModelError
from ocr_interp.llm import FinetuneConfig, LLMRunConfig, finetune, load_update, save_update, wrap
from ocr_interp.llm.layers.joined import JoinedMatrices, apart, joined_in, together
from ocr_interp.llm.training import finetune as module
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.llm.training.master_weights import MasterWeights
from ocr_interp.llm.training.trainable import trained_parameters
from ocr_interp.llm.training.update import put_update, read_update
from ocr_interp.optim import optimizers
from ocr_interp.optim.muon import Float32Muon

PATH = "model/layers/0/self_attn/q_proj"


def drawn(model, seed=0):
    """The model with its update moved away from the start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


def alone(update):
    """Leaves of their own with the values of an update's experts and its router."""
    sides = {
        side: [matrix.detach().clone().requires_grad_() for matrix in getattr(update, side)] for side in "AB"
    }
    return sides["A"], sides["B"], update.router.weight.detach().clone().requires_grad_()


def looped(x, A, B, router, labels, options, training):
    """Σ_e α_e(x) B_e A_e x, expert by expert."""
    n = options["n_experts"]
    A, B = (each * n if len(each) == 1 else each for each in (A, B))
    if labels is None:
        seen = x
        if options["router"] == "sequence":
            seen = torch.stack([x[:, : t + 1].mean(1) for t in range(x.shape[1])], 1)
        weights = (seen @ router.T / options["temperature"]).softmax(-1)
        if not training and options["top_k"] < n:
            least = weights.topk(options["top_k"], -1).values[..., -1:]
            weights = torch.where(weights >= least, weights, 0)
            weights = weights / weights.sum(-1, keepdim=True)
    else:
        weights = torch.stack([(labels == e).to(x.dtype) for e in range(n)], -1)[:, None].expand(
            -1, x.shape[1], -1
        )
    return sum(weights[..., e, None] * (x @ A[e].T @ B[e].T) for e in range(n))


@pytest.mark.parametrize("separate", ["both", "read", "write"])
@pytest.mark.parametrize("router", ["token", "sequence"])
@pytest.mark.parametrize(
    ("labels", "training"), [(None, True), (None, False), ((2, 0), True), ((1, 1), False)]
)
def test_outputs_and_gradients_are_those_of_a_loop_over_experts(separate, router, labels, training):
    options = {"n_experts": 3, "separate": separate, "router": router, "top_k": 2, "temperature": 0.7}
    model = drawn(wrap(tiny("LlamaForCausalLM"), "lora_mixer", lora_rank=2, lora_alpha=3.0, **options))
    update, hard = model.lora_mixer.maps[PATH], None if labels is None else torch.tensor(labels)
    generator = torch.Generator().manual_seed(1)
    x, y, g = (torch.randn(2, 4, 24, generator=generator, dtype=torch.float64) for _ in range(3))
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    model.lora_mixer.route(hard, training=training)
    model.lora_mixer.begins(model, (), {"inputs_embeds": x})
    found = update.added(y, mine)
    A, B, weights = alone(update)
    expected = y + 1.5 * looped(theirs, A, B, weights, hard, options, training)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    found.backward(g)
    expected.backward(g)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-12)
    for side, leaves in (("A", A), ("B", B)):
        one = getattr(update, side)
        for k, leaf in enumerate(leaves):
            torch.testing.assert_close(one.pieces(one.weight.grad)[k], leaf.grad, rtol=0, atol=1e-12)
    if hard is None:
        torch.testing.assert_close(update.router.weight.grad, weights.grad, rtol=0, atol=1e-12)
        assert float(weights.grad.abs().max()) > 1e-3
    used = [float(leaves[0].grad.abs().max()) > 1e-3 for leaves in (A, B)]
    assert all(used) == (labels != (1, 1))


def test_the_routers_loss_and_a_whole_model_are_those_of_a_loop_over_experts():
    """Every map's hook replaced by the loop, the loss by its formula; gradients of all that is trained."""
    options = {"n_experts": 3, "router": "token", "top_k": 2, "temperature": 1.0}
    model = drawn(wrap(tiny("LlamaForCausalLM"), "lora_mixer", lora_rank=2, lora_alpha=2.0, **options))
    mixer, real = model.lora_mixer, torch.ones_like(IDS, dtype=torch.bool)
    plain, scores, leaves = tiny("LlamaForCausalLM"), [], {}
    for path, update in mixer.maps.items():
        A, B, router = leaves[path] = alone(update)

        def hook(_, args, output, A=A, B=B, router=router):
            scores.append((args[0] @ router.T).flatten(0, 1))
            return output + looped(args[0], A, B, router, None, options, True)

        plain.get_submodule(path.replace("/", ".")).register_forward_hook(hook)
    mixer.route(None, training=True)
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    (loss + mixer.loss(None, real, {"balance": 0.5, "entropy": -0.2, "label_loss": 0.0})).backward()
    other = plain(input_ids=IDS, labels=IDS, use_cache=False).loss
    torch.testing.assert_close(loss, other, rtol=0, atol=1e-12)
    p = [one.float().softmax(-1) for one in scores]
    kept = [torch.zeros_like(q).scatter(-1, q.topk(2, -1).indices, 1.0).mean(0) for q in p]
    balance = sum((q.mean(0) * f).sum() for q, f in zip(p, kept, strict=True)) / len(p)
    entropy = -sum((q * q.log()).sum(-1).mean() for q in p) / len(p)
    (other + 0.5 * balance + 0.2 * entropy).backward()
    for path, update in mixer.maps.items():
        A, B, router = leaves[path]
        torch.testing.assert_close(update.A.weight.grad, torch.cat([a.grad for a in A]), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(
            update.B.weight.grad, torch.cat([b.grad for b in B], 1), rtol=1e-5, atol=1e-7
        )
        torch.testing.assert_close(update.router.weight.grad, router.grad, rtol=1e-5, atol=1e-7)


def test_matrices_have_a_name_each_in_files_and_come_back(tmp_path):
    model = drawn(wrap(tiny("LlamaForCausalLM"), "lora_mixer", lora_rank=2, n_experts=3, separate="read"))
    save_update(model, tmp_path)
    update = model.lora_mixer.maps[PATH]
    stem = f"lora_mixer.maps.{PATH}"
    with safe_open(tmp_path / "adapter.safetensors", "pt") as file:
        names = {name for name in file.keys() if name.startswith(stem)}  # noqa: SIM118
        assert names == {f"{stem}.A.0", f"{stem}.A.1", f"{stem}.A.2", f"{stem}.B.0", f"{stem}.router.weight"}
        assert torch.equal(file.get_tensor(f"{stem}.A.1"), update.A[1])
    again = load_update(tiny("LlamaForCausalLM"), tmp_path)
    for (name, mine), theirs in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.lora_mixer.maps[PATH].A[1].zero_()
    assert not twin.lora_mixer.maps[PATH].A.weight[2:4].any()
    assert update.A[1].all()


def recipe(**values):
    given = {"model": "tiny", "method": "lora_mixer", "lr": 1e-2, "steps": 8, "log_every": 4, "batch_size": 6}
    return LLMRunConfig(SMALL, FinetuneConfig(**{**given, "device": "cpu", **values}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "dtype"), [("adamw", "float32"), ("muon", "float32"), ("muon", "bfloat16")]
)
def test_a_stopped_run_goes_on_to_the_bit(optimizer, dtype, make_model, tmp_path, monkeypatch):
    config = recipe(optimizer=optimizer, dtype=dtype, method_options={"n_experts": 2})
    whole = finetune(config, lm=make_model())
    update = module.Finetuning._update

    def and_stop(self):
        if self.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(module.Finetuning, "_update", and_stop)
        first = finetune(config, tmp_path / "run", lm=make_model())
    assert (first.status, first.step) == ("interrupted", 6)
    with safe_open(RunFolder(tmp_path / "run").checkpoint_file, "pt") as file:
        names = [name for name in file.keys() if f"{PATH}.B.1" in name]  # noqa: SIM118
    assert f"parameter|lora_mixer.maps.{PATH}.B.1" in names
    assert len(names) == {"adamw": 4, "muon": 2}[optimizer]
    second = finetune(config, tmp_path / "run", lm=make_model())
    pd.testing.assert_frame_equal(whole.history, second.history, check_exact=True)
    theirs = dict(second.lm.model.named_parameters())
    for name, parameter in whole.lm.model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name


def test_muon_steps_on_each_matrix_as_if_it_were_alone():
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(4, 6, generator=generator) for _ in range(3)]
    options = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9, "nesterov": True, "ns_steps": 5, "eps": 1e-7}
    options["adjust_lr_fn"] = "original"
    for axis in (0, 1):
        one = JoinedMatrices(values, axis)
        holder = torch.nn.ModuleDict({"A": one})
        joined = joined_in(holder)
        masters = MasterWeights(dict(holder.named_parameters()), joined, alone=True)
        assert (list(masters.trained), masters.joined) == (["A.0", "A.1", "A.2"], {})
        mine = Float32Muon(masters.trained.values(), **options)
        leaves = [value.clone().requires_grad_() for value in values]
        theirs = Float32Muon(leaves, **options)
        for _ in range(3):
            grads = [torch.randn(4, 6, generator=generator) for _ in range(3)]
            one.weight.grad = torch.cat(grads, axis)
            for leaf, grad in zip(leaves, grads, strict=True):
                leaf.grad = grad
            masters.take_gradients()
            for optimizer in (mine, theirs):
                optimizer.step()
                optimizer.zero_grad()
            masters.write_back()
        assert one.weight.grad is None
        assert all(torch.equal(a, b) for a, b in zip(one, leaves, strict=True))
        assert (leaves[0] - values[0]).abs().max() > 0.1


def test_only_optimisers_that_look_at_one_entry_at_a_time_step_on_joined_matrices():
    assert {name for name in optimizers.names if optimizers[name].elementwise} == {"adamw", "sgd", "signsgd"}


def test_pieces_that_do_not_fit_stay_apart_and_are_refused(tmp_path):
    module = JoinedMatrices([torch.full((2, 3), float(k)) for k in range(2)], 1)
    joined = {"m.weight": module}
    saved = {
        "parameter|m.weight": module.weight,
        "optimizer|m.weight|step": torch.tensor(4.0),
        "other": torch.ones(1),
    }
    pieces = apart(saved, joined)
    assert [list(p.shape) for p in pieces.values()] == [[2, 3], [2, 3], [], [], [1]]
    back = together(pieces, joined)
    assert back.keys() == saved.keys()
    assert all(torch.equal(back[name], saved[name]) for name in saved)
    fewer = {name: tensor for name, tensor in pieces.items() if name != "parameter|m.1"}
    assert "parameter|m.0" in together(fewer, joined)
    assert "parameter|m.1" in together({**pieces, "parameter|m.1": torch.ones(2, 4)}, joined)
    other = {"parameter|m.0": torch.ones(2, 4), "parameter|m.1": torch.zeros(2, 4)}
    assert together(other, joined) == other, "matrices of another width are no counts of steps"
    with pytest.raises(ModelError, match="must have done the same number of steps"):
        together({**pieces, "optimizer|m.1|step": torch.tensor(5.0)}, joined)
    three = wrap(tiny("LlamaForCausalLM"), "lora_mixer", lora_rank=2, n_experts=3)
    save_update(three, tmp_path)
    recipe, tensors, _ = read_update(tmp_path)
    two = wrap(tiny("LlamaForCausalLM"), "lora_mixer", lora_rank=2, n_experts=2)
    with pytest.raises(
        ModelError,
        match=r"saved update is of another model than this one: .*A.2 is \(2, 24\) there and nothing here",
    ):
        put_update(two, recipe, tensors)
