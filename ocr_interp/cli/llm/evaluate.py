"""`ocr-interp llm evaluate`: measures a model on a fact set."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.cli.files import say
from ocr_interp.cli.llm.threads import set_threads
from ocr_interp.llm.facts.configuration import FactConfig


@dataclass(frozen=True)
class Evaluate:
    """Measure a model, fine-tuned or not, on all test prompts of a fact set."""

    model: Annotated[str, tyro.conf.Positional]
    """run_dir of `llm finetune`, a model folder, or a name on the Hugging Face hub"""
    facts: FactConfig = field(default_factory=lambda: FactConfig(test_templates=()))
    """which facts; a run_dir has its own facts, of which only test_templates may be changed; without
    test_templates, the run's own are used, or 0 for a model folder"""
    device: str = "auto"
    """"auto" (cuda, then mps, then cpu) or the name of a device"""
    download: bool = False
    """download the model from the hub if it is not on this machine"""
    threads: int | None = None
    """number of torch's threads on the CPU; None is torch's default"""

    def run(self) -> None:
        set_threads(self.threads)
        from ocr_interp.devices import resolve_device
        from ocr_interp.llm.facts.drawing import make_facts
        from ocr_interp.llm.measuring.measure import measure
        from ocr_interp.llm.models.loading import load_config, load_model, loading_failures
        from ocr_interp.llm.training.memory import refuse_too_many_copies
        from ocr_interp.llm.training.text import describe_measurement
        from ocr_interp.llm.training.update import load_finetuned

        model, facts, dtype, has_update_beside = self._source()
        fact_set, where = make_facts(facts), resolve_device(self.device)
        beside = int(where.type != "cpu")
        with loading_failures(model):
            refuse_too_many_copies(load_config(model, download=self.download), dtype, 1, beside, where)
        lm = load_model(model, dtype=dtype, download=self.download)
        if has_update_beside:
            lm = load_finetuned(self.model, base=lm)
        say(describe_measurement(fact_set, measure(lm, fact_set, device=self.device)))

    def _source(self) -> tuple[str, FactConfig, str, bool]:
        """The model to load, the facts to ask, the precision (for a run, the one it was trained in), and
        whether the run stored its update separately from the model's weights.
        """
        from ocr_interp.errors import ConfigError
        from ocr_interp.llm.training.store import RunFolder

        folder = RunFolder(Path(self.model))
        asked = self.facts.test_templates
        if not folder.result_file.exists():
            facts = self.facts if asked else replace(self.facts, test_templates=(0,))
            return self.model, facts, "float32", False
        config = folder.read_config()
        own = config.facts
        if replace(self.facts, test_templates=()) != FactConfig(test_templates=()):
            raise ConfigError(
                f"{self.model} is a run with facts of its own ({own.data}, seed {own.seed}): give no facts "
                "but test_templates, or name its model folder"
            )
        facts = replace(own, test_templates=asked or own.test_templates)
        if folder.model_folder.is_dir():
            return str(folder.model_folder), facts, config.train.dtype, False
        if folder.adapter_file.is_file():
            return config.train.model, facts, config.train.dtype, True
        raise ConfigError(f"{self.model} kept no model: fine-tune with --save-model")
