"""Interventions on hooked models, and studies that measure their effects.

An intervention is an edit (what) at a place (where): `what.at(where)`. `with ablated(model, what.at(where)):`
applies it while the block runs.

| place | how it is written |
|---|---|
| a head | `Site.at("z", layer=0, heads=[3])` |
| a position | `Site.at("resid_pre", layer=0, positions=[-1])` |
| a kind of token | `Site.at("v", layer=0, tokens=tokens_of_kind(task, "noise"))` |
| attention to a kind of token | `Site.at("pattern", layer=0, tokens=tokens_of_kind(task, "relations"))` |
| a path from some tokens, through one head, to everything | `Path(("Paris",), layer=1, head=2)` |
| the same, to some answers only (one layer, no norms) | `Path(("Paris",), ("Rome",), layer=0, head=2)` |
| edges, from a head to another's keys and so on | `Edges(["a0.h1->a1.h3<k>", "m0->logits"])` |
| all edges but those of a circuit | `Edges(circuit.edges, outside=True)` |

| edit | replaces the values by | at sites and edges | on paths |
|---|---|---|---|
| `Zero()` | zero | yes | cuts the path |
| `Mean(reference)` | the mean over a reference batch | not of attention patterns | by query position |
| `Resample(seed)` | those of another sequence of the batch | yes | from sequences with the path |
| `Patch(cached)` | given values | at sites alone | no: use a donor |
| `Patch(donor=tokens)` | those of another prompt | yes | path patching |
| `Subspace(basis)` | the same values without some directions | yes | no: use `output_subspace` |

For example, `Zero().at(Site.at("z", layer=0, heads=[3]))` ablates a head, and
`Patch(donor=tokens).at(Path(("Paris",), layer=1, head=2))` patches a path. Parts of a circuit are one call:

| part of a circuit | call |
|---|---|
| a block of the OV circuit of a fact-recall model | `ov_block(task, "held-out subjects", "implications")` |
| a degenerate block of singular values | `singular_block(circuit, 0, tolerance=0.05)` |
| a subspace of the outputs | `output_subspace(circuit, basis)` |

`run_ablation_study` measures many interventions beside matched random controls, on a Run or, with `Examples`,
on any HookedTransformer or TransformerBridge. A new edit is one file in `ablation/edits`, or one class of
your own: see `Edit`. Names are imported when they are first used.
"""

from typing import Any

import lazy_loader

_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_SUCCESSORS = {
    "ZeroAblation": "Zero().at(site)",
    "MeanAblation": "Mean(reference).at(site)",
    "ResampleAblation": "Resample(seed).at(site)",
    "SubspaceAblation": "Subspace(basis, readout).at(site)",
    "PathAblation": "Zero().at(Path(inputs, outputs, layer=..., head=...))",
    "PathMean": "Mean(reference).at(Path(inputs, outputs, layer=..., head=...))",
    "PathResample": "Resample(seed).at(Path(inputs, outputs, layer=..., head=...))",
    "PathPatch": "Patch(donor=tokens).at(Path(inputs, outputs, layer=..., head=...))",
    "matched_controls": "intervention.controls(Draw.seeded(seed, model, inputs, outputs, length))",
}


def __getattr__(name: str) -> Any:
    if name in _SUCCESSORS:
        raise AttributeError(f"{__name__}.{name} is gone: write {_SUCCESSORS[name]}", name=name)
    if name not in __all__:
        raise AttributeError(f"{__name__} has no attribute {name!r}; it has {', '.join(__all__)}", name=name)
    return _lazy(name)
