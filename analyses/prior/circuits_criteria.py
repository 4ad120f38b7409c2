"""Setting and criteria of the cuts in a misled model. Written down before its runs, the second two
cuts after the first two had failed in one seed."""

TOLD = 1
"""New subjects of 4 a pair who are told another implication than the pretrained one."""

SETTINGS = ((4.0, 4.0), (10.0, 4.0), (10.0, 12.0))
"""log10 of the times of pretraining and of fine-tuning: the pretrained answer is first in all of them."""

RANDOM = 200
"""Random subspaces of the same dimension; the control is the nearest in removed energy."""

NEAREST = 20
"""How many of them the control averages."""

GONE, LEFT = 0.15, 0.5
"""A coefficient is gone below GONE of what it was before the cut, and left above LEFT; mean over held-out
subjects, every seed."""

FIRST = 0.9
"""Share of held-out subjects whose first answer is the named one after a cut, every seed."""

SAME_SPACE = 0.99
"""Added after that trial: least share of the subjects' W_OV in the span of pretrained features."""

PREDICTED = {
    "without pretrained features": ("told", "recall gone, deduction left, told answer first"),
    "without what was added": ("pretrained", "deduction gone, recall left, pretrained answer first"),
    "without pretrained W_O": ("told", "recall gone, deduction left, told answer first"),
    "without what W_O learned": ("pretrained", "deduction gone, recall left, pretrained answer first"),
}
"""First two: value vectors of untold subjects follow b_i, so what they write to c_i passes through the
pretrained features; what they write to the told answer passes through features that grew in fine-tuning.
Random subspaces of the same dimension and energy must do neither. It was refuted: nothing grows beside the
pretrained span. Last two, predicted from that: both answers pass through the same directions, recall by
what W_O held before (W_O = W_O before + learned), deduction by what it learned. Control: the same part with
its pairs permuted."""
