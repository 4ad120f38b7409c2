"""What each token of a prompt adds to an answer, as bars."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from ocr_interp.circuits.attribution.of_run import Attribution
from ocr_interp.storage.plain import printable
from ocr_interp.viz.style import current_style


def plot_attribution(ax: Axes, attribution: Attribution, *, most: int = 30) -> Axes:
    """Draws the contribution of every position to the logit (difference), and what they sum to.

    Args:
        ax: axes to draw on.
        attribution: any attribution.
        most: the largest contributions that have a bar of their own; the others are one bar.

    Returns: the axes.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, attribute, train
    >>> recipe = TrainConfig(steps=20, batch_size=12, device="cpu")
    >>> run = train(FactRecallTask(3, 1, 2), ModelConfig(d_head=8), recipe, progress=False)
    >>> ax = plot_attribution(Figure().subplots(), attribute(run, ["s1", "r2", "EOS"], "c0", "c1"))
    >>> ax.get_xlabel().split(";")[0]
    'contribution to c0 − c1, logits'
    """
    parts = attribution.by_position
    shown = np.sort(np.argsort(-np.abs(parts), kind="stable")[:most])
    rows = [(printable(attribution.tokens[k]), float(parts[k])) for k in shown]
    if len(shown) < len(parts):
        rows.append((f"{len(parts) - len(shown)} others", float(parts.sum() - parts[shown].sum())))
    rows += [(name, value) for name, value in _beside(attribution) if value]
    style = current_style()
    colours = [style.positive if value >= 0 else style.negative for _, value in rows]
    places = range(len(rows))
    ax.barh(places, [value for _, value in rows], color=colours)
    ax.set_yticks(places, [name for name, _ in rows])
    for label in ax.get_yticklabels():
        label.set_parse_math(False)
    ax.invert_yaxis()
    ax.axvline(0, color="0.3", lw=0.8)
    against = "" if attribution.against is None else f" − {attribution.against}"
    of = f"{attribution.answer}{against}"
    total = f"{attribution.total:+.3g}".replace("-", "−")
    ax.set_xlabel(f"contribution to {printable(of)}, logits; sum {total}", parse_math=False)
    return ax


def _beside(attribution: Attribution) -> tuple[tuple[str, float], ...]:
    return (("direct path", attribution.direct), ("biases", attribution.bias))
