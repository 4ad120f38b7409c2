"""The QK circuit of one attention head: how much a query token attends to a key token, from weights alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from ocr_interp.checks import check_count
from ocr_interp.circuits.attention.positions import Positions
from ocr_interp.circuits.attention.qk_reading import QKFactors, qk_weights, read_qk
from ocr_interp.circuits.energy import BlockEnergy, block_energy
from ocr_interp.errors import ModelError, StaleCircuitError
from ocr_interp.hooked.adapted.copies import as_hooked
from ocr_interp.hooked.passes import own_run
from ocr_interp.hooked.protocol import AdaptedModel, HookedModel
from ocr_interp.hooked.provenance import Provenance, fingerprint_of
from ocr_interp.hooked.tokens.ids import TokenList, Tokens
from ocr_interp.hooked.tokens.labels import labels_of
from ocr_interp.hooked.tokens.token_set import TokenSet, token_set_of
from ocr_interp.linalg.spectrum import Norms, Spectrum, factored_svd, formed, norms_of, spectrum_of


@dataclass(frozen=True, repr=False)
class QKCircuit:
    """W[query, key] = left @ right in attention scores, between two sets of tokens or positions, in float64.

    A score in a prompt is (W + query_bias[query] + key_bias[key] + constant) over the scales of ln1 at both
    positions, as far as each comes from what stands in the sets (biases carry the other position's scale
    alone). `query_bias` and `constant` change no pattern, since a softmax over keys does not see them.

    Attributes:
        left: what the head makes of every query, W_E W_Q times the factor of scores.
        right: what it makes of every key, W_E W_K.
        query_bias: what b_K adds to the scores of a query, for any key.
        key_bias: what b_Q adds to the scores of a key, for any query.
        constant: b_Q · b_K.
        queries, keys: tokens (or positions) of rows and columns.
        distance: of rotary models, how many positions the key stands before the query; None for others.
        provenance: model, head, weights, what was folded in and what is left out.
    """

    left: Float[np.ndarray, "query d_head"] = field(repr=False)
    right: Float[np.ndarray, "d_head key"] = field(repr=False)
    query_bias: Float[np.ndarray, " query"] = field(repr=False)
    key_bias: Float[np.ndarray, " key"] = field(repr=False)
    constant: float
    queries: TokenSet = field(repr=False)
    keys: TokenSet = field(repr=False)
    distance: int | None
    provenance: Provenance

    @classmethod
    def from_model(
        cls,
        model: HookedModel | AdaptedModel,
        *,
        layer: int,
        head: int,
        queries: Tokens | Positions,
        keys: Tokens | Positions,
        distance: int | None = None,
        labels: Sequence[str] | None = None,
    ) -> QKCircuit:
        """The circuit of a head of any HookedTransformer, TransformerBridge or PeftModel.

        W = W_E W_Q (W_E W_K)ᵀ × the factor of the scores, restricted to the sets. Gain and centring of ln1
        are folded in, its scale frozen at 1; grouped key heads are looked up; the factor (1/√d_head as a
        rule) and rotary angles are measured on the model's own scores.

        Args:
            model: left as it is.
            layer, head: which attention head (of the queries, if key-value heads are grouped).
            queries, keys: ids, labels, strings of one token or named groups of them; of models with learned
                positions also `Positions(range(8))`, whose part of the score this is.
            distance: required of models with rotary embeddings and of no others: how many positions the
                key stands before the query, 0 for the same position.
            labels: a label for every token id; else those attached (`name_tokens`) or the tokenizer's.

        Raises:
            ModelError: scores that were seen to be something else (norms of queries and keys, caps), or that
                cannot be seen; a distance that is missing or has no meaning; positions of a model without.
            UnknownNameError: an unknown token, with the close matches.
            WeightsError: NaN or infinite weights.

        Source: Elhage et al. 2021, transformer-circuits.pub/2021/framework.
        """
        if distance is not None:
            check_count("distance", distance, 0)
        hooked = as_hooked(model)
        names = labels_of(hooked, labels)
        sides = []
        for given, what in ((queries, "queries"), (keys, "keys")):
            given_set = (
                given.as_set() if isinstance(given, Positions) else token_set_of(hooked, given, names, what)
            )
            sides.append((given_set, given if isinstance(given, Positions) else None))
        with own_run(hooked):
            factors: QKFactors = read_qk(hooked, layer, head, *sides, distance=distance)
        return cls(
            left=factors.left,
            right=factors.right,
            query_bias=factors.query_bias,
            key_bias=factors.key_bias,
            constant=factors.constant,
            queries=sides[0][0],
            keys=sides[1][0],
            distance=distance,
            provenance=factors.provenance,
        )

    def __repr__(self) -> str:
        where = "" if self.distance is None else f", key {self.distance} before query"
        return (
            f"{type(self).__name__}({len(self.queries)} queries x {len(self.keys)} keys{where}, "
            f"{self.provenance.summary()})"
        )

    # --- the matrix -----------------------------------------------------------------------------

    @cached_property
    def W(self) -> Float[np.ndarray, "query key"]:
        """The circuit: row = query, column = key, in scores before the softmax.

        Raises:
            ModelError: a matrix that is too large to be formed; spectrum and norms still work.
        """
        return formed(self.left, self.right, "queries or keys")

    @property
    def scores(self) -> Float[np.ndarray, "query key"]:
        """W with all biases."""
        return self.W + self.query_bias[:, None] + self.key_bias[None] + self.constant

    def restrict(self, queries: TokenList | None = None, keys: TokenList | None = None) -> QKCircuit:
        """The circuit between some of its tokens, by label, string or id and in the order given."""
        rows = np.arange(len(self.queries)) if queries is None else self.queries.positions(queries)
        columns = np.arange(len(self.keys)) if keys is None else self.keys.positions(keys)
        if len(set(rows)) < len(rows) or len(set(columns)) < len(columns):
            raise ModelError("restrict must name every token once: a token named twice would count double")
        return dataclasses.replace(
            self,
            left=self.left[rows],
            right=self.right[:, columns],
            query_bias=self.query_bias[rows],
            key_bias=self.key_bias[columns],
            queries=self.queries.select(rows),
            keys=self.keys.select(columns),
        )

    # --- structure ------------------------------------------------------------------------------

    @property
    def energy(self) -> BlockEnergy:
        """Norms and shares of energy by group of queries and group of keys."""
        kind = np.tile(np.array(self.keys.group), (len(self.queries), 1))
        return block_energy(self.W, kind, self.queries, self.keys.group_names, self.provenance.fingerprint)

    @cached_property
    def singular_values(self) -> Float[np.ndarray, " direction"]:
        """All singular values, largest first, in scores."""
        return factored_svd(self.left, self.right)[1]

    def spectrum(self, tolerance: float = 1e-6, null_tolerance: float = 1e-10) -> Spectrum:
        """The singular value decomposition in degenerate blocks; see `OVCircuit.spectrum`."""
        return spectrum_of(self.left, self.right, tolerance, null_tolerance)

    @cached_property
    def norms(self) -> Norms:
        """Nuclear, Frobenius and spectral norm, effective and stable rank."""
        return norms_of(self.singular_values)

    def random_like(self, seed: int) -> QKCircuit:
        """A baseline: normal factors of the same shapes, same Frobenius norm, no biases.

        Args:
            seed: of the draw.

        Raises:
            ConfigError: a seed that is no whole number >= 0.
        """
        check_count("seed", seed, 0)
        generator = np.random.default_rng(seed)
        left = generator.standard_normal(self.left.shape)
        right = generator.standard_normal(self.right.shape)
        left *= self.norms.frobenius / norms_of(factored_svd(left, right)[1]).frobenius
        like = self.provenance
        said = f"random baseline: normal factors, scaled to the Frobenius norm of weights {like.fingerprint}"
        drawn = {"left": torch.from_numpy(left), "right": torch.from_numpy(right)}
        return dataclasses.replace(
            self,
            left=left,
            right=right,
            query_bias=np.zeros_like(self.query_bias),
            key_bias=np.zeros_like(self.key_bias),
            constant=0.0,
            provenance=dataclasses.replace(
                like,
                model=f"random weights like {like.model}",
                step=None,
                seed=seed,
                fingerprint=fingerprint_of(drawn),
                dtype="float64",
                folded=(),
                flags=(*like.flags, said),
            ),
        )

    def check_fresh(self, source: HookedModel | AdaptedModel) -> None:
        """Requires that the model still has W_Q, W_K and ln1 as the circuit was read with them.

        Raises:
            StaleCircuitError: they have changed.
        """
        where = self.provenance
        now = fingerprint_of(qk_weights(as_hooked(source), where.layer, where.head))
        if now != where.fingerprint:
            raise StaleCircuitError(
                f"the circuit was read from weights {where.fingerprint}, the model now has {now}: read it "
                "again with QKCircuit.from_model"
            )

    def summary(self, seed: int = 0) -> str:
        """Readable text: provenance, norms and shares of energy beside those of random weights."""
        chance = self.random_like(seed)
        energy, by_chance = self.energy, chance.energy
        lines = [
            f"QK circuit: {self.provenance.summary()}",
            f"{len(self.queries)} queries x {len(self.keys)} keys, {self.norms.summary()}",
            f"random weights of the same shapes and Frobenius norm (seed {seed}): {chance.norms.summary()}",
            "share of energy (random weights)".ljust(34) + "".join(f"{c:>20}" for c in energy.columns),
        ]
        for row, shares, random_shares in zip(energy.rows, energy.shares, by_chance.shares, strict=True):
            pairs = zip(shares, random_shares, strict=True)
            cells = [f"{100 * share:.2f}% ({100 * other:.2f}%)" for share, other in pairs]
            lines.append(f"{row:34}" + "".join(f"{cell:>20}" for cell in cells))
        lines += [f"folded: {text}" for text in self.provenance.folded]
        lines += [f"note: {text}" for text in self.provenance.flags]
        lines += [f"checked: {text}" for text in self.provenance.checks]
        return "\n".join(lines)
