"""Patches every head and MLP of SmolLM2-135M with another city's, before and after LoRA on city_language.

    make llm-model
    python -m analyses.whole_models.carriers_run [--trained runs/city_language_lora]

Fine-tunes with the command of `city_language_run` if the folder is not there, and writes one JSON into
analyses/results/circuits, from which `ocr-interp reproduce --only carriers` draws without any model. Each
model is asked 600 times with one node patched, 8 prompts each: some minutes on one core.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from analyses.llm.table_1 import lora
from analyses.whole_models.carriers_criteria import CHOSEN_ON, DRAWS, SEED, TESTED_ON, TOP
from analyses.whole_models.city_language_run import PROMPT, TRAINING, Arguments, Prompts
from ocr_interp.ablation import Patch, Site, ablated
from ocr_interp.llm.models.bridge import as_bridge, viewed
from ocr_interp.llm.models.loading import load_model
from ocr_interp.storage.plain import plain

RESULT = Path(__file__).resolve().parents[1] / "results" / "circuits" / "carriers.json"

Node = tuple[int, int | None]
"""(layer, head), or (layer, None) for an MLP."""


def nodes_of(model: Any) -> list[Node]:
    """All heads and MLPs, layer by layer."""
    layers, heads = int(model.cfg.n_layers), int(model.cfg.n_heads)
    return [(layer, head) for layer in range(layers) for head in (*range(heads), None)]


def name_of(node: Node) -> str:
    """As in every table of circuits."""
    layer, head = node
    return f"MLP {layer}" if head is None else f"L{layer}H{head}"


class Asked:
    """A model on the prompts of one name, each with the prompt of the next city as its donor.

    Attributes:
        full, empty: the measure of the prompts, and of their donors in their place.
        city, end: position of the city, and of the last token.
    """

    def __init__(self, model: Any, ids: torch.Tensor, languages: torch.Tensor) -> None:
        self.model, self.ids = model, ids
        self.own, self.other = languages, languages.roll(-1)
        donors = ids.roll(-1, 0)
        differs = (ids != donors).any(0).nonzero().flatten().tolist()
        assert len(differs) == 1, f"prompt and donor must differ in one place, got {differs}"
        self.city, self.end = differs[0], ids.shape[1] - 1
        wanted = [f"blocks.{k}.{hook}" for k in range(model.cfg.n_layers) for hook in HOOKS]
        with torch.no_grad():
            logits, cache = model.run_with_cache(donors, names_filter=lambda name: name in wanted)
        self.donor = {name: cache[name] for name in wanted}
        self.empty = self._measure(logits)
        self.full = self.measure({})

    def _measure(self, logits: torch.Tensor) -> float:
        last, rows = logits[:, -1].double(), torch.arange(len(self.ids))
        return float((last[rows, self.own] - last[rows, self.other]).mean())

    def measure(self, patched: dict[str, list[Node]]) -> float:
        """The measure with what some nodes write at the "city", or "after" it, replaced by the donor's."""
        places = {"city": [self.city], "after": list(range(self.city + 1, self.end + 1))}
        edits = []
        for place, nodes in patched.items():
            positions, heads = places[place], defaultdict(list)
            for layer, head in nodes:
                if head is None:
                    hook = f"blocks.{layer}.{HOOKS[1]}"
                    edits.append(Patch(self.donor[hook]).at(Site(hook, positions=tuple(positions))))
                else:
                    heads[layer].append(head)
            for layer, those in heads.items():
                site = Site.at("z", layer=layer, heads=those, positions=positions)
                edits.append(Patch(self.donor[site.hook]).at(site))
        with torch.no_grad():
            if not edits:
                return self._measure(self.model(self.ids))
            with ablated(self.model, *edits):
                return self._measure(self.model(self.ids))

    def lost(self, patched: dict[str, list[Node]]) -> float:
        """Share of full − empty that is lost, by place and the nodes that are patched there."""
        return (self.full - self.measure(patched)) / (self.full - self.empty)


HOOKS = ("attn.hook_z", "hook_mlp_out")


def drawn_like(top: list[Node], nodes: list[Node], generator: np.random.Generator) -> list[Node]:
    """As many random heads and MLPs of every layer, of the others where there are others."""
    found: list[Node] = []
    for layer, count in sorted(Counter(layer for layer, head in top if head is not None).items()):
        heads = [node for node in nodes if node[0] == layer and node[1] is not None]
        rest = [node for node in heads if node not in top]
        rest = rest if len(rest) >= count else heads
        found += [rest[k] for k in generator.choice(len(rest), count, replace=False)]
    free = [layer for layer, head in nodes if head is None and (layer, None) not in top]
    for layer in sorted(layer for layer, head in top if head is None):
        distance = np.array([abs(other - layer) for other in free])
        nearest = [k for k in range(len(free)) if distance[k] == distance.min()]
        found.append((free.pop(int(generator.choice(nearest))), None))
    return found


def read(model: Any, tokenizer: Any, prompts: Prompts) -> dict[str, Any]:
    """Shares lost by node and place on one name, and those of the carriers together on the others."""
    languages = torch.tensor(
        [tokenizer.encode(f" {each}", add_special_tokens=False)[0] for each in prompts.languages]
    )
    asked = {}
    for name in (*CHOSEN_ON, *TESTED_ON):
        ids = [tokenizer.encode(PROMPT.format(name=name, city=city)) for city in prompts.cities]
        asked[name] = Asked(model, torch.tensor(ids), languages)
    nodes = nodes_of(model)
    shares: dict[str, list[float]] = {"city": [], "after": []}
    for node in nodes:
        for place, values in shares.items():
            values.append(float(np.mean([asked[name].lost({place: [node]}) for name in CHOSEN_ON])))
    order = np.argsort(-np.array(shares["after"]), kind="stable")[:TOP]
    top = [nodes[k] for k in order]

    def together(patched: list[Node]) -> float:
        return float(np.mean([asked[name].lost({"after": patched}) for name in TESTED_ON]))

    generator = np.random.default_rng(SEED)
    draws = [drawn_like(top, nodes, generator) for _ in range(DRAWS)]
    return {
        "nodes": [name_of(node) for node in nodes],
        "shares": shares,
        "measures": {name: [each.full, each.empty] for name, each in asked.items()},
        "top": [name_of(node) for node in top],
        "lost_together": together(top),
        "lost_random": [together(drawn) for drawn in draws],
        "lost_all": together(nodes),
        "random": [[name_of(node) for node in drawn] for drawn in draws],
    }


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    recipe = lora("city_language", 0)
    if not (arguments.trained / "model").is_dir():
        from ocr_interp.llm.training.finetune import finetune

        finetune(recipe, arguments.trained, save_model=True)
    cpu = torch.device("cpu")
    content: dict[str, Any] = {"training": TRAINING, "prompt": PROMPT}
    for when, source in (("before", recipe.train.model), ("after", str(arguments.trained / "model"))):
        lm = load_model(source)
        bridge = as_bridge(viewed(lm, cpu), cpu)
        prompts = Prompts.of(lm.tokenizer)
        content["cities"] = list(prompts.cities)
        content[when] = read(bridge, lm.tokenizer, prompts)
        print(when, {key: content[when][key] for key in ("top", "lost_together", "lost_random")}, flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(plain(content, 6), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
