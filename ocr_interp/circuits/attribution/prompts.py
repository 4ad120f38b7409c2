"""Prompts, answers and what they are compared with, as a user gives them, for a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.padding import check_unpadded
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.hooked.tokens.ids import Token, token_ids
from ocr_interp.hooked.tokens.prompts import are_texts, encode_prompt, prompt_rows


@dataclass(frozen=True)
class Asked:
    """Prompts with their logit differences.

    Attributes:
        ids: token ids of every prompt, of any lengths.
        answers: label of each prompt's answer.
        against: labels of the outputs whose mean logit is subtracted.
        columns: ids of all outputs that occur.
        coefficients: of these outputs in the logit difference of each prompt.
    """

    ids: tuple[tuple[int, ...], ...]
    answers: tuple[str, ...]
    against: tuple[tuple[str, ...], ...]
    columns: tuple[int, ...]
    coefficients: Float[Tensor, "prompt column"]

    def batches(self, most: int) -> Iterator[list[int]]:
        """Prompts of one length together, at most so many at once."""
        for length in sorted({len(ids) for ids in self.ids}):
            members = [k for k, ids in enumerate(self.ids) if len(ids) == length]
            for start in range(0, len(members), most):
                yield members[start : start + most]

    def weights(self, prompts: Sequence[int]) -> Float[Tensor, "prompt column"]:
        """The coefficients of some prompts."""
        return self.coefficients[list(prompts)]


def asked_of(
    model: HookedModel,
    prompts: Any,
    answers: Any,
    against: Any,
    names: Sequence[str],
    output_names: Sequence[str],
) -> Asked:
    """What was asked, in ids; see `direct_attribution` for the forms.

    Raises:
        UnknownNameError: an unknown token, with the close matches.
        ModelError: no prompt, an empty prompt, padding, another number of answers than prompts, an answer
            that is compared with itself.
    """
    prompts = prompt_rows(prompts, "prompts")
    if isinstance(prompts, list | tuple) and are_texts(model, prompts, names):
        prompts = list(prompts)
        several = True
    else:
        several = _is_several(prompts)
    rows = list(prompts) if several else [prompts]
    if not rows or any(not isinstance(row, str) and len(row) == 0 for row in rows):
        raise ModelError(f"prompts must hold at least one prompt of at least one token, got {prompts!r:.60}")
    ids = [tuple(encode_prompt(model, row, names)) for row in rows]
    for length in {len(row) for row in ids}:
        alike = [list(row) for row in ids if len(row) == length]
        check_unpadded(model, alike, "prompts", hint="leave the padding out")
    own = _one_each(answers, len(ids), "answers")
    others = _against(against, len(ids), several)
    own_ids = [token_ids(model, [token], output_names, "answers")[0] for token in own]
    other_ids = [token_ids(model, g, output_names, "against") if g else () for g in others]
    for answer, rivals in zip(own_ids, other_ids, strict=True):
        if answer in rivals:
            raise ModelError(
                f"against must not hold the answer, got {output_names[answer]!r} in both: leave it out"
            )
    columns = sorted({*own_ids, *(i for g in other_ids for i in g)})
    weights = torch.zeros(len(ids), len(columns), dtype=torch.float64)
    for row, (answer, rivals) in enumerate(zip(own_ids, other_ids, strict=True)):
        weights[row, columns.index(answer)] = 1.0
        for rival in rivals:
            weights[row, columns.index(rival)] = -1.0 / len(rivals)
    return Asked(
        ids=tuple(ids),
        answers=tuple(output_names[i] for i in own_ids),
        against=tuple(tuple(output_names[i] for i in g) for g in other_ids),
        columns=tuple(columns),
        coefficients=weights,
    )


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple | range) or getattr(value, "ndim", 0) > 0


def _is_several(prompts: Any) -> bool:
    if isinstance(prompts, str):
        return False
    if isinstance(prompts, Tensor | np.ndarray):
        if prompts.ndim not in (1, 2):
            raise ModelError(f"prompts must be ids [pos] or [prompt, pos], got shape {list(prompts.shape)}")
        return prompts.ndim == 2
    rows = [_is_row(each) for each in prompts]
    if any(rows) and not all(rows):
        raise ModelError(f"prompts must be one prompt, or a list of prompts, got {prompts!r:.80}")
    return bool(rows) and all(rows)


def _one_each(given: Any, count: int, what: str) -> list[Any]:
    if not _is_row(given):
        return [given] * count
    if len(given) != count:
        raise ModelError(f"{what} must be one token, or one for each of {count} prompts, got {len(given)}")
    return list(given)


def _against(given: Any, count: int, several: bool) -> list[list[Token]]:
    """Of every prompt the outputs that are subtracted."""
    if given is None:
        return [[] for _ in range(count)]
    if not _is_row(given):
        return [[given]] * count
    if not several and not any(_is_row(each) for each in given):
        return [list(given)]
    each = _one_each(given, count, "against")
    return [list(g) if _is_row(g) else [g] for g in each]
