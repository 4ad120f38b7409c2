"""`ocr-interp llm`: prepare, facts, finetune, evaluate, inspect. Imports no torch before a command runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from ocr_interp.cli.arguments.suggestions import subcommands
from ocr_interp.cli.llm.evaluate import Evaluate
from ocr_interp.cli.llm.facts import Facts
from ocr_interp.cli.llm.finetune import Finetune
from ocr_interp.cli.llm.inspect import Inspect
from ocr_interp.cli.llm.prepare import Prepare

LlmCommand = (
    Annotated[Prepare, tyro.conf.subcommand("prepare")]
    | Annotated[Facts, tyro.conf.subcommand("facts")]
    | Annotated[Finetune, tyro.conf.subcommand("finetune")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
)


@dataclass(frozen=True)
class Llm:
    """Out-of-context reasoning in real language models (needs the extra [llm])."""

    COMMANDS: ClassVar[dict[str, type]] = subcommands(LlmCommand)

    command: LlmCommand

    def run(self) -> None:
        self.command.run()
