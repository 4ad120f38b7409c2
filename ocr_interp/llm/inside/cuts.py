"""Cuts: ablations that measure how a fine-tuned model's answers depend on parts of its update.

There are five kinds (`KINDS`); each is measured by the ranks of all four splits:

- parts: one part of the update (OV, QK, MLPs, the rest; see `parts`) is undone, or is the only one that is
  applied;
- heads: the heads with the most changed OV circuit are set to zero, beside as many random heads of all
  layers, and, at most half of each layer, beside as many random heads of the same layers; then the same for
  heads from layer 1 on, because the model needs the heads of layer 0 for everything;
- directions: the top output directions of the update are removed from the output of these heads, beside as
  many random directions of their output;
- mean: what the update adds to every linear map's output is replaced by its mean over names
  (`mean_over_names`);
- truncation: ΔW of every map keeps only, or loses, its top singular values (`truncation`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.base import Intervention
from ocr_interp.ablation.edits.subspace import Subspace
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.where.site import Site
from ocr_interp.errors import ConfigError
from ocr_interp.linalg.spectrum import factored_svd
from ocr_interp.llm.inside.parts import PARTS, REST, parts_of
from ocr_interp.llm.inside.updates import OVUpdate, OVWeights
from ocr_interp.llm.measuring.measure import Measurement, Questions
from ocr_interp.llm.models.bridge import bridge_logits
from ocr_interp.llm.models.forward import answer_logits
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.task import SPLITS

KINDS = ("parts", "heads", "directions", "mean", "truncation")
"""What can be asked for; the models without a cut are always there."""

USUAL_KINDS = KINDS[:-1]
"""Without truncation, which needs a decomposition of every matrix: minutes for a small model, hours for one
of billions of weights on a CPU."""

RANDOM_DRAWS = 3
DIRECTIONS = 4


@dataclass(frozen=True)
class Cut:
    """One ablation, and how the model answers under it.

    Attributes:
        kind: "none" or a name in KINDS.
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


def uncut(before: LanguageModel, work: Any, questions: Questions, device: torch.device) -> list[Cut]:
    """Answers of both models without a cut."""
    return [
        _with_weights(before, work, questions, device, "none", "before fine-tuning", lambda name: True),
        _with_weights(before, work, questions, device, "none", "after fine-tuning", lambda name: False),
    ]


def part_cuts(before: LanguageModel, work: Any, questions: Questions, device: torch.device) -> list[Cut]:
    """Answers with every part that changed put back or left alone; `work`, the model after, is written."""
    parts = parts_of(before)
    changed, cuts = {parts[name] for name in changed_names(before.model, work)}, []
    for part in (*PARTS, REST):
        if part in changed:
            for what, chosen in (
                (f"{part} put back", lambda name, p=part: parts[name] == p),
                (f"only {part} changed", lambda name, p=part: parts[name] != p),
            ):
                cuts.append(_with_weights(before, work, questions, device, "parts", what, chosen))
    return cuts


def _with_weights(
    before: LanguageModel,
    work: Any,
    questions: Questions,
    device: torch.device,
    kind: str,
    what: str,
    chosen: Callable[[str], bool],
) -> Cut:
    with weights_from(work, before.model, chosen):
        return cut_of(kind, what, [questions.ask(lambda batch: answer_logits(work, batch), device)])


def changed_names(before: Any, after: Any) -> tuple[str, ...]:
    """Names of the parameters that differ between two states of a model."""
    theirs = dict(before.named_parameters())
    return tuple(
        name for name, p in after.named_parameters() if not torch.equal(p, theirs[name].to(p.device))
    )


# --- heads and directions ---------------------------------------------------------------------------


def other_heads(
    heads: Sequence[tuple[int, int]], update: OVUpdate, first_layer: int = 0
) -> list[list[tuple[int, int]]]:
    """Random draws of as many other heads, or all others if they are fewer, from `first_layer` on."""
    rng = np.random.default_rng(0)
    others = [place for place in update.heads(first_layer) if place not in heads]
    count = min(len(heads), len(others))
    return [[others[k] for k in rng.choice(len(others), count, False)] for _ in range(RANDOM_DRAWS)]


def most_changed_of_layers(update: OVUpdate, count: int, first_layer: int = 0) -> tuple[tuple[int, int], ...]:
    """The most changed heads, at most half of each layer's, so that as many others are left in every layer.

    Fewer than `count` if the layers have no more.
    """
    limit, taken = update.relative.shape[1] // 2, dict.fromkeys(range(len(update.relative)), 0)
    found = []
    for layer, head in update.most_changed(len(update.heads(first_layer)), first_layer):
        if taken[layer] < limit and len(found) < count:
            taken[layer] += 1
            found.append((layer, head))
    return tuple(found)


def heads_of_same_layers(
    heads: Sequence[tuple[int, int]], update: OVUpdate, seed: int = 0
) -> list[list[tuple[int, int]]]:
    """Random draws of other heads, in every layer as many as `heads` has there.

    Raises:
        ConfigError: `heads` has more than half of a layer, so that too few others are left in it.
    """
    rng = np.random.default_rng(seed)
    wanted = Counter(layer for layer, _ in heads)
    others = {k: [p for p in update.heads() if p[0] == k and p not in heads] for k in sorted(wanted)}
    short = [layer for layer, left in others.items() if len(left) < wanted[layer]]
    if short:
        raise ConfigError(
            f"heads must leave as many others in their layers, got {wanted[short[0]]} of layer {short[0]}, "
            f"which has {len(others[short[0]])} others: take `most_changed_of_layers`"
        )
    return [
        [left[k] for layer, left in others.items() for k in rng.choice(len(left), wanted[layer], False)]
        for _ in range(RANDOM_DRAWS)
    ]


def head_cuts(
    bridge: Any, update: OVUpdate, n_heads: int, questions: Questions, device: torch.device
) -> list[Cut]:
    """The most changed heads and random others; then the same from layer 1 on, since all need layer 0."""
    cuts = []
    for first, where in ((0, ""), (1, " past layer 0")):
        heads = update.most_changed(min(n_heads, max(0, len(update.heads(first)) - 1)), first)
        rows = []
        if heads:
            rows = [
                (f"most changed heads{where}", [heads]),
                (f"other heads{where}, drawn at random,", other_heads(heads, update, first)),
            ]
        matched = most_changed_of_layers(update, n_heads, first)
        if matched:
            rows += [
                (f"most changed heads{where}, at most half of a layer,", [matched]),
                (f"random heads of the same layers{where}", heads_of_same_layers(matched, update)),
            ]
        for what, choices in rows:
            found = [_ablated(bridge, _zeros(choice), questions, device) for choice in choices]
            cuts.append(cut_of("heads", f"{len(choices[0])} {what} zeroed", found))
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
        cut_of(
            "directions",
            f"{name} top directions removed",
            [_ablated(bridge, specs(False), questions, device)],
        ),
        cut_of(
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


def cut_of(kind: str, what: str, found: Sequence[Measurement]) -> Cut:
    """A cut with the means over its measurements."""
    means = {
        metric: {split: float(np.mean([m.mean(split, metric) for m in found])) for split in SPLITS}
        for metric in ("rank", "top1")
    }
    return Cut(kind, what, means["rank"], means["top1"])
