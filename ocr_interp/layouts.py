"""Which tokens run over which factor of a Kronecker product: the layouts of subjects and answers. No torch.

A sum of Kronecker products Σ_k A_k ⊗ B_k depends on the order of the rows and columns. Row r of the product
is row r // (rows of B) of A and row r % (rows of B) of B; columns likewise. So a layout is a place for every
subject among the rows, a place for every answer among the columns, and the shapes of A and B. Together,
subjects x answers are the grid; all other rows (relations, noise, EOS) are no part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.checks import check_choice, check_count, check_flag, check_number
from ocr_interp.errors import ConfigError
from ocr_interp.task import FactRecallTask

LAYOUTS = ("aligned", "transposed", "vocabulary")
"""Orders of the grid's tokens before some of them are permuted, see `token_layout`."""


@dataclass(frozen=True)
class KroneckerLayout:
    """Places of the tokens in a sum of Kronecker products; usually made by `token_layout`.

    Attributes:
        rows: place of every subject among the rows, 0..n_subjects-1.
        columns: place of every answer among the columns, 0..n_answers-1.
        a_shape: shape of each A.
        b_shape: shape of each B.
        layers: number of sums that stand side by side, each with its share of the columns.

    Raises:
        ConfigError: places that are no permutation, or shapes that do not multiply to the grid's.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    a_shape: tuple[int, int]
    b_shape: tuple[int, int]
    layers: int = 1

    def __post_init__(self) -> None:
        check_count("layers", self.layers, 1)
        for name, places in (("rows", self.rows), ("columns", self.columns)):
            if sorted(places) != list(range(len(places))):
                missing = sorted(set(range(len(places))) - set(places))
                raise ConfigError(
                    f"{name} must give every token a place of its own, 0 to {len(places) - 1}, got no token "
                    f"at {', '.join(map(str, missing[:5]))}: a layout is a permutation"
                )
        (a_in, a_out), (b_in, b_out) = self.a_shape, self.b_shape
        size = (a_in * b_in, self.layers * a_out * b_out)
        if size != self.shape:
            raise ConfigError(
                f"A {a_in} x {a_out} and B {b_in} x {b_out} in {self.layers} layers must make "
                f"{self.shape[0]} subjects x {self.shape[1]} answers, got {size[0]} x {size[1]}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(subjects, answers): the shape of the grid."""
        return len(self.rows), len(self.columns)

    @property
    def rearranged_shape(self) -> tuple[int, int, int]:
        """(layers, entries of A, entries of B): the shape of the rearrangement."""
        return self.layers, int(np.prod(self.a_shape)), int(np.prod(self.b_shape))

    @cached_property
    def index(self) -> Int[np.ndarray, "subject answer"]:
        """For every entry of the grid its place in the flattened rearrangement."""
        (b_in, b_out), (_, entries_a, entries_b) = self.b_shape, self.rearranged_shape
        row, column = np.array(self.rows)[:, None], np.array(self.columns)[None, :]
        layer, column = np.divmod(column, self.a_shape[1] * b_out)
        a = (row // b_in) * self.a_shape[1] + column // b_out
        b = (row % b_in) * b_out + column % b_out
        return (layer * entries_a + a) * entries_b + b

    @cached_property
    def inverse(self) -> Int[np.ndarray, " entry"]:
        """For every entry of the flattened rearrangement its place in the flattened grid."""
        return np.argsort(self.index, axis=None)

    def rearranged(
        self, grid: Float[np.ndarray, "subject answer"]
    ) -> Float[np.ndarray, "layer entry_of_a entry_of_b"]:
        """Van Loan's rearrangement R: Σ_k A_k ⊗ B_k becomes Σ_k vec(A_k) vec(B_k)ᵀ, per layer.

        Source: Van Loan and Pitsianis 1993; docs/theory.md, "Kronecker products".
        """
        return grid.reshape(-1)[self.inverse].reshape(self.rearranged_shape)

    def restored(
        self, R: Float[np.ndarray, "layer entry_of_a entry_of_b"]
    ) -> Float[np.ndarray, "subject answer"]:
        """The grid of a rearrangement."""
        return R.reshape(-1)[self.index]

    def table(self, task: FactRecallTask) -> str:
        """The layout as text: which tokens share a row or column of A; in a line the order is B's."""
        (a_in, a_out), (b_in, b_out) = self.a_shape, self.b_shape
        subjects = np.array(task.labels[: task.n_subjects])[np.argsort(self.rows)]
        answers = np.array(task.labels[task.n_inputs :])[np.argsort(self.columns)]
        lines = [f"A {a_in} x {a_out}, B {b_in} x {b_out}" + f", {self.layers} layers" * (self.layers > 1)]
        lines += [f"row {r} of A     {' '.join(g)}" for r, g in enumerate(subjects.reshape(a_in, b_in))]
        for layer, of_layer in enumerate(answers.reshape(self.layers, a_out, b_out)):
            said = f" (layer {layer})" * (self.layers > 1)
            lines += [f"column {c} of A  {' '.join(group)}{said}" for c, group in enumerate(of_layer)]
        return "\n".join(lines)


def token_layout(
    task: FactRecallTask,
    layout: str = "aligned",
    *,
    phm_dim: int = 0,
    shared_phm_rule: bool = True,
    permuted_share: float = 0.0,
    layout_seed: int = 0,
) -> KroneckerLayout:
    """The layout of a task's subjects and answers.

    Args:
        task: every pair with as many subjects as the others and one implication of its own for each
            relation; for "vocabulary" any task.
        layout: "aligned": pairs first, so that A runs over pairs and B over (member, type). "transposed": A
            and B change places, A runs over (member, type) and B over pairs. "vocabulary": in the order of
            their token ids: subjects by pair, and facts before implications.
        phm_dim: size of the square factor, phm_dim x phm_dim: A, or B if transposed. 0: the number of pairs.
        shared_phm_rule: one sum for all answers; False: a layer for each type of answer, with its own A.
        permuted_share: share of the subjects, and of the answers, that change places, chosen by chance; 1: a
            random order.
        layout_seed: seed of the permutation.

    Raises:
        ConfigError: a task that is no grid, a phm_dim that does not divide it, or an option of another
            layout.
    """
    check_choice("layout", layout, LAYOUTS)
    check_flag("shared_phm_rule", shared_phm_rule)
    check_count("layout_seed", layout_seed, 0)
    check_number("permuted_share", permuted_share, at_least=0.0)
    if permuted_share > 1:
        raise ConfigError(f"permuted_share must be from 0 to 1, got {permuted_share:g}")
    if layout_seed and not permuted_share:
        raise ConfigError(
            f"layout_seed chooses which tokens change places, got {layout_seed} with permuted_share=0: set "
            "permuted_share, or leave layout_seed out"
        )
    if not shared_phm_rule and layout == "vocabulary":
        raise ConfigError(
            "shared_phm_rule=False needs layout='aligned' or 'transposed', where the columns are sorted by "
            f"type, got {layout!r}"
        )
    layers = 1
    if layout == "vocabulary":
        row, column = np.arange(task.n_subjects), np.arange(task.n_answers)
    else:
        pair, member, answer_pair, answer_type, n_types = _places(task, layout)
        n, members = task.n_facts, task.n_subjects // task.n_facts
        aligned = layout == "aligned"
        row = pair * members + member if aligned else member * n + pair
        column = answer_pair * n_types + answer_type
        if not aligned or not shared_phm_rule:  # within a layer the columns are pairs, in both layouts
            column = answer_type * n + answer_pair
        layers = 1 if shared_phm_rule else n_types
    rng = np.random.default_rng(layout_seed)
    row, column = (_moved(places, permuted_share, rng) for places in (row, column))
    size = phm_dim or task.n_facts
    other = _other_factor(task, size, layers, phm_dim)
    square = (size, size)
    a, b = (other, square) if layout == "transposed" else (square, other)
    return KroneckerLayout(tuple(row.tolist()), tuple(column.tolist()), a, b, layers)


def _places(task: FactRecallTask, layout: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Pair and member of every subject, pair and type of every answer, and the number of types.

    Raises:
        ConfigError: the task is no grid.
    """
    triples = task.triples
    n, pair, n_types = task.n_facts, task.subject_fact, int(triples.relation.max()) + 1
    answer_pair, answer_type = np.full(task.n_answers, -1), np.full(task.n_answers, -1)
    answer_pair[triples.answer], answer_type[triples.answer] = pair[triples.subject], triples.relation
    counts = np.bincount(pair, minlength=n)
    one_to_one = len({*zip(answer_pair.tolist(), answer_type.tolist(), strict=True)}) == n * n_types
    if (counts != counts[0]).any() or task.n_answers != n * n_types or not one_to_one:
        raise ConfigError(
            f"layout={layout!r} needs pairs of equal numbers of subjects, each with answers of its own, got "
            f"{counts.min()} to {counts.max()} subjects for a fact, {n} facts and {task.n_answers - n} "
            "implications: take layout='vocabulary' with a phm_dim that divides them"
        )
    order = np.lexsort((np.arange(task.n_subjects), ~task.subject_trained, pair))
    member = np.empty(task.n_subjects, dtype=np.int64)
    member[order] = np.tile(np.arange(counts[0]), n)
    return pair, member, answer_pair, answer_type, n_types


def _moved(places: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A share of the tokens, chosen by chance, change places in one cycle, so that each of them moves."""
    chosen = rng.permutation(len(places))[: round(share * len(places))]
    moved = places.copy()
    moved[chosen] = places[np.roll(chosen, 1)]
    return moved


def _other_factor(task: FactRecallTask, size: int, layers: int, phm_dim: int) -> tuple[int, int]:
    """Shape of the factor beside the square one.

    Raises:
        ConfigError: phm_dim does not divide the sides of the grid.
    """
    check_count("phm_dim", phm_dim, 0)
    n_rows, n_columns = task.n_subjects, task.n_answers // layers
    divisors = [d for d in range(1, min(n_rows, n_columns) + 1) if n_rows % d == n_columns % d == 0]
    if size not in divisors:
        allowed = ", ".join(map(str, divisors))
        which = "of the grid" if layers == 1 else "of a layer"
        raise ConfigError(
            f"phm_dim must divide both sides {which}, {n_rows} subjects and {n_columns} answers: one of "
            f"{allowed}, got {size}"
            + ("" if phm_dim else " (the number of facts, which phm_dim=0 stands for): set phm_dim")
        )
    return n_rows // size, n_columns // size
