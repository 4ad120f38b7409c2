"""ocr_interp.ablation as a user sees it: names, successors, and no default layer."""

import inspect
import subprocess
import sys

import pytest

from ocr_interp import ablation
from ocr_interp.errors import ConfigError


def test_every_name_is_there_and_the_others_are_refused():
    assert {"ablated", "edits", "Examples", "Intervention", "Mean", "Patch", "Path", "Resample"} < set(
        dir(ablation)
    )
    assert {"Site", "Subspace", "Zero", "ov_block", "run_ablation_study"} < set(ablation.__all__)
    assert all(getattr(ablation, name) is not None for name in ablation.__all__)
    assert set(ablation.edits) == {"mean", "patch", "resample", "subspace", "zero"}
    with pytest.raises(AttributeError, match=r"no attribute 'Zeros'; it has .*Zero"):
        ablation.Zeros  # noqa: B018


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ZeroAblation", r"Zero\(\)\.at\(site\)"),
        ("MeanAblation", r"Mean\(reference\)\.at\(site\)"),
        ("ResampleAblation", r"Resample\(seed\)\.at\(site\)"),
        ("SubspaceAblation", r"Subspace\(basis, readout\)\.at\(site\)"),
        ("PathAblation", r"Zero\(\)\.at\(Path\(inputs, outputs, layer"),
        ("PathMean", r"Mean\(reference\)\.at\(Path"),
        ("PathResample", r"Resample\(seed\)\.at\(Path"),
        ("PathPatch", r"Patch\(donor=tokens\)\.at\(Path"),
    ],
)
def test_names_that_went_say_what_to_write(old, new):
    with pytest.raises(AttributeError, match=f"{old} is gone: write {new}"):
        getattr(ablation, old)


def test_no_layer_or_head_is_assumed():
    """Of a user's model; OV blocks of fact-recall models take no layer at all."""
    found = 0
    for name in ablation.__all__:
        value = getattr(ablation, name)
        calls = [value, *vars(value).values()] if inspect.isclass(value) else [value]
        for call in calls:
            call = getattr(call, "__func__", call)
            if not inspect.isfunction(call):
                continue
            for each in inspect.signature(call).parameters.values():
                if each.name in ("layer", "head"):
                    refused = (
                        call.__name__ == "at" and name == "Site"
                    )  # None is an error that says what to type
                    assert each.default is (None if refused else inspect.Parameter.empty), name
                    found += 1
    assert found >= 3, "Site.at, and Path with two"
    with pytest.raises(ConfigError, match="layer"):
        ablation.Site.at("z")
    with pytest.raises(TypeError, match="layer"):
        ablation.Path((1,), head=0)


def test_the_namespace_costs_no_torch():
    check = "import sys, ocr_interp.ablation as a; dir(a); list(a.edits); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
