"""One-layer models, sweeps, flows, circuits and interventions on a GPU against the same on the CPU."""

import copy
import os
import signal
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import on_a_gpu
import pandas as pd
import pytest
import torch
from on_a_gpu import DEVICE, ON_GPU, assert_close, more, waits

from ocr_interp import (
    FactRecallTask,
    ModelConfig,
    OVCircuit,
    TrainConfig,
    attribute,
    build_model,
    sweep,
    train,
)
from ocr_interp.ablation import (
    Edges,
    Examples,
    Mean,
    Patch,
    Path,
    Resample,
    Site,
    Subspace,
    Zero,
    ablated,
    run_ablation_study,
    task_examples,
)
from ocr_interp.circuits import Positions, QKCircuit, composition, direct_attribution
from ocr_interp.comparison import compare_models
from ocr_interp.discovery import Contrast, attribute_edges, evaluate_circuit, find_circuit, patch_every_edge
from ocr_interp.graphs import head_graph
from ocr_interp.maps import maps
from ocr_interp.mitigation import mitigate, mitigations
from ocr_interp.optim import optimizers
from ocr_interp.training.long_descent import long_descent

pytestmark = on_a_gpu.MARKS

TASK = FactRecallTask(3, 1, 2, n_noise=2, seq_len=5)
RECIPE = TrainConfig(steps=12, log_every=4, lr=0.02, data="noise_free", snapshots=2, checkpoint_every=4)
KINDS: dict[str, dict[str, Any]] = {
    name: {"ov": name, "ov_options": dict(maps[name].example)} for name in maps
}
for _by in ("relation", "subject", "token", "sequence"):
    KINDS[f"routed by {_by}"] = {"ov": "routed", "ov_options": {"by": _by}}
KINDS["softmax"] = {"attention": "softmax"}
KINDS["frozen"] = {"train_attention": False}
ROUTER: dict[str, Any] = {"by": "sequence", "soft_from_step": 5, "balance": 0.1, "anchor": 0.1}
KINDS["routed in two stages"] = {"ov": "routed", "ov_options": ROUTER}
FLOAT32_MUON: dict[str, Any] = {"optimizer": "muon", "muon_precision": "float32"}
each_kind = pytest.mark.parametrize("kind", list(KINDS))
each_optimizer = pytest.mark.parametrize("optimizer", list(optimizers))


def model_of(kind="factorized", **fields: Any):
    return ModelConfig(**{"dtype": "float64", **KINDS[kind], **fields})


def trained(model, run_dir=None, on_log=None, device=DEVICE, **changes):
    recipe = replace(RECIPE, device=device, **changes)
    return train(TASK, model, recipe, run_dir, progress=False, on_log=on_log)


def assert_same_run(ours, theirs):
    assert_close(ours.history, theirs.history)
    assert_close(dict(ours.weights.tensors()), dict(theirs.weights.tensors()))


def assert_same_bits(ours, theirs):
    pd.testing.assert_frame_equal(ours.history, theirs.history, check_exact=True)
    for name, tensor in theirs.weights.tensors().items():
        assert torch.equal(ours.weights.tensors()[name], tensor), name


# --- training -------------------------------------------------------------------------------------


def test_the_counter_sees_a_wait():
    ones = torch.ones(3, device=DEVICE)
    with waits() as found:
        float(ones.sum())
    assert sum(found.values()) == int(ON_GPU)


@each_kind
def test_training_gives_the_numbers_of_the_cpu(kind):
    ours = trained(model_of(kind))
    assert_same_run(ours, trained(model_of(kind), device="cpu"))
    assert {tensor.device.type for tensor in ours.weights.tensors().values()} == {"cpu"}
    assert {tensor.device.type for tensor in ours.at(0).weights.tensors().values()} == {"cpu"}
    start = ours.at(0).weights.tensors()
    assert any(not torch.equal(tensor, start[name]) for name, tensor in ours.weights.tensors().items())


@each_optimizer
@pytest.mark.parametrize("kind", ["factorized", "non_factorized"])
def test_every_optimizer_gives_the_numbers_of_the_cpu(kind, optimizer):
    """Muon orthogonalises in float32 even in a float64 model, and multiplies small directions up."""
    fields = dict(FLOAT32_MUON) if optimizer == "muon" else {"optimizer": optimizer}
    fields |= {"momentum": 0.5} if "momentum" in optimizers[optimizer].options else {}
    runs = [trained(model_of(kind), device=where, **fields) for where in (DEVICE, "cpu")]
    if optimizer != "muon":
        assert_same_run(*runs)
        return
    for split in ("training_fact", "training_implication"):
        assert_close(*(run.history[f"{split}/loss"].to_numpy() for run in runs), rtol=1e-3, atol=1e-4)
    assert_close(*(dict(run.weights.tensors()) for run in runs), rtol=1e-3, atol=2e-4)


def test_muon_in_bfloat16_and_a_switch_of_optimizers():
    fields: dict[str, Any] = {
        "optimizer": "muon",
        "second_optimizer": "adamw",
        "second_lr": 0.01,
        "switch_step": 6,
    }
    ours, theirs = (trained(model_of(), device=where, **fields) for where in (DEVICE, "cpu"))
    moved = theirs.weights.W_OV - theirs.at(0).weights.W_OV
    assert float((ours.weights.W_OV - theirs.weights.W_OV).norm() / moved.norm()) < 0.05


def test_exhaustive_data_in_float32():
    fields: dict[str, Any] = {"data": "exhaustive", "lr": 1e-3}
    runs = [trained(model_of(dtype="float32"), device=where, **fields) for where in (DEVICE, "cpu")]
    assert_close(*(dict(run.weights.tensors()) for run in runs), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("data", ["noisy", "noise_free", "exhaustive"])
@each_kind
def test_steps_of_training_wait_for_nothing(kind, data):
    if data == "exhaustive" and kind not in ("factorized", "softmax"):
        pytest.skip("the data do not depend on the model")
    fields: dict[str, Any] = {"data": data, "batch_size": 12, "snapshots": 0}

    def counted(steps):
        with waits() as found:
            trained(model_of(kind), steps=steps, log_every=steps, checkpoint_every=steps, **fields)
        return found

    counted(20)  # what happens once, such as starting a library
    few, many = counted(20), counted(80)
    assert not more(many, few)


@each_optimizer
def test_steps_of_every_optimizer_wait_for_nothing(optimizer):
    def counted(steps):
        with waits() as found:
            trained(model_of(), steps=steps, log_every=steps, optimizer=optimizer, snapshots=0)
        return found

    counted(20)
    few, many = counted(20), counted(80)
    assert not more(many, few)


@pytest.mark.parametrize("kind", ["factorized", "kronecker", "routed in two stages", "softmax"])
@pytest.mark.parametrize("fields", [{"data": "noisy", "batch_size": 12}, FLOAT32_MUON, {"optimizer": "sgd"}])
def test_an_interrupted_run_goes_on_to_the_bit(kind, fields, tmp_path):
    model = model_of(kind, dtype="float32")
    whole = trained(model, **fields)

    def stop(row):
        if row["step"] == 8:
            os.kill(os.getpid(), signal.SIGINT)

    first = trained(model, tmp_path / "run", stop, **fields)
    assert (first.status, first.step) == ("interrupted", 8)
    again = trained(model, tmp_path / "run", **fields)
    assert again.status == "finished"
    assert_same_bits(again, whole)


@pytest.mark.skipif(not ON_GPU, reason="there is one device")
def test_a_run_of_another_device_is_refused(tmp_path):
    from ocr_interp.errors import RunError

    def stop(row):
        if row["step"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    trained(model_of(), tmp_path / "run", stop)
    with pytest.raises(RunError, match=r"train\.device: 'cpu' != 'cuda'"):
        trained(model_of(), tmp_path / "run", device="cpu")


# --- sweeps ---------------------------------------------------------------------------------------

AXES: dict[str, Any] = {"seed": [0, 1, 2], "lr": [0.01, 0.02]}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_sweep_gives_its_runs_up_to_rounding(kind):
    """Beside runs alone on the GPU, and on the CPU."""
    recipe = replace(RECIPE, device=DEVICE, snapshots=0)
    swept = sweep(AXES, task=TASK, model=model_of(kind), train=recipe, keep_weights=True, progress=False)
    assert set(swept.runs["status"]) == {"finished"}
    for index in (0, 3, 5):
        point = swept.runs.iloc[index]
        alone = trained(model_of(kind), snapshots=0, seed=int(point["seed"]), lr=float(point["lr"]))
        rows = swept.table[swept.table["run"] == point["run"]].reset_index(drop=True)
        assert_close(rows[list(alone.history.columns)], alone.history)


def test_a_sweep_of_noisy_data_gives_its_runs_up_to_rounding():
    recipe = replace(RECIPE, device=DEVICE, snapshots=0, data="noisy", batch_size=12)
    swept = sweep(AXES, task=TASK, model=model_of(), train=recipe, progress=False)
    for _, point in swept.runs.iterrows():
        alone = train(
            TASK, model_of(), replace(recipe, seed=int(point["seed"]), lr=float(point["lr"])), progress=False
        )
        rows = swept.table[swept.table["run"] == point["run"]].reset_index(drop=True)
        assert_close(rows[list(alone.history.columns)], alone.history)


@pytest.mark.parametrize("data", ["noisy", "noise_free"])
def test_steps_of_a_sweep_wait_for_nothing(data):
    def counted(steps):
        recipe = replace(RECIPE, device=DEVICE, steps=steps, log_every=steps, snapshots=0, data=data)
        with waits() as found:
            sweep(AXES, task=TASK, model=model_of(), train=replace(recipe, batch_size=12), progress=False)
        return found

    counted(20)
    few, many = counted(20), counted(80)
    assert not more(many, few)


# --- float64 flows --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"lr": 0.5}, {"scores": 1.0}])
@pytest.mark.parametrize("ov", ["factorized", "kronecker"])
def test_long_descent_gives_the_numbers_of_the_cpu(ov, options, tmp_path):
    given: dict[str, Any] = {"log10_time": 1.5, "log_every": 20, **options}
    theirs = long_descent(TASK, ov, **given)
    ours = long_descent(TASK, ov, device=DEVICE, file=tmp_path / "descent", **given)
    assert_close(ours.history, theirs.history, rtol=1e-6, atol=1e-8)
    assert_close(ours.W, theirs.W, rtol=1e-6, atol=1e-8)
    assert {value.device.type for value in ours.parameters.values()} == {"cpu"}
    further = long_descent(TASK, ov, device=DEVICE, file=tmp_path / "descent", **{**given, "log10_time": 2.0})
    whole = long_descent(TASK, ov, device=DEVICE, **{**given, "log10_time": 2.0})
    pd.testing.assert_frame_equal(further.history, whole.history, check_exact=True)
    assert len(further.history) > len(ours.history)


def test_steps_of_long_descent_wait_for_nothing():
    def counted(steps):
        with waits() as found:
            descent = long_descent(TASK, log10_time=-59.5, log_every=steps, device=DEVICE, lr=1e-60)
        return found, descent.history["step"].iloc[-1]

    counted(20)
    (few, n_few), (many, n_many) = counted(20), counted(80)
    assert (n_few, n_many) == (20, 80)
    assert not more(many, few)


@pytest.mark.parametrize("method", list(mitigations))
def test_mitigations_give_the_numbers_of_the_cpu(method):
    """The optimiser is AdamW here: Muon rounds to bfloat16, on every device otherwise."""
    method = mitigations[method](**({"optimizer": "adamw"} if method == "optimizer" else {}))
    task = FactRecallTask(3, 1, 2, n_noise=0, seq_len=3, implied_relations=2)
    theirs = mitigate(task, "r3", method, entries=0.3, margin=2.0)
    ours = mitigate(task, "r3", method, entries=0.3, margin=2.0, device=DEVICE)
    assert ours.steps == theirs.steps
    assert_close(ours.W, theirs.W, rtol=1e-6, atol=1e-8)
    assert_close(asdict(ours.measured), asdict(theirs.measured), rtol=1e-6, atol=1e-8)
    assert ours.after is not None
    assert theirs.after is not None
    assert_close(asdict(ours.after), asdict(theirs.after), rtol=1e-5, atol=1e-7)


# --- the hooked model of a run --------------------------------------------------------------------


@pytest.fixture(scope="module")
def run():
    return trained(model_of(), device="cpu", steps=40, log_every=40)


@pytest.fixture(scope="module")
def hooked(run):
    return build_model(TASK, run.config.model, device=DEVICE, weights=run.weights)


def test_the_hooked_model_answers_as_on_the_cpu(run, hooked):
    tokens = task_examples(TASK, False, 0, 1).tokens
    assert hooked.W_V.device.type == DEVICE
    assert_close(hooked(tokens.to(DEVICE)).detach(), run.model(tokens).detach())


def test_circuit_and_attribution_of_a_runs_model(run, hooked):
    tokens = TASK.tokens("s1", "r2", "EOS")
    sets: dict[str, Any] = {
        "inputs": [*TASK.labels[: TASK.n_inputs]],
        "outputs": [*TASK.labels[TASK.n_inputs :]],
    }
    ours, theirs = (OVCircuit.from_model(m, layer=0, head=0, **sets) for m in (hooked, run.model))
    assert_close(ours.W, theirs.W)
    assert_close(ours.spectrum().values, theirs.spectrum().values)
    pair = ("c0", "c1")
    mine, yours = (attribute(model, [*map(int, tokens)], *pair) for model in (hooked, run.model))
    assert_close(mine.contributions, yours.contributions)
    assert_close(mine.total, yours.total)


def test_a_study_of_a_runs_model(run, hooked):
    specs = {
        "relation": Zero().at(Site.at("pattern", layer=0, tokens=["r2"])),
        "path": Zero().at(Path(("s0",), layer=0, head=0)),
        "resampled": Resample(seed=1).at(Site.at("v", layer=0, tokens=["s1", "s2"])),
    }
    examples = task_examples(TASK, False, 0, 4)
    ours, theirs = (
        run_ablation_study(model, specs, examples=examples).table for model in (hooked, run.model)
    )
    assert_close(ours.drop(columns="study"), theirs.drop(columns="study"))


# --- any model ------------------------------------------------------------------------------------

PROMPTS = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2], [6, 6, 2, 6, 0]])
DONORS = torch.tensor([[3, 9, 4, 1, 5], [2, 9, 1, 8, 2], [6, 9, 2, 6, 0]])
SETS: dict[str, Any] = {
    "inputs": {"names": range(3, 9), "verbs": [9, 10]},
    "outputs": {"a": range(12, 16), "b": [20, 21]},
}


@pytest.fixture(scope="module", params=["LN", "RMS", None])
def pair(request):
    """A small transformer with MLPs, on the device and on the CPU."""
    import hooked_models

    model = hooked_models.hooked_transformer(request.param, n_layers=2, attn_only=False)
    moved = copy.deepcopy(model).to(DEVICE)
    assert moved.W_E.device.type == DEVICE
    return moved, model


@pytest.fixture(scope="module")
def bridges():
    """A tiny Llama with rotary positions and grouped heads, bridged on the device and on the CPU."""
    import hooked_models
    from transformer_lens.model_bridge import TransformerBridge

    llama = hooked_models.hugging_face_model()

    def bridged(where):
        return TransformerBridge.boot_transformers(
            "tiny",
            hf_model=copy.deepcopy(llama).to(where),  # the bridge leaves a given model where it is
            tokenizer=hooked_models.tokenizer(),
            device=where,
            dtype=torch.float64,
        )

    return bridged(DEVICE), bridged("cpu")


def both(pair, call):
    return [call(model) for model in pair]


def test_circuits_of_any_model(pair):
    ours, theirs = both(pair, lambda model: OVCircuit.from_model(model, layer=1, head=2, **SETS))
    assert_close(ours.W, theirs.W)
    assert_close(ours.bias, theirs.bias)
    assert_close(ours.spectrum().values, theirs.spectrum().values)
    assert ours.provenance.fingerprint == theirs.provenance.fingerprint
    at: dict[str, Any] = {"queries": range(3, 9), "keys": [9, 10, 11]}
    assert_close(*(qk.W for qk in both(pair, lambda m: QKCircuit.from_model(m, layer=0, head=1, **at))))
    places: dict[str, Any] = {"queries": Positions(range(4)), "keys": Positions(range(4))}
    assert_close(*(qk.W for qk in both(pair, lambda m: QKCircuit.from_model(m, layer=0, head=1, **places))))


def test_composition_and_attribution_of_any_model(pair):
    ours, theirs = both(pair, composition)
    assert_close(ours.scores, theirs.scores)
    assert_close(ours.deviations, theirs.deviations, rtol=1e-6, atol=1e-8)
    asked: dict[str, Any] = {"by_position": True, "blocks": [(1, 2)], "neurons": [0]}
    whole = both(pair, lambda m: direct_attribution(m, PROMPTS, [12, 13, 14], [[20], [21], [20]], **asked))
    for name in ("contributions", "totals", "heads_by_position"):
        assert_close(*(getattr(each, name) for each in whole))
    assert_close(*(each.blocks[0].table() for each in whole), rtol=1e-6, atol=1e-8)
    assert_close(*(each.neurons[0].table() for each in whole))
    found = both(pair, lambda m: attribute(m, [3, 5, 9], 12, 20, layer=1, head=2))
    assert_close(*(each.contributions for each in found))
    assert_close(*(each.total for each in found))


def test_head_graphs_and_comparisons_of_any_model(pair):
    graphs = both(pair, lambda m: head_graph(m, [3, 5, 9], 12, 20, layer=1, head=2))
    assert [node.name for node in graphs[0].nodes] == [node.name for node in graphs[1].nodes]
    assert_close(*([edge.contribution for edge in graph.edges] for graph in graphs))

    def compared(model):
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.blocks[1].attn.W_O[2] *= 1.5
        return compare_models(model, other, **SETS)

    changes = both(pair, compared)
    assert changes[0].circuits.keys() == changes[1].circuits.keys()
    assert_close(*([unit.tokens for unit in each.units] for each in changes))


def specs():
    reference = DONORS
    return {
        "head": Zero().at(Site.at("z", layer=0, heads=[1])),
        "word": Zero().at(Site.at("v", layer=1, tokens=[1])),
        "mean": Mean(reference).at(Site.at("z", layer=0)),
        "patch": Patch(donor=DONORS).at(Site.at("resid_pre", layer=1, positions=[1])),
        "resampled": Resample().at(Site.at("resid_pre", layer=1, positions=[0])),
        "path": Zero().at(Path((1, 3), layer=1, head=2)),
        "subspace": Subspace(torch.eye(12, 2, dtype=torch.float64)).at(Site.at("resid_post", layer=0)),
    }


def test_interventions_and_studies_of_any_model(pair):
    for name, intervention in specs().items():
        answers = []
        for model in pair:
            tokens = PROMPTS.to(model.W_E.device)
            plain = model(tokens)
            with ablated(model, intervention):
                answers.append(model(tokens))
            assert not torch.equal(plain, answers[-1]), name
        assert_close(*answers)
    examples = Examples(PROMPTS, torch.tensor([12, 13, 14]), ("seen", "new", "new"))
    tables = both(
        pair, lambda model: run_ablation_study(model, specs(), examples=examples, seeds=range(2)).table
    )
    assert_close(*(table.drop(columns="study") for table in tables))


def test_edges_as_interventions(pair):
    answers = []
    for model in pair:
        with ablated(model, Patch(donor=DONORS).at(Edges(["a0.h1->a1.h2<k>", "m0->logits"]))):
            answers.append(model(PROMPTS.to(model.W_E.device)))
    assert_close(*answers)
    assert not torch.equal(answers[1], pair[1](PROMPTS))


@pytest.mark.parametrize("ablation", ["donor", "zero", "mean"])
def test_discovery_in_any_model(pair, ablation):
    def contrast(model):
        return Contrast.of(model, PROMPTS, DONORS, 12, 20)

    scores = both(pair, lambda model: attribute_edges(model, contrast(model), ablation=ablation))
    assert_close(*(each.scores for each in scores))
    exact = both(pair, lambda model: patch_every_edge(model, contrast(model), ablation=ablation))
    assert_close(*(each.scores for each in exact))
    for of, size in (("edges", 15), ("nodes", 4)):

        def found(model, of=of, size=size):
            return find_circuit(model, contrast(model), size=size, of=of, ablation=ablation)

        circuits = both(pair, found)
        np.testing.assert_array_equal(circuits[0].mask, circuits[1].mask)
        assert circuits[0].mask.any()

        def evaluated(model, circuit=circuits[1]):
            return evaluate_circuit(model, circuit, contrast(model), ablation=ablation, random_circuits=3)

        ours, theirs = both(pair, evaluated)
        assert_close(asdict(ours), asdict(theirs), rtol=1e-7, atol=1e-9)


def test_a_bridge_is_read_as_on_the_cpu(bridges):
    """Bridges compute norms in single precision whatever the dtype of the model."""
    assert bridges[0].W_E.device.type == DEVICE
    ours, theirs = both(bridges, lambda m: OVCircuit.from_model(m, layer=1, head=2, **SETS))
    assert_close(ours.W, theirs.W, rtol=1e-5, atol=1e-6)
    at: dict[str, Any] = {"queries": range(3, 9), "keys": [9, 10, 11], "distance": 2}
    scores = both(bridges, lambda m: QKCircuit.from_model(m, layer=0, head=1, **at))
    assert_close(*(each.W for each in scores), rtol=1e-5, atol=1e-6)
    whole = both(bridges, lambda m: direct_attribution(m, PROMPTS, [12, 13, 14], by_position=True))
    assert_close(*(each.contributions for each in whole), rtol=1e-4, atol=1e-5)
    found = both(bridges, lambda m: attribute(m, [3, 5, 9], 12, 20, layer=1, head=2))
    assert_close(*(each.contributions for each in found), rtol=1e-4, atol=1e-5)
    edges = both(bridges, lambda m: attribute_edges(m, Contrast.of(m, PROMPTS, DONORS, 12, 20)))
    assert_close(*(each.scores for each in edges), rtol=1e-4, atol=1e-5)
    specs = {
        "head": Zero().at(Site.at("z", layer=0, heads=[1])),
        "path": Zero().at(Path((1, 3), layer=1, head=2)),
        "mean": Mean(DONORS).at(Site.at("resid_pre", layer=1)),
    }
    mask = torch.ones_like(PROMPTS)
    mask[0, -1] = mask[2, -2:] = 0
    examples = Examples(PROMPTS, torch.tensor([12, 13, 14]), attention_mask=mask)
    studies = both(bridges, lambda m: run_ablation_study(m, specs, examples=examples, seeds=range(2)).table)
    assert_close(*(table.drop(columns="study") for table in studies), rtol=1e-4, atol=1e-5)
