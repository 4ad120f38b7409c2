"""What each claim of this study asks for. Written down before its runs."""

from __future__ import annotations

TASK = (20, 1, 3)
"""(n, m_train, m_test) of the figures over time."""

STARTS = (0.001, 0.01, 0.1, 0.3, 1.0)
"""Standard deviation of the entries at the start."""

TIME = 100.0
"""log10 of the time of gradient descent that the claims are about."""

NEAR_SADDLE = 0.02
"""Largest distance of β from the saddle's, from entries of 0.001 at TIME, for every ratio below 1."""

RATIOS = ((1, 2), (1, 3), (1, 4), (1, 9), (1, 20), (2, 3), (2, 5), (2, 9), (3, 4), (3, 10))
"""(m_train, m_test) with n = 10; RATIOS_OF_OTHERS with n = 2, 5, 20."""

RATIOS_OF_OTHERS = ((1, 2), (1, 4), (1, 9))
PAIRS = (2, 5, 20)
EQUAL_OR_ABOVE = ((1, 1), (2, 2), (3, 1))
"""Ratios at which the max-margin solution has rank n itself: a control."""

TRAINED_RATIOS = ((1, 2), (1, 4), (1, 9))
"""With trained attention from entries of 0.001, n = 5; NEAR_SADDLE is asked for there too."""

FLOW_END = 1e-3
"""Largest distance of β of the reduced flow from √r at a margin of 1e100, from every start of STARTS."""

KAPPA = 0.10
"""Largest relative distance of the certified gap from κ, from a start of size 1e-9 at a margin of 1e8."""

CONSTANT = 0.20
"""Largest relative change of the non-factorized model's excess × margin between t = 1e30 and 1e100."""

SEEDS = (0, 1, 2, 3, 4)
"""Starts by chance of the claim about entries of 0.001 at TASK."""
