"""Cuts: ablations that measure how a fine-tuned model's answers depend on parts of its update.

There are three kinds; each is measured by the ranks of all four splits:

- parts: one part of the update (OV, QK, MLPs, the rest; see `parts`) is undone, or is the only one that is
  applied;
- heads: the heads with the most changed OV circuit are set to zero, beside as many random heads; then the
  same for heads from layer 1 on, because the model needs the heads of layer 0 for everything;
- directions: the top output directions of the update are removed from the output of these heads, beside as
  many random directions of their output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.base import Intervention
from ocr_interp.ablation.edits.subspace import Subspace
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.where.site import Site
from ocr_interp.linalg.spectrum import factored_svd
from ocr_interp.llm.inside.parts import PARTS, REST, parts_of
from ocr_interp.llm.inside.updates import OVUpdate, OVWeights
from ocr_interp.llm.measuring.measure import Measurement, Questions
from ocr_interp.llm.models.bridge import bridge_logits
from ocr_interp.llm.models.forward import answer_logits
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.task import SPLITS

RANDOM_DRAWS = 3
DIRECTIONS = 4


@dataclass(frozen=True)
class Cut:
    """One ablation, and how the model answers under it.

    Attributes:
        kind: "none", "parts", "heads" or "directions".
        what: the ablation in words.
        ranks: mean rank by split; for random controls the mean over draws.
        top1: share of rank 0 by split.
    """

    kind: str
    what: str
    ranks: dict[str, float]
    top1: dict[str, float]


# --- parts ------------------------------------------------------------------------------------------


@contextmanager
def weights_from(model: Any, source: Any, chosen: Callable[[str], bool]) -> Iterator[None]:
    """While the block runs, the chosen parameters of `model` have the values of `source`."""
    theirs, kept = dict(source.named_parameters()), {}
    try:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if chosen(name):
                    kept[name] = parameter.detach().clone()
                    parameter.copy_(theirs[name])
        yield
    finally:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in kept:
                    parameter.copy_(kept[name])


def part_cuts(
    before: LanguageModel, after: LanguageModel, work: Any, questions: Questions, device: torch.device
) -> list[Cut]:
    """Answers of both models, and with every part that changed put back or left alone; `work` is written."""
    parts = parts_of(before)

    def asked(kind: str, what: str, chosen: Callable[[str], bool]) -> Cut:
        with weights_from(work, before.model, chosen):
            return _cut(kind, what, [questions.ask(lambda batch: answer_logits(work, batch), device)])

    theirs = after.model.named_parameters()
    changed = {parts[n] for n, p in theirs if not torch.equal(p, _like(before.model, n, p))}
    cuts = [
        asked("none", "before fine-tuning", lambda name: True),
        asked("none", "after fine-tuning", lambda name: False),
    ]
    for part in (*PARTS, REST):
        if part in changed:
            cuts.append(asked("parts", f"{part} put back", lambda name, p=part: parts[name] == p))
            cuts.append(asked("parts", f"only {part} changed", lambda name, p=part: parts[name] != p))
    return cuts


def _like(model: Any, name: str, parameter: Tensor) -> Tensor:
    return model.get_parameter(name).to(parameter.device)


# --- heads and directions ---------------------------------------------------------------------------


def other_heads(
    heads: Sequence[tuple[int, int]], update: OVUpdate, first_layer: int = 0
) -> list[list[tuple[int, int]]]:
    """Random draws of as many other heads, or all others if they are fewer, from `first_layer` on."""
    rng = np.random.default_rng(0)
    others = [place for place in update.heads(first_layer) if place not in heads]
    count = min(len(heads), len(others))
    return [[others[k] for k in rng.choice(len(others), count, False)] for _ in range(RANDOM_DRAWS)]


def head_cuts(
    bridge: Any, update: OVUpdate, n_heads: int, questions: Questions, device: torch.device
) -> list[Cut]:
    """The most changed heads and random others; then the same from layer 1 on, since all need layer 0."""
    cuts = []
    for first, where in ((0, ""), (1, " past layer 0")):
        heads = update.most_changed(min(n_heads, max(0, len(update.heads(first)) - 1)), first)
        if not heads:
            continue
        draws = other_heads(heads, update, first)
        for what, choices in (("most changed heads", [heads]), ("other heads, drawn at random,", draws)):
            found = [_ablated(bridge, _zeros(choice), questions, device) for choice in choices]
            what = what.replace("heads", f"heads{where}")
            cuts.append(_cut("heads", f"{len(choices[0])} {what} zeroed", found))
    return cuts


def _zeros(heads: Sequence[tuple[int, int]]) -> list[Intervention]:
    layers = sorted({layer for layer, _ in heads})
    sites = [Site.at("z", layer=layer, heads=[h for k, h in heads if k == layer]) for layer in layers]
    return [Zero().at(site) for site in sites]


def direction_cuts(
    bridge: Any,
    heads: Sequence[tuple[int, int]],
    old: OVWeights,
    new: OVWeights,
    questions: Questions,
    device: torch.device,
) -> list[Cut]:
    """The update's top output directions, and as many random directions of the head's output."""
    rng = np.random.default_rng(1)
    count = min(DIRECTIONS, new.W_O.shape[2] - 1)

    def specs(random: bool) -> list[Intervention]:
        made: list[Intervention] = []
        for layer, head in heads:
            (V0, O0), (V1, O1) = old.factors(layer, head), new.factors(layer, head)
            if random:
                basis = np.linalg.qr(O1.T @ rng.standard_normal((O1.shape[0], count)))[0]
            else:
                basis = factored_svd(np.hstack([V1 - V0, V0]), np.vstack([O1, O1 - O0]))[2][:, :count]
            site = Site.at("z", layer=layer, heads=[head])
            made.append(Subspace(torch.as_tensor(basis), torch.as_tensor(O1)).at(site))
        return made

    name = f"of {len(heads)} heads {count}"
    return [
        _cut(
            "directions",
            f"{name} top directions removed",
            [_ablated(bridge, specs(False), questions, device)],
        ),
        _cut(
            "directions",
            f"{name} random directions removed",
            [_ablated(bridge, specs(True), questions, device) for _ in range(RANDOM_DRAWS)],
        ),
    ]


def _ablated(
    bridge: Any, specs: Sequence[Intervention], questions: Questions, device: torch.device
) -> Measurement:
    with ablated(bridge, *specs), torch.no_grad():
        return questions.ask(bridge_logits(bridge), device)


def _cut(kind: str, what: str, found: Sequence[Measurement]) -> Cut:
    """A cut with the means over its measurements."""
    means = {
        metric: {split: float(np.mean([m.mean(split, metric) for m in found])) for split in SPLITS}
        for metric in ("rank", "top1")
    }
    return Cut(kind, what, means["rank"], means["top1"])
