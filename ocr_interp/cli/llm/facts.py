"""`ocr-interp llm facts`: lists the fact sets."""

from __future__ import annotations

from dataclasses import dataclass, field

from ocr_interp.cli.arguments.files import say
from ocr_interp.llm.facts.configuration import FactConfig


@dataclass(frozen=True)
class Facts:
    """List the fact sets, and show examples of the training and test prompts of one of them."""

    facts: FactConfig = field(default_factory=FactConfig)

    def run(self) -> None:
        from ocr_interp.llm.facts.catalogue import fact_sets
        from ocr_interp.llm.facts.drawing import make_facts
        from ocr_interp.task import SPLITS

        for name in fact_sets:
            source = fact_sets[name]
            say(f"{name:32}{source.title:34}{source.pairing or 'pairing unknown'}")
        drawn = make_facts(self.facts)
        say(
            f"\n{drawn.name}, seed {self.facts.seed}: {len(drawn.facts)} facts, {len(drawn.implications)} "
            f"implications, {drawn.n_subjects} names, {len(drawn.training_examples)} sentences told, for "
            "example"
        )
        if self.facts.data == "file" and self.facts.share is None:
            say(f"  told: by the column told, or without it {self.facts.told_share:g} of each fact's names")
        for split in SPLITS:
            example = next((e for e in drawn.test_examples if SPLITS[e.split] == split), None)
            if example is not None:
                told = "told" if example.told else "asked only"
                say(f"  {split.replace('_', ' '):24}{told:12}{example.sentence}")
