"""What each token of a prompt adds to an answer's logit, or to a logit difference, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int

from ocr_interp.errors import ModelError, unknown_name
from ocr_interp.hooked.provenance import check_finite, fingerprint_of
from ocr_interp.hooked.tokens.ids import Token, TokenList, check_tokens
from ocr_interp.hooked.tokens.task_tokens import check_prompt_length, input_kind_names, input_kinds
from ocr_interp.linalg.sums import checked_residual
from ocr_interp.models.trained import TrainedModel
from ocr_interp.models.weights import TokenWeights
from ocr_interp.task import FactRecallTask

MOST_ROWS = 40
"""Rows of positions in a summary."""

EXACT = "exact: every contribution to the logits of a one-layer attention-only model"


@dataclass(frozen=True)
class Attribution:
    """A logit, or a logit difference, at the last position as a sum of contributions.

    Attributes:
        tokens: labels of the prompt's positions.
        kinds: kind of every position, e.g. "training subjects", "r2", "noise", "EOS"; "token" if unknown.
        answer: label of the answer.
        against: label of the answer that is subtracted; None for the logit itself.
        heads: (layer, head) of every row of `contributions`.
        contributions: of each position through each head, in logits.
        direct: contribution of the last token's embedding straight to the logits; 0 where there is no such
            path.
        bias: contribution of b_O, the final norm's bias and b_U; 0 where there are none.
        total: the logit (difference) as the model gives it, or what one head adds to it; of a Run
            recomputed from its weights in float64, in the model's order of summation.
        residual: sum of all contributions minus total.
        statement: what is exact and what is held fixed.
        model, fingerprint: the model's name, and a fingerprint of the weights that took part.
    """

    tokens: tuple[str, ...]
    kinds: tuple[str, ...]
    answer: str
    against: str | None
    heads: tuple[tuple[int, int], ...]
    contributions: Float[np.ndarray, "head position"] = field(repr=False)
    direct: float
    bias: float
    total: float
    residual: float
    statement: str
    model: str
    fingerprint: str

    @property
    def by_position(self) -> Float[np.ndarray, " position"]:
        """Contribution of every position, summed over heads."""
        return self.contributions.sum(0)

    @property
    def kind_names(self) -> tuple[str, ...]:
        """The kinds that occur, in the order of the prompt."""
        return tuple(dict.fromkeys(self.kinds))

    def of_kind(self, kind: str) -> float:
        """Contribution of all positions of a kind; an unknown one raises with the close matches."""
        if kind not in self.kinds:
            raise unknown_name("kind of token in this prompt", kind, self.kind_names)
        return float(self.by_position[np.array(self.kinds) == kind].sum())

    def _kind_beside(self, position: int) -> str:
        """The kind of a position, unless its token says it."""
        kind = self.kinds[position]
        return "" if kind in ("token", self.tokens[position]) else kind

    def summary(self) -> str:
        """Readable text: one row per position, and that they sum to the total.

        Of a prompt of more than MOST_ROWS positions, the largest contributions and the sum of the others.
        """
        of = self.answer if self.against is None else f"{self.answer} - {self.against}"
        lines = [f"logit {of} = {self.total:.6g}   ({self.model}, weights {self.fingerprint})"]
        parts = self.by_position
        shown = np.sort(np.argsort(-np.abs(parts), kind="stable")[:MOST_ROWS])
        names = [f"{k:>4}  {self.tokens[k]!s:12} {self._kind_beside(int(k))}".rstrip() for k in shown]
        others = f"      {len(parts) - len(shown)} other positions"
        rows = list(zip(names, parts[shown], strict=True))
        rows += [(others, parts.sum() - parts[shown].sum())] if len(shown) < len(parts) else []
        rows += [("      direct path", self.direct), ("      biases", self.bias)]
        width = max(len(name) for name, _ in rows) + 1
        lines += [f"{name:{width}}{value:12.6g}" for name, value in rows]
        return "\n".join([*lines, f"  {self.statement}; residual {self.residual:.1e}"])


def attribute_run(
    run: TrainedModel, prompt: TokenList | str, answer: Token, against: Token | None = None
) -> Attribution:
    """The exact contributions of a prompt's tokens in a fact-recall model, in float64.

    Args:
        run: a Run or Snapshot.
        prompt: token ids or labels, the query (EOS) last, e.g. ["noise0", "s7", "r2", "EOS"]. Of a model
            that routes prompts to experts, the mixture that this prompt has is decomposed.
        answer: the answer whose logit is decomposed.
        against: another answer, for the logit difference.

    Returns: one head; direct path and biases are 0 in these models.

    Raises:
        UnknownNameError: an unknown token.
        ModelError: a prompt longer than the task's seq_len, or that does not end with EOS or holds it
            more than once.
        AttributionError: contributions that do not sum to the logit.
    """
    task = run.task
    ids = list(check_tokens(prompt, task.labels, "prompt", repeats=True))
    check_prompt_length(task, len(ids))
    _check_prompt(ids, task)
    columns = check_tokens([answer] if against is None else [answer, against], task.labels, "answers")
    labels = tuple(task.labels[i] for i in columns)
    weights, shares, said = run.weights, [], ""
    if run.weights.linear_map.n_routes is not None:
        weights, shares = _mixed(run, [task.labels[i] for i in ids])
        said = f"; mixture of the experts for this prompt: {', '.join(f'{share:.3g}' for share in shares)}"
    used = {"W_V": weights.W_V, "W_QK": weights.W_QK} | ({} if weights.W_O is None else {"W_O": weights.W_O})
    check_finite(used, f"fact-recall {run.config.model.ov} at step {run.step}")
    W_V, W_QK = weights.W_V.double().cpu(), weights.W_QK.double().cpu()
    W_O = torch.eye(task.d_vocab, dtype=torch.float64) if weights.W_O is None else weights.W_O.double().cpu()
    scores = W_QK[ids[-1], ids]
    a = scores if run.config.model.attention == "linear" else torch.softmax(scores, 0)
    sign = torch.ones(len(columns), dtype=torch.float64)
    sign[1:] = -1
    written = W_V[ids] @ (W_O[:, list(columns)] @ sign)
    parts = (a * written).numpy()
    # The model's own order of summation: attention first, then W_O over the whole vocabulary.
    logits = (a @ W_V[ids]) @ W_O if weights is run.weights else _logits_by_expert(run, shares, ids, a)
    total = float(logits[list(columns)] @ sign)
    size = float((a.abs() @ W_V[ids].abs()) @ W_O[:, list(columns)].abs().sum(1))
    residual = checked_residual(parts, total, 2.2e-16, " - ".join(labels), size)
    return Attribution(
        tokens=tuple(task.labels[i] for i in ids),
        kinds=kinds_of(task, ids),
        answer=labels[0],
        against=labels[1] if len(labels) > 1 else None,
        heads=((0, 0),),
        contributions=parts[None],
        direct=0.0,
        bias=0.0,
        total=total,
        residual=residual,
        statement=EXACT + said,
        model=f"fact-recall {run.config.model.ov}, step {run.step:,}",
        fingerprint=fingerprint_of(used),
    )


def _mixed(run: TrainedModel, prompt: Sequence[str]) -> tuple[TokenWeights, list[float]]:
    """The weights that a prompt has of routed experts, in float64, and its mixture."""
    exact = run.weights.to("cpu", torch.float64)
    return exact.of_prompt(run.task, prompt), exact.mixture(run.task, prompt).tolist()


def _logits_by_expert(
    run: TrainedModel, shares: Sequence[float], ids: Sequence[int], a: Float[torch.Tensor, " position"]
) -> Float[torch.Tensor, " token"]:
    """The logits as routed experts give them: each expert's own, weighted by its share."""
    logits = torch.zeros(run.task.d_vocab, dtype=torch.float64)
    for expert, share in enumerate(shares):
        own = run.weights.of_expert(expert).to("cpu", torch.float64)
        written = a @ own.W_V[ids]
        logits += share * (written if own.W_O is None else written @ own.W_O)
    return logits


def _check_prompt(ids: Sequence[int], task: FactRecallTask) -> None:
    """Requires a prompt that the model was made for: EOS once, at its end."""
    if ids[-1] != task.eos_token or list(ids).count(task.eos_token) > 1:
        shown = " ".join(task.labels[i] for i in ids[:12]) + (" ..." if len(ids) > 12 else "")
        raise ModelError(
            f"prompt must end with the query 'EOS' and hold it once, got {shown}: the model was trained to "
            "answer there alone"
        )


def kinds_of(task: FactRecallTask, ids: Sequence[int] | Int[np.ndarray, " position"]) -> tuple[str, ...]:
    """Kind of every token of a prompt: an entry of `input_kind_names`, or "answers" for an answer token."""
    kind = input_kinds(task)
    names = input_kind_names(task)
    return tuple(names[int(kind[i])] if i < task.n_inputs else "answers" for i in ids)
