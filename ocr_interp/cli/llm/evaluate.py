"""`ocr-interp llm evaluate`: measures a model on a fact set."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ocr_interp.cli.arguments.files import say
from ocr_interp.cli.llm.threads import set_threads
from ocr_interp.llm.facts.configuration import FactConfig

if TYPE_CHECKING:
    from ocr_interp.llm.training.files.store import RunFolder


@dataclass(frozen=True)
class Evaluate:
    """Measure a model, fine-tuned or not, on all test prompts of a fact set."""

    model: Annotated[str, tyro.conf.Positional]
    """run_dir of `llm finetune`, a model folder, or a name on the Hugging Face hub"""
    facts: FactConfig = field(default_factory=lambda: FactConfig(test_templates=()))
    """which facts; a run_dir has its own, of which only test_templates, scoring and n_unseen may be changed,
    and where their file is now (--data, --file); without test_templates: the run's own, or 0 for a model
    folder"""
    base: str | None = None
    """for a run whose update is not merged: its model before fine-tuning, folder or name, if it was moved"""
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
        from ocr_interp.llm.measuring.recorder import measure_logits
        from ocr_interp.llm.models.loading import load_config, load_model, loading_failures
        from ocr_interp.llm.training.files.store import RunFolder
        from ocr_interp.llm.training.memory import refuse_too_many_copies
        from ocr_interp.llm.training.text import describe_answers, describe_measurement
        from ocr_interp.llm.training.update import load_finetuned

        folder = RunFolder(Path(self.model))
        model, facts, dtype = self._source(folder)
        inputs = folder.read_inputs() if folder.is_run() else None
        if inputs is None:
            fact_set = make_facts(facts)
        else:
            fact_set = inputs.facts_now(facts, folder.path)
            if facts.file is not None and not facts.file.exists():
                say(f"facts: the rows that {self.model} holds ({facts.file} is not there)")
        where = resolve_device(self.device)
        beside = int(where.type != "cpu")
        with loading_failures(model):
            refuse_too_many_copies(load_config(model, download=self.download), dtype, 1, beside, where)
        if folder.is_run():
            lm = load_finetuned(self.model, model=self.base)
        else:
            lm = load_model(model, dtype=dtype, download=self.download)
        found, table = measure_logits(lm, fact_set, facts, device=self.device)
        say(describe_measurement(fact_set, found))
        say(describe_answers(table))

    def _source(self, folder: RunFolder) -> tuple[str, FactConfig, str]:
        """The folder or name of what is loaded, the facts to ask, and the precision (for a run, the one it
        was trained in).
        """
        from ocr_interp.errors import ConfigError, RunError
        from ocr_interp.llm.training.update import how_to_keep

        asked = self.facts.test_templates
        if not folder.is_run():
            facts = self.facts if asked else replace(self.facts, test_templates=(0,))
            return self.model, facts, "float32"
        if not folder.result_file.exists():
            raise RunError(folder.progress())
        config = folder.read_config()
        own, nothing = config.facts, FactConfig(test_templates=())
        given = replace(self.facts, test_templates=(), scoring="auto", n_unseen=0)
        files = {"file": given.file, "implications_file": given.implications_file}
        moved = given.file is not None and given == replace(nothing, data=own.data, **files)
        if given != nothing and not moved:
            raise ConfigError(
                f"{self.model} is a run with facts of its own ({own.data}, seed {own.seed}): give no facts "
                "but test_templates, scoring and n_unseen, and where its file is now (--data, --file), or "
                "name its model folder"
            )
        if moved:
            own = replace(own, **files)
        scoring = own.scoring if self.facts.scoring == "auto" else self.facts.scoring
        n_unseen = self.facts.n_unseen or own.n_unseen
        templates = asked or own.test_templates
        facts = replace(own, test_templates=templates, scoring=scoring, n_unseen=n_unseen)
        if folder.model_folder.is_dir():
            return str(folder.model_folder), facts, config.train.dtype
        if folder.adapter_file.is_file():
            return self.base or config.train.model, facts, config.train.dtype
        raise ConfigError(f"{self.model} kept no model: {how_to_keep(folder)}")
