"""What a folder with a config.json is, by what stands in it, and the commands that read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KnownFolder:
    """A kind of folder.

    Attributes:
        entries: entries of config.json by which it is known.
        name: what it is called.
        read_by: the commands that read it.
    """

    entries: tuple[str, ...]
    name: str
    read_by: str

    def __str__(self) -> str:
        return f"{self.name}, which {self.read_by} read"

    def holds(self, content: Mapping[str, Any]) -> bool:
        """Whether the content of a config.json has all entries."""
        return content.keys() >= set(self.entries)


FACT_RECALL_RUN = KnownFolder(
    ("task", "model", "train"),
    "a fact-recall run of `ocr-interp train`",
    "ocr-interp info, analyze, ablate, diagram, export, circuit, compare and report",
)
LANGUAGE_MODEL_RUN = KnownFolder(
    ("facts", "train"),
    "a language-model run of `ocr-interp llm finetune`",
    "ocr-interp llm evaluate and report, the same llm finetune command, and if it kept its model also llm "
    "inspect, circuit and compare",
)
MODEL_FOLDER = KnownFolder(
    ("model_type",), "a model folder of transformers", "ocr-interp circuit, compare and llm evaluate"
)
KNOWN_FOLDERS = (FACT_RECALL_RUN, LANGUAGE_MODEL_RUN, MODEL_FOLDER)
