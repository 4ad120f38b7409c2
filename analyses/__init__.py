"""The studies: how every figure and every claim of the repository is made. `ocr-interp reproduce` runs them.

A folder is a study, and a module in it with a constant `FIGURE` is a figure. Figures are found automatically:
to add one, add one file; deleting the file removes its claims. `house` has the code that all studies share.
To make a single figure:
`ocr-interp reproduce --only theorem_3`, or `python -m analyses.paper.theorem_3`.
"""

STUDIES = (
    "paper",
    "saddle",
    "elsewhere",
    "theory",
    "prior",
    "parameterisation",
    "mitigation",
    "mlp",
    "circuits",
    "ablations",
    "discovery",
    "phases",
    "width",
    "optimizers",
    "llm",
    "predictions",
    "whole_models",
    "architectures",
)
"""The studies in the order in which they build on each other: each imports only from `house` and from those
before it. Figures are drawn, and claims listed, in this order; a study that is not named here comes last."""
