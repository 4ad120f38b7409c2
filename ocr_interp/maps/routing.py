"""How experts are chosen: options, groups of relations, assigned subjects, a router's softmax and losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ocr_interp.checks import check_choice, check_count, check_number
from ocr_interp.errors import ConfigError, shown, unknown_name

COLLAPSED = 0.1
"""An expert has collapsed if its mean score is below this share of an even one, 1 / experts."""


class RouterCollapsedWarning(UserWarning):
    """A learned router that leaves an expert all but unused."""


BY = ("relation", "subject", "token", "sequence")
"""What chooses the expert; the first two are fixed, the others are learned routers."""

SIDES = ("read", "write", "both")
"""What every expert has of its own: W_V, W_O, or both."""

EXPERTS_ARE = "use n_experts for a number, experts names relations such as 'r1+r2|r3'"

_OF_ROUTERS = ("temperature", "top_k", "soft_from_step", "soft_trains", "balance", "entropy", "anchor")


def check_options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Requires options of routed experts (`maps.routed.Routed`) that go together.

    Raises:
        ConfigError: a value that is not allowed, or an option that its kind of routing does not use.
    """
    check_choice("by", given["by"], BY)
    check_choice("routed_side", given["routed_side"], SIDES)
    check_choice("assignment", given["assignment"], ("index", "random"))
    check_choice("soft_trains", given["soft_trains"], ("all", "router"))
    for name in ("n_experts", "assignment_seed", "top_k", "soft_from_step"):
        check_count(name, given[name], 0)
    check_number("temperature", given["temperature"], above=0)
    for name in ("balance", "anchor"):
        check_number(name, given[name], at_least=0)
    check_number("entropy", given["entropy"])
    relation_groups(given["experts"])
    learned = given["by"] in ("token", "sequence")
    used = {
        "experts": given["by"] == "relation" or given["soft_from_step"] > 0,
        "assignment": given["by"] == "subject",
        "assignment_seed": given["assignment"] == "random",
        **dict.fromkeys(_OF_ROUTERS, learned),
    }
    unused = [name for name, is_used in used.items() if not is_used and given[name] != defaults[name]]
    if unused:
        raise ConfigError(
            f"by={given['by']!r} has no use for {', '.join(unused)}: leave it out"
            + (" or set soft_from_step" if unused == ["experts"] and learned else "")
        )
    if given["soft_trains"] == "router" and not given["soft_from_step"]:
        raise ConfigError(
            "soft_trains='router' trains the router on experts that do not change, which need a source: "
            "set soft_from_step >= 1, the updates that train them by relation first"
        )
    if given["soft_trains"] == "router" and given["anchor"]:
        raise ConfigError("anchor holds experts that are trained: leave it out with soft_trains='router'")
    if given["n_experts"]:
        check_top_k(given["top_k"], given["n_experts"])


def check_top_k(top_k: int, n_experts: int) -> None:
    """Requires a number of kept experts that there are, and that leave the router something to learn."""
    if top_k > n_experts:
        raise ConfigError(f"top_k must be <= the number of experts, {n_experts}, got {top_k}")
    if top_k == 1 < n_experts:
        raise ConfigError(
            "top_k must be 0 or >= 2: a single kept weight, divided by itself, is the constant 1, and the "
            "router would never learn"
        )


def relation_groups(text: Any) -> tuple[tuple[str, ...], ...] | None:
    """The relations of every expert from a text such as "r1+r2|r3"; None from an empty one.

    Raises:
        ConfigError: no text, an expert without a relation, or a relation that is named twice.
    """
    if not isinstance(text, str):
        raise ConfigError(f"experts must be a text, got {shown(text)}: {EXPERTS_ARE}")
    if not text:
        return None
    groups = tuple(tuple(name.strip() for name in group.split("+")) for group in text.split("|"))
    names = [name for group in groups for name in group]
    if not all(names):
        raise ConfigError(f"experts must name relations, as in 'r1+r2|r3', got {shown(text)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"experts must name every relation once, got {shown(text)} with {', '.join(twice)} twice"
        )
    return groups


def expert_of_relations(
    groups: tuple[tuple[str, ...], ...] | None, relations: Sequence[str]
) -> tuple[int, ...]:
    """The expert of every relation of a task, one each without groups.

    Raises:
        UnknownNameError: a relation that the task does not have.
        ConfigError: a relation of the task that no expert has.
    """
    if groups is None:
        return tuple(range(len(relations)))
    found: dict[str, int] = {}
    for expert, group in enumerate(groups):
        for name in group:
            if name not in relations:
                raise unknown_name("relation", name, relations)
            found[name] = expert
    missing = [name for name in relations if name not in found]
    if missing:
        raise ConfigError(
            f"experts must name every relation of the task ({', '.join(relations)}), got none for "
            f"{', '.join(missing)}: add them, as in 'r1+r2|r3'"
        )
    return tuple(found[name] for name in relations)


def expert_of_subjects(
    n_subjects: int, n_experts: int, assignment: str, seed: int
) -> Int[np.ndarray, " subject"]:
    """The expert of every subject: its index modulo the experts, or drawn uniformly, independently."""
    if assignment == "index":
        return np.arange(n_subjects) % n_experts
    return np.random.default_rng(seed).integers(n_experts, size=n_subjects)


@dataclass(frozen=True)
class Gate:
    """What a router gives.

    Attributes:
        mixture: weight of every expert; they sum to 1.
        score: the softmax before all but the top_k are dropped.
        log_score: its logarithm, finite where the score is too small for a number.
        chosen: whether an expert is among the top_k, or the first with top_k = 0.
    """

    mixture: Float[Tensor, "*item expert"]
    score: Float[Tensor, "*item expert"]
    log_score: Float[Tensor, "*item expert"]
    chosen: Bool[Tensor, "*item expert"]


def gate(logits: Float[Tensor, "*item expert"], temperature: float, top_k: int) -> Gate:
    """softmax(logits / temperature), of which the largest top_k are kept and divided by their sum.

    Gradients pass through the weights of the chosen experts and their sum, none through the choice.

    Args:
        logits: of the router.
        temperature: > 0.
        top_k: number of experts that are kept; 0: all.
    """
    score, log_score = torch.softmax(logits / temperature, -1), torch.log_softmax(logits / temperature, -1)
    best = score.detach().topk(max(top_k, 1), -1).indices
    chosen = torch.zeros_like(score, dtype=torch.bool).scatter_(-1, best, True)
    if not top_k:
        return Gate(score, score, log_score, chosen)
    kept = score.masked_fill(~chosen, 0.0)
    return Gate(kept / kept.sum(-1, keepdim=True), score, log_score, chosen)


@dataclass(frozen=True)
class Load:
    """How a router spreads items (prompts or tokens) over experts.

    Attributes:
        score: mean score p̄ of every expert.
        share: share f̄ of the items for which an expert is among the chosen ones.
        entropy: mean entropy H of the scores, nats.
    """

    score: Float[Tensor, " expert"]
    share: Float[Tensor, " expert"]
    entropy: Float[Tensor, ""]

    @classmethod
    def of(cls, found: Gate, weight: Float[Tensor, " item"]) -> Load:
        """The load of items with weights that sum to 1."""
        entropy = -(found.score * found.log_score).sum(-1)
        by = weight.unsqueeze(-1)
        return cls((by * found.score).sum(0), (by * found.chosen).sum(0), (weight * entropy).sum())

    def balance_loss(self, balance: float, entropy: float) -> Float[Tensor, ""]:
        """balance Σ_e p̄_e f̄_e − entropy H: Specialization Balance Loss, with a signed entropy weight.

        With entropy > 0 minimising it raises the entropy (even routing), with entropy < 0 it lowers it
        (peaked routing). f̄ counts choices and has no gradient.

        Source: Li et al. 2025, LoRA-Mixer (arXiv 2507.00029).
        """
        return balance * (self.score * self.share.detach()).sum() - entropy * self.entropy
