"""Composition of every pair of heads, and of heads with MLPs: how much one reads of what the other writes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from ocr_interp.checks import check_count
from ocr_interp.circuits.weights.grams import fourth_powers, moments_of_chance, squared_products, squares
from ocr_interp.circuits.weights.units import READS, Matrices, ModelWeights, Unit, read_units
from ocr_interp.errors import ModelError, unknown_name
from ocr_interp.hooked.adapted.copies import as_hooked
from ocr_interp.hooked.asked.decoder import check_decoder
from ocr_interp.hooked.asked.wrapped import require_wrapped
from ocr_interp.hooked.passes import own_run
from ocr_interp.hooked.protocol import AdaptedModel, HookedModel, model_name
from ocr_interp.hooked.provenance import fingerprint_of


@dataclass(frozen=True, repr=False)
class Composition:
    """Composition scores ‖A B‖ / (‖A‖ ‖B‖) of what a unit writes (A) and how a later one reads (B).

    A is W_V W_O of a head, or W_out of an MLP. B is W_Q W_Kᵀ read by queries ("Q") or by keys ("K"), W_V W_O
    ("V"), or the W_in of an MLP ("in"). 1 if the reader sees nothing but what the writer writes most of;
    `chance` if they lie at random to each other.

    Attributes:
        writers, readers: heads and MLPs by name, in the order of layers.
        scores: by way of reading (an entry of READS), writer and reader; NaN where the reader is not later,
            or does not read this way.
        deviations: squared score minus that of chance, in standard deviations of chance: of random matrices
            with the same spectra, exactly and without a draw.
        chance: root of the mean squared score of random matrices of any spectra, 1/√d_model.
        folded, flags, checks: what was folded in, what is left out, what the model was seen to do.
        model, fingerprint: the model's name, and a fingerprint of the weights.
        weights: the matrices themselves, for `random_like`.
    """

    writers: tuple[Unit, ...] = field(repr=False)
    readers: tuple[Unit, ...] = field(repr=False)
    scores: dict[str, Float[np.ndarray, "writer reader"]] = field(repr=False)
    deviations: dict[str, Float[np.ndarray, "writer reader"]] = field(repr=False)
    chance: float
    folded: tuple[str, ...]
    flags: tuple[str, ...]
    checks: tuple[str, ...] = field(repr=False)
    model: str
    fingerprint: str
    weights: ModelWeights = field(repr=False, compare=False)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.writers)} writers x {len(self.readers)} readers by "
            f"{', '.join(self.scores)} of {self.model}, chance {self.chance:.3g})"
        )

    def of(self, writer: str, reader: str, by: str) -> float:
        """The score of one pair by name, e.g. of("L0H3", "L1H5", "K").

        Raises:
            UnknownNameError: an unknown unit or way of reading, with the close matches.
            ModelError: the reader is not later than the writer, or does not read this way.
        """
        if by not in self.scores:
            raise unknown_name("way of reading", by, self.scores)
        row, column = (
            _index(name, units) for name, units in ((writer, self.writers), (reader, self.readers))
        )
        found = float(self.scores[by][row, column])
        if np.isnan(found):
            raise ModelError(f"{reader} must read by {by} and be later than {writer}, got no such score")
        return found

    def heads(self, by: str) -> Float[np.ndarray, "layer head layer2 head2"]:
        """Scores of pairs of heads by layer and head, 0 where the reader is not later, as TransformerLens has
        them."""
        if by not in ("Q", "K", "V"):
            raise unknown_name("way that heads read", by, ("Q", "K", "V"))
        rows = [k for k, unit in enumerate(self.writers) if unit.head is not None]
        columns = [k for k, unit in enumerate(self.readers) if unit.head is not None]
        n_layers = 1 + max(self.writers[k].layer for k in rows)
        square = self.scores[by][np.ix_(rows, columns)]
        return np.nan_to_num(square).reshape(n_layers, -1, n_layers, len(columns) // n_layers)

    def table(self) -> Any:
        """A DataFrame with one row per pair and way of reading, largest deviation first: writer, reader, by,
        score, chance, deviation."""
        import pandas as pd

        parts = []
        for by, scores in self.scores.items():
            rows, columns = np.nonzero(~np.isnan(scores))
            parts.append(
                pd.DataFrame(
                    {
                        "writer": [self.writers[k].name for k in rows],
                        "reader": [self.readers[k].name for k in columns],
                        "by": by,
                        "score": scores[rows, columns],
                        "chance": self.chance,
                        "deviation": self.deviations[by][rows, columns],
                    }
                )
            )
        frame = pd.concat(parts, ignore_index=True)
        return frame.sort_values("deviation", ascending=False, kind="stable").reset_index(drop=True)

    def _repr_html_(self) -> str:
        return self.table().head(20)._repr_html_()

    def random_like(self, seed: int) -> Composition:
        """A draw of chance: every matrix keeps its spectrum and is turned at random.

        Args:
            seed: of the draw.

        Raises:
            ConfigError: a seed that is no whole number >= 0.
        """
        check_count("seed", seed, 0)
        generator = torch.Generator().manual_seed(seed)
        like = self.weights
        drawn = dataclasses.replace(
            like,
            writers=_turned(like.writers, generator),
            readers={by: _turned(each, generator) for by, each in like.readers.items()},
            flags=(*like.flags, f"random matrices with the spectra of weights {self.fingerprint}"),
        )
        return _composition(drawn, f"random weights like {self.model}", f"seed {seed}")

    def summary(self, rows: int = 10) -> str:
        """Readable text: the pairs that stand out most from chance, and what is left out."""
        found = self.table()
        count = len(found)
        lines = [
            f"composition of {len(self.writers)} writers with {len(self.readers)} readers in {self.model}, "
            f"weights {self.fingerprint}",
            f"{count} scores; random matrices of the same spectra: {self.chance:.3g}",
        ]
        for row in found.head(rows).itertuples():
            lines.append(
                f"{row.writer:>8} -> {row.reader:8} by {row.by:3} {row.score:.4f}  {row.deviation:+.1f} sd"
            )
        return "\n".join(
            [*lines, *(f"folded: {t}" for t in self.folded), *(f"note: {t}" for t in self.flags)]
        )


def composition(model: HookedModel | AdaptedModel, *, mlps: bool = True, qk: bool = True) -> Composition:
    """Q-, K- and V-composition of every head with every later head, and of heads with MLPs, from weights.

    Gain and centring of norms are folded into what is read; grouped key-value heads are looked up. Beside
    each score stands how far it is from random matrices of the same spectra.

    Args:
        model: any HookedTransformer, TransformerBridge or PeftModel; left as it is, run on a short prompt.
        mlps: whether MLPs are read too, as writers and as readers.
        qk: whether queries and keys are; without them ("V" and "in" alone) models are read too whose scores
            are no q · k of weights, such as those with norms of queries and keys (Qwen3).

    Raises:
        ModelError: a layer without W_Q, W_K, W_V and W_O, a norm after attention, a mixture of experts (pass
            mlps=False), or a model that was seen to do something else than its weights say.
        WeightsError: NaN or infinite weights.

    Source: Elhage et al. 2021, transformer-circuits.pub/2021/framework; without norms equal to
        `HookedTransformer.all_composition_scores`, which folds none.
    """
    hooked = as_hooked(model)
    check_decoder(hooked)
    with own_run(hooked):
        weights = read_units(hooked, mlps, qk)
        require_wrapped(hooked, "composition", weights_alone=True)
    name = model_name(hooked)
    return _composition(weights, name, fingerprint_of(weights.tensors))


def _composition(weights: ModelWeights, name: str, fingerprint: str) -> Composition:
    writers, d_model = weights.writers, weights.writers.rows[0].shape[2]
    readers = tuple(sorted({u for each in weights.readers.values() for u in each.units}, key=_order))
    kinds = [by for by in READS if by in weights.readers]
    stacks = [stack for by in kinds for stack in weights.readers[by].rows]
    units = [unit for by in kinds for unit in weights.readers[by].units]
    ways = np.array([by for by in kinds for _ in weights.readers[by].units])
    sizes = [(squares(side), fourth_powers(side)) for side in (writers.rows, stacks)]
    scale = sizes[0][0][:, None] * sizes[1][0][None]
    squared = squared_products(writers.rows, stacks) / scale.clamp(min=1e-300)
    mean, deviation = moments_of_chance(sizes[0], sizes[1], d_model)
    far = (squared - mean) / deviation.clamp(min=1e-300)
    later = _later(writers.units, units) & (scale > 0).cpu().numpy()
    arrays = {"scores": squared.sqrt(), "deviations": far}
    tables: dict[str, dict[str, np.ndarray]] = {}
    for what, tensor in arrays.items():
        found = np.where(later, tensor.cpu().numpy().astype(np.float64), np.nan)
        tables[what] = {}
        for by in kinds:
            columns = [readers.index(unit) for unit in weights.readers[by].units]
            whole = np.full((len(writers.units), len(readers)), np.nan)
            whole[:, columns] = found[:, ways == by]
            tables[what][by] = whole
    return Composition(
        writers=writers.units,
        readers=readers,
        scores=tables["scores"],
        deviations=tables["deviations"],
        chance=d_model**-0.5,
        folded=weights.folded,
        flags=weights.flags,
        checks=weights.checks,
        model=name,
        fingerprint=fingerprint,
        weights=weights,
    )


def _later(writers: tuple[Unit, ...], readers: list[Unit]) -> Bool[np.ndarray, "writer reader"]:
    before = np.array([unit.time for unit in writers])[:, None]
    return before < np.array([unit.time for unit in readers])[None]


def _order(unit: Unit) -> tuple[int, int, int]:
    return unit.layer, int(unit.head is None), unit.head or 0


def _index(name: str, units: tuple[Unit, ...]) -> int:
    names = [unit.name for unit in units]
    if name not in names:
        raise unknown_name("head or MLP", name, names)
    return names.index(name)


def _turned(matrices: Matrices, generator: torch.Generator) -> Matrices:
    """Every matrix times a random rotation of the stream, which keeps its singular values.

    Only r rows of a rotation meet a matrix of rank r: R Fᵀ with the rows of F orthonormal and R the matrix's
    own r × r core.
    """
    found = []
    for stack in matrices.rows:
        units, _, d_model = stack.shape
        core = torch.linalg.qr(stack.mT, mode="r").R.mT  # [unit, row, rank]
        rank = core.shape[2]
        normal = torch.randn(units, d_model, rank, generator=generator, dtype=torch.float64)
        frame = torch.linalg.qr(normal).Q.to(stack)
        found.append(core @ frame.mT)
    return Matrices(matrices.units, tuple(found))
