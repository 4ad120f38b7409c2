"""Embeddings of an OV circuit in three dimensions: one pair's plane and the relations' axis."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d import Axes3D
from scipy.linalg import null_space

from ocr_interp.circuits.geometry.embeddings import Coordinates
from ocr_interp.errors import ConfigError
from ocr_interp.storage.plain import printable
from ocr_interp.task import FactRecallTask
from ocr_interp.viz.style import current_style

INPUT_COLOR, RELATION_COLOR = "0.15", "0.5"


@dataclass(frozen=True)
class PairGeometry:
    """One pair's tokens in the three directions that span them; made by `of`.

    The third coordinate is along r1 − r2. The first two span the orthogonal rest of the pair's mean training
    subject, mean held-out subject and two answers; the first is along the mean held-out subject. For a
    symmetric solution the three directions contain the pair's tokens completely, so lengths and angles are
    exact.

    Attributes:
        points: "train" and "held_out" (mean subjects of the pair), "r1", "r2", "b", "c"; and "b_others",
            "c_others", the means of the other pairs' answers.
        shown: share of a point's squared length in the three directions, smallest over the pair's own points.
        cosines: "fact" and "implication": cosine of held-out subject + relation with its answer, in the full
            space.
    """

    points: dict[str, Float[np.ndarray, " xyz"]] = field(repr=False)
    shown: float
    cosines: dict[str, float]

    @classmethod
    def of(
        cls,
        inputs: Float[np.ndarray, "subject_or_relation component"],
        outputs: Float[np.ndarray, "answer component"],
        task: FactRecallTask,
        pair: int = 0,
    ) -> PairGeometry:
        """The geometry of one pair of a one-to-one task with held-out and training subjects.

        Raises:
            ConfigError: several implications of a fact, which three directions do not show.
        """
        missing = max(0, 3 - inputs.shape[1])  # a solution may have fewer than three components
        inputs, outputs = (np.pad(side, ((0, 0), (0, missing))) for side in (inputs, outputs))
        subjects, own = inputs[: task.n_subjects], task.subject_fact == pair
        facts, implications = outputs[: task.n_facts], outputs[task.n_facts :]
        c = task.fact_implication[pair]
        full = {
            "train": subjects[own & task.subject_trained].mean(0),
            "held_out": subjects[own & ~task.subject_trained].mean(0),
            "r1": inputs[task.n_subjects],
            "r2": inputs[task.n_subjects + 1],
            "b": facts[pair],
            "c": implications[c],
        }
        basis = _basis(full)
        length = {name: float(vector @ vector) for name, vector in full.items()}
        shown = min(float(((basis @ v) ** 2).sum()) / length[name] for name, v in full.items())
        full["b_others"] = np.delete(facts, pair, axis=0).mean(0)
        full["c_others"] = np.delete(implications, c, axis=0).mean(0)
        cosines = {
            "fact": _cosine(full["held_out"] + full["r1"], full["b"]),
            "implication": _cosine(full["held_out"] + full["r2"], full["c"]),
        }
        return cls({name: basis @ vector for name, vector in full.items()}, shown, cosines)


def _basis(full: dict[str, np.ndarray]) -> Float[np.ndarray, "xyz component"]:
    """Orthonormal directions: along the held-out subject, the rest of the pair's plane, r1 − r2."""
    axis = full["r1"] - full["r2"]
    axis = axis / np.linalg.norm(axis)
    tokens = np.array([full[name] for name in ("held_out", "train", "b", "c")])
    flat = tokens - np.outer(tokens @ axis, axis)
    first = flat[0] / np.linalg.norm(flat[0])
    # Orthogonal to both, so that a pair whose plane degenerates to a line also gets a complete basis.
    rest = null_space(np.array([axis, first]))
    second = rest @ np.linalg.svd(flat @ rest)[2][0]
    # Fixes the sign: the training subject (or the next vector that is not zero) is on the positive side.
    side = flat[1:] @ second
    return np.array([first, second * (1 if side[np.argmax(abs(side))] >= 0 else -1), axis])


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def plot_pair_geometry(ax: Axes3D, geometry: PairGeometry) -> Axes3D:
    """Draws subjects in their plane, relations above and below it, sums beside their answers.

    Args:
        ax: axes with projection="3d".
        geometry: the pair.

    Returns: the axes.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, solve
    >>> task = FactRecallTask(3, 1, 2)
    >>> solution = solve(task)
    >>> pair = PairGeometry.of(solution.input_embeddings(), solution.output_embeddings(), task)
    >>> len(plot_pair_geometry(Figure().add_subplot(projection="3d"), pair).texts)
    8
    """
    answer_colour, sum_colour = current_style().positive, current_style().held_out
    at = geometry.points
    reach = max(float(np.linalg.norm(v)) for v in [*at.values(), at["held_out"] + at["r1"]])
    _plane(ax, 0.8 * reach)
    _arrow(ax, at["r1"], RELATION_COLOR, "$r_1$", ha="right")
    _arrow(ax, at["r2"], RELATION_COLOR, "$r_2$", ha="right")
    together = np.linalg.norm(at["train"] - at["held_out"]) < 0.05 * reach
    if not together:
        _arrow(ax, at["train"], INPUT_COLOR, "$s$")
    _arrow(ax, at["held_out"], INPUT_COLOR, "$s = s'$" if together else "$s'$")
    for relation, answer, kind in ((1, "b", "fact"), (2, "c", "implication")):
        total = at["held_out"] + at[f"r{relation}"]
        _arrow(ax, at[answer], answer_colour, f"${answer}$")
        cosine = f"$s'+r_{relation}$\ncos {geometry.cosines[kind]:.3f} with ${answer}$"
        _arrow(ax, total, sum_colour, cosine, dashed=True, va="bottom" if relation == 1 else "top")
        ax.scatter(*at[f"{answer}_others"], color=answer_colour, alpha=0.5, s=18)
    ax.set(xlim=(-reach / 2, reach), ylim=(-0.75 * reach, 0.75 * reach), zlim=(-reach, reach))
    ax.set_box_aspect((1.5, 1.5, 2), zoom=1.2)  # pyright: ignore[reportArgumentType]
    ax.view_init(elev=24, azim=-75)
    ax.set_axis_off()
    return ax


def plot_coordinates(ax: Axes, coordinates: Coordinates) -> Axes:
    """Draws tokens in two or three dimensions as arrows from the origin, each with its label.

    Args:
        ax: axes; for three dimensions with projection="3d".
        coordinates: of an OV circuit, `circuit.embeddings().coordinates(labels, dimensions)`.

    Returns: the axes.

    Raises:
        ConfigError: axes of another number of dimensions.

    >>> from matplotlib.figure import Figure
    >>> from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
    >>> recipe = TrainConfig(steps=20, batch_size=12, device="cpu")
    >>> run = train(FactRecallTask(3, 1, 2), ModelConfig(d_head=8), recipe, progress=False)
    >>> flat = run.circuit.embeddings().coordinates(["s0", "r1", "r2", "b0", "s0+r1"])
    >>> plot_coordinates(Figure().subplots(), flat).get_xlabel()
    'along s0'
    """
    dimensions, solid = coordinates.values.shape[1], isinstance(ax, Axes3D)
    if (dimensions == 3) is not solid:
        wanted = 'projection="3d"' if dimensions == 3 else "two dimensions"
        raise ConfigError(f"coordinates of {dimensions} dimensions need axes with {wanted}")
    style, reach = current_style(), float(np.abs(coordinates.values).max(initial=0.0)) or 1.0
    for k, (name, point) in enumerate(zip(coordinates.labels, coordinates.values, strict=True)):
        colour = style.colour(k)
        ax.plot(*([0.0, float(value)] for value in point), color=colour, lw=1.6)
        ax.scatter(*point, color=colour, s=18)
        place = [float(value) for value in 1.04 * point]
        ax.text(*place, printable(name), color=colour, parse_math=False)  # pyright: ignore[reportCallIssue]
    names = [f"along {printable(anchor)}" for anchor in coordinates.anchors]
    names += ["beyond the anchors"] * (dimensions - len(names))
    rest = [names[0], *(f"{name}, rest" if name.startswith("along") else name for name in names[1:])]
    limits = dict.fromkeys(("xlim", "ylim", "zlim")[:dimensions], (-1.15 * reach, 1.15 * reach))
    ax.set(**limits, **dict(zip(("xlabel", "ylabel", "zlabel"), rest, strict=False)))
    if not solid:
        ax.set_aspect("equal")
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    return ax


def _plane(ax: Axes3D, size: float) -> None:
    """The plane of the subjects, orthogonal to the relations."""
    x, y = np.meshgrid([-size / 2, size], [-size, size])
    ax.plot_surface(x, y, np.zeros_like(x), color="0.6", alpha=0.15, shade=False, edgecolor="none")


def _arrow(
    ax: Axes3D,
    tip: Float[np.ndarray, " xyz"],
    color: str,
    label: str,
    dashed: bool = False,
    ha: str = "left",
    va: str = "center",
) -> None:
    """Draws an arrow from the origin; its label has a light background, since arrows may cross there."""
    style = "--" if dashed else "-"
    ax.quiver(0, 0, 0, *tip, color=color, lw=1.8, arrow_length_ratio=0.1, linestyle=style)
    x, y, z = 1.05 * tip
    text = ax.text(x, y, z, label, color=color, fontsize=10.5, ha=ha, va=va)
    text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
