"""Shares of held-out implications that are right, with an interval.

"Every held-out implication in every seed" is an extreme of 3n questions and gets harder with n by itself; a
share does not. A pair's held-out subjects are answered nearly alike, so the interval counts pairs × seeds as
independent; over single questions it is narrower, and stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest

from analyses.house.tables.claims import Table

ACCURACY = "held_out_implication/accuracy"


@dataclass(frozen=True)
class Share:
    """A share of right answers.

    Attributes:
        right: the share, mean over seeds.
        low, high: Wilson's 95 % interval over pairs × seeds.
        questions: the same over held-out subjects × seeds.
    """

    right: float
    low: float
    high: float
    questions: tuple[float, float]

    @property
    def shown(self) -> list[float]:
        """Share, low, high, as claims store it."""
        return [round(value, 4) for value in (self.right, self.low, self.high)]


def share(rows: Table, n_pairs: int, m_test: int) -> Share:
    """The share over the runs of `rows`, one row per seed.

    Args:
        rows: last rows of runs, with ACCURACY.
        n_pairs, m_test: of their task.
    """
    right = float(rows[ACCURACY].mean())
    over_pairs = wilson(right, len(rows) * n_pairs)
    return Share(right, *over_pairs, questions=wilson(right, len(rows) * n_pairs * m_test))


def wilson(right: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; the number of right answers is rounded to a whole one."""
    found = binomtest(round(right * trials), trials).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
