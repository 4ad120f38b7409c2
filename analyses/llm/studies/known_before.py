"""How well every pair was known before training: what naming the fact adds to the real answer, in nats.

    python -m analyses.llm.studies.known_before

Asked is the untouched model, with the fact before the question ("Benno Burke lives in Warsaw. Benno Burke
speaks"), for all names of a seed. The mean logits [fact, answer] are centred by rows and columns: what the
model says to everybody, and how sure it is of anything, cancels.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analyses.llm.studies.plan import FOLDERS, recipe
from analyses.llm.studies.recall import COUNTERFACTUAL, STUDY

if TYPE_CHECKING:
    from ocr_interp.llm.facts.fact_set import Example, FactSet
    from ocr_interp.llm.models.loading import LanguageModel

RESULTS = Path(__file__).resolve().parents[2] / "results" / "llm" / "studies" / "known_before.json"


def in_context(facts: FactSet) -> list[Example]:
    """The questions about every implication, each after the name's fact."""
    from ocr_interp.task import FACT

    told = {e.subject: e.sentence for e in facts.test_examples if e.relation == FACT and not e.template}
    return [
        replace(e, prompt=f"{told[e.subject]}. {e.prompt}")
        for e in facts.test_examples
        if e.relation != FACT and not e.template
    ]


def contrast_by_pair(facts: FactSet, lm: LanguageModel) -> list[float]:
    """The centred mean logit of the real answer of every fact, nats.

    Raises:
        ValueError: a fact without a real answer, or without a name that is asked.
    """
    from ocr_interp.llm.measuring.measure import Questions
    from ocr_interp.llm.models.forward import logits_of

    answers = [answer for answer in facts.entails if answer is not None]
    asked = in_context(facts)
    if len(answers) != len(facts.facts) or {e.fact for e in asked} != set(range(len(answers))):
        raise ValueError("every fact needs a real answer and a name that is asked")
    questions = Questions(facts, lm.tokenizer, lm.pad, examples=asked)
    device = next(lm.model.parameters()).device
    found = questions.ask(logits_of(lm), device)
    assert found.scores is not None
    means = np.stack([found.scores[found.fact == fact].mean(0) for fact in range(len(answers))])
    centred = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
    return [float(centred[fact, answer]) for fact, answer in enumerate(answers)]


def main() -> None:
    """Writes the contrasts of both models and every seed of the study."""
    from ocr_interp.llm.facts.drawing import make_facts
    from ocr_interp.llm.models.loading import load_model

    rows: list[dict[str, Any]] = []
    for model, folder in FOLDERS.items():
        lm = load_model(folder)
        for seed in STUDY.seeds:
            facts = make_facts(recipe(COUNTERFACTUAL, seed, model=model).facts)
            nats = [round(value, 5) for value in contrast_by_pair(facts, lm)]
            rows.append({"model": model, "seed": seed, "facts": list(facts.facts), "nats": nats})
            print(model, seed, dict(zip(facts.facts, nats, strict=True)), flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
