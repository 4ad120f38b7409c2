"""What was measured beside what it is compared with: predictions and random baselines."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy

from ocr_interp.ablation.study import BASELINE, AblationStudy
from ocr_interp.circuits.geometry.alignment import RANDOM, AlignmentReport
from ocr_interp.errors import unknown_name
from ocr_interp.storage.plain import printable
from ocr_interp.viz.style import current_style


def plot_alignment(ax: Axes, report: AlignmentReport) -> Axes:
    """Draws cosines of the geometry by kind of pair: measured with their range, predicted, and random.

    Args:
        ax: axes to draw on; about a third of an inch high for each kind.
        report: of `circuit.alignment(prediction)`.

    Returns: the axes.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, solve, train
    >>> task = FactRecallTask(3, 1, 2)
    >>> recipe = TrainConfig(steps=20, batch_size=12, device="cpu")
    >>> run = train(task, ModelConfig(d_head=8), recipe, progress=False)
    >>> ax = plot_alignment(Figure().subplots(), run.circuit.alignment(solve(task)))
    >>> [text.get_text() for text in ax.get_legend().texts]
    ['predicted', 'random weights', 'measured, with its range']
    """
    style = current_style()
    groups = [group for group in report.measured.groups if group.count]
    places = np.arange(len(groups))
    means = np.array([group.mean for group in groups])
    low = means - [group.smallest for group in groups]
    high = np.array([group.largest for group in groups]) - means
    ax.errorbar(
        means,
        places,
        xerr=np.maximum([low, high], 0),
        fmt="o",
        ms=5,
        lw=1.2,
        color=style.colour(0),
        label="measured, with its range",
    )
    predicted = [group.predicted for group in groups]
    ax.scatter(predicted, places, s=60, fc="none", ec=style.held_out, lw=1.4, zorder=3, label="predicted")
    for k, drawn in enumerate(report.of_role(RANDOM)):
        values = [drawn.group(group.name).mean for group in groups]
        name = None if k else "random weights"
        ax.scatter(values, places, marker="|", s=60, color=style.neutral, label=name)
    names = [group.name.replace("held_out", "held-out").replace("_", " ") for group in groups]
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="cosine", xlim=(-1.05, 1.05))
    _legend_below(ax, n_columns=3)
    return ax


def plot_study(ax: Axes, study: AblationStudy, metric: str, *, splits: tuple[str, ...] | None = None) -> Axes:
    """Draws what every ablation leaves of a metric, one bar per split, rings for its random control.

    Args:
        ax: axes to draw on; about half an inch high for each ablation.
        study: the study.
        metric: one of its metrics.
        splits: some of its splits; None draws all.

    Returns: the axes.

    Raises:
        UnknownNameError: a metric or a split that the study does not have.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
    >>> from ocr_interp.ablation import Site, Zero, run_ablation_study
    >>> recipe = TrainConfig(steps=20, batch_size=12, device="cpu")
    >>> run = train(FactRecallTask(3, 1, 2), ModelConfig(d_head=8), recipe, progress=False)
    >>> site = Site("blocks.0.attn.hook_v", tokens=("r1",))
    >>> study = run_ablation_study(run, {"without r1": Zero().at(site)}, progress=False)
    >>> [label.get_text() for label in plot_study(Figure().subplots(), study, "accuracy").get_yticklabels()]
    ['the model as it is', 'without r1']
    """
    for split in splits or ():
        if split not in study.splits:
            raise unknown_name("split of the study", split, study.splits)
    chosen = splits or study.splits
    values = study.by_split(metric)
    controls = [study.by_split(metric, name).reindex(values.index) for name in study.controls[-1:]]
    places, height = np.arange(len(values)), 0.8 / len(chosen)
    for k, split in enumerate(chosen):
        at = places + (k - (len(chosen) - 1) / 2) * height
        name = split.replace("held_out", "held-out").replace("_", " ")
        ax.barh(at, values[split], height=0.9 * height, color=current_style().colour(k), label=name)
        for drawn in controls:
            ax.scatter(drawn[split], at, s=26, fc="white", ec="0.2", lw=1.1, zorder=3)
    names = ["the model as it is" if spec == BASELINE else printable(str(spec)) for spec in values.index]
    ax.set_yticks(places, names)
    for label in ax.get_yticklabels():
        label.set_parse_math(False)
    ax.invert_yaxis()
    ax.set_xlabel(metric.replace("_", " "))
    _legend_below(ax, n_columns=2)
    return ax


def _legend_below(ax: Axes, n_columns: int) -> None:
    """A legend below the label of the x axis, however high the axes are; it reaches below long y labels."""
    figure, size = ax.get_figure(root=True), float(ax.xaxis.label.get_fontsize())
    below = offset_copy(ax.transAxes, figure, y=-3.8 * size, units="points")  # ticks and label
    ax.legend(
        frameon=False,
        loc="upper right",
        bbox_to_anchor=(1.0, 0.0),
        bbox_transform=below,
        borderaxespad=0.0,
        ncols=n_columns,
        columnspacing=1.2,
    )
