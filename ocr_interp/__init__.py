"""ocr-interp: mechanistic interpretability of out-of-context reasoning in transformers.

OCR means out-of-context reasoning here, never character recognition.

    task = FactRecallTask(n_pairs=20, m_train=1, m_test=3)      # what is told, what is asked
    run = train(task, ModelConfig(ov="factorized"))             # one model; `sweep` trains many
    run.circuit.summary()                                       # its OV circuit, by block
    attribute(run, ["s5", "r2", "EOS"], "c1", "c0")             # who adds what to a logit
    solve(task).beta, held_out_beta(run.effective_W, task)      # what the theory says, what was found
    run.model                                                   # a HookedTransformer

The rest is in namespaces: `ablation` (interventions and studies), `circuits` (geometry, alignment),
`comparison` (before and after), `discovery` (circuits found in any model), `graphs` (circuit graphs),
`mitigation` (unwanted deductions), `models` (saved HookedTransformers),
`theory` (norms, certificates), `viz` (drawings and texts), `llm` (language models), `maps` and `optim`
(parameterisations and optimisers), `errors`. All names are imported when they are first used: `import
ocr_interp` loads neither torch nor transformer_lens.
"""

from typing import Any

import lazy_loader

_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.2.0"

_ABLATION, _GRAPHS = "ocr_interp.ablation", "ocr_interp.graphs"
_MOVED = {
    **dict.fromkeys(
        ("ablated", "AblationStudy", "Examples", "Site", "output_subspace", "ov_block"), _ABLATION
    ),
    **dict.fromkeys(("run_ablation_study", "singular_block", "task_examples", "tokens_of_kind"), _ABLATION),
    **dict.fromkeys(("circuit_graph", "CircuitGraph", "attribution_graph", "prompt_graph"), _GRAPHS),
    **dict.fromkeys(("head_graph", "mechanism_graph"), _GRAPHS),
    **dict.fromkeys(("AlignmentReport", "ov_spectra"), "ocr_interp.circuits"),
    **dict.fromkeys(("Certificate", "HeldOutBeta", "cosine_with"), "ocr_interp.theory"),
    "trained_attention_beta_interval": "ocr_interp.theory",
    **dict.fromkeys(("draw_circuit", "save_diagram"), "ocr_interp.viz"),
}
_SUCCESSORS = {
    "attribute_run": "attribute(run, prompt, answer)",
    "attribute_model": "attribute(model, prompt, answer, layer=..., head=...)",
    "predicted_solution": "solve(task, norm)",
    "solve_max_margin": "solve(task, norm, tolerance)",
    "PredictedSolution": "Solution",
    "MaxMarginSolution": "Solution",
    "format_solution": "solution.summary()",
    "ZeroAblation": "ocr_interp.ablation.Zero().at(site)",
    "MeanAblation": "ocr_interp.ablation.Mean(reference).at(site)",
    "ResampleAblation": "ocr_interp.ablation.Resample(seed).at(site)",
    "SubspaceAblation": "ocr_interp.ablation.Subspace(basis).at(site)",
    "Patch": "ocr_interp.ablation.Patch(cached).at(site)",
    "PathAblation": "ocr_interp.ablation.Zero().at(Path(inputs, layer=..., head=...))",
    "PathMean": "ocr_interp.ablation.Mean(reference).at(Path(inputs, layer=..., head=...))",
    "PathResample": "ocr_interp.ablation.Resample(seed).at(Path(inputs, layer=..., head=...))",
    "PathPatch": "ocr_interp.ablation.Patch(donor=tokens).at(Path(inputs, layer=..., head=...))",
}
"""What names of version 0.1 are written as now."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _lazy(name)
    if name in _MOVED:
        raise AttributeError(f"{__name__}.{name} has moved: from {_MOVED[name]} import {name}", name=name)
    if name in _SUCCESSORS:
        raise AttributeError(f"{__name__}.{name} is gone: write {_SUCCESSORS[name]}", name=name)
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}", name=name
    )
