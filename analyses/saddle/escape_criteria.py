"""Setting and criteria of the study of what leaves the saddle. Written down before its runs."""

SIZES = (10, 1, 3)
ENTRIES, SEEDS = 0.001, (0, 1, 2, 3, 4)
BEFORE = 4.0
"""log10 of the time of gradient descent from ENTRIES before the other rule takes over."""

STEPS, LOGGED = 20_000, 40

STAYS, LEAVES = 0.03, 0.06
"""A rule stays if β changes by less than STAYS, and leaves if it changes by more than LEAVES, every seed."""

PREDICTED = {
    "gradient descent": "stays",
    "momentum 0.9": "stays",
    "batches of 10": "stays",
    "label noise 5 %": "leaves",
    "dropout 0.1": "leaves",
    "weight decay 1e-3": "leaves",
    "Adam": "leaves",
    "AdamW, decay 0.03": "leaves",
    "SignSGD": "leaves",
    "Muon": "leaves",
}
"""What was expected: rules that follow the gradient of the loss alone stay (to escape takes margins of 1e40);
rules with a penalty, or with a geometry of their own, leave."""
