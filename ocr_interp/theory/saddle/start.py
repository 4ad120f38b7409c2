"""Factors that are symmetric under permuting pairs, as a few small matrices."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_number
from ocr_interp.errors import ConfigError
from ocr_interp.task import FactRecallTask
from ocr_interp.theory.geometry import centred_patterns


@dataclass(frozen=True)
class SymmetricFactors:
    """W_V and W_O of a balanced task, symmetric under permuting pairs, in orthonormal coordinates.

    With two components in each matrix they are 20 numbers, whatever the number of pairs.

    Attributes:
        pair_values: [status, component], acting on each of the n − 1 pair patterns; rows training, held-out.
        pair_outputs: [component, kind]; columns facts, implications.
        constant_values: [group, component]; rows training subjects, held-out subjects, r1, r2.
        constant_outputs: [component, kind].
    """

    pair_values: Float[np.ndarray, "status component"] = field(repr=False)
    pair_outputs: Float[np.ndarray, "component kind"] = field(repr=False)
    constant_values: Float[np.ndarray, "group constant_component"] = field(repr=False)
    constant_outputs: Float[np.ndarray, "constant_component kind"] = field(repr=False)

    def __post_init__(self) -> None:
        shapes = [
            np.shape(m)
            for m in (self.pair_values, self.pair_outputs, self.constant_values, self.constant_outputs)
        ]
        pair, constant = shapes[1][0], shapes[3][0]
        if shapes != [(2, pair), (pair, 2), (4, constant), (constant, 2)]:
            raise ConfigError(
                "symmetric factors must be [2, k], [k, 2], [4, m] and [m, 2] (status, kind, group), got "
                + ", ".join(map(str, shapes))
            )

    @classmethod
    def isotropic(cls, size: float) -> SymmetricFactors:
        """The start of an infinitely wide model: W_V W_Vᵀ = W_Oᵀ W_O = size² I, and W_V W_O = 0.

        Entries of standard deviation ε and width d give size = ε √d, up to 1/√d.
        """
        check_number("size", size, above=0.0)
        pair, constant = size * np.eye(4), size * np.eye(6)
        return cls(pair[:2], pair[:, 2:], constant[:4], constant[:, 4:])

    @classmethod
    def normal(cls, rng: np.random.Generator, size: float) -> SymmetricFactors:
        """Twenty normal numbers of standard deviation `size`."""
        check_number("size", size, above=0.0)
        draw = rng.standard_normal
        return cls(size * draw((2, 2)), size * draw((2, 2)), size * draw((4, 2)), size * draw((2, 2)))

    def as_vector(self) -> Float[np.ndarray, " number"]:
        """All numbers, in the order of the attributes."""
        parts = (self.pair_values, self.pair_outputs, self.constant_values, self.constant_outputs)
        return np.concatenate([np.ravel(part) for part in parts])

    def with_vector(self, numbers: Float[np.ndarray, " number"]) -> SymmetricFactors:
        """Factors of the same shapes with these numbers."""
        parts, start = [], 0
        for part in (self.pair_values, self.pair_outputs, self.constant_values, self.constant_outputs):
            parts.append(numbers[start : start + part.size].reshape(part.shape))
            start += part.size
        return SymmetricFactors(*parts)

    def at_full_size(
        self, task: FactRecallTask
    ) -> tuple[Float[np.ndarray, "input component"], Float[np.ndarray, "component answer"]]:
        """W_V [subjects, r1, r2] and W_O [answers] with these blocks.

        Raises:
            ConfigError: an unbalanced task, or several implications of a fact.
        """
        sizes = task.balanced_sizes
        if sizes is None:
            raise ConfigError("symmetric factors belong to a balanced task, got an unbalanced one")
        if task.implied_relations > 1:
            raise ConfigError(
                f"symmetric factors have one implication of a fact, got implied_relations="
                f"{task.implied_relations}: start a descent from entries instead"
            )
        n, m_train, m_test = sizes
        patterns, status = centred_patterns(n), np.where(task.subject_trained, 0, 1)
        size = np.sqrt(np.array([m_train, m_test], dtype=float))[status]
        pair_values = np.einsum(
            "sk,sp->spk", self.pair_values[status] / size[:, None], patterns[task.subject_fact]
        )
        W_V = np.zeros(
            (task.n_subjects + 2, (n - 1) * self.pair_values.shape[1] + self.constant_values.shape[1])
        )
        split = (n - 1) * self.pair_values.shape[1]
        W_V[: task.n_subjects, :split] = pair_values.reshape(task.n_subjects, -1)
        W_V[: task.n_subjects, split:] = self.constant_values[status] / (np.sqrt(n) * size)[:, None]
        W_V[task.n_subjects :, split:] = self.constant_values[2:]
        pair_of = np.concatenate([np.arange(n), np.argsort(task.fact_implication)])
        kind = np.repeat([0, 1], n)
        pair_outputs = np.einsum("ok,op->opk", self.pair_outputs.T[kind], patterns[pair_of]).reshape(
            2 * n, -1
        )
        return W_V, np.hstack([pair_outputs, self.constant_outputs.T[kind] / np.sqrt(n)]).T
