"""Two circuits of the same tokens: what changed, by degenerate block, beside random changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_count
from ocr_interp.circuits.attention.qk import QKCircuit
from ocr_interp.circuits.matrix import OVMatrix
from ocr_interp.errors import ModelError
from ocr_interp.hooked.tokens.token_set import TokenSet
from ocr_interp.linalg.angles import BlockAngles, block_angles
from ocr_interp.linalg.spectrum import Norms, Spectrum, factored_svd, norms_of, spectrum_of

Comparable: TypeAlias = OVMatrix | QKCircuit
Factors: TypeAlias = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class BlockChange:
    """A degenerate block before, and the directions after that fit it best.

    Attributes:
        value, multiplicity: mean singular value and dimension of the block before.
        after: singular values of the matched directions after, largest first.
        input_angles, output_angles: principal angles in degrees, smallest first; 0 is the same subspace. Of
            a QK circuit those of queries and of keys. Where the circuit after has fewer directions, 90.
        random_input_angles, random_output_angles: the same after each random change of the same size.
    """

    value: float
    multiplicity: int
    after: Float[np.ndarray, " matched"] = field(repr=False)
    input_angles: Float[np.ndarray, " direction"] = field(repr=False)
    output_angles: Float[np.ndarray, " direction"] = field(repr=False)
    random_input_angles: Float[np.ndarray, "draw direction"] = field(repr=False)
    random_output_angles: Float[np.ndarray, "draw direction"] = field(repr=False)


@dataclass(frozen=True)
class CircuitChange:
    """What differs between two circuits of the same tokens.

    Attributes:
        kind: "OV" or "QK".
        before, after: where the circuits come from, one line each.
        relative: ‖W' - W‖_F / ‖W‖_F; NaN if W is zero and W' is not.
        cosine: ⟨W, W'⟩ / ‖W‖‖W'‖; NaN if one is zero.
        norms: of before, of after and of the change.
        rows, columns: names of the groups of tokens.
        group_before, group_change: Frobenius norm by group of rows and of columns, of W and of W' - W.
        bias_change: norm of the change of the bias: what an OV circuit adds for any token, or what b_Q adds
            to the scores of a key; not in W.
        blocks: of the circuit before, largest singular values first.
        tolerance: of the blocks, see `OVCircuit.spectrum`.
        seed: of the random changes. Each has the singular values of W' - W and random directions.
    """

    kind: str
    before: str
    after: str
    relative: float
    cosine: float
    norms: tuple[Norms, Norms, Norms] = field(repr=False)
    rows: tuple[str, ...] = field(repr=False)
    columns: tuple[str, ...] = field(repr=False)
    group_before: Float[np.ndarray, "row column"] = field(repr=False)
    group_change: Float[np.ndarray, "row column"] = field(repr=False)
    bias_change: float
    blocks: tuple[BlockChange, ...] = field(repr=False)
    tolerance: float
    seed: int

    def table(self) -> Any:
        """A DataFrame with one row per block: its value before and after, its largest angles, and the mean of
        the largest angles after random changes of the same size."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "block": index,
                    "multiplicity": block.multiplicity,
                    "before": block.value,
                    "after": float(block.after.mean()) if len(block.after) else 0.0,
                    "input angle": _largest(block.input_angles),
                    "random input angle": _mean_largest(block.random_input_angles),
                    "output angle": _largest(block.output_angles),
                    "random output angle": _mean_largest(block.random_output_angles),
                }
                for index, block in enumerate(self.blocks)
            ]
        )

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def summary(self, rows: int = 8) -> str:
        """Readable text: sizes, the change by group, and the first blocks."""
        lines = [
            f"{self.kind} circuit before: {self.before}",
            f"{self.kind} circuit after:  {self.after}",
            f"change {self.relative:.4g} of its size (cosine {self.cosine:.4f}), effective rank "
            f"{self.norms[2].effective_rank:.2f}; bias changed by {self.bias_change:.4g}",
        ]
        for row, sizes, changes in zip(self.rows, self.group_before, self.group_change, strict=True):
            cells = [
                f"{column} {change:.4g} of {size:.4g}"
                for column, size, change in zip(self.columns, sizes, changes, strict=True)
            ]
            lines.append(f"  {row}: {', '.join(cells)}")
        lines.append(
            "block (multiplicity): singular value, largest angles of inputs and outputs in degrees (after "
            f"random changes of the same size, seed {self.seed})"
        )
        for index, block in enumerate(self.blocks[:rows]):
            after = f"{block.after.mean():.4g}" if len(block.after) else "none"
            lines.append(
                f"  {index} ({block.multiplicity}): {block.value:.4g} -> {after}, "
                f"{_largest(block.input_angles):.2f} ({_mean_largest(block.random_input_angles):.2f}), "
                f"{_largest(block.output_angles):.2f} ({_mean_largest(block.random_output_angles):.2f})"
            )
        if len(self.blocks) > rows:
            lines.append(f"  and {len(self.blocks) - rows} more blocks")
        return "\n".join(lines)


def compare(
    before: Comparable, after: Comparable, *, tolerance: float = 0.05, controls: int = 5, seed: int = 0
) -> CircuitChange:
    """What changed from one circuit to another of the same kind and tokens, by degenerate block.

    Singular vectors inside a block mean nothing by themselves, so blocks are compared by principal angles.
    Beside each stand the angles after random changes with the singular values of W' - W.

    Args:
        before, after: two OV circuits or two QK circuits of the same tokens, such as
            `run.at(100).circuit` and `run.circuit`.
        tolerance: of the blocks; trained weights need more than rounding.
        controls: number of random changes.
        seed: of their directions.

    Raises:
        ModelError: circuits of two kinds, of other tokens, or one effective and one raw.

    >>> from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
    >>> recipe = TrainConfig(steps=20, batch_size=12, device="cpu")
    >>> run = train(FactRecallTask(3, 1, 2), ModelConfig(d_head=8), recipe, progress=False)
    >>> compare(run.circuit, run.circuit).relative
    0.0
    """
    check_count("controls", controls, 0)
    check_count("seed", seed, 0)
    kind, sides, names = _checked(before, after)
    first, second = ((c.left, c.right) for c in (before, after))
    change = change_of(first, second)
    U, values, V = factored_svd(*change)
    blocks = spectrum_of(*first, tolerance)
    matched = _angles(blocks, second)
    random = []
    generator = np.random.default_rng(seed)
    for _ in range(controls):
        turned = (random_basis(generator, *U.shape) * values, random_basis(generator, *V.shape).T)
        random.append(_angles(blocks, _sum(first, turned)))
    norms = (norms_of(blocks.values), after.norms, norms_of(values))
    groups = [[side.of_group(name) for name in side.group_names] for side in sides]
    return CircuitChange(
        kind=kind,
        before=before.provenance.summary(),
        after=after.provenance.summary(),
        relative=ratio(norms[2].frobenius, norms[0].frobenius),
        cosine=_cosine(first, second),
        norms=norms,
        rows=sides[0].group_names,
        columns=sides[1].group_names,
        group_before=_by_group(first, groups),
        group_change=_by_group(change, groups),
        bias_change=float(np.linalg.norm(names[1] - names[0])),
        blocks=tuple(
            BlockChange(
                value=found.predicted_value,
                multiplicity=found.multiplicity,
                after=found.measured_values,
                input_angles=found.input_angles,
                output_angles=found.output_angles,
                random_input_angles=_stacked([r[k].input_angles for r in random], found.multiplicity),
                random_output_angles=_stacked([r[k].output_angles for r in random], found.multiplicity),
            )
            for k, found in enumerate(matched)
        ),
        tolerance=tolerance,
        seed=seed,
    )


def change_of(before: Factors, after: Factors) -> Factors:
    """W' - W as factors: (left' - left) right' + left (right' - right), no difference of large products."""
    (L0, R0), (L1, R1) = before, after
    if L0.shape != L1.shape:  # factors of two widths, as of two parameterisations
        return np.hstack([L1, L0]), np.vstack([R1, -R0])
    return np.hstack([L1 - L0, L0]), np.vstack([R1, R1 - R0])


def ratio(change: float, size: float) -> float:
    """change / size; 0 where nothing was and nothing changed, NaN where nothing was."""
    return change / size if size else (0.0 if not change else float("nan"))


def random_basis(generator: np.random.Generator, rows: int, columns: int) -> Float[np.ndarray, "row column"]:
    """Orthonormal columns in uniformly random directions."""
    Q, R = np.linalg.qr(generator.standard_normal((rows, columns)))
    return Q * np.sign(np.diag(R))


def _sum(first: Factors, second: Factors) -> Factors:
    return np.hstack([first[0], second[0]]), np.vstack([first[1], second[1]])


def _angles(blocks: Spectrum, after: Factors) -> tuple[BlockAngles, ...]:
    """Of every block with the directions after; 90 degrees where nothing is left."""
    measured = spectrum_of(*after, 0.0)
    if measured.blocks:
        return block_angles(blocks, measured, 1.0) if blocks.blocks else ()
    gone = [np.full(b.multiplicity, 90.0) for b in blocks.blocks]
    return tuple(
        BlockAngles(b.value, b.multiplicity, np.zeros(0), angle, angle)
        for b, angle in zip(blocks.blocks, gone, strict=True)
    )


def _stacked(angles: list[np.ndarray], width: int) -> Float[np.ndarray, "draw direction"]:
    return np.stack(angles) if angles else np.zeros((0, width))


def _by_group(factors: Factors, groups: list[list[np.ndarray]]) -> Float[np.ndarray, "row column"]:
    """Frobenius norms of the parts of a product, which is not formed where factors are thin."""
    left, right = factors
    return np.array(
        [
            [norms_of(factored_svd(left[rows], right[:, columns])[1]).frobenius for columns in groups[1]]
            for rows in groups[0]
        ]
    )


def _cosine(first: Factors, second: Factors) -> float:
    (L0, R0), (L1, R1) = first, second

    def inner(a: Factors, b: Factors) -> float:
        return float(((a[0].T @ b[0]) * (a[1] @ b[1].T)).sum())

    size = np.sqrt(max(inner((L0, R0), (L0, R0)), 0.0) * max(inner((L1, R1), (L1, R1)), 0.0))
    return inner((L0, R0), (L1, R1)) / float(size) if size else float("nan")


def _checked(
    before: Comparable, after: Comparable
) -> tuple[str, tuple[TokenSet, TokenSet], tuple[np.ndarray, np.ndarray]]:
    """Kind of both circuits, the tokens of rows and columns, and both biases.

    Raises:
        ModelError: they cannot be compared; says what must be the same.
    """
    if isinstance(before, OVMatrix) and isinstance(after, OVMatrix):
        if before.is_effective != after.is_effective:
            raise ModelError(
                "two OV circuits must both be effective, diag(a) W_OV, or both raw, got one of each: read "
                "both the same way"
            )
        sides = ((before.inputs, after.inputs, "inputs"), (before.outputs, after.outputs, "outputs"))
        kind, biases = "OV", (before.bias, after.bias)
    elif isinstance(before, QKCircuit) and isinstance(after, QKCircuit):
        if before.distance != after.distance:
            raise ModelError(
                f"two QK circuits must be at one distance, got {before.distance} and {after.distance}"
            )
        sides = ((before.queries, after.queries, "queries"), (before.keys, after.keys, "keys"))
        kind, biases = "QK", (before.key_bias, after.key_bias)
    else:
        raise ModelError(
            "compare takes two OVCircuits or two QKCircuits, got "
            f"{type(before).__name__} and {type(after).__name__}; whole models: compare_models(before, after)"
        )
    for one, other, what in sides:
        same = ("ids", "labels", "group_names", "group")
        differing = [name for name in same if getattr(one, name) != getattr(other, name)]
        if differing:
            raise ModelError(
                f"two circuits must have the same {what}, got {len(one)} and {len(other)} tokens with other "
                f"{', '.join(differing)}: read both with the same token sets, or circuit.restrict(...)"
            )
    return kind, (sides[0][0], sides[1][0]), biases


def _largest(angles: np.ndarray) -> float:
    return float(angles.max(initial=0.0))


def _mean_largest(angles: np.ndarray) -> float:
    return float(angles.max(1).mean()) if angles.size else float("nan")
