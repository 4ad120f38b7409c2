"""The distribution of a circuit's energy over blocks, as a table of shares with the untold block framed."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ocr_interp.circuits.energy import BlockEnergy
from ocr_interp.viz.style import current_style


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
