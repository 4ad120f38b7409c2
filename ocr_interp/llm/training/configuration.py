"""How a language model is fine-tuned, and all that decides a run: plain dataclasses that import no torch."""

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
    from_fields,
)
from ocr_interp.configuration.fields import changed_fields, differences, fingerprint
from ocr_interp.errors import ConfigError
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.facts.configuration import FactConfig
from ocr_interp.optim import optimizers
from ocr_interp.optim.options import checked_options
from ocr_interp.running.schedule import logged_steps

FORMAT_VERSION = 2
"""Version of the files of a language-model run; a newer one is refused when read."""

_SETTINGS = ("weight_decay", "beta1", "beta2", "eps", "momentum")
"""Fields that optimizers read, beside the learning rate."""

_UNDECISIVE = ("device", "download", "checkpoint_every", "eval_batch_size")


@dataclass(frozen=True)
class FinetuneConfig:
    """A fine-tuning recipe; by default the paper's: full, AdamW, constant rate, batch 8, 8 epochs of 120.

    Attributes:
        model: a folder with config.json, weights and tokenizer, or a name on the hub (owner/name).
        method: what is trained: "full" all weights, "lora" low-rank updates of all linear maps but the
            unembedding; `ocr_interp.llm.methods.names` are all that there are.
        optimizer: "adamw"; "muon" on the matrices with adamw on embeddings, unembedding and vectors, both
            at the same lr, since Muon's updates are scaled to the size of AdamW's ("match_rms_adamw"); or
            another name in `optim.optimizers`.
        lr: learning rate, constant.
        steps: parameter updates; 0 only measures.
        batch_size: examples a step, over all processes.
        weight_decay: decoupled from the gradient, as adamw's.
        beta1: of adamw, for the mean of gradients.
        beta2: of adamw, for the mean of their squares.
        eps: of adamw.
        momentum: of muon, and of the other optimizers that have one (sgd, signsgd).
        optimizer_options: options of the optimizer that have no field here, as pairs (option, value); a
            dictionary may be given.
        lora_rank: width of LoRA's updates.
        lora_alpha: their scale is lora_alpha / lora_rank.
        method_options: names and values of the method's own options (`Adapter.options`); a dict is taken
            too. An option at its default is left out.
        train_seed: of the order of the data and of the update's start.
        log_every: steps between measurements; the first is before training, the last after it.
        checkpoint_every: steps between checkpoints, rounded up to logged steps; 0 writes one only when
            it is interrupted.
        eval_batch_size: prompts at once in a measurement.
        dtype: of the weights, "float32" or "bfloat16".
        device: "auto" (cuda, then mps, then cpu) or a name.
        download: fetch the model from the hub if it is not on this machine.
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
    train_seed: int = 0
    log_every: int = 15
    checkpoint_every: int = 0
    eval_batch_size: int = 40
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    download: bool = False

    def __post_init__(self) -> None:
        methods.check("method", self.method)
        # A method is imported only where one of its options is given.
        given = dict(as_options("method_options", self.method_options))
        checked = methods[self.method].checked_options(self.method, given) if given else ()
        object.__setattr__(self, "method_options", checked)
        optimizers.check("optimizer", self.optimizer)
        options = checked_options(self.optimizer_options, (self.optimizer,), _SETTINGS)
        object.__setattr__(self, "optimizer_options", options)
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        check_flag("download", self.download)
        for name in ("batch_size", "lora_rank", "log_every", "eval_batch_size"):
            check_count(name, getattr(self, name), 1)
        for name in ("steps", "train_seed", "checkpoint_every"):
            check_count(name, getattr(self, name), 0)
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

    def optimizer_settings(self, precision: str) -> dict[str, Any]:
        """All that an optimizer may read; `precision` is that of Muon's iteration."""
        return {
            **{name: getattr(self, name) for name in _SETTINGS},
            "lr": self.lr,
            "fallback_lr": self.lr,
            "muon_momentum": self.momentum,
            "muon_adjust_lr": "match_rms_adamw",
            "muon_precision": precision,
            **dict(self.optimizer_options),
        }

    def logged_steps(self) -> list[int]:
        """The steps that get a row in the history: 0, every log_every, the last."""
        return logged_steps(self.steps, self.log_every)


@dataclass(frozen=True)
class LLMRunConfig:
    """All that decides the outcome of a run: facts and recipe.

    Attributes:
        facts: which facts are told and asked.
        train: how.
    """

    facts: FactConfig = field(default_factory=FactConfig)
    train: FinetuneConfig = field(default_factory=FinetuneConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` gives the configuration back."""
        train = {**dataclasses.asdict(self.train), "method_options": dict(self.train.method_options)}
        return {"facts": self.facts.to_dict(), "train": train}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LLMRunConfig:
        """The configuration of a `to_dict`, perhaps of an earlier version with fewer fields.

        Raises:
            UnknownNameError: a field that this version does not know.
            ConfigError: a value that is not allowed.
        """
        train = from_fields(FinetuneConfig, "train", values["train"])
        return cls(FactConfig.from_dict(values["facts"]), train)

    @property
    def fingerprint(self) -> str:
        """Short hash of what decides the outcome and differs from its default.

        Where the model is run plays no part, nor how often it is saved.
        """
        defaults = LLMRunConfig(type(self.facts)(), type(self.train)())
        changed = changed_fields(self.to_dict(), defaults.to_dict(), _UNDECISIVE)
        return fingerprint(FORMAT_VERSION, changed)

    def differences(self, other: LLMRunConfig) -> list[str]:
        """The fields that decide and differ in two configurations, as "train.lr: 0.0001 != 0.001"."""
        return differences(self.to_dict(), other.to_dict(), _UNDECISIVE)
