"""The competition without pretraining and without chance: the flow of 4 n numbers that is left of it.

Old subjects that were all told leave b_i = c_i = p e_i, and full fine-tuning adds no direction to the e_i. If
the pairs are told in a ring (c_{i+1} for c_i), values and features stay circulant: of a told and an untold
subject of pair i α(k) and η(k) along e_{i+k}, of b_i and c_i B(k) and C(k). Facts and implications are asked
apart. p² is the only size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from analyses.prior.criteria import NEW, N

Ring = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class RingPath:
    """Untold subjects over the flow.

    Attributes:
        log10_time: sum of the step sizes of gradient descent on the mean loss.
        fact, recalled, deduced: coefficients (own minus mean of the others) of the fact, the pretrained and
            the told answer, logits.
    """

    log10_time: np.ndarray
    fact: np.ndarray
    recalled: np.ndarray
    deduced: np.ndarray

    def crossing(self) -> tuple[float, float]:
        """The fact's coefficient and log10 time where the told answer overtakes; NaN if it does not."""
        lead = self.deduced - self.recalled
        late = np.flatnonzero((lead[1:] >= 0) & (lead[:-1] < 0))
        if not len(late):
            return np.nan, np.nan
        at = slice(late[0], late[0] + 2)
        return (
            float(np.interp(0, lead[at], self.fact[at])),
            float(np.interp(0, lead[at], self.log10_time[at])),
        )


def ring_flow(
    squared: float, told: int, until: float, *, n: int = N, new: int = NEW, step: float = 0.1
) -> RingPath:
    """Follows the flow until the fact's coefficient is `until` logits.

    Args:
        squared: p², logits.
        told: new subjects a pair, of `new`, who are told the next pair's implication.
        step: largest change of a logit in one step.
    """
    k = np.arange(n)
    minus, plus = (k[None] - k[:, None]) % n, (k[None] + k[:, None]) % n  # [s, k] -> k − s, k + s
    centred = (k == 0) - 1 / n
    values, features = np.zeros((2, n)), np.sqrt(squared) * np.stack([centred, centred])
    # (row of values, row of features, right shift, subjects)
    asked = ((0, 0, 0, told), (0, 1, 1, told), (1, 0, 0, new - told))
    log_time, rows = -np.inf, []
    while not rows or rows[-1][1] < until:
        logits = [features[f][minus] @ values[v] for v, f, _, _ in asked]
        log_residuals = []
        for table, (_, _, right, _) in zip(logits, asked, strict=True):
            wrong = np.where(k == right, -np.inf, table)
            total = np.logaddexp(np.logaddexp.reduce(wrong), table[right])
            log_residuals.append(wrong - total)
        top = max(one.max() for one in log_residuals)
        moved_values, moved_features = np.zeros((2, n)), np.zeros((2, n))
        for one, (v, f, right, subjects) in zip(log_residuals, asked, strict=True):
            push = -np.exp(one - top)
            push[right] = -push.sum()
            moved_values[v] += push @ features[f][minus]
            moved_features[f] += subjects * (push @ values[v][plus])
        scale = n * (new + told)
        moved_values, moved_features = moved_values / scale, moved_features / scale
        change = max(
            np.abs(moved_features[f][minus] @ values[v] + features[f][minus] @ moved_values[v]).max()
            for v, f, _, _ in asked
        )
        eta = step / change
        log_time = np.logaddexp(log_time, np.log(eta) - top)
        values, features = values + eta * moved_values, features + eta * moved_features
        implication = features[1][minus] @ values[1]
        fact, recalled, deduced = (
            table[at] - (table.sum() - table[at]) / (n - 1)
            for table, at in ((features[0][minus] @ values[1], 0), (implication, 0), (implication, 1))
        )
        rows.append((log_time / np.log(10), fact, recalled, deduced))
    return RingPath(*np.array(rows).T)
