"""Interventions on hooked models, and studies that measure what they take.

`with ablated(model, spec, ...):` applies frozen specs. What a spec acts on, and the call for it:

| scope | call |
|---|---|
| head | `ZeroAblation(Site.at("z", layer, heads=[3]))` |
| position | `ZeroAblation(Site.at("resid_pre", layer, positions=[-1]))` |
| kind of token | `ZeroAblation(Site.at("v", tokens=tokens_of_kind(task, "noise")))` |
| attention path | `ZeroAblation(Site.at("pattern", tokens=tokens_of_kind(task, "relations")))` |
| OV block | `ov_block(task, "held-out subjects", "implications")` |
| singular block | `singular_block(circuit, 0, tolerance=0.05)`: the largest singular values |
| subspace of the outputs | `output_subspace(circuit, basis)` |
| single path | `PathAblation(("Paris",), layer=1, head=2)`, any tokens, one head |

Instead of ZeroAblation: MeanAblation (over a reference batch), ResampleAblation (of another sequence),
SubspaceAblation, Patch (from another prompt's cache). Instead of PathAblation, which cuts: PathMean,
PathResample, PathPatch (from a donor prompt). `run_ablation_study` measures many of them beside matched
random controls, on a Run or, with `Examples`, on any HookedTransformer or TransformerBridge.
"""
