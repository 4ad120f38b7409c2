"""An OV circuit between two token sets as data: its factors, matrix, spectrum, norms and blocks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from ocr_interp.circuits.attention.by_kind import AttentionByKind, attention_by_kind
from ocr_interp.circuits.energy import ANSWER_KINDS, BlockEnergy, answer_kinds, block_energy
from ocr_interp.errors import ModelError
from ocr_interp.hooked.provenance import Provenance
from ocr_interp.hooked.tokens.ids import TokenList
from ocr_interp.hooked.tokens.token_set import TokenSet
from ocr_interp.linalg.spectrum import Norms, Spectrum, factored_svd, formed, norms_of, spectrum_of
from ocr_interp.maps.base import LinearMap
from ocr_interp.models.trained import Route
from ocr_interp.task import FactRecallTask

RAW = "raw W_OV without the attention a, which absorbs any scale and sign of its rows"
"""What the provenance says of a raw circuit."""


@dataclass(frozen=True, repr=False)
class OVMatrix:
    """W[input, output] = left @ right between two token sets, in float64 on the CPU; see `OVCircuit`.

    Attributes:
        left: what the head reads of every input, W_E W_V [input, d_head].
        right: what the head writes to every output, W_O W_U [d_head, output].
        bias: what the head adds to the outputs per unit of attention, for any token; not in W.
        inputs, outputs: tokens of rows and columns.
        provenance: model, step, seed, weights, what was folded in and what is left out.
        task: the fact-recall task, None for other models.
        attention: "linear" or "softmax" of a fact-recall model, else None.
        scores: scores of EOS for every input, None for other models.
        is_effective: whether rows carry the attention factor a: a = score (linear) or exp(score) (softmax).
        linear_map: the parameterisation of W_OV of a fact-recall model, None for other models.
        has_factors: whether left and right are both weights; False where left is W itself and right only
            selects outputs.
        has_noise: whether prompts of the run's recipe hold noise tokens; True for other models.
        route: of routed experts the expert, or the labels of the prompt, whose circuit it is; else None.
        whole: the circuit that this one was restricted from, for `check_fresh`; None if not restricted.
    """

    left: Float[np.ndarray, "input d_head"] = field(repr=False)
    right: Float[np.ndarray, "d_head output"] = field(repr=False)
    bias: Float[np.ndarray, " output"] = field(repr=False)
    inputs: TokenSet = field(repr=False)
    outputs: TokenSet = field(repr=False)
    provenance: Provenance
    task: FactRecallTask | None = None
    attention: str | None = None
    scores: Float[np.ndarray, " input"] | None = field(default=None, repr=False)
    is_effective: bool = False
    linear_map: LinearMap | None = None
    has_factors: bool = True
    has_noise: bool = True
    route: Route = None
    whole: OVMatrix | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        rows = "effective" if self.is_effective else "raw" if self.task is not None else "of a head"
        shape = f"{len(self.inputs)} inputs x {len(self.outputs)} outputs"
        return f"{type(self).__name__}({shape}, {rows}, {self.provenance.summary()})"

    # --- the matrix -----------------------------------------------------------------------------

    @cached_property
    def W(self) -> Float[np.ndarray, "input output"]:
        """The circuit: row = input token, column = output token, in logits per unit of attention.

        Raises:
            ModelError: a matrix that is too large to be formed; spectrum and norms still work.
        """
        return formed(self.left, self.right, "inputs or outputs")

    @cached_property
    def effective(self: Circuit) -> Circuit:
        """diag(a) W_OV of a fact-recall model; an effective circuit is returned unchanged.

        Raises:
            ModelError: a circuit of another model; attention there depends on the prompt.
        """
        if self.is_effective:
            return self
        if self.scores is None:
            raise ModelError(
                "an effective circuit needs attention that depends on the token alone, as in a fact-recall "
                "Run; for other models use attribution with the pattern of a prompt"
            )
        a = self.scores if self.attention == "linear" else np.exp(self.scores)
        said = f"rows multiplied by a = {'' if self.attention == 'linear' else 'exp of '}the score from EOS"
        flags = tuple(flag for flag in self.provenance.flags if flag != RAW)
        folded = (*self.provenance.folded, said)
        provenance = dataclasses.replace(self.provenance, folded=folded, flags=flags)
        return dataclasses.replace(
            self, left=a[:, None] * self.left, provenance=provenance, is_effective=True
        )

    def restrict(
        self: Circuit,
        inputs: TokenList | None = None,
        outputs: TokenList | None = None,
    ) -> Circuit:
        """The circuit between some of its tokens, by label, string or id and in the order given."""
        rows = np.arange(len(self.inputs)) if inputs is None else self.inputs.positions(inputs)
        columns = np.arange(len(self.outputs)) if outputs is None else self.outputs.positions(outputs)
        if len(set(rows)) < len(rows) or len(set(columns)) < len(columns):
            raise ModelError("restrict must name every token once: a token named twice would count double")
        return dataclasses.replace(
            self,
            left=self.left[rows],
            right=self.right[:, columns],
            bias=self.bias[columns],
            inputs=self.inputs.select(rows),
            outputs=self.outputs.select(columns),
            scores=None if self.scores is None else self.scores[rows],
            whole=self.whole or self,
        )

    @property
    def subjects_and_relations(self: Circuit) -> Circuit:
        """The rows that predictions are for: subjects and relations.

        Raises:
            ModelError: not the circuit of a fact-recall task.
        """
        return self.restrict(self._task.labels[: self._task.noise_tokens.start])

    # --- structure ------------------------------------------------------------------------------

    @property
    def energy(self) -> BlockEnergy:
        """Norms and shares of energy: by block and answer kind of a task, else by groups of tokens."""
        stamp = self.provenance.fingerprint
        if self.task is None:
            kind = np.tile(np.array(self.outputs.group), (len(self.inputs), 1))
            return block_energy(self.W, kind, self.inputs, self.outputs.group_names, stamp)
        kind = answer_kinds(self.task, self.inputs, self.outputs)
        return block_energy(self.W, kind, self.inputs, ANSWER_KINDS, stamp)

    @cached_property
    def singular_values(self) -> Float[np.ndarray, " direction"]:
        """All singular values, largest first, in logits."""
        return factored_svd(self.left, self.right)[1]

    def spectrum(self, tolerance: float = 1e-6, null_tolerance: float = 1e-10) -> Spectrum:
        """The singular value decomposition in degenerate blocks.

        Args:
            tolerance: values within tolerance × the largest of all of a block's largest value join that
                block. 1e-6 groups what is equal up to rounding; trained weights need more, e.g. 0.05.
            null_tolerance: values below this share of the largest count as zero.
        """
        return spectrum_of(self.left, self.right, tolerance, null_tolerance)

    @property
    def rank(self) -> int:
        """Number of singular values that are not rounding: above 1e-10 of the largest."""
        values = self.singular_values
        return int((values > 1e-10 * values.max(initial=0.0)).sum())

    @cached_property
    def norms(self) -> Norms:
        """Nuclear, Frobenius and spectral norm, effective and stable rank."""
        return norms_of(self.singular_values)

    @property
    def nuclear_norm(self) -> float:
        """Sum of the singular values."""
        return self.norms.nuclear

    @property
    def frobenius_norm(self) -> float:
        """Root of the sum of squared entries."""
        return self.norms.frobenius

    @property
    def spectral_norm(self) -> float:
        """Largest singular value."""
        return self.norms.spectral

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the normalised singular values."""
        return self.norms.effective_rank

    @property
    def stable_rank(self) -> float:
        """‖W‖_F² over the squared spectral norm."""
        return self.norms.stable_rank

    @property
    def attention_by_kind(self) -> AttentionByKind:
        """What EOS attends to, by kind of token; fact-recall models with all inputs only."""
        task = self._task
        if self.scores is None or len(self.scores) != task.n_inputs:
            raise ModelError("attention by kind needs all input tokens: call it on OVCircuit.from_run(run)")
        noise = task.seq_len - 3 if self.has_noise else 0
        stamp = self.provenance.fingerprint
        return attention_by_kind(task, self.attention or "linear", self.scores, stamp, noise)

    @property
    def seen(self: Circuit) -> Circuit:
        """The circuit without the noise tokens, if no prompt of the run's recipe holds any; else itself.

        Their rows are then those of the random start, which nothing ever asked for.
        """
        if self.has_noise or self.task is None:
            return self
        noise = {self.task.labels[token] for token in self.task.noise_tokens}
        return self.restrict([label for label in self.inputs.labels if label not in noise])

    @property
    def _task(self) -> FactRecallTask:
        if self.task is None:
            raise ModelError(
                "this needs the circuit of a fact-recall task: read it with OVCircuit.from_run(run)"
            )
        return self.task


Circuit = TypeVar("Circuit", bound=OVMatrix)
