"""How strong a circuit is, and where: singular values, and shares of energy by block."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ocr_interp.circuits.energy import BlockEnergy
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


def plot_energy_shares(
    ax: Axes,
    energy: BlockEnergy,
    columns: tuple[str, ...] | None = None,
    frame: tuple[str, str] | None = None,
) -> Axes:
    """Draws shares of energy in percent: rows kinds of inputs, columns kinds of outputs.

    Args:
        ax: axes to draw on.
        energy: energy of a circuit.
        columns: kinds of outputs to show, in order; None shows all that have entries.
        frame: (row, column) of the cell that is framed in the colour of the untold block.

    Returns: the axes.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
    >>> recipe = TrainConfig(steps=20, batch_size=12, device="cpu")
    >>> run = train(FactRecallTask(3, 1, 2), ModelConfig(d_head=8), recipe, progress=False)
    >>> ax = plot_energy_shares(Figure().subplots(), run.circuit.energy)
    >>> [label.get_text() for label in ax.get_yticklabels()][:2]
    ['training subjects', 'held-out subjects']
    """
    if columns is None:
        columns = tuple(name for k, name in enumerate(energy.columns) if energy.counts[:, k].any())
    shares = np.array([[energy.share(row, column) for column in columns] for row in energy.rows])
    ax.imshow(np.sqrt(shares), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    for (i, j), share in np.ndenumerate(shares):
        exists = energy.counts[i, energy.columns.index(columns[j])] > 0
        text = f"{100 * share:.1f}" if exists else "–"
        color = "white" if share > 0.25 else "0.1" if exists else "0.6"
        ax.text(j, i, text, ha="center", va="center", fontsize=8.5, color=color)
    ax.set_xticks(range(len(columns)), [c.replace(" ", "\n", 1) for c in columns], fontsize=8)
    ax.set_yticks(range(len(energy.rows)), energy.rows, fontsize=8.5)
    ax.tick_params(length=0)
    if frame is not None:
        at = columns.index(frame[1]) - 0.5, energy.rows.index(frame[0]) - 0.5
        colour = current_style().held_out
        ax.add_patch(Rectangle(at, 1, 1, fill=False, ec=colour, lw=2.2, clip_on=False, zorder=5))
    return ax
