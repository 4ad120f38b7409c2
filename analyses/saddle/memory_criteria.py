"""Sizes, losses and tolerances of the study of the start. Written down before its runs."""

SIZES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0)
"""Sizes of isotropic starts of the flow."""

LOSSES = (2, 6, 20, 100)
"""−log10 of the training losses at which β is read; of models of finite width, the first three."""

TRAINED_LOSSES = LOSSES[:3]

WIDTHS = (40, 640)
"""d_head of the models beside it; 40 is the number of answers."""

WITH_POINTS = (0.01, 0.1, 1.0, 3.0)
"""Sizes at which models of these widths are trained."""

POINTS_WITHIN = 0.03
"""Largest difference of β between width 640 and the flow: its start is isotropic up to 1/√640 = 4 %."""
