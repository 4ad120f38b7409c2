"""Keeps a few heads and MLPs of SmolLM2-135M, patches all others with another city's, before and after LoRA.

    make llm-model
    python -m analyses.whole_models.carriers_run
    python -m analyses.whole_models.city_columns_run [--trained runs/city_language_lora]

The order of the nodes is that of `carriers_run`, whose JSON it reads. It writes one JSON into
analyses/results/circuits, from which `ocr-interp reproduce --only city_columns` draws without any model. Some
minutes on one core.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
import tyro

from analyses.llm.table_1 import lora
from analyses.whole_models.carriers_criteria import TESTED_ON
from analyses.whole_models.carriers_run import RESULT as CARRIERS
from analyses.whole_models.carriers_run import Asked, Node, drawn_like, name_of, nodes_of
from analyses.whole_models.city_columns_criteria import DRAWS, FEW, KEPT, SEED
from analyses.whole_models.city_language_run import PROMPT, TRAINING, Arguments, Prompts
from ocr_interp.llm.models.bridge import as_bridge, viewed
from ocr_interp.llm.models.loading import load_model
from ocr_interp.storage.plain import plain

RESULT = CARRIERS.with_name("city_columns.json")


def read(model: Any, tokenizer: Any, prompts: Prompts, ranked: dict[str, list[float]]) -> dict[str, Any]:
    """Shares that the first nodes of an order keep by themselves, at the city, after it and at both.

    Args:
        model, tokenizer, prompts: asked.
        ranked: place ("city", "after") -> what each node of `nodes_of` loses alone there.
    """
    first = [tokenizer.encode(f" {each}", add_special_tokens=False)[0] for each in prompts.languages]
    asked = []
    for name in TESTED_ON:
        ids = [tokenizer.encode(PROMPT.format(name=name, city=city)) for city in prompts.cities]
        asked.append(Asked(model, torch.tensor(ids), torch.tensor(first)))
    nodes = nodes_of(model)
    order = {
        place: [nodes[k] for k in np.argsort(-np.array(shares), kind="stable")]
        for place, shares in ranked.items()
    }

    def kept(chosen: dict[str, list[Node]]) -> float:
        """Share kept when all other nodes at these places are patched."""
        rest = {place: [node for node in nodes if node not in own] for place, own in chosen.items()}
        return 1.0 - float(np.mean([one.lost(rest) for one in asked]))

    generator = np.random.default_rng(SEED)
    draws = [drawn_like(order["after"][:FEW], nodes, generator) for _ in range(DRAWS)]
    return {
        "city": [kept({"city": order["city"][:count]}) for count in KEPT],
        "after": [kept({"after": order["after"][:count]}) for count in KEPT],
        "both": [kept({place: order[place][:count] for place in order}) for count in KEPT],
        "random after": [kept({"after": drawn}) for drawn in draws],
        "order": {place: [name_of(node) for node in own[:FEW]] for place, own in order.items()},
    }


def main(arguments: Arguments) -> None:
    if not (CARRIERS.is_file() and (arguments.trained / "model").is_dir()):
        raise SystemExit("needs the result of `python -m analyses.whole_models.carriers_run` and its model")
    torch.set_num_threads(arguments.threads)
    ranks = json.loads(CARRIERS.read_text(encoding="utf-8"))
    cpu = torch.device("cpu")
    content: dict[str, Any] = {"training": TRAINING, "prompt": PROMPT, "kept": KEPT}
    sources = {"before": lora("city_language", 0).train.model, "after": str(arguments.trained / "model")}
    for when, source in sources.items():
        lm = load_model(source)
        bridge = as_bridge(viewed(lm, cpu), cpu)
        content[when] = read(bridge, lm.tokenizer, Prompts.of(lm.tokenizer), ranks[when]["shares"])
        print(when, content[when], flush=True)
    RESULT.write_text(json.dumps(plain(content, 6), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
