"""Setting and criteria of the curves of faithfulness by number of edges. Written down before any was drawn.

The five models, prompts and measure of `criteria`. Beside our scores (exact effects, EAP, EAP-IG) stand plain
implementations that share no code with the library: a forward pass in which every reader has a stream of its
own, edges as factors between what is written for the prompt (1) and for the donor (0).

- EAP-IG as its authors' code has it: gradients at the input's points donor + k/steps (prompt - donor), k
  from 0 to steps - 1, times what a writer changes; the n largest by size; then nodes without ways in or out
  are removed until none is left, which leaves n edges or fewer.
- Gradients by the factors of all edges, as in auto-circuit, mean over factors 0 .. 1 of all edges together.
- ACDC: readers from the last to the first, writers from the last to the first; an edge is ablated for good if
  the measure then falls by less than a threshold.
"""

from __future__ import annotations

SIZES = (5, 8, 12, 16, 20, 25, 32, 40, 50, 64, 90, 128, 180, 257)
STEPS = 20
FEW = 16
"""Exact effects and ACDC are found on so many of the prompts: they measure up to thousands of circuits."""
THRESHOLDS = (0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Of ACDC, as shares of the measure's whole change from donor to prompt."""

SAME_SCORES = 1e-4
"""At equal points the largest difference of our scores from the plain ones, as a share of the largest score,
for EAP and EAP-IG, and of exact effects; every seed."""

SAME_CURVE = 0.05
"""Our curve of EAP-IG is the published method's: mean over SIZES of the difference of faithfulness, by size,
every seed. Ours takes as many top edges as leave n live ones; theirs n, less what is dead."""
