"""Several runs of one shape, trained together step by step; a single run is a stack of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.configuration.run import RunConfig
from ocr_interp.data import STEPS_PER_CHUNK, Batch, NoisyBatches, exhaustive, population
from ocr_interp.devices import DTYPES, resolve_device
from ocr_interp.models.stacks import StackedBatch, input_rows, stack_batches
from ocr_interp.models.starts import initial_weights
from ocr_interp.models.token_counts import TokenCountModel, stack_models
from ocr_interp.optim.stepping import RunOptimizers
from ocr_interp.task import TRAINED_SPLITS


def stack_key(config: RunConfig) -> tuple[Any, ...]:
    """Runs with equal keys can be stacked: same shapes, kind of model and data, and logged steps."""
    task, model, recipe = config.task, config.model, config.train
    sizes = (task.n_subjects, task.n_inputs, task.n_facts, task.n_implications)
    examples = recipe.batch_size if recipe.data == "noisy" else len(task.training_triples)
    kind = (model.ov, model.ov_options, model.resolved_d_head(task.d_vocab))
    tokens = task if model.linear_map.needs_axes else None  # such a map differs from task to task
    attention = (model.attention, model.train_attention)
    optimizers = (recipe.optimizer, recipe.second_optimizer, recipe.switch_step)
    moments = (recipe.steps, recipe.log_every)
    return (
        *sizes,
        task.seq_len,
        recipe.data,
        examples,
        *kind,
        tokens,
        *attention,
        model.dtype,
        *optimizers,
        *moments,
        recipe.device,
    )


def divergence_message(config: RunConfig, step: int) -> str:
    """The message for a run whose loss is not finite at a step."""
    recipe = config.train
    return (
        f"the loss is not finite at step {step} ({config.model.ov} model, {recipe.optimizer}, "
        f"lr={recipe.lr:g}): lower lr or init_scale"
    )


class Lockstep:
    """The models, optimisers and batches of runs with one `stack_key`.

    Args:
        configs: one per run.

    Attributes:
        models: one per run; their parameters are views of stacked tensors.
        losses: loss of every run at the latest steps, nats.
    """

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        self.configs = list(configs)
        first = self.configs[0]
        assert all(stack_key(config) == stack_key(first) for config in self.configs)
        self.device = resolve_device(first.train.device, first.model.dtype)
        self.models = [
            TokenCountModel(c.task, c.model, initial_weights(c.task, c.model, c.train.seed), self.device)
            for c in self.configs
        ]
        self._stack = stack_models(self.models)
        self.optimizers = RunOptimizers(
            [c.train for c in self.configs], [model.parameters for model in self.models]
        )
        self._batches = _Batches(self.configs, DTYPES[first.model.dtype], self.device)
        at_once = min(first.train.log_every, first.train.steps)
        self.losses = self._stack.scores.new_zeros(len(self.configs), at_once)

    def keep(self, runs: Sequence[int], step: int) -> None:
        """Drops all runs but these, before update number `step`; their results do not change by a bit."""
        states = [self.optimizers.state(run, step) for run in runs]
        self.configs = [self.configs[run] for run in runs]
        self.models = [self.models[run] for run in runs]
        self._stack = stack_models(self.models)
        self.optimizers = RunOptimizers(
            [c.train for c in self.configs], [model.parameters for model in self.models]
        )
        for run, state in enumerate(states):
            self.optimizers.restore(run, step, state)
        self._batches.keep(runs)
        self.losses = self.losses[list(runs)]

    def first_bad_steps(self, first: int, target: int) -> list[int | None]:
        """For every run the first step from `first` on whose loss or update is not finite, or None.

        Call it after `advance(first, target)`; it waits for the device.
        """
        bad_loss = ~torch.isfinite(self.losses[:, : target - first])
        finite = torch.ones(len(self.configs), dtype=torch.bool, device=self.device)
        for stacked in self._stack.parameters.values():
            finite &= torch.isfinite(stacked).flatten(1).all(1)
        found: list[int | None] = [None if ok else target for ok in finite.tolist()]
        for run, step in bad_loss.nonzero().tolist()[::-1]:
            found[run] = first + step
        return found

    def advance(self, first: int, target: int) -> Float[Tensor, "run step"]:
        """Trains all runs from one step to another without waiting for the device in between.

        Returns: their losses, a view that the next call overwrites.
        """
        with torch.no_grad():
            for step in range(first, target):
                batch = self._batches.at(step)
                self.losses[:, step - first] = self._stack.loss_and_gradients(batch)
                self.optimizers.step(step)
        return self.losses[:, : target - first]


class _Batches:
    """The batches of every run at a step."""

    def __init__(self, configs: Sequence[RunConfig], dtype: torch.dtype, device: torch.device) -> None:
        self._fixed: StackedBatch | None = None
        recipe = configs[0].train
        if recipe.data != "noisy":
            whole = population if recipe.data == "noise_free" else exhaustive
            made: dict[Any, Batch] = {}
            for config in configs:
                if config.task not in made:
                    made[config.task] = whole(config.task, TRAINED_SPLITS, dtype=dtype, device=device)
            self._fixed = stack_batches([made[config.task] for config in configs])
            return
        self._sources = [
            NoisyBatches(c.task, recipe.batch_size, c.train.seed, device, dtype) for c in configs
        ]
        self._n_inputs = configs[0].task.n_inputs
        self._first = -1

    def at(self, step: int) -> StackedBatch:
        """The batches of a step; the tensors of an earlier call may be used again."""
        if self._fixed is not None:
            return self._fixed
        row = step % STEPS_PER_CHUNK
        if step - row != self._first:
            self._load(step - row)
        return StackedBatch(
            n_subjects=self._sources[0].task.n_subjects,
            subject=self._subject[row],
            context=self._context[row],
            target=self._target[row],
            weight=self._weight,
            row=self._rows[row],
        )

    def keep(self, runs: Sequence[int]) -> None:
        """Drops all other runs."""
        if self._fixed is not None:
            self._fixed = self._fixed.of_runs(runs)
        else:
            self._sources, self._first = [self._sources[run] for run in runs], -1

    def _load(self, first: int) -> None:
        chunks = [source.chunk(first) for source in self._sources]
        self._first = first
        self._subject = torch.stack([chunk.subject for chunk in chunks], dim=1)
        self._context = torch.stack([chunk.context for chunk in chunks], dim=1)
        self._target = torch.stack([chunk.target for chunk in chunks], dim=1)
        self._weight = torch.stack([chunk.weight for chunk in chunks])
        self._rows = input_rows(self._subject, self._n_inputs).flatten(1)
