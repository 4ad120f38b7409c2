"""Max-margin solutions with a trained attention row: their β fills an interval."""

from __future__ import annotations

from ocr_interp.errors import ConfigError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.norms.nuclear import NORM


def trained_attention_beta_interval(task: FactRecallTask) -> tuple[float, float]:
    """Interval of the held-out coefficient β when the attention row is trained with both OV factors.

    Minimising ½(‖W_V‖² + ‖W_O‖² + ‖a‖²) at margin 1 inside the symmetric family has a segment of
    minimisers, β in [κ, 2κ / (1 + κ)] with κ = (m_train / m_test)^(2/3), for m_train <= m_test; β = 1 for
    m_train >= m_test; β = 0 without training implications. The segment exists because an input row now
    costs its length and not its square, so r1 and r2 may share the separation of facts from
    implications unequally for free. The problem is not convex: nothing here excludes asymmetric minimisers.

    Args:
        task: balanced.

    Returns: (lower, upper); equal where β is determined, NaN without told or without held-out subjects.

    Raises:
        ConfigError: an unbalanced task, or one with several implications of a fact.

    Source: docs/theory.md, "Trained attention".
    """
    sizes = task.balanced_sizes
    if sizes is None:
        raise ConfigError("the trained-attention interval needs a balanced task, got an unbalanced one")
    if task.implied_relations > 1:
        raise ConfigError(
            f"the trained-attention interval is known for one implication of a fact, got implied_relations="
            f"{task.implied_relations}: use frozen attention"
        )
    if not sizes[1] or not sizes[2]:
        return float("nan"), float("nan")
    return NORM.beta_with_trained_attention(*sizes[1:])
