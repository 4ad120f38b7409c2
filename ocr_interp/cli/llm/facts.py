"""`ocr-interp llm facts`: lists the fact sets, or shows one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocr_interp.cli.arguments.files import say
from ocr_interp.llm.facts.configuration import FactConfig

if TYPE_CHECKING:
    from ocr_interp.llm.facts.fact_set import FactSet

_MOST_FACTS = 20
"""Rows of facts that are shown."""


@dataclass(frozen=True)
class Facts:
    """Show the facts of one set, who is told, and examples of the prompts; without options, all sets too."""

    facts: FactConfig = field(default_factory=FactConfig)

    def run(self) -> None:
        from ocr_interp.llm.facts.catalogue import fact_sets
        from ocr_interp.llm.facts.drawing import make_facts, told_rule
        from ocr_interp.task import SPLITS

        if self.facts == FactConfig():
            for name in fact_sets:
                source = fact_sets[name]
                say(f"{name:32}{source.title:34}{source.pairing or 'pairing unknown'}")
            say("")
        drawn = make_facts(self.facts)
        say(
            f"{drawn.name}, seed {self.facts.seed}: {len(drawn.facts)} facts, {len(drawn.implications)} "
            f"implications, {drawn.n_subjects} names, {len(drawn.training_examples)} sentences told, for "
            "example"
        )
        say(f"  {told_rule(self.facts, drawn)}")
        for split in SPLITS:
            example = next((e for e in drawn.test_examples if SPLITS[e.split] == split), None)
            if example is not None:
                told = "told" if example.told else "asked only"
                say(f"  {split.replace('_', ' '):24}{told:12}{example.sentence}")
        say("\n".join(_by_fact(drawn)))


def _by_fact(drawn: FactSet) -> list[str]:
    """One row per fact: the implications of its names, and of how many of these it is told."""
    candidates = ", ".join(drawn.implications[:_MOST_FACTS])
    more = ", ..." if len(drawn.implications) > _MOST_FACTS else ""
    lines = [f"  candidates of an implication: {candidates}{more}", f"  {'fact':24}{'implication':24}told"]
    for fact, answer in enumerate(drawn.facts[:_MOST_FACTS]):
        members = [s for s in range(drawn.n_subjects) if drawn.subject_fact[s] == fact]
        implied = dict.fromkeys(drawn.implications[drawn.subject_implication[s]] for s in members)
        shown = next(iter(implied)) if len(implied) == 1 else f"{len(implied)} different ones"
        told = sum(drawn.implication_told[s] for s in members)
        lines.append(f"  {answer:24}{shown:24}{told} of {len(members)} names")
    if len(drawn.facts) > _MOST_FACTS:
        lines.append(f"  ... {len(drawn.facts) - _MOST_FACTS} more facts")
    return lines
