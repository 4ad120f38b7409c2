"""The distribution of a circuit's energy over blocks, as a table of shares with the untold block framed."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ocr_interp.circuits.energy import BlockEnergy
from ocr_interp.viz.style import HELD_OUT


def plot_energy_shares(
    ax: Axes, energy: BlockEnergy, columns: tuple[str, ...], frame: tuple[str, str] | None = None
) -> None:
    """Draws shares of energy in percent: rows kinds of inputs, columns kinds of outputs.

    Args:
        ax: axes to draw on.
        energy: energy of a circuit.
        columns: kinds of outputs to show, in order.
        frame: (row, column) of the cell that is framed in the colour of the untold block.
    """
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
        ax.add_patch(Rectangle(at, 1, 1, fill=False, ec=HELD_OUT, lw=2.2, clip_on=False, zorder=5))
