"""Heat maps of a whole model: what every head and MLP adds to a logit, and who reads what who writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ocr_interp.checks import check_count
from ocr_interp.circuits.attribution.direct import DirectAttribution
from ocr_interp.circuits.weights.composition import Composition
from ocr_interp.circuits.weights.units import Unit
from ocr_interp.comparison.model_change import STANDS_OUT, ModelChange
from ocr_interp.errors import ModelError, unknown_name
from ocr_interp.viz.style import DIVERGING, HELD_OUT, SEQUENTIAL

MOST_LABELS = 40
"""Most units that get a label of their own on an axis; above, layers do."""


def plot_direct_attribution(ax: Axes, found: DirectAttribution, named: int = 5) -> Axes:
    """Draws the mean contribution of every head and MLP, layers from bottom to top.

    Beside the heads stand the MLP of each layer, and attention where its heads cannot be told apart. Above
    it stands what is in no layer: embeddings and biases, and the total.

    Args:
        ax: axes to draw on.
        found: the attribution; contributions are means over its prompts.
        named: number of cells with their number, those largest in size.

    Returns: the axes.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, ModelConfig, build_model, circuits
    >>> model = build_model(FactRecallTask(3, 1, 2), ModelConfig(d_head=8))
    >>> found = circuits.direct_attribution(model, [["s0", "r1", "EOS"]], "b0", "b1")
    >>> plot_direct_attribution(Figure().subplots(), found).get_xlabel()
    'head'
    """
    check_count("named", named, 0)
    grid, columns = _cells(found)
    limit = float(np.nanmax(np.abs(grid), initial=0.0)) or 1.0
    image = ax.imshow(
        np.ma.masked_invalid(grid), cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto", origin="lower"
    )
    ax.set_facecolor("0.92")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(grid)))
    ax.set_ylabel("layer")
    ax.set_xlabel("head")
    flat = np.where(np.isnan(grid), 0, np.abs(grid)).ravel()
    for place in np.argsort(-flat, kind="stable")[:named]:
        row, column = divmod(int(place), len(columns))
        if flat[place] > 0.02 * limit:
            dark = flat[place] > 0.6 * limit
            ax.text(
                column, row, f"{grid[row, column]:.2g}", ha="center", va="center", fontsize=7,
                color="white" if dark else "black",
            )  # fmt: skip
    outside = {kind: _sum(found, kind) for kind in ("embedding", "bias", "layer")}
    said = [f"{name} {value:+.2f}" for name, value in outside.items() if round(value, 2)]
    total = f"{found.totals.mean():.2f}" + (" on average" if len(found.prompts) > 1 else "")
    what = "logit difference" if any(found.against) else "logit"
    ax.set_title(f"{what} {total}; in no cell: {', '.join(said) or 'nothing'}", fontsize=8)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
    bar.set_label("contribution (logits)")
    return ax


def _sum(found: DirectAttribution, kind: str) -> float:
    return float(sum(v for part, v in zip(found.parts, found.mean, strict=True) if part.kind == kind))


def _cells(found: DirectAttribution) -> tuple[Float[np.ndarray, "layer column"], list[str]]:
    """Means by layer: heads, and a column for MLPs and for whole attentions if there are any."""
    values = dict(zip(found.parts, found.mean, strict=True))
    layers = 1 + max((part.layer or 0 for part in values), default=0)
    heads = 1 + max((part.head for part in values if part.head is not None), default=-1)
    columns = [str(h) for h in range(heads)]
    kinds = [(kind, name) for kind, name in (("attention", "all"), ("mlp", "MLP")) if _has(found, kind)]
    grid = np.full((layers, heads + len(kinds)), np.nan)
    for part, value in values.items():
        if part.layer is None:
            continue
        if part.kind == "head" and part.head is not None:
            grid[part.layer, part.head] = value
        for k, (kind, _) in enumerate(kinds):
            if part.kind == kind:
                grid[part.layer, heads + k] = value
    if not grid.size:
        raise ModelError("a picture needs heads, attentions or MLPs, got an attribution without any")
    return grid, columns + [name for _, name in kinds]


def _has(found: DirectAttribution, kind: str) -> bool:
    return any(part.kind == kind for part in found.parts)


def plot_composition(ax: Axes, found: Composition, by: str = "K", named: int = 3) -> Axes:
    """Draws the composition scores of every pair by one way of reading; chance is white.

    Args:
        ax: axes to draw on.
        found: the scores.
        by: an entry of `found.scores`: "Q", "K", "V" or "in".
        named: number of pairs that are framed, those furthest above chance in standard deviations.

    Returns: the axes.

    >>> import warnings
    >>> from matplotlib.figure import Figure
    >>> from transformer_lens import HookedTransformer, HookedTransformerConfig
    >>> from ocr_interp import circuits
    >>> sizes = {"n_layers": 2, "n_heads": 2, "d_model": 8, "n_ctx": 4, "d_head": 4, "d_vocab": 5}
    >>> with warnings.catch_warnings(action="ignore"):  # that the class is deprecated
    ...     model = HookedTransformer(HookedTransformerConfig(**sizes, attn_only=True, seed=0))
    >>> plot_composition(Figure().subplots(), circuits.composition(model)).get_ylabel()
    'writes'
    """
    check_count("named", named, 0)
    if by not in found.scores:
        raise unknown_name("way of reading", by, found.scores)
    scores, far = found.scores[by], found.deviations[by]
    rows = np.flatnonzero(~np.isnan(scores).all(1))
    columns = np.flatnonzero(~np.isnan(scores).all(0))
    if not len(rows):
        raise ModelError(f"a picture of composition by {by} needs two units of which one reads the other")
    shown, far = scores[np.ix_(rows, columns)], far[np.ix_(rows, columns)]
    spread = float(np.nanmax(np.abs(shown - found.chance))) or 1.0
    image = ax.imshow(
        np.ma.masked_invalid(shown),
        cmap=DIVERGING,
        vmin=found.chance - spread,  # so that chance is white; scores are never below zero
        vmax=found.chance + spread,
        aspect="auto",
    )
    ax.set_facecolor("0.92")
    writers, readers = [found.writers[k] for k in rows], [found.readers[k] for k in columns]
    _label(ax, "y", writers)
    _label(ax, "x", readers)
    ax.set_ylabel("writes")
    ax.set_xlabel({"in": "reads"}.get(by, f"reads with its {by}"))
    for place in np.argsort(-np.where(np.isnan(far), -np.inf, far).ravel(), kind="stable")[:named]:
        row, column = divmod(int(place), len(columns))
        if not np.isnan(far[row, column]):
            frame = {"fill": False, "edgecolor": HELD_OUT, "lw": 1.5, "clip_on": False}
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **frame))
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
    bar.set_label(f"score (chance {found.chance:.3f})")
    return ax


def _label(ax: Axes, axis: str, units: Sequence[Unit]) -> None:
    """Names of units; of layers where there are too many."""
    ticks = ax.xaxis if axis == "x" else ax.yaxis
    if len(units) <= MOST_LABELS:
        places, names = list(range(len(units))), [unit.name for unit in units]
    else:
        layers = sorted({unit.layer for unit in units})
        places = [next(k for k, unit in enumerate(units) if unit.layer == layer) for layer in layers]
        names = [f"L{layer}" for layer in layers]
    ticks.set_ticks(places, names, fontsize=6, rotation=90 if axis == "x" else 0)


_PANELS = (("OV", "OV circuits"), ("QK", "QK circuits"), ("in", "MLP in"), ("out", "MLP out"))


def plot_model_change(
    ax: Axes, found: ModelChange, kind: str = "OV", *, largest: float | None = None
) -> Axes:
    """Draws how much every head's (or MLP's) circuit changed between the tokens, layers from bottom to top.

    Framed cells changed for these tokens: `found.standing_out`, far above random changes of the same size.

    Args:
        ax: axes to draw on.
        found: of `compare_models`.
        kind: an entry of `comparison.model_change.KINDS`.
        largest: relative change of the darkest colour; give panels that are compared the same.

    Returns: the axes.

    Raises:
        ModelError: no circuit of this kind was read.

    >>> import copy, warnings
    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, ModelConfig, build_model, comparison
    >>> model = build_model(FactRecallTask(3, 1, 2), ModelConfig(d_head=8))
    >>> later = copy.deepcopy(model)
    >>> later.blocks[0].attn.W_V.data *= 1.5
    >>> found = comparison.compare_models(model, later, inputs=[0, 1], outputs=[8, 9], circuits=0)
    >>> plot_model_change(Figure().subplots(), found).get_ylabel()
    'layer'
    """
    grid = found.grid(kind)
    if np.isnan(grid).all():
        raise ModelError(f"a picture of {kind} circuits needs some, got a comparison without any")
    top = float(np.nanmax(grid)) if largest is None else largest
    ax.imshow(
        np.ma.masked_invalid(grid), cmap=SEQUENTIAL, vmin=0, vmax=top or 1.0, aspect="auto", origin="lower"
    )
    ax.set_facecolor("0.92")
    for each in found.units:
        if each.kind == kind and (each.unit, kind) in found.standing_out:
            frame = {"fill": False, "edgecolor": HELD_OUT, "lw": 1.2, "clip_on": False}
            ax.add_patch(Rectangle(((each.head or 0) - 0.5, each.layer - 0.5), 1, 1, **frame))
    heads = grid.shape[1]
    step = 1 + (heads - 1) // 12
    ax.set_xticks(range(0, heads, step) if heads > 1 else [])
    ax.set_yticks(range(0, len(grid), 1 + (len(grid) - 1) // 16))
    ax.set_xlabel("head" if kind in ("OV", "QK") else "")
    ax.set_ylabel("layer")
    ax.set_title(dict(_PANELS)[kind], fontsize=9)
    return ax


def draw_model_change(found: ModelChange, title: str = "") -> Figure:
    """A figure of all circuits of a comparison: OV and QK of heads, what MLPs read and write, on one scale.

    Args:
        found: of `compare_models`.
        title: above it; what changed how much is said below it.
    """
    kinds = [kind for kind, _ in _PANELS if not np.isnan(found.grid(kind)).all()]
    largest = max((float(np.nanmax(found.grid(kind))) for kind in kinds), default=0.0)
    layers = len(found.grid(kinds[0]))
    figure = Figure(figsize=(6.6, min(7.5, 1.7 + 0.15 * max(layers, 10))), layout="constrained")
    widths = [4.0 if kind in ("OV", "QK") else 1.0 for kind in kinds]
    panels = figure.subplots(1, len(kinds), width_ratios=widths, squeeze=False)[0]
    for k, (ax, kind) in enumerate(zip(panels, kinds, strict=True)):
        plot_model_change(ax, found, kind, largest=largest)
        if k:
            ax.set_ylabel("")
    bar = figure.colorbar(panels[0].images[0], ax=list(panels), pad=0.02)
    bar.set_label("relative change")
    count = len(found.standing_out)
    said = f"framed: {count} circuits that changed {STANDS_OUT:g} times as much as random changes"
    what = said if count else "no circuit changed twice as much as random changes of the same size"
    figure.suptitle(f"{title}\n{what}".strip(), fontsize=9, parse_math=False)
    return figure
