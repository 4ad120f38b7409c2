"""A step of fine-tuning SmolLM2-135M beside the transformers Trainer, in CPU-seconds of one thread.

    python benchmarks/bench_llm.py [--steps 10] [--model runs/models/smollm2-135m]
    python benchmarks/bench_llm.py --methods [--steps 90]

Same data in the same order, batch, precision, optimizer and loss; rounds alternate on the same machine, the
median step counts. Both are timed in two rounds with default settings, then in two with `keep_freed_memory`
(which cannot be undone, so they come last). Then the parts of our step are timed. Results go to
benchmarks/results/llm.json.

`--methods` times a step of every method that leaves the weights alone, and of LoRA, on a small random Llama
(8 layers of width 256) instead; results go to benchmarks/results/llm_methods.json. The claim: Compacter and
LoRA-Mixer take at most 1.3 times as long as LoRA.
"""

from __future__ import annotations

import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.nn import functional

from ocr_interp.llm.encoding import training_batch
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.models.allocator import keep_freed_memory
from ocr_interp.llm.models.forward import answer_logits
from ocr_interp.llm.models.loading import LanguageModel, load_model
from ocr_interp.llm.models.tiny import tiny_model, tiny_tokenizer
from ocr_interp.llm.training.base_source import BaseSource
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.loop import Finetuning
from ocr_interp.llm.training.processes import make_accelerator

WARM_UP = 3
"""Steps that are not counted, since optimizer state is created in the first."""


def training(config: LLMRunConfig, lm: LanguageModel) -> Finetuning:
    """Our fine-tuning, on a copy of the model."""
    own = LanguageModel(lm.name, copy.deepcopy(lm.model), lm.tokenizer)
    base = BaseSource(config.train, own)
    return Finetuning(config, make_facts(config.facts), base, make_accelerator(config.train))


def ours(config: LLMRunConfig, lm: LanguageModel) -> tuple[list[float], list[float]]:
    """CPU-seconds and loss of each of our steps."""
    times, losses = updates(training(config, lm), config.train.steps)
    return times, [float(loss) for loss in losses]


def updates(run: Finetuning, steps: int) -> tuple[list[float], list[torch.Tensor]]:
    """CPU-seconds and loss of each of the next steps."""
    times, losses = [], []
    for _ in range(steps):
        start = time.process_time()
        losses.append(run._update())
        run.step += 1
        times.append(time.process_time() - start)
    return times, losses


def trainers(config: LLMRunConfig, lm: LanguageModel) -> tuple[list[float], list[float]]:
    """CPU-seconds and loss of each step of the transformers Trainer; labels are -100 except at answers."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    order = training(config, lm)
    examples = [e for step in range(config.train.steps) for e in order._batch(step)]
    rows = [
        {"input_ids": [*e.prompt, *e.answer], "labels": [-100] * len(e.prompt) + list(e.answer)}
        for e in examples
    ]
    del order
    times, losses = [], []

    class Timed(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.detach())  # pyright: ignore[reportAttributeAccessIssue]
            return loss

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.process_time()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.process_time() - self.start)

    recipe = config.train
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=recipe.batch_size,
            max_steps=recipe.steps,
            learning_rate=recipe.lr,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        Timed(
            model=copy.deepcopy(lm.model),
            args=arguments,
            train_dataset=rows,  # pyright: ignore[reportArgumentType]  # a list is a dataset
            data_collator=lambda batch: padded(batch, lm.pad),
            callbacks=[Clock()],
        ).train()
    return times, [float(loss) for loss in losses]


def padded(batch: list[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Right padding, with the attention mask that users of the Trainer pass."""
    length = max(len(row["input_ids"]) for row in batch)

    def filled(name: str, value: int) -> torch.Tensor:
        return torch.tensor([row[name] + [value] * (length - len(row[name])) for row in batch])

    mask = [[1] * len(row["input_ids"]) + [0] * (length - len(row["input_ids"])) for row in batch]
    return {
        "input_ids": filled("input_ids", pad),
        "labels": filled("labels", -100),
        "attention_mask": torch.tensor(mask),
    }


def by_part(config: LLMRunConfig, lm: LanguageModel) -> dict[str, float]:
    """Median CPU-seconds of the parts of our step; the unembedding is timed separately, forward and back."""
    run = training(config, lm)
    parts: dict[str, list[float]] = {name: [] for name in ("forward", "backward", "optimizer", "vocabulary")}
    head = run.inner.get_output_embeddings()
    for step in range(config.train.steps):
        batch = training_batch(run._batch(step), lm.pad, "cpu")
        marks = [time.process_time()]
        logits = answer_logits(run.inner, batch)
        loss = functional.cross_entropy(logits, batch.target)
        marks.append(time.process_time())
        loss.backward()
        marks.append(time.process_time())
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        marks.append(time.process_time())
        for name, start, stop in zip(parts, marks[:-1], marks[1:], strict=False):
            parts[name].append(stop - start)
        hidden = torch.randn(len(batch.row), head.in_features, requires_grad=True)
        start = time.process_time()
        functional.cross_entropy(head(hidden), batch.target).backward()
        parts["vocabulary"].append(time.process_time() - start)
        head.weight.grad = None
    return {name: statistics.median(values[WARM_UP:]) for name, values in parts.items()}


METHODS: dict[str, dict[str, Any]] = {
    "LoRA, all linear maps": {"method": "lora"},
    "LoRA, attention": {"method": "lora", "train_parts": ("attention",)},
    "Compacter": {"method": "compacter"},
    "Compacter++": {"method": "compacter_plus"},
    "PHM-adapter": {"method": "phm_adapter", "method_options": {"phm_dim": 4}},
    "LoRA-Mixer, 2 experts": {"method": "lora_mixer", "method_options": {"hard_share": 0.0}},
    "LoRA-Mixer, 2 experts, hard stage": {"method": "lora_mixer", "method_options": {"hard_share": 1.0}},
    "LoRA-Mixer, 6 experts": {
        "method": "lora_mixer",
        "method_options": {"n_experts": 6, "hard_share": 0.0},
    },
    "LoRA-Mixer, 2 experts, all linear maps": {
        "method": "lora_mixer",
        "method_options": {"hard_share": 0.0},
        "train_parts": ("attention", "mlp"),
    },
}
BLOCK = 5
"""Steps of one method before it is the next one's turn."""

LIMIT = 1.3
"""Most time of a step of Compacter or LoRA-Mixer, over LoRA's on the same linear maps."""

BESIDE = {
    "Compacter": "LoRA, all linear maps",
    "Compacter++": "LoRA, all linear maps",
    "PHM-adapter": "LoRA, all linear maps",
    "LoRA-Mixer, 2 experts": "LoRA, attention",
    "LoRA-Mixer, 2 experts, hard stage": "LoRA, attention",
    "LoRA-Mixer, 6 experts": "LoRA, attention",
    "LoRA-Mixer, 2 experts, all linear maps": "LoRA, all linear maps",
}


def by_method(steps: int) -> None:
    """Times a step of every method, each time directly after LoRA's on the same maps, in one process.

    A ratio is the median over pairs of blocks of a few steps, so that whatever else the machine does at a
    time slows both; the quartiles over pairs say how much they differ.
    """
    if steps < 4 * BLOCK:
        raise SystemExit(f"--methods needs --steps of at least {4 * BLOCK}, of which {BLOCK} are not counted")
    facts = FactConfig()
    examples = make_facts(facts).test_examples
    tokenizer = tiny_tokenizer([f"{e.prompt} {answer}" for e in examples for answer in e.candidates])
    sizes = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8}
    lm = tiny_model("llama", tokenizer, **sizes)
    keep_freed_memory()
    runs = {}
    for name, fields in METHODS.items():
        recipe = FinetuneConfig(model="small", steps=steps, device="cpu", **fields)
        runs[name] = training(LLMRunConfig(facts, recipe), lm)
    blocks: dict[str, list[float]] = {name: [] for name in METHODS}
    pairs: dict[str, list[float]] = {name: [] for name in BESIDE}

    def block(name: str) -> float:
        """The median step of the next block; its first step brings the model into the cache."""
        found = statistics.median(updates(runs[name], BLOCK)[0][1:])
        blocks[name].append(found)
        return found

    for first in range(0, steps, BLOCK):
        for name, other in BESIDE.items():
            before = block(other)
            ratio = block(name) / before
            if first:  # optimizer state is made in the first block
                pairs[name].append(ratio)
    spent = {name: statistics.median(values[1:]) for name, values in blocks.items()}
    ratios = {name: statistics.median(values) for name, values in pairs.items()}
    for name, seconds in spent.items():
        ratio = f"{ratios[name]:.2f} times {BESIDE[name]}" if name in ratios else ""
        print(f"{name:40}{seconds:.4f}  {ratio}")
    results = {
        "steps": steps,
        "model": {"family": "llama", **sizes},
        "unit": "CPU-seconds a step, one thread, median",
        "seconds": spent,
        "over LoRA": {
            name: {
                "beside": BESIDE[name],
                "ratio": ratio,
                "quartiles": statistics.quantiles(pairs[name], n=4)[::2],
            }
            for name, ratio in ratios.items()
        },
        "limit": LIMIT,
        "within the limit": {name: ratio <= LIMIT for name, ratio in ratios.items()},
    }
    path = Path(__file__).resolve().parent / "results" / "llm_methods.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main(steps: int = 10, model: str = "runs/models/smollm2-135m", methods: bool = False) -> None:
    torch.set_num_threads(1)
    if methods:
        by_method(steps)
        return
    lm = load_model(model)
    config = LLMRunConfig(FactConfig(), FinetuneConfig(model=model, steps=steps, device="cpu"))
    ways: dict[str, Callable[..., tuple[list[float], list[float]]]] = {"Trainer": trainers, "ours": ours}
    results: dict[str, Any] = {"steps": steps, "unit": "CPU-seconds a step, one thread, median"}
    for memory in ("default memory", "freed memory kept"):
        if memory != "default memory" and not keep_freed_memory():
            print("no glibc here: freed memory cannot be kept")
            break
        times: dict[str, list[float]] = {name: [] for name in ways}
        losses: dict[str, list[float]] = {}
        for _ in range(2):
            for name, run in ways.items():
                spent, losses[name] = run(config, lm)
                times[name] += spent[WARM_UP:]
        best = {name: statistics.median(values) for name, values in times.items()}
        apart = max(abs(a - b) for a, b in zip(losses["Trainer"], losses["ours"], strict=True))
        results[memory] = {
            **best,
            "ratio": best["Trainer"] / best["ours"],
            "largest difference of losses": apart,
        }
        print(
            f"{memory}: Trainer {best['Trainer']:.3f}, ours {best['ours']:.3f} CPU-seconds a step,", end=" "
        )
        print(f"{best['Trainer'] / best['ours']:.2f} times; losses differ by at most {apart:.1e}", flush=True)
    results["ours by part, freed memory kept"] = by_part(config, lm)
    for name, spent in results["ours by part, freed memory kept"].items():
        print(f"  {name:12}{spent:.3f}")
    path = Path(__file__).resolve().parent / "results" / "llm.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
