"""Truncation: ΔW of every linear map keeps only its top k singular values, or loses them.

The top k part is a projection: with U the leading left singular vectors of ΔW (eigenvectors of ΔW ΔWᵀ, on the
shorter side, float64), it is U Uᵀ ΔW. So what both cuts leave sums to ΔW, and a ΔW of rank at most k is kept
whole to rounding. Embeddings, norms and biases stay as they were fine-tuned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ConfigError
from ocr_interp.llm.inside.cuts import Cut, changed_names, cut_of
from ocr_interp.llm.layers.layout import embedding_names
from ocr_interp.llm.measuring.measure import Questions
from ocr_interp.llm.models.forward import answer_logits
from ocr_interp.llm.models.loading import LanguageModel

TOP_K = (1, 2, 4, 8, 16)
"""Numbers of singular values unless others are asked for."""


def kept_words(k: int) -> str:
    """How the cut that keeps the top k is named."""
    return f"of every ΔW only the top {k} kept"


def removed_words(k: int) -> str:
    """How the cut that removes the top k is named."""
    return f"of every ΔW the top {k} removed"


def check_top_k(top_k: Sequence[int]) -> tuple[int, ...]:
    """Requires different whole numbers from 1 on; gives them in order.

    Raises:
        ConfigError: they are not, or there are none.
    """
    if not top_k or min(top_k) < 1 or len(set(top_k)) != len(top_k):
        raise ConfigError(
            f"top_k must be different whole numbers from 1 on, such as {TOP_K}, got {tuple(top_k)}: they say "
            "how many singular values of every ΔW are kept"
        )
    return tuple(sorted(top_k))


def truncation_cuts(
    before: LanguageModel,
    work: Any,
    questions: Questions,
    device: torch.device,
    top_k: Sequence[int] = TOP_K,
) -> list[Cut]:
    """Answers with the top k of every ΔW alone, then without them; `work`, the model after, is written."""
    sizes = check_top_k(top_k)
    maps = truncated_maps(before.model, work)
    leading = {
        name: leading_directions(before.model.get_parameter(name), work.get_parameter(name), sizes[-1])
        for name in maps
    }
    found: dict[bool, list[Cut]] = {True: [], False: []}
    for k in sizes:
        for keep in (True, False):
            with truncated(before.model, work, leading, k, keep=keep):
                asked = questions.ask(lambda batch: answer_logits(work, batch), device)
            words = kept_words(k) if keep else removed_words(k)
            found[keep].append(cut_of("truncation", words, [asked]))
    return [*found[True], *found[False]]


def truncated_maps(before: Any, after: Any) -> tuple[str, ...]:
    """Names of the changed matrices, and stacks of matrices (experts), that are no embeddings."""
    tables = embedding_names(after)
    changed = changed_names(before, after)
    return tuple(n for n in changed if n not in tables and after.get_parameter(n).ndim > 1)


def leading_directions(
    start: Float[Tensor, "*stack a b"], now: Float[Tensor, "*stack a b"], count: int
) -> Float[Tensor, "*stack short direction"]:
    """Leading singular vectors of now - start on its shorter side (the first if equal), largest first.

    Returns: float64, at most as many as the shorter side is long.
    """
    change = _change(start, now)
    tall = change.mT if change.shape[-2] > change.shape[-1] else change
    # eigh gives the smallest eigenvalue first.
    return torch.linalg.eigh(tall @ tall.mT)[1].flip(-1)[..., :count].contiguous()


def top_part(
    start: Float[Tensor, "*stack a b"],
    now: Float[Tensor, "*stack a b"],
    directions: Float[Tensor, "*stack short direction"],
) -> Float[Tensor, "*stack a b"]:
    """The part of now - start in some directions of its shorter side, float64."""
    change = _change(start, now)
    if change.shape[-2] > change.shape[-1]:
        return change @ directions @ directions.mT
    return directions @ (directions.mT @ change)


@contextmanager
def truncated(before: Any, work: Any, leading: Mapping[str, Tensor], k: int, *, keep: bool) -> Iterator[None]:
    """While the block runs, every map of `leading` has only the top k of its ΔW, or all but these.

    Args:
        before: the model before fine-tuning.
        work: the model after; its weights are written and come back.
        leading: name of every map -> its leading directions, at least k of them where it has so many.
        k: number of singular values.
        keep: whether the top k are kept, else removed.
    """
    kept: dict[str, Tensor] = {}
    try:
        with torch.no_grad():
            for name, directions in leading.items():
                start, now = before.get_parameter(name), work.get_parameter(name)
                kept[name] = now.detach().clone()
                top = top_part(start, now, directions[..., :k])
                now.copy_(start.to(top) + top if keep else now.to(top) - top)
        yield
    finally:
        with torch.no_grad():
            for name, weight in kept.items():
                work.get_parameter(name).copy_(weight)


def _change(start: Tensor, now: Tensor) -> Tensor:
    """now - start in float64, on the device of `now` (Apple's GPUs have no float64)."""
    where = now.device if now.device.type != "mps" else torch.device("cpu")
    return now.detach().to(where, torch.float64) - start.detach().to(where, torch.float64)
