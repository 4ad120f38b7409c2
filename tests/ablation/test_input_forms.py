"""Ids as lists, arrays and tensors; batches that leave one prompt alone; models without attention caches."""

import hooked_models
import numpy as np
import pytest
import torch

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.patch import Patch
from ocr_interp.ablation.edits.resample import Resample
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.examples import Examples
from ocr_interp.ablation.study import run_ablation_study
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site
from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ConfigError, ModelError

ROWS = [[3, 4, 5, 9], [6, 4, 7, 8], [10, 5, 4, 8], [3, 3, 11, 9], [7, 4, 5, 2]]
FORMS = {
    "list": lambda x: x,
    "array": np.array,
    "int32": lambda x: np.array(x, dtype=np.int32),
    "tensor": torch.tensor,
    "list of tensors": lambda x: [torch.tensor(each) for each in x],
}


@pytest.fixture(scope="module")
def hooked():
    return hooked_models.hooked_transformer("LN", n_layers=2)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_ids_in_every_form_give_the_same(form, hooked):
    to = FORMS[form]
    wanted = attribute_model(hooked, ROWS[0], 7, 8, layer=1, head=2)
    found = attribute_model(hooked, to(ROWS[0]), to([7, 8])[0], to([7, 8])[1], layer=1, head=2)
    assert found.total == wanted.total
    circuits = [
        OVCircuit.from_model(hooked, layer=0, head=1, inputs=make([2, 3]), outputs=make([7, 8]))
        for make in (list, to)
    ]
    np.testing.assert_array_equal(circuits[0].W, circuits[1].W)
    lists = Examples(ROWS, [12, 13, 14, 12, 13], candidates=[12, 13, 14], query=[3, 3, 3, 2, 3])
    given = Examples(
        to(ROWS), to([12, 13, 14, 12, 13]), candidates=to([12, 13, 14]), query=to([3, 3, 3, 2, 3])
    )
    assert given.fingerprint == lists.fingerprint
    specs = [
        {
            "mean": Mean(make(ROWS)).at(Site.at("z", layer=1, heads=make([0, 2]))),
            "donor": Patch(donor=make(ROWS[0])).at(Path(make([4, 3]), layer=1, head=2)),
            "word": Zero().at(Site.at("v", layer=0, tokens=make([4, 5]), positions=make([1, -2]))),
        }
        for make in (lambda x: x, to)
    ]
    tables = [run_ablation_study(hooked, s, examples=lists, controls=False).table for s in specs]
    assert tables[0].drop(columns="study").equals(tables[1].drop(columns="study"))


def test_an_example_as_a_user_writes_it(hooked):
    table = run_ablation_study(
        hooked, {"z": Zero().at(Site.at("z", layer=0))}, examples=Examples([[3, 4]], [7]), controls=False
    ).table
    logits = hooked(torch.tensor([[3, 4]]))[0, -1].double()
    assert table["loss"][0] == pytest.approx(float(torch.logsumexp(logits, 0) - logits[7]))


def test_other_things_than_ids_say_what_to_pass():
    with pytest.raises(ConfigError, match="rows of equal length"):
        Examples([[3, 4], [5]], [7, 8])
    with pytest.raises(ConfigError, match="token ids"):
        Examples([[0.5, 4]], [7])
    with pytest.raises(ModelError, match="ids"):
        Mean([0.5, 1.0])
    with pytest.raises(ModelError, match="one prompt, or a list of prompts"):
        Mean([["one"], "two"])
    with pytest.raises(ModelError, match=r"pass \['r1'\]"):
        Site.at("v", layer=0, tokens="r1")
    with pytest.raises(ModelError, match=r"pass \['r1'\]"):
        Path("r1", layer=0, head=0)


def test_a_batch_that_leaves_one_prompt_alone_is_refused_before_anything_is_run(hooked, tmp_path):
    examples = Examples(ROWS, [12, 13, 14, 12, 13])
    ran = []
    handle = hooked.register_forward_pre_hook(lambda *_: ran.append(1))
    everywhere = {"zero": Zero().at(Site.at("z", layer=0)), "r": Resample().at(Site.at("z", layer=0))}
    path = {"r": Resample().at(Path((3,), layer=1, head=2))}  # prompts 0 and 3 hold the token
    try:
        for specs, size in ((everywhere, 2), (everywhere, 1), (everywhere, 4), (path, 3)):
            with pytest.raises(ModelError, match="batch_size"):
                run_ablation_study(
                    hooked, specs, examples=examples, batch_size=size, path=tmp_path / "table.csv"
                )
        assert not ran
        assert not (tmp_path / "table.csv").exists()
    finally:
        handle.remove()
    assert len(run_ablation_study(hooked, everywhere, examples=examples, batch_size=3, controls=False).table)
    assert len(run_ablation_study(hooked, path, examples=examples, batch_size=4, controls=False).table)


@pytest.mark.parametrize("kind", ["Mamba", "FalconMamba", "Mamba2", "GPTNeoX"])
def test_state_space_models_are_ablated(kind):
    fields = dict(hooked_models.MAMBA_FIELDS)
    if kind == "Mamba2":
        fields |= {"num_heads": 12, "head_dim": 4, "n_groups": 1, "chunk_size": 4}
    inner = (
        hooked_models.hugging_face_model(kind) if kind == "GPTNeoX" else hooked_models.family(kind, **fields)
    )
    bridge = hooked_models.bridge(inner)
    tokens = torch.tensor([ROWS[0]])
    layers = bridge.original_model.gpt_neox.layers if kind == "GPTNeoX" else inner.backbone.layers
    layers = inner.gpt_neox.layers if kind == "GPTNeoX" else layers
    handle = layers[1].register_forward_pre_hook(lambda module, args: (args[0] * 0, *args[1:]))
    with torch.no_grad():
        wanted = inner(tokens).logits
        handle.remove()
        with ablated(bridge, Zero().at(Site("blocks.1.hook_resid_pre"))):
            found = bridge(tokens)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)  # bridges keep norms in float32
    specs = {"resid": Zero().at(Site("blocks.1.hook_resid_pre"))}
    examples = Examples(ROWS, [12, 13, 14, 12, 13])
    assert run_ablation_study(bridge, specs, examples=examples).table["loss"].notna().all()
