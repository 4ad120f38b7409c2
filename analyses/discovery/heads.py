"""Which head is the previous-token head, and which the induction head: by attention, and by effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analyses.circuits import worked_models
from analyses.discovery.criteria import CONTROLS, PATTERN_SEED, PROMPTS, SHARE_THE_JOB
from ocr_interp.circuits import composition
from ocr_interp.discovery import Contrast
from ocr_interp.discovery.runner import CircuitRunner
from ocr_interp.stream.editing import EdgeEdit


@dataclass(frozen=True)
class Roles:
    """The two heads by effect and weights (HEADS_BY_EFFECT), and what they were chosen by.

    Attributes:
        previous, induction: names.
        measure: of the whole model minus that of the donors.
        falls: of the measure, without each head of layer 1.
        random_falls: with the induction head's change turned by random rotations.
        compositions: of each head of layer 0 with the induction head's keys, in standard deviations of
            random matrices of the same spectra.
        before: attention of each head of layer 0 to the token before.
        after: attention of each head of layer 1, at the query, to what came after the current token's last
            appearance.
        sharing: heads of layer 1 that share the job, the induction head first.
        without: names of heads, joined by " + " -> the fall without all of them, for every set that shares.
    """

    previous: str
    induction: str
    measure: float
    falls: Sequence[float]
    random_falls: Sequence[float]
    compositions: Sequence[float]
    before: Sequence[float]
    after: Sequence[float]
    sharing: Sequence[str]
    without: dict[str, float]


def roles(model: Any) -> Roles:
    """The previous-token and the induction head by effect and weights, and who shares the job."""
    tokens, _, donors = _prompts()
    contrast = Contrast.of(model, tokens[:, :-1], donors[:, :-1], tokens[:, -1])
    runner = CircuitRunner(model, contrast)
    n_heads = runner.stream.nodes.n_heads
    names = [f"a1.h{head}" for head in range(n_heads)]
    falls = _falls(runner, [[name] for name in names])
    order = np.argsort(-falls, kind="stable")
    induction = names[order[0]]
    sharing = [names[k] for k in order if falls[k] >= SHARE_THE_JOB * falls[order[0]]]
    sets = [list(each) for size in range(1, len(sharing) + 1) for each in combinations(sharing, size)]
    without = {" + ".join(each): float(fall) for each, fall in zip(sets, _falls(runner, sets), strict=True)}
    composed = composition(model).deviations["K"]
    column = n_heads + int(order[0])  # heads of layer 0 first; there are no MLPs
    compositions = composed[:n_heads, column]
    before, after = attention(model)
    return Roles(
        previous=f"a0.h{int(np.argmax(compositions))}",
        induction=induction,
        measure=float((runner.full - runner.empty).double().mean()),
        falls=falls.tolist(),
        random_falls=_turned_falls(runner, induction),
        compositions=compositions.tolist(),
        before=before.tolist(),
        after=after.tolist(),
        sharing=sharing,
        without=without,
    )


def _falls(runner: CircuitRunner, sets: list[list[str]]) -> np.ndarray:
    """The fall of the measure without all that some heads write, for each set of heads."""
    nodes, kept = runner.stream.nodes, []
    for names in sets:
        mask = nodes.allowed.copy()
        mask[[nodes.writer_index[name] for name in names]] = False
        kept.append(mask)
    full = float(runner.full.double().mean())
    return full - runner.measured(kept).double().mean(1).cpu().numpy()


def _turned_falls(runner: CircuitRunner, name: str) -> list[float]:
    """The falls when the change of one head's output is turned by random rotations."""
    nodes, found = runner.stream.nodes, []
    mask = np.zeros_like(nodes.allowed)
    mask[nodes.writer_index[name]] = nodes.allowed[nodes.writer_index[name]]
    model: Any = runner.stream.model
    generator = torch.Generator().manual_seed(PATTERN_SEED)
    for _ in range(CONTROLS):
        width = int(model.cfg.d_model)
        turn = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]

        def turned(which: slice, written: Tensor, turn: Tensor = turn) -> Tensor:
            return written + (runner.other[:, :, which] - written) @ turn.to(written)

        with torch.no_grad(), EdgeEdit(runner.stream, mask, turned).applied():
            values = runner.contrast.values(model(runner.contrast.prompts))
        found.append(float((runner.full - values).double().mean()))
    return found


def heads_by_pattern(model: Any) -> tuple[tuple[str, str], tuple[float, float]]:
    """The previous-token head and the induction head, from attention patterns alone (HEADS)."""
    before, after = attention(model)
    chosen = int(before.argmax()), int(after.argmax())
    return (f"a0.h{chosen[0]}", f"a1.h{chosen[1]}"), (float(before.max()), float(after.max()))


def attention(model: Any) -> tuple[Tensor, Tensor]:
    """Of heads of layer 0 to the token before; and of heads of layer 1, at the last position, to what came
    after the current token's last appearance."""
    tokens, periods, _ = _prompts()
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in (0, 1)]
    tokens = tokens[:, :-1]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=names)
    before = cache[names[0]].diagonal(offset=-1, dim1=2, dim2=3).mean((0, 2))
    last = tokens.shape[1] - 1
    after = (last + 1 - periods)[:, None, None].expand(-1, cache[names[1]].shape[1], 1)
    return before, cache[names[1]][:, :, last].gather(2, after)[:, :, 0].mean(0)


def _prompts() -> tuple[Tensor, Tensor, Tensor]:
    """Prompts of the heads, their periods, and donors."""
    generator = torch.Generator().manual_seed(PATTERN_SEED)
    tokens, periods = worked_models.induction_batch(PROMPTS, generator)
    return tokens, periods, worked_models.induction_batch(PROMPTS, generator)[0]
