"""The training loop of the mitigation study, on the library's own parts: one arm, measured and written."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from analyses.llm.mitigation.methods import CUTS, METHODS, Method, cut_update, known_sentences
from analyses.llm.mitigation.taught import GROUPS, RELATIONS, Taught
from analyses.llm.studies.plan import PlannedRun

LOGGED = (100, 150)
"""Steps at which is measured; the method ends at the last."""
DRIFT = 50
"""Steps of plain training on what is told, after the method ended."""


def make(run: PlannedRun, lm: Any, path: Path) -> None:
    """Trains an arm, goes on without its method, and writes what it says at every measured step."""
    from safetensors.torch import save_file

    from ocr_interp.llm.training.configuration import FORMAT_VERSION
    from ocr_interp.llm.training.files.result import write_result

    start = time.process_time()
    arm = _Arm(METHODS[dict(run.extra)["method"]], run, lm)
    if METHODS["lora"] == arm.method:  # the model is the same before all of them
        arm.measure("before")
    logged = [step * arm.method.times for step in LOGGED]
    for step in logged:
        arm.train_to(step, plain=False)
        arm.measure(f"step_{step}")
    arm.after_training()
    moved = arm.moved()
    seconds = {"train": round(arm.train_seconds, 1)}
    arm.train_to(logged[-1] + DRIFT, plain=True)
    arm.measure("drifted")
    seconds["cpu"] = round(time.process_time() - start, 1)
    save_file(arm.logits, path.with_suffix(".logits.safetensors"))
    config = run.config
    found = {"format_version": FORMAT_VERSION, "fingerprint": config.fingerprint, "config": config.to_dict()}
    found |= {"extra": dict(run.extra), "seconds": seconds, "trained_numbers": arm.n_trained}
    found |= {"device": arm.device.type, "movement": moved}
    write_result(path, {**found, "measured": arm.found})
    end, drifted = arm.found[f"step_{logged[-1]}"], arm.found["drifted"]
    print(
        f"{run.name}: {time.process_time() - start:.0f} s, facts {end['fact/never_seen']:.2f}, told "
        f"{end['causal/told']:.2f} {end['spurious/told']:.2f}, causal {end['causal/never_seen']:.2f}, "
        f"spurious {end['spurious/seen_by_method']:.2f} {end['spurious/never_seen']:.2f}, drifted "
        f"{drifted['spurious/never_seen']:.2f}, KL {end['neutral_kl']:.3f}",
        flush=True,
    )


class _Arm:
    """A model in training with its method, and what was measured."""

    def __init__(self, method: Method, run: PlannedRun, lm: Any) -> None:
        import torch

        from analyses.llm.studies.neutral import log_probabilities
        from ocr_interp.llm.adapters import methods
        from ocr_interp.llm.encoding import encode
        from ocr_interp.llm.facts.drawing import make_facts
        from ocr_interp.llm.measuring.measure import Questions
        from ocr_interp.llm.models.kept_weights import kept_weights
        from ocr_interp.llm.training.trainable import make_optimizers, make_trainable

        self.method, self.recipe, self.lm = method, run.config.train, lm
        self.taught = Taught(run.config.facts)
        lm.model.eval()
        self.device = next(lm.model.parameters()).device
        self.before = log_probabilities(lm)
        self.kept = method.start(lm, self.taught)
        every = (*self.taught.asked, *self.taught.unseen)
        self.questions = Questions(
            make_facts(run.config.facts), lm.tokenizer, lm.pad, examples=every, scoring="first_token"
        )
        self.own = encode(lm.tokenizer, method.examples(self.taught))
        self.plain = encode(lm.tokenizer, self.taught.told)
        self.known = encode(lm.tokenizer, known_sentences(run.seed))
        self.start, self.names = kept_weights(lm), frozenset(n for n, _ in lm.model.named_parameters())
        self.adapter = methods[self.recipe.method]
        self.adapter.check_examples(self.recipe, method.examples(self.taught))
        self.model = make_trainable(lm.model, self.recipe)
        method.attached(self.model)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.n_trained = sum(p.numel() for p in trained)
        self.optimizers = make_optimizers(self.model, self.recipe)
        self.step, self.train_seconds = 0, 0.0
        self.found: dict[str, dict[str, float]] = {}
        self.logits: dict[str, torch.Tensor] = {}

    def train_to(self, step: int, *, plain: bool) -> None:
        """Trains up to a step; `plain` leaves the method's examples, loss and gradients out."""
        start = time.process_time()
        while self.step < step:
            self._update(plain)
            self.step += 1
        self.train_seconds += time.process_time() - start

    def _update(self, plain: bool) -> None:
        from torch.nn import functional

        from ocr_interp.llm.encoding import training_batch
        from ocr_interp.llm.models.forward import answer_logits

        own = self._batch(self.plain if plain else self.own)
        if not plain:
            own = self.method.batch(own, self.step, LOGGED[-1] * self.method.times, self.known)
        batch = training_batch(own, self.lm.pad, self.device)
        self.adapter.before_forward(self.model, self.recipe, batch, self.step)
        loss = functional.cross_entropy(answer_logits(self.model, batch).float(), batch.target)
        further = [self.adapter.extra_loss(self.model, self.recipe)]
        if not plain:
            further.append(self.method.extra_loss(self.kept, self.model, self.step))
        sum([loss, *(one for one in further if one is not None)]).backward()  # pyright: ignore
        if not plain:
            self.method.change_gradients(self.kept, self.model)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def _batch(self, examples: Any) -> list[Any]:
        """The examples of this step: epochs in random order that depends on the seed alone."""
        size, n = self.recipe.batch_size, len(examples)
        places = range(self.step * size, (self.step + 1) * size)
        orders = {
            epoch: np.random.default_rng([self.recipe.train_seed, epoch]).permutation(n)
            for epoch in {place // n for place in places}
        }
        return [examples[orders[place // n][place % n]] for place in places]

    def measure(self, when: str, recipe: Any = None) -> None:
        """Mean ranks by relation and group of names, and the divergence elsewhere.

        Args:
            when: name of the measurement.
            recipe: how prompts are routed, where that is not as in training.
        """
        import torch

        from analyses.llm.studies.neutral import log_probabilities, neutral_kl
        from ocr_interp.llm.adapters.base import Attached
        from ocr_interp.llm.measuring.answers import Answers
        from ocr_interp.llm.models.forward import logits_of
        from ocr_interp.llm.models.loading import LanguageModel

        attached = Attached(self.adapter, recipe or self.recipe)
        lm = LanguageModel(self.lm.name, self.model, self.lm.tokenizer, attached)
        with torch.no_grad():
            asked = self.questions.ask(logits_of(lm), self.device)
        assert asked.scores is not None
        self.logits[when] = torch.from_numpy(asked.scores.astype(np.float32))
        examples = self.questions.examples
        group_of = [self.taught.group(e) if e.split >= 0 else "unseen" for e in examples]
        row = {"neutral_kl": neutral_kl(self.before, log_probabilities(lm))}
        for relation, name in enumerate(RELATIONS):
            unseen = np.array([e.split < 0 and e.relation == relation for e in examples])
            for group in GROUPS:
                own = np.array(
                    [e.relation == relation and g == group for e, g in zip(examples, group_of, strict=True)]
                )
                answers = Answers(
                    logits=asked.scores[own],
                    target=np.array([e.target for e in examples])[own],
                    world=np.full(own.sum(), -1),
                    fact=np.array([e.fact for e in examples])[own],
                    template=np.zeros(own.sum(), dtype=int),
                    unseen=asked.scores[unseen],
                    unseen_template=np.zeros(unseen.sum(), dtype=int),
                )
                row[f"{name}/{group}"] = answers.mean_rank
                row[f"{name}/{group}/top1"] = answers.top1
                row[f"{name}/{group}/logprob"] = float(asked.logprob[own].mean())
                if relation:
                    row[f"{name}/{group}/calibrated"] = answers.calibrated().mean_rank
        self.found[when] = row

    def moved(self) -> dict[str, Any]:
        """How far every part moved, of a copy with the update merged; or why that is not known."""
        from ocr_interp.llm.training.update import run_movement, trained_model

        copied = copy.deepcopy(self.model)
        found = run_movement(trained_model(self.lm, self.names, copied, self.recipe), self.start)
        return {"why_not": found} if isinstance(found, str) else found.to_dict()

    def after_training(self) -> None:
        """One LoRA with its updates cut; experts by relation with every prompt at the wrong one."""
        if self.method.asks_wrong_expert:
            options = {**dict(self.recipe.method_options), "experts_of": "1,1,0"}
            self.measure("wrong_expert", replace(self.recipe, method_options=options))
        if METHODS["lora"] == self.method:
            self._cut()

    def _cut(self) -> None:
        """Measures with each ΔW cut, from either end, and puts the updates back."""
        import torch

        updated = {
            name: module
            for name, module in self.model.named_modules()
            if "default" in getattr(module, "lora_A", ())
        }
        factors = {name: module.lora_B["default"].weight.clone() for name, module in updated.items()}
        before = {name: module.base_layer.weight.clone() for name, module in updated.items()}
        with torch.no_grad():
            for module in updated.values():
                module.lora_B["default"].weight.zero_()
            for cut in CUTS:
                for name, module in updated.items():
                    up = factors[name] * module.scaling["default"]
                    delta = cut_update(cut, up, module.lora_A["default"].weight)
                    module.base_layer.weight.copy_(before[name] + delta)
                self.measure(cut)
            for name, module in updated.items():
                module.base_layer.weight.copy_(before[name])
                module.lora_B["default"].weight.copy_(factors[name])
