"""The training recipe: a plain dataclass that imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ocr_interp.checks import Options, as_plain, check_choice, check_count, check_flag, check_number
from ocr_interp.errors import ConfigError, shown
from ocr_interp.optim import optimizers
from ocr_interp.optim.options import checked_options
from ocr_interp.running.schedule import LoggedSteps, check_rows, logged_steps, snapshot_steps

_SETTINGS = (
    "weight_decay",
    "momentum",
    "beta1",
    "beta2",
    "eps",
    "muon_momentum",
    "muon_nesterov",
    "muon_ns_steps",
    "muon_adjust_lr",
    "muon_eps",
    "muon_precision",
)
"""Fields that optimisers read besides the learning rates."""

MOST_SNAPSHOTS = 100_000
"""Most snapshots of a run: a file each."""


@dataclass(frozen=True)
class Phase:
    """Consecutive updates by one optimiser.

    Attributes:
        optimizer: name, as in `TrainConfig.optimizer`.
        lr: its learning rate.
        steps: number of its updates.
    """

    optimizer: str
    lr: float
    steps: int


@dataclass(frozen=True)
class TrainConfig:
    """A training recipe; the defaults are the paper's (`TrainConfig.paper()`).

    Attributes:
        steps: parameter updates.
        data: "noisy" draws a new batch of noisy sequences at every step; "noise_free" and "exhaustive" use
            the whole training set at every step, without noise or with every noise sequence.
        batch_size: examples per step of "noisy" data, equally many of each trained split.
        optimizer: a name in `ocr_interp.optim.optimizers`:
            "adamw": the paper's optimiser.
            "sgd": plain gradient descent unless momentum is set.
            "signsgd": the sign of the gradient or, with momentum, of its running mean.
            "muon": orthogonalised updates of the matrices, steepest descent in the spectral norm.
        lr: learning rate.
        momentum: momentum of sgd (torch's, undamped) or of signsgd (a running mean).
        beta1: decay of adamw's mean of gradients.
        beta2: decay of adamw's mean of squared gradients.
        eps: number added to adamw's denominator.
        weight_decay: decoupled in adamw, signsgd and muon; an L2 penalty in sgd. On W_V and W_O it is an
            explicit nuclear norm penalty: set it to 0 to study the implicit bias.
        muon_momentum: decay of muon's mean of gradients, as in torch.optim.Muon.
        muon_nesterov: whether muon takes Nesterov steps, as in torch.optim.Muon.
        muon_ns_steps: number of Newton-Schulz steps of muon, as in torch.optim.Muon.
        muon_adjust_lr: how muon's learning rate depends on a matrix's shape, as in torch.optim.Muon; with
            "original" the update of an [input, d_head] matrix has rate lr sqrt(max(1, input / d_head)).
        muon_eps: muon divides by the gradient's norm, but never by less than this. Once the training loss is
            below about muon_eps, its steps shrink and keep their direction. torch's default is 1e-7.
        muon_precision: precision of muon's Newton-Schulz iteration. With "bfloat16" it is torch.optim.Muon
            itself; with "float32" it does not round, some 20 times faster on CPUs without bfloat16 units.
        scores_lr: learning rate of the parameters that the optimiser does not update. With muon these are the
            trained attention scores, a vector, which adamw updates (with beta1, beta2, eps).
        optimizer_options: options of optimisers that have no field here, as (option, value) pairs or a dict.
            An option that no optimiser of the recipe has is an error.
        second_optimizer: the optimiser that takes over after switch_step updates, with a fresh state; None:
            no switch.
        switch_step: number of updates by `optimizer` before the switch; 0 without a second optimiser.
        second_lr: learning rate of the second optimiser; None without one.
        seed: random seed of the initial weights and of the order of the data.
        log_every: steps between rows of the history; the last step always has a row.
        checkpoint_every: steps between checkpoints; rounded up to logged steps.
        snapshots: number of snapshots, spread evenly in log(step) over the logged steps; the first and the
            last logged step always have one. 0: none.
        eval_draws: noise draws per triple in the evaluation of "noisy" data.
        stop_when_learned: stop at the first logged step whose held-out implication loss (nats) is below this,
            with accuracy 1; 0: never stop early.
        device: "auto" (cuda, then mps, then cpu) or the name of a device.

    Raises:
        ConfigError: a value that is not allowed; the message names the field.
        UnknownNameError: an option of optimizer_options that none of the optimisers has.
    """

    steps: int = 20_000
    data: Literal["noisy", "noise_free", "exhaustive"] = "noisy"
    batch_size: int = 252
    optimizer: str = "adamw"
    lr: float = 5e-3
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.03
    muon_momentum: float = 0.95
    muon_nesterov: bool = True
    muon_ns_steps: int = 5
    muon_adjust_lr: Literal["original", "match_rms_adamw"] = "original"
    muon_eps: float = 1e-7
    muon_precision: Literal["bfloat16", "float32"] = "bfloat16"
    scores_lr: float = 5e-3
    optimizer_options: Options = ()
    second_optimizer: str | None = None
    switch_step: int = 0
    second_lr: float | None = None
    seed: int = 0
    log_every: int = 100
    checkpoint_every: int = 2_000
    snapshots: int = 12
    eval_draws: int = 4
    stop_when_learned: float = 0.0
    device: str = "auto"

    def __post_init__(self) -> None:
        self._check()
        options = checked_options(self.optimizer_options, self._optimizers(), _SETTINGS)
        object.__setattr__(self, "optimizer_options", options)
        # Equal values need equal fingerprints: 1 and 1.0, or a seed from numpy, are the same configuration.
        as_plain(self)

    def _check(self) -> None:
        for field in ("steps", "batch_size", "log_every", "checkpoint_every", "eval_draws", "muon_ns_steps"):
            check_count(field, getattr(self, field), 1)
        check_rows(int(self.steps), int(self.log_every))
        for field in ("seed", "switch_step"):
            check_count(field, getattr(self, field), 0)
        check_count("snapshots", self.snapshots, 0, MOST_SNAPSHOTS)
        check_choice("data", self.data, ("noisy", "noise_free", "exhaustive"))
        optimizers.check("optimizer", self.optimizer)
        check_choice("muon_adjust_lr", self.muon_adjust_lr, ("original", "match_rms_adamw"))
        check_choice("muon_precision", self.muon_precision, ("bfloat16", "float32"))
        check_flag("muon_nesterov", self.muon_nesterov)
        for field in ("lr", "eps", "scores_lr", "muon_eps"):
            check_number(field, getattr(self, field), above=0)
        for field in ("weight_decay", "momentum", "muon_momentum", "beta1", "beta2", "stop_when_learned"):
            check_number(field, getattr(self, field), at_least=0)
        for field in ("momentum", "muon_momentum", "beta1", "beta2"):
            if getattr(self, field) >= 1:
                raise ConfigError(f"{field} must be < 1, got {getattr(self, field)}")
        self._check_phases()
        if not isinstance(self.device, str):
            raise ConfigError(f"device must be 'auto' or a name such as 'cpu', got {shown(self.device)}")

    def _check_phases(self) -> None:
        if self.second_optimizer is not None:
            optimizers.check("second_optimizer", self.second_optimizer)
            check_number("second_lr", self.second_lr, above=0)
            if not 0 < self.switch_step < self.steps:
                raise ConfigError(
                    f"switch_step must be 1..steps - 1 = {self.steps - 1} with a second_optimizer, got "
                    f"{self.switch_step}"
                )
        elif self.switch_step or self.second_lr is not None:
            raise ConfigError(
                "switch_step and second_lr need a second_optimizer, got "
                f"switch_step={shown(self.switch_step)}, second_lr={shown(self.second_lr)} and none: "
                f"one of {', '.join(map(repr, optimizers.names))}"
            )
        if self.momentum and not any("momentum" in optimizers[name].options for name in self._optimizers()):
            readers = [name for name in optimizers.names if "momentum" in optimizers[name].options]
            raise ConfigError(
                f"momentum must be 0 unless an optimizer is {' or '.join(map(repr, readers))}, got "
                f"{self.momentum} with {' and '.join(map(repr, self._optimizers()))} (muon has muon_momentum)"
            )

    def _optimizers(self) -> list[str]:
        """Names of the optimisers that the recipe uses."""
        return [self.optimizer, *([] if self.second_optimizer is None else [self.second_optimizer])]

    @classmethod
    def paper(cls, **changes: Any) -> TrainConfig:
        """The recipe of the paper's experiments (docs/theory.md §9): AdamW, noisy batches of 252."""
        return cls(**changes)

    @classmethod
    def gradient_descent(cls, **changes: Any) -> TrainConfig:
        """Full-batch gradient descent without weight decay: the setting of the theorems."""
        recipe: dict[str, Any] = {
            "data": "noise_free",
            "optimizer": "sgd",
            "lr": 1.0,
            "weight_decay": 0.0,
            **changes,
        }
        return cls(**recipe)

    def logged_steps(self) -> LoggedSteps:
        """The steps that get a row in the history: 0, every log_every, the last."""
        return logged_steps(self.steps, self.log_every)

    def snapshot_steps(self) -> list[int]:
        """The logged steps that get a snapshot."""
        return snapshot_steps(self.logged_steps(), self.snapshots)

    def phases(self, step: int | None = None) -> list[Phase]:
        """The phases of the first `step` updates, in order (None: of all updates)."""
        end = self.steps if step is None else step
        if self.second_optimizer is None or self.second_lr is None or end <= self.switch_step:
            return [Phase(self.optimizer, self.lr, end)]
        second = Phase(self.second_optimizer, self.second_lr, end - self.switch_step)
        return [Phase(self.optimizer, self.lr, self.switch_step), second]

    def optimizer_settings(self, phase: Phase) -> dict[str, Any]:
        """All settings that optimisers may read in a phase: fields and options, lr and fallback_lr."""
        fields = {name: getattr(self, name) for name in _SETTINGS}
        return {**fields, "lr": phase.lr, "fallback_lr": self.scores_lr, **dict(self.optimizer_options)}

    def inert_factor(self, step: int, parameter: Literal["matrix", "scores"] = "matrix") -> float:
        """Factor by which weight decay has multiplied a weight without gradients after `step` updates.

        Args:
            step: number of updates.
            parameter: "matrix" for a weight of a linear map; "scores" for one of a vector such as the
                attention scores, which an optimiser of matrices does not update.
        """
        shape, value = ((1, 1) if parameter == "matrix" else (1,)), 1.0
        for phase in self.phases(step):
            kind, settings = optimizers[phase.optimizer].for_parameter(
                self.optimizer_settings(phase), shape, is_map=len(shape) == 2
            )
            value = kind.decayed(value, settings, phase.steps)
        return value
