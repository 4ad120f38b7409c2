"""The configuration of a fine-tuning run: plain dataclasses that import no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from ocr_interp.checks import (
    Options,
    as_options,
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_text,
    from_fields,
)
from ocr_interp.configuration.fields import changed_fields, differences, fingerprint
from ocr_interp.errors import ConfigError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.llm.layers.part_names import checked_parts
from ocr_interp.optim import optimizers
from ocr_interp.optim.options import checked_options
from ocr_interp.running.schedule import LoggedSteps, check_rows, logged_steps

FORMAT_VERSION = 2
"""Version of the files of a language-model run; files of a newer version are refused."""

_SETTINGS = ("weight_decay", "beta1", "beta2", "eps", "momentum")
"""Fields that optimizers read, in addition to the learning rate."""

_UNDECISIVE = ("device", "download", "checkpoint_every", "eval_batch_size", "movement")


@dataclass(frozen=True)
class FinetuneConfig:
    """A fine-tuning recipe; by default the paper's: full, AdamW, constant rate, batch 8, 8 epochs of 120.

    Attributes:
        model: a folder with config.json, weights and tokenizer, or a name on the hub (owner/name).
        method: what is trained: "full", all weights; "lora", low-rank updates of all linear maps but the
            unembedding; "compacter", "compacter_plus", "phm_adapter", "lora_mixer", "lokr", or another name
            in `ocr_interp.llm.methods.names`.
        optimizer: "adamw"; "muon", which trains matrices with Muon, and embeddings, unembedding and vectors
            with AdamW at the same lr (Muon's updates are scaled to the size of AdamW's, "match_rms_adamw");
            or another name in `optim.optimizers`.
        lr: learning rate, constant over training.
        steps: number of parameter updates; 0 only measures the model.
        batch_size: examples per step, over all processes.
        weight_decay: weight decay, decoupled from the gradient as in AdamW.
        beta1: AdamW's decay rate of the mean of gradients.
        beta2: AdamW's decay rate of the mean of squared gradients.
        eps: AdamW's epsilon.
        momentum: momentum of muon, sgd and signsgd.
        optimizer_options: options of the optimizer that have no field here, as pairs (option, value) or a
            dictionary.
        lora_rank: rank of LoRA's updates, of LoKr's and of each expert of a LoRA-Mixer.
        lora_alpha: these updates are scaled by lora_alpha / lora_rank.
        method_options: options of the method that have no field here (`Adapter.options`), as pairs
            (option, value) or a dictionary; options at their default are dropped.
        train_parts: parts of the model that are trained, or where the update is put: "attention", "mlp",
            "ov", "norms", "embeddings" or others of `layers.part_names.PARTS`; empty is the method's own
            choice.
        train_seed: seed of the order of the data and of the start of the update.
        log_every: steps between measurements; the first is before training, the last after the last step.
        checkpoint_every: steps between checkpoints, rounded up to a logged step; 0 writes a checkpoint only
            when the run is interrupted.
        eval_batch_size: prompts per forward pass in a measurement.
        dtype: precision of the weights, "float32" or "bfloat16"; bfloat16 weights are trained by float32
            copies, so that it saves memory only where most weights are frozen.
        movement: when to measure how far every part of every layer moved from the start: "end"; "logged", at
            every measurement too (only where the model's own weights are trained, which is read from its
            folder each time); "none".
        device: "auto" (cuda, then mps, then cpu) or the name of a device.
        download: download the model from the hub if it is not on this machine.
    """

    model: str = "runs/models/smollm2-135m"
    method: str = "full"
    optimizer: str = "adamw"
    lr: float = 1e-4
    steps: int = 120
    batch_size: int = 8
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.95
    optimizer_options: Options = ()
    lora_rank: int = 8
    lora_alpha: float = 16.0
    method_options: Options = ()
    train_parts: tuple[str, ...] = ()
    train_seed: int = 0
    log_every: int = 15
    checkpoint_every: int = 0
    eval_batch_size: int = 40
    dtype: Literal["float32", "bfloat16"] = "float32"
    movement: Literal["end", "logged", "none"] = "end"
    device: str = "auto"
    download: bool = False

    def __post_init__(self) -> None:
        check_text("model", self.model)
        check_text("device", self.device)
        methods.check("method", self.method)
        # A method is imported only where one of its options is given.
        given = dict(as_options("method_options", self.method_options))
        checked = methods[self.method].checked_options(self.method, given) if given else ()
        object.__setattr__(self, "method_options", checked)
        object.__setattr__(self, "train_parts", checked_parts(self.train_parts))
        if self.train_parts and not methods[self.method].takes_parts:
            raise ConfigError(
                f"method {self.method!r} chooses itself what is trained: leave train_parts out, got "
                f"{', '.join(self.train_parts)}"
            )
        optimizers.check("optimizer", self.optimizer)
        options = checked_options(self.optimizer_options, (self.optimizer,), _SETTINGS)
        object.__setattr__(self, "optimizer_options", options)
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        check_choice("movement", self.movement, ("end", "logged", "none"))
        if self.movement == "logged" and not methods[self.method].trains_all:
            raise ConfigError(
                f"movement='logged' needs a method that trains the model's own weights, got method "
                f"{self.method!r}, whose update is in them at the end: take movement='end'"
            )
        check_flag("download", self.download)
        for name in ("batch_size", "lora_rank", "log_every", "eval_batch_size"):
            check_count(name, getattr(self, name), 1)
        for name in ("steps", "train_seed", "checkpoint_every"):
            check_count(name, getattr(self, name), 0)
        check_rows(int(self.steps), int(self.log_every))
        for name in ("lr", "eps", "lora_alpha"):
            check_number(name, getattr(self, name), above=0)
        for name in ("weight_decay", "beta1", "beta2", "momentum"):
            check_number(name, getattr(self, name), at_least=0)
        for name in ("beta1", "beta2", "momentum"):
            if getattr(self, name) >= 1:
                raise ConfigError(f"{name} must be < 1, got {getattr(self, name)}")
        for part in dataclasses.fields(self):  # 1 and 1.0 are one configuration
            if part.type == "float":
                object.__setattr__(self, part.name, float(getattr(self, part.name)))
            elif part.type == "int":  # also where it came from numpy, which JSON does not know
                object.__setattr__(self, part.name, int(getattr(self, part.name)))

    def optimizer_settings(self, precision: str) -> dict[str, Any]:
        """The settings that an optimizer may read; `precision` is that of Muon's iteration."""
        return {
            **{name: getattr(self, name) for name in _SETTINGS},
            "lr": self.lr,
            "fallback_lr": self.lr,
            "muon_momentum": self.momentum,
            "muon_adjust_lr": "match_rms_adamw",
            "muon_precision": precision,
            **dict(self.optimizer_options),
        }

    def logged_steps(self) -> LoggedSteps:
        """The steps with a row in the history: 0, every multiple of log_every, the last."""
        return logged_steps(self.steps, self.log_every)


@dataclass(frozen=True)
class LLMRunConfig:
    """The complete configuration of a run: facts and recipe.

    Attributes:
        facts: which facts are used for training and testing.
        train: the fine-tuning recipe.
    """

    facts: FactConfig = field(default_factory=FactConfig)
    train: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        for name, kind in (("facts", FactConfig), ("train", FinetuneConfig)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise ConfigError(
                    f"{name} must be a {kind.__name__}, got a {type(value).__name__}: pass "
                    "LLMRunConfig(facts=FactConfig(...), train=FinetuneConfig(...))"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them."""
        train = dataclasses.asdict(self.train)
        train |= {
            "method_options": dict(self.train.method_options),
            "train_parts": list(self.train.train_parts),
        }
        return {"facts": self.facts.to_dict(), "train": train}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LLMRunConfig:
        """The configuration from the values of `to_dict`, also of an earlier version with fewer fields.

        Raises:
            UnknownNameError: a field that this version does not know.
            ConfigError: a value that is not allowed.
        """
        train = from_fields(FinetuneConfig, "train", values["train"])
        return cls(FactConfig.from_dict(values["facts"]), train)

    @property
    def fingerprint(self) -> str:
        """Short hash of the fields that affect the outcome and differ from their defaults.

        The device and the frequency of checkpoints, for example, are not part of it.
        """
        defaults = LLMRunConfig(type(self.facts)(), type(self.train)())
        changed = changed_fields(self.to_dict(), defaults.to_dict(), _UNDECISIVE)
        return fingerprint(FORMAT_VERSION, changed)

    def differences(self, other: LLMRunConfig) -> list[str]:
        """The fields that affect the outcome and differ between two configurations.

        Each as a text such as "train.lr: 0.0001 != 0.001".
        """
        return differences(self.to_dict(), other.to_dict(), _UNDECISIVE)
