"""Finds SmolLM2-135M's circuit from city to language at several sizes, beside random circuits.

    make llm-model
    python -m analyses.whole_models.city_circuit_run

Writes one JSON into analyses/results/circuits after each size, and goes on from it if it is of the same
scores; `ocr-interp reproduce --only city_circuit` draws it without any model. Criteria:
`city_circuit_criteria`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analyses.llm.table_1 import lora
from analyses.whole_models.city_circuit_criteria import (
    FAITHFUL,
    FOUND_ON,
    LATER,
    NAME,
    NODE_SIZES,
    NODES_FAITHFUL,
    NODES_RANDOM,
    OTHER_NAME,
    RANDOM,
    SIZES,
)
from analyses.whole_models.city_language_run import Prompts
from ocr_interp.discovery import Circuit, Contrast, EdgeScores, attribute_edges
from ocr_interp.discovery.evaluation import random_like
from ocr_interp.discovery.runner import CircuitRunner
from ocr_interp.llm.models.bridge import as_bridge, viewed
from ocr_interp.llm.models.loading import load_model

RESULT = Path(__file__).resolve().parents[1] / "results" / "circuits" / "city_circuit.json"
STEPS, SEED, ELSEWHERE = 5, 0, 1
"""Points of the integrated gradients; seed of random circuits; and how many of each kind at the sizes that
the criterion is not about."""


def contrast_of(model: Any, tokenizer: Any, prompts: Prompts, cities: slice, name: str = NAME) -> Contrast:
    """Prompts of some cities; the donor is that of the next of them, and its language is the wrong answer."""
    tokens = [tokenizer.encode(text) for text in prompts.texts(name)[cities]]
    answers = [
        tokenizer.encode(f" {each}", add_special_tokens=False)[0] for each in prompts.languages[cities]
    ]
    return Contrast.of(model, tokens, tokens[1:] + tokens[:1], answers, answers[1:] + answers[:1])


def controls(runner: CircuitRunner, circuit: Circuit, count: int) -> dict[str, list[float]]:
    """Faithfulness of random circuits beside one, by kind of control."""
    drawn = random_like(circuit, runner.at_query, count, np.random.default_rng(SEED))
    return {name: runner.faithfulness(masks).tolist() for name, masks in drawn.items()}


def of_nodes(scores: EdgeScores, runners: dict[str, CircuitRunner]) -> dict[str, Any]:
    """Circuits of heads and MLPs by size, and random sets beside the smallest that is faithful everywhere."""
    circuits = {size: scores.circuit(size, of="nodes") for size in NODE_SIZES}
    found: dict[str, Any] = {"sizes": {}}
    for size, circuit in circuits.items():
        entry = {"nodes": len(circuit.kept), "heads": len(circuit.heads), "edges": len(circuit)}
        entry |= {name: float(each.faithfulness([circuit.mask])[0]) for name, each in runners.items()}
        found["sizes"][str(size)] = entry
        print(size, "nodes", entry, flush=True)
    faithful = [
        size
        for size in NODE_SIZES
        if min(found["sizes"][str(size)][name] for name in runners) >= NODES_FAITHFUL
    ]
    smallest = min(faithful, default=None)
    for size in {NODE_SIZES[3], smallest} - {None}:
        found["sizes"][str(size)]["random"] = controls(runners["found on"], circuits[size], NODES_RANDOM)
    if smallest is not None:
        found["circuit"] = circuits[smallest].node_table().to_dict("records")
    return found


def main() -> None:
    torch.set_num_threads(1)
    cpu, lm = torch.device("cpu"), load_model(lora("city_language", SEED).train.model)
    model, prompts = as_bridge(viewed(lm, cpu), cpu), Prompts.of(lm.tokenizer)
    found_on, others = (
        contrast_of(model, lm.tokenizer, prompts, slice(start, start + FOUND_ON)) for start in (0, FOUND_ON)
    )
    scores = attribute_edges(model, found_on, steps=STEPS)
    print(f"scored {scores.nodes.n_edges} edges", flush=True)
    content: dict[str, Any] = {
        "cities": [prompts.cities[:FOUND_ON], prompts.cities[FOUND_ON : 2 * FOUND_ON]],
        "method": scores.method,
        "n_edges": scores.nodes.n_edges,
        "checksum": float(np.abs(scores.scores).sum()),
        "full": scores.full,
        "empty": scores.empty,
        "sizes": {},
    }
    if RESULT.is_file():
        known = json.loads(RESULT.read_text(encoding="utf-8"))
        if known["checksum"] == content["checksum"]:
            content |= {key: known[key] for key in ("sizes", "of nodes") if key in known}
    runners = {"found on": CircuitRunner(model, found_on), "others": CircuitRunner(model, others)}
    content["measure of others"] = [float(getattr(runners["others"], of).mean()) for of in ("full", "empty")]
    every = SIZES + LATER
    circuits = {size: scores.circuit(size) for size in every}
    for size, circuit in circuits.items():
        entry = content["sizes"].setdefault(str(size), {})
        if entry:
            continue
        entry["edges"], entry["heads"] = len(circuit), len(circuit.heads)
        entry |= {name: float(each.faithfulness([circuit.mask])[0]) for name, each in runners.items()}
        print(size, entry, flush=True)
        content["sizes"] = {str(s): content["sizes"][str(s)] for s in every if str(s) in content["sizes"]}
        _write(content)
    smallest = _smallest(content["sizes"])
    sizes = ([smallest] if smallest else []) + [size for size in every if size != smallest]
    for size in sizes:
        entry = content["sizes"][str(size)]
        if "random" not in entry and len(circuits[size]):
            entry["random"] = controls(
                runners["found on"], circuits[size], RANDOM if size == smallest else ELSEWHERE
            )
            print(size, entry, flush=True)
            _write(content)
    if "of nodes" not in content:
        elsewhere = slice(FOUND_ON, 2 * FOUND_ON)
        named = contrast_of(model, lm.tokenizer, prompts, elsewhere, OTHER_NAME)
        content["of nodes"] = of_nodes(scores, {**runners, "other name": CircuitRunner(model, named)})
    if smallest:
        content["circuit"] = circuits[smallest].edges
    _write(content)


def _smallest(sizes: dict[str, Any]) -> int | None:
    faithful = [
        size
        for size in SIZES + LATER
        if min(sizes[str(size)][name] for name in ("found on", "others")) >= FAITHFUL
    ]
    return min(faithful, default=None)


def _write(content: dict[str, Any]) -> None:
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
