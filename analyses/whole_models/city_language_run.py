"""Reads SmolLM2-135M on prompts that name a city, before and after LoRA on city_language.

    make llm-model
    python -m analyses.whole_models.city_language_run [--trained runs/city_language_lora]

Fine-tunes with the command in TRAINING if the folder is not there (some minutes), and writes one JSON into
analyses/results/circuits, from which `ocr-interp reproduce --only city_language` draws without any model.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from analyses.llm.table_1 import lora
from analyses.whole_models.city_language_criteria import DRAWS, NAMES, SEED, TOP
from ocr_interp.ablation import Site, Zero, ablated
from ocr_interp.circuits import direct_attribution
from ocr_interp.comparison import compare_models
from ocr_interp.discovery import Contrast, circuit_as_graph, faithfulness_of, find_circuit
from ocr_interp.llm.facts.sets.city_language import FACTS
from ocr_interp.llm.models.bridge import as_bridge, viewed
from ocr_interp.llm.models.loading import load_model
from ocr_interp.storage.plain import plain

RESULT = Path(__file__).resolve().parents[1] / "results" / "circuits" / "city_language.json"
TRAINING = "ocr-interp llm finetune runs/city_language_lora --method lora --lr 0.001 --steps 120"
EDGES, FOUND_ON = 40, 8
"""Edges of the circuit that is drawn, and the prompts that it is found on."""
PROMPT = "{name} lives in {city}. {name} speaks"


@dataclass(frozen=True)
class Arguments:
    """Read both models."""

    trained: Path = Path("runs/city_language_lora")
    """run directory of the fine-tuned model; made if it is not there"""
    threads: int = 1
    """number of torch's threads"""


@dataclass(frozen=True)
class Prompts:
    """All prompts: cities and languages of one token, by name."""

    cities: tuple[str, ...]
    languages: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> Prompts:
        """The pairs whose city is one token."""
        pairs = [
            (city, language)
            for city, language in zip(FACTS.facts, FACTS.implications, strict=True)
            if len(tokenizer.encode(f" {city}", add_special_tokens=False)) == 1
        ]
        return cls(*zip(*pairs, strict=True))

    def texts(self, name: str) -> list[str]:
        """The prompts of one name, in the order of the cities."""
        return [PROMPT.format(name=name, city=city) for city in self.cities]


def read(model: Any, tokenizer: Any, prompts: Prompts) -> dict[str, Any]:
    """Direct attribution, ablations and the circuit found."""
    first = [tokenizer.encode(f" {each}", add_special_tokens=False)[0] for each in prompts.languages]
    others = [[token for token in first if token != own] for own in first]
    texts = [tokenizer.encode(text) for name in NAMES for text in prompts.texts(name)]
    found = direct_attribution(model, texts, first * len(NAMES), others * len(NAMES))
    print("attributed", found.summary(5), flush=True)
    parts = {part.name: float(value) for part, value in zip(found.parts, found.mean, strict=True)}
    grid = found.heads.mean(0)
    order = np.argsort(-np.abs(np.nan_to_num(grid)), axis=None, kind="stable")[:TOP]
    top = [(int(place // grid.shape[1]), int(place % grid.shape[1])) for place in order]
    kinds = {part.name: part.kind for part in found.parts}

    def measure(removed: list[tuple[int, int]]) -> float:
        by_layer = defaultdict(list)
        for layer, head in removed:
            by_layer[layer].append(head)
        edits = [Zero().at(Site.at("z", layer=layer, heads=h)) for layer, h in sorted(by_layer.items())]
        values = []
        for name in NAMES:
            tokens = torch.tensor([tokenizer.encode(text) for text in prompts.texts(name)])
            with torch.no_grad(), ablated(model, *edits) if edits else nullcontext():
                logits = model(tokens)[:, -1, first].double()
            own = logits.diagonal()
            values.append(own - (logits.sum(1) - own) / (len(first) - 1))
        return float(torch.cat(values).mean())

    generator = np.random.default_rng(SEED)
    n_heads = int(model.cfg.n_heads)
    draws = []
    for _ in range(DRAWS):
        drawn = []
        for layer in sorted({layer for layer, _ in top}):
            own = [head for where, head in top if where == layer]
            rest = [head for head in range(n_heads) if head not in own]
            rest = rest if len(rest) >= len(own) else list(range(n_heads))
            drawn += [(layer, int(h)) for h in generator.choice(rest, len(own), replace=False)]
        draws.append(measure(drawn))
    print("heads", measure([]), measure(top), draws, flush=True)
    tokens = [tokenizer.encode(text) for text in prompts.texts(NAMES[0])][:FOUND_ON]
    donors, own = tokens[1:] + tokens[:1], first[:FOUND_ON]
    contrast = Contrast.of(model, tokens, donors, own, own[1:] + own[:1])
    circuit = find_circuit(model, contrast, size=EDGES)
    faithfulness = float(faithfulness_of(model, [circuit], contrast)[0])
    return {
        "total": float(found.totals.mean()),
        "parts": parts,
        "kinds": kinds,
        "top_heads": top,
        "all_heads": measure([]),
        "without_top": measure(top),
        "without_random": draws,
        "faithfulness": faithfulness,
        "graph": json.loads(circuit_as_graph(circuit).to_json()),
    }


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    if not (arguments.trained / "model").is_dir():
        from ocr_interp.llm.training.finetune import finetune

        finetune(lora("city_language", SEED), arguments.trained, save_model=True)
    cpu, bridges = torch.device("cpu"), []
    for source in (lora("city_language", SEED).train.model, str(arguments.trained / "model")):
        lm = load_model(source)
        bridges.append(as_bridge(viewed(lm, cpu), cpu))
        tokenizer = lm.tokenizer
    prompts = Prompts.of(tokenizer)
    content: dict[str, Any] = {"cities": prompts.cities, "names": NAMES, "training": TRAINING}
    for when, bridge in zip(("before", "after"), bridges, strict=True):
        content[when] = read(bridge, tokenizer, prompts)
        print(when, content[when]["total"], content[when]["faithfulness"], flush=True)
    change = compare_models(
        *bridges,
        inputs=[f" {city}" for city in prompts.cities],
        outputs=[tokenizer.encode(f" {each}", add_special_tokens=False)[0] for each in prompts.languages],
    )
    content["change"] = plain(
        [
            (each.unit, each.kind, each.weights, each.tokens, float(each.random.mean()))
            for each in change.units
        ],
        6,
    )
    print(change.summary(), flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
