"""Features of subjects, relations and answers: the balanced factors of an OV circuit.

W_V and W_O are defined only up to an invertible matrix between them, so raw cosines of their rows are
arbitrary. The balanced SVD W = U Σ Vᵀ, inputs U Σ^½, outputs V Σ^½, fixes them up to one rotation: inner
products and cosines, which are all that is reported here, do not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from ocr_interp.circuits.matrix import OVMatrix
from ocr_interp.errors import ConfigError, ModelError, unknown_name
from ocr_interp.hooked.provenance import Provenance
from ocr_interp.hooked.tokens.token_set import TokenSet
from ocr_interp.linalg.vectors import cosine_table, factor_imbalance, span_shares

ROTATION_RULE = (
    "axes are the anchors' vectors in the order given, made orthonormal one after the other (Gram-Schmidt): "
    "the first anchor lies on the positive first axis, the second in the upper half of the first plane; an "
    "anchor within 1e-6 of the span of those before it is skipped"
)


@dataclass(frozen=True)
class Coordinates:
    """Tokens in two or three dimensions, with the rotation fixed by inner products alone.

    Attributes:
        labels: the tokens.
        values: their coordinates, in root logits.
        anchors: tokens that set the axes, in order; fewer than dimensions if no more were independent
            (the missing coordinates are 0).
        explained: share of each token's squared length that the axes show; NaN for a zero vector.
        rule: how the rotation is fixed.
        provenance: of the circuit.
    """

    labels: tuple[str, ...] = field(repr=False)
    values: Float[np.ndarray, "token dimension"] = field(repr=False)
    anchors: tuple[str, ...]
    explained: Float[np.ndarray, " token"] = field(repr=False)
    rule: str
    provenance: Provenance


@dataclass(frozen=True)
class SpanShare:
    """How much of some vectors lies in the span of others.

    Attributes:
        labels: tokens whose vectors are projected.
        shares: squared length inside the span over the whole, 0 to 1; NaN for a zero vector.
        onto: tokens that span.
        rank: dimension of the span, singular values above `tolerance` × the largest.
        dimension: of the space; rank / dimension is what a random vector would show.
        tolerance: see rank.
        fingerprint: of the weights, as in Provenance.
    """

    labels: tuple[str, ...] = field(repr=False)
    shares: Float[np.ndarray, " token"] = field(repr=False)
    onto: tuple[str, ...]
    rank: int
    dimension: int
    tolerance: float
    fingerprint: str

    @property
    def mean(self) -> float:
        """Mean share over the tokens."""
        return float(np.mean(self.shares))

    @property
    def random_share(self) -> float:
        """Expected share of a vector of random direction in the space."""
        return self.rank / self.dimension


@dataclass(frozen=True)
class Embeddings:
    """Balanced embeddings of a circuit: input @ output.T is W.

    Attributes:
        input: U Σ^½, one row per input token, in root logits; columns are defined up to one rotation.
        output: V Σ^½, one row per output token.
        inputs, outputs: tokens of the rows.
        imbalance: of the trained factors, see `factor_imbalance`; None without factors, and for an effective
            circuit, whose rows carry the attention: read OVCircuit.from_run(run, raw=True).
        provenance: of the circuit.
    """

    input: Float[np.ndarray, "input component"] = field(repr=False)
    output: Float[np.ndarray, "output component"] = field(repr=False)
    inputs: TokenSet = field(repr=False)
    outputs: TokenSet = field(repr=False)
    imbalance: float | None
    provenance: Provenance

    @classmethod
    def of(cls, circuit: OVMatrix, null_tolerance: float = 1e-10) -> Embeddings:
        """The balanced embeddings of a circuit, without components of singular value 0.

        Args:
            circuit: any circuit.
            null_tolerance: singular values below this share of the largest are left out.
        """
        spectrum = circuit.spectrum(tolerance=0.0, null_tolerance=null_tolerance)
        root = np.sqrt(spectrum.values)
        has_raw_factors = circuit.has_factors and not circuit.is_effective
        bases = [(block.input_basis, block.output_basis) for block in spectrum.blocks]
        U = np.hstack([left for left, _ in bases]) if bases else np.zeros((len(circuit.inputs), 0))
        V = np.hstack([right for _, right in bases]) if bases else np.zeros((len(circuit.outputs), 0))
        return cls(
            input=U * root,
            output=V * root,
            inputs=circuit.inputs,
            outputs=circuit.outputs,
            imbalance=None if not has_raw_factors else factor_imbalance(circuit.left, circuit.right),
            provenance=circuit.provenance,
        )

    def vectors(self, labels: Sequence[str]) -> Float[np.ndarray, "token component"]:
        """Embeddings of tokens by label; "s0+r1" is the sum of two. Inputs are looked up before outputs.

        Raises:
            UnknownNameError: a token that is on neither side, with the close matches.
            ModelError: a token that is on both sides, as in some vocabularies: say which with
                "in:label" or "out:label".
        """
        return np.array([self._vector(label) for label in labels]).reshape(len(labels), -1)

    def _vector(self, label: str) -> Float[np.ndarray, " component"]:
        known = set(self.inputs.labels) | set(self.outputs.labels)
        if label not in known and "+" in label:
            return np.sum([self._vector(part) for part in label.split("+")], axis=0)
        side, _, name = label.partition(":") if label.startswith(("in:", "out:")) else ("", "", label)
        in_inputs, in_outputs = name in self.inputs.labels, name in self.outputs.labels
        if not side and in_inputs and in_outputs:
            raise ModelError(f"{label!r} is an input and an output: pass 'in:{label}' or 'out:{label}'")
        if side == "out" or (not side and in_outputs):
            return self.output[self.outputs.positions([name])[0]]
        if side == "in" or in_inputs:
            return self.input[self.inputs.positions([name])[0]]
        raise unknown_name("token of the circuit", name, self.inputs.labels + self.outputs.labels)

    def gram(self, labels: Sequence[str], others: Sequence[str] | None = None) -> Float[np.ndarray, "a b"]:
        """Inner products of embeddings, in logits."""
        left = self.vectors(labels)
        return left @ (left if others is None else self.vectors(others)).T

    def cosines(self, labels: Sequence[str], others: Sequence[str] | None = None) -> Float[np.ndarray, "a b"]:
        """Cosines of embeddings; NaN where a vector is zero."""
        left = self.vectors(labels)
        return cosine_table(left, left if others is None else self.vectors(others))

    def projection(self, labels: Sequence[str], onto: Sequence[str], tolerance: float = 1e-6) -> SpanShare:
        """How much of some embeddings lies in the span of others, e.g. answers in that of the relations."""
        whole = self.input.shape[1]
        shares, rank = span_shares(self.vectors(labels), self.vectors(onto), tolerance)
        stamp = self.provenance.fingerprint
        return SpanShare(tuple(labels), shares, tuple(onto), rank, whole, tolerance, stamp)

    def coordinates(
        self, labels: Sequence[str], dimensions: int = 2, anchors: Sequence[str] | None = None
    ) -> Coordinates:
        """Tokens in two or three dimensions; see ROTATION_RULE.

        Args:
            labels: tokens to place.
            dimensions: 2 or 3.
            anchors: candidates for the axes, in order; None takes `labels`.

        Raises:
            ConfigError: other dimensions.
        """
        if dimensions not in (2, 3):
            raise ConfigError(f"dimensions must be 2 or 3, got {dimensions!r}")
        candidates = tuple(labels if anchors is None else anchors)
        axes: list[np.ndarray] = []
        used: list[str] = []
        for label, vector in zip(candidates, self.vectors(candidates), strict=True):
            rest = vector - sum((axis * (axis @ vector) for axis in axes), np.zeros_like(vector))
            rest -= sum((axis * (axis @ rest) for axis in axes), np.zeros_like(vector))
            if len(axes) < dimensions and np.linalg.norm(rest) > 1e-6 * max(np.linalg.norm(vector), 1e-300):
                axes.append(rest / np.linalg.norm(rest))
                used.append(label)
        points = self.vectors(labels)
        values = np.zeros((len(points), dimensions))
        if axes:
            values[:, : len(axes)] = points @ np.array(axes).T
        squared = (points**2).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = (values**2).sum(1) / squared
        return Coordinates(tuple(labels), values, tuple(used), explained, ROTATION_RULE, self.provenance)


def held_out_span(circuit: OVMatrix, tolerance: float = 1e-6) -> SpanShare:
    """How much of each held-out subject's image (row of W) lies in the span of the training subjects'.

    Raises:
        ModelError: no fact-recall task, or one without subjects of either kind.
    """
    task = circuit.task
    if task is None or task.subject_trained.all() or not task.subject_trained.any():
        raise ModelError("held_out_span needs a fact-recall task with training and held-out subjects")
    told = tuple(task.labels[k] for k in np.flatnonzero(task.subject_trained))
    untold = tuple(task.labels[k] for k in np.flatnonzero(~task.subject_trained))
    images, span = (circuit.W[circuit.inputs.positions(labels)] for labels in (untold, told))
    shares, rank = span_shares(images, span, tolerance)
    stamp = circuit.provenance.fingerprint
    return SpanShare(untold, shares, told, rank, circuit.W.shape[1], tolerance, stamp)
