"""What every edit of the registry must do at sites and on a path; a new file is tested by being there."""

from dataclasses import dataclass

import hooked_models
import jaxtyping
import numpy as np
import pytest
import torch

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.controls import Draw
from ocr_interp.ablation.edits import edits
from ocr_interp.ablation.edits.base import Edit, Intervention
from ocr_interp.ablation.edits.mean import Mean
from ocr_interp.ablation.edits.patch import Patch
from ocr_interp.ablation.edits.resample import Resample, donors
from ocr_interp.ablation.edits.subspace import Subspace
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import Site
from ocr_interp.errors import ConfigError, ModelError, OcrInterpError, UnknownNameError

TOKENS = torch.tensor([[3, 4, 5, 9], [6, 4, 7, 8], [10, 5, 4, 8], [3, 3, 11, 9]])
DONORS = torch.tensor([[4, 4, 9, 9], [5, 3, 4, 8], [3, 4, 4, 7], [5, 5, 5, 9]])
HOOK = "blocks.1.attn.hook_v"
PLACES = {
    "site": Site.at("v", layer=1, heads=[2], positions=[1]),
    "tokens": Site.at("resid_pre", layer=1, tokens=[4, 3]),
    "pattern": Site.at("pattern", layer=0, tokens=[4]),
    "path": Path((4, 3, 5), layer=1, head=2),
}
SIZES = {"site": 3, "tokens": 12, "pattern": 4, "path": 3}
TOUCHED = {"site": [1, 1, 1, 1], "tokens": [2, 1, 1, 2], "pattern": [1, 1, 1, 0], "path": [3, 1, 2, 2]}


def basis(size):
    return torch.linalg.qr(torch.randn(size, 2, generator=torch.Generator().manual_seed(0)).double()).Q


BASIS = basis(3)

SAMPLES = {
    "zero": lambda place: Zero(),
    "mean": lambda place: Mean(DONORS),
    "resample": lambda place: Resample(3),
    "patch": lambda place: Patch(donor=DONORS),
    "subspace": lambda place: Subspace(basis(SIZES[place])),
}
"""An edit for a place; one that is not here is made as the command line does, without options."""

BY_HAND = {
    "zero": lambda value, donated: value * 0,
    "mean": lambda value, donated: donated[:, 1:2].mean(0, keepdim=True).expand_as(value),
    "resample": lambda value, donated: value[donors(4, torch.Generator().manual_seed(3))],
    "patch": lambda value, donated: donated,
    "subspace": lambda value, donated: value - value @ BASIS @ BASIS.mT,
}
"""What takes the place of hook_v at position 1, from it and from that of DONORS, written by hand."""


@pytest.fixture(scope="module")
def model():
    return hooked_models.hooked_transformer("LN", n_layers=2)


def at(name, place):
    """The edit there, or None where it has no meaning."""
    edit = SAMPLES[name](place) if name in SAMPLES else edits[name].from_text({}, DONORS)
    assert isinstance(edit, edits[name])
    try:
        return edit.at(PLACES[place])
    except ModelError:
        return None


MEANT = {name: {place for place in PLACES if at(name, place)} for name in edits}


def test_where_edits_have_a_meaning():
    assert MEANT["mean"] == set(PLACES) - {"pattern"}
    assert MEANT["subspace"] == set(PLACES) - {"path"}
    assert all(MEANT[name] == set(PLACES) for name in ("zero", "resample", "patch"))
    assert set(BY_HAND) == set(edits), "a new edit needs its values by hand here"


@pytest.mark.parametrize("name", tuple(edits))
def test_every_edit_is_what_a_hook_by_hand_does(name, model):
    donated = model.run_with_cache(DONORS, names_filter=HOOK)[1][HOOK]

    def hook(value, hook):
        new = value.clone()
        new[:, 1, 2] = BY_HAND[name](value, donated)[:, 1, 2]
        return new

    with ablated(model, at(name, "site")):
        found = model(TOKENS)
    assert not torch.equal(found, model(TOKENS))
    torch.testing.assert_close(
        found, model.run_with_hooks(TOKENS, fwd_hooks=[(HOOK, hook)]), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(("name", "place"), [(n, p) for n in edits for p in PLACES if p in MEANT[n]])
def test_every_edit_fires_nests_and_leaves_nothing_behind(name, place, model):
    spec, outer = at(name, place), Zero().at(Site.at("z", layer=1, heads=[1]))
    before, weights = model(TOKENS), {k: v.clone() for k, v in model.state_dict().items()}
    with ablated(model, outer):
        alone = model(TOKENS)
        with ablated(model, spec):
            both = model(TOKENS)
        assert not torch.equal(both, alone)
        assert torch.equal(model(TOKENS), alone)
    with ablated(model, outer, spec):
        assert torch.equal(model(TOKENS), both)
    assert torch.equal(model(TOKENS), before)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    with ablated(model, spec):
        first = model(TOKENS)
    with ablated(model, spec):
        assert spec.repeats == torch.equal(model(TOKENS), first)


@pytest.mark.parametrize("name", tuple(edits))
def test_every_edit_has_controls_as_large_and_says_what_it_touches(name, model):
    for place in MEANT[name]:
        spec = at(name, place)

        def drawn(seed, spec=spec):
            return spec.controls(Draw.seeded(seed, model, range(3, 12), range(12, 16), 4))

        controls = drawn(1)
        assert controls, "these places can be drawn at random"
        more = [drawn(seed) for seed in range(6)]
        for control, made in controls.items():
            assert isinstance(made, Intervention)
            assert made.describe() == drawn(1)[control].describe()
            assert len({each[control].describe() for each in more} | {spec.describe()}) > 2
            with ablated(model, made):
                assert model(TOKENS).isfinite().all()
        touched = spec.touched(model, TOKENS, None).tolist()
        assert (
            touched
            == {"site": [1] * 4, "tokens": [2, 1, 1, 2], "pattern": [1, 1, 1, 0], "path": [3, 1, 2, 2]}[place]
        )


def test_phrases_are_stable_and_tell_all_apart():
    said = [at(name, place).describe() for name in edits for place in PLACES if place in MEANT[name]]
    assert len(set(said)) == len(said)
    again = [at(name, place).describe() for name in edits for place in PLACES if place in MEANT[name]]
    assert said == again
    others = (Resample(4), Mean(TOKENS), Mean(DONORS, by_position=True), Patch(donor=TOKENS))
    said += [each.at(PLACES["site"]).describe() for each in others]
    assert len(set(said)) == len(said)
    # tables on disk are resumed by these
    assert at("zero", "path").describe() == "PathAblation layer 1 head 2 4,3,5"
    assert at("resample", "site").describe() == f"ResampleAblation {HOOK} heads 2 positions 1 seed 3"


@pytest.mark.parametrize("name", tuple(edits))
def test_every_edit_can_be_made_from_text_or_says_how_else(name):
    try:
        assert isinstance(edits[name].from_text({}, TOKENS), edits[name])
        with pytest.raises(UnknownNameError, match="allowed"):
            edits[name].from_text({"sed": "1"}, TOKENS)
    except ConfigError as refused:
        assert "in Python" in str(refused)  # noqa: PT017  # either is allowed, but not in silence


# --- what is refused -------------------------------------------------------------------------------


def test_combinations_without_a_meaning_say_what_to_use():
    path, pattern = PLACES["path"], PLACES["pattern"]
    with pytest.raises(ModelError, match=r"use output_subspace\(circuit, basis\)"):
        Subspace(BASIS).at(path)
    with pytest.raises(ModelError, match=r"Patch\(donor=token ids\)"):
        Patch(torch.zeros(1, 4, 3)).at(path)
    with pytest.raises(ModelError, match="use Resample or Zero there"):
        Mean(TOKENS).at(pattern)
    with pytest.raises(ModelError, match="leave it out"):
        Mean(TOKENS, by_position=True).at(path)
    for given in ({}, {"source": torch.zeros(1), "donor": TOKENS}):
        with pytest.raises(ModelError, match="either source or donor"):
            Patch(**given)


def test_an_intervention_is_an_edit_at_a_place(model, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as a user has it
    with pytest.raises(OcrInterpError, match=r"write Zero\(\)\.at\(site\)"):
        Intervention(PLACES["site"], Zero)
    with pytest.raises(OcrInterpError, match="a Site, a Path or Edges"):
        Zero().at(HOOK)
    with pytest.raises(OcrInterpError, match=r"Zero\(\)\.at\(site\)"), ablated(model, Zero()):
        pass
    assert Intervention(PLACES["site"], Zero()) == Zero().at(PLACES["site"])


def test_a_position_without_a_mean_is_refused(model):
    spec = Mean(torch.tensor([[4, 7, 7, 7]]), by_position=True).at(Site.at("v", layer=0, tokens=[4]))
    with ablated(model, spec):
        assert model(torch.tensor([[4, 7, 8, 9]])).isfinite().all()
        with pytest.raises(ModelError, match=r"none at positions \[1, 2, 3\]"):
            model(torch.tensor([[4, 4, 8, 9]]))


def test_donors_of_a_site_must_fit(model):
    with ablated(model, Patch(donor=DONORS[:1]).at(PLACES["site"])):
        assert model(TOKENS).isfinite().all()
        with pytest.raises(ModelError, match="as many tokens as the prompts, 3, got 4"):
            model(TOKENS[:, 1:])


@dataclass(frozen=True)
class Odd(Edit):
    given: object = None
    other: int = 1

    def prepare(self, place):
        return lambda value, mask: value


def test_what_follows_from_the_fields_of_an_edit():
    assert Odd().describe() == "other 1"
    assert Odd((1, 2.5, "a")).describe() == "given 1,2.5,a other 1"
    assert Odd(np.ones(2)).describe() == Odd(np.ones(2)).describe() != Odd(np.zeros(2)).describe()
    assert Odd().repeats
    assert not Odd(np.random.default_rng(0)).repeats
    assert not Odd(torch.Generator()).repeats
    assert Odd.from_text({"given": "word", "other": "3"}, TOKENS) == Odd("word", 3)
    with pytest.raises(ModelError, match=r"Odd must define describe\(\): its option given is a dict"):
        Odd({}).describe()

    class Plain(Edit):
        def prepare(self, place):
            return lambda value, mask: value

    with pytest.raises(ModelError, match="frozen dataclass"):
        Plain().describe()
