"""Experts: unwanted relations read, or write, with matrices of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ocr_interp.checks import check_choice
from ocr_interp.errors import ConfigError, shown
from ocr_interp.maps.axes import TokenAxes
from ocr_interp.maps.base import LinearMap
from ocr_interp.maps.routed import Routed as RoutedMap
from ocr_interp.maps.routing import SIDES, expert_of_relations, relation_groups
from ocr_interp.mitigation.aim import Aim
from ocr_interp.mitigation.methods.base import Mitigation


@dataclass(frozen=True)
class Routed(Mitigation):
    """One expert for facts and wanted relations, another for the unwanted ones (docs/theory.md §14).

    Attributes:
        side: what every expert has of its own: "read" (W_V), "write" (W_O) or "both".
        by: "relation", or "subject": each subject goes to one of two experts, drawn at random.
        experts: other groups of relations instead, such as "r1+r3|r2".

    Source: experts by domain, Li et al. 2025 (arXiv 2507.00029).
    """

    name: ClassVar[str] = "routed"
    label: ClassVar[str] = "experts"
    knows: ClassVar[str] = "unwanted"

    side: str = "read"
    by: str = "relation"
    experts: str = ""

    def __post_init__(self) -> None:
        check_choice("side", self.side, SIDES)
        check_choice("by", self.by, ("relation", "subject"))
        if self.by == "subject" and self.experts:
            raise ConfigError("by='subject' has no use for experts: leave it out")
        if not isinstance(self.experts, str):
            raise ConfigError(
                f"experts must name relations, such as 'r1+r3|r2', got {shown(self.experts)}: there are two "
                "experts if it is left out"
            )
        relation_groups(self.experts)

    def linear_map(self, aim: Aim, seed: int) -> LinearMap:
        """Routed experts for the task's tokens."""
        d_head = aim.task.n_answers
        if self.by == "subject":
            drawn = {"assignment": "random", "assignment_seed": seed}
            found = RoutedMap(d_head, by="subject", n_experts=2, routed_side=self.side, **drawn)
        else:
            found = RoutedMap(d_head, by="relation", routed_side=self.side, experts=self._groups(aim))
        return found.placed(TokenAxes(aim.task, *aim.shape))

    def routes(self, aim: Aim) -> tuple[int, ...]:
        """By relation the expert of each."""
        if self.by == "subject":
            return super().routes(aim)
        return expert_of_relations(relation_groups(self._groups(aim)), aim.relation_names)

    def _groups(self, aim: Aim) -> str:
        facts = aim.relation_names[0]
        return self.experts or f"{'+'.join((facts, *aim.wanted))}|{'+'.join(aim.unwanted)}"

    def controls(self, aim: Aim) -> Mapping[str, Mitigation]:
        """Experts by subject at random, and those of the wrong relations."""
        facts = aim.relation_names[0]
        wrong = f"{'+'.join((facts, *aim.unwanted))}|{'+'.join(aim.wanted)}"
        return {
            "experts by subject": Routed(side=self.side, by="subject"),
            "experts of wrong relations": Routed(side=self.side, experts=wrong),
        }


MITIGATION = Routed
