"""Singular values of circuits."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from ocr_interp.circuits.matrix import OVMatrix
from ocr_interp.errors import ConfigError
from ocr_interp.viz.style import current_style


def plot_spectrum(
    ax: Axes,
    circuit: OVMatrix | Float[np.ndarray, " direction"],
    *,
    tolerance: float = 0.05,
    label: str | None = None,
    colour: str | None = None,
) -> Axes:
    """Draws singular values, largest first; values of one degenerate block are joined by a line.

    Args:
        ax: axes to draw on; several spectra can be drawn over each other.
        circuit: any circuit, or singular values, largest first.
        tolerance: values that differ by at most this share of the largest form one block.
        label: for a legend.
        colour: of the points; None is the first of the style's palette.

    Returns: the axes.

    Raises:
        ConfigError: values that are not finite, negative, or not in order.

    >>> from matplotlib.figure import Figure
    >>> import numpy as np
    >>> ax = plot_spectrum(Figure().subplots(), np.array([3.0, 3.0, 1.0]))
    >>> [len(line.get_xdata()) for line in ax.lines]
    [2, 1]
    """
    values = circuit.singular_values if isinstance(circuit, OVMatrix) else np.asarray(circuit, dtype=float)
    rising = np.diff(values) > 1e-9 * values.max(initial=0.0)
    if not np.isfinite(values).all() or (values < 0).any() or rising.any():
        raise ConfigError("singular values must be finite, not negative, and largest first")
    colour = colour or current_style().colour(0)
    start, largest = 0, values.max(initial=0.0)
    for k in range(len(values)):
        if k + 1 == len(values) or values[start] - values[k + 1] > tolerance * largest:
            named = label if start == 0 else None
            block, at = values[start : k + 1], range(start + 1, k + 2)
            ax.plot(at, block, "o-", ms=4, lw=1.4, color=colour, label=named)
            start = k + 1
    ax.set(xlabel="direction", ylabel="singular value, logits", ylim=(0, None))
    return ax
