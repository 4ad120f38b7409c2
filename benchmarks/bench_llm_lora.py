"""A step of LoRA on SmolLM2-135M beside the loop of peft's own examples, in CPU-seconds of one thread.

    python benchmarks/bench_llm_lora.py [--steps 12] [--model runs/models/smollm2-135m]

Same data in the same order, batch, precision, optimizer, rank, targets and start. peft's loop is
get_peft_model, then for every batch model(**batch).loss.backward() and a step, with labels of -100 except at
answers. Rounds alternate; the median step counts. With default memory and with `keep_freed_memory`, as in
bench_llm.py. Results go to benchmarks/results/llm_lora.json. The aim: never slower, 1.5 times as fast.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import tyro
from bench_llm import WARM_UP, ours, padded, training

from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.models.allocator import keep_freed_memory
from ocr_interp.llm.models.loading import LanguageModel, load_model
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.loop import Finetuning

AIM = 1.5


def with_peft(model: Any, order: Finetuning) -> Any:
    """peft's LoRA in a model: rank, targets and start of one of our runs."""
    from peft import LoraConfig, get_peft_model

    recipe = order.config.train
    own = sorted(name for name, _ in order.inner.named_modules() if name.endswith("lora_A.default"))
    start = {n: p.detach() for n, p in order.inner.named_parameters() if p.requires_grad}
    lora = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,  # pyright: ignore[reportArgumentType]
        target_modules=sorted({name.split(".")[-3] for name in own}),
        task_type="CAUSAL_LM",
    )
    found: Any = get_peft_model(model, lora)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(start[name])
    return found


def pefts(config: LLMRunConfig, lm: LanguageModel) -> tuple[list[float], list[float]]:
    """CPU-seconds and loss of each step of the loop of peft's examples."""
    order = training(config, lm)
    recipe = config.train
    batches = [order._batch(step) for step in range(recipe.steps)]
    model = with_peft(copy.deepcopy(lm.model), order)
    trained = [p for p in model.parameters() if p.requires_grad]
    del order
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=0.0)
    times, losses = [], []
    model.train()
    for batch in batches:
        begun = time.process_time()
        rows = [
            {"input_ids": [*e.prompt, *e.answer], "labels": [-100] * len(e.prompt) + list(e.answer)}
            for e in batch
        ]
        loss = model(**padded(rows, lm.pad)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time() - begun)
        losses.append(float(loss.detach()))
    return times, losses


def main(steps: int = 12, model: str = "runs/models/smollm2-135m") -> None:
    torch.set_num_threads(1)
    lm = load_model(model)
    recipe = FinetuneConfig(model=model, method="lora", lr=1e-3, steps=steps, device="cpu")
    config = LLMRunConfig(FactConfig(), recipe)
    results: dict[str, Any] = {"steps": steps, "unit": "CPU-seconds a step, one thread, median", "aim": AIM}
    for memory in ("default memory", "freed memory kept"):
        if memory != "default memory" and not keep_freed_memory():
            print("no glibc here: freed memory cannot be kept")
            break
        times: dict[str, list[float]] = {"peft": [], "ours": []}
        losses: dict[str, list[float]] = {}
        for _ in range(2):
            for name, run in (("peft", pefts), ("ours", ours)):
                spent, losses[name] = run(config, lm)
                times[name] += spent[WARM_UP:]
        best = {name: statistics.median(values) for name, values in times.items()}
        apart = max(abs(a - b) for a, b in zip(losses["peft"], losses["ours"], strict=True))
        ratio = best["peft"] / best["ours"]
        results[memory] = {**best, "ratio": ratio, "largest difference of losses": apart}
        print(
            f"{memory}: peft {best['peft']:.3f}, ours {best['ours']:.3f} CPU-seconds a step, {ratio:.2f} "
            f"times; losses differ by at most {apart:.1e}",
            flush=True,
        )
    path = Path(__file__).resolve().parent / "results" / "llm_lora.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
