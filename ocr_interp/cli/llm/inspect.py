"""`ocr-interp llm inspect`: OV circuits of a fine-tuned language model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.cli.arguments.files import say
from ocr_interp.cli.llm.threads import set_threads


@dataclass(frozen=True)
class Inspect:
    """Show which heads' OV circuits a run changed most, and how the answers change without them."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of a finished run that saved its model"""
    n_heads: int = 10
    """number of the most changed heads to show and to ablate"""
    base: str | None = None
    """folder or name of the model before fine-tuning, if it was moved"""
    cuts: tuple[str, ...] = ("parts", "heads", "directions", "mean")
    """kinds of ablations: parts, heads, directions, mean (of the update over names), truncation (of ΔW)"""
    top_k: tuple[int, ...] = (1, 2, 4, 8, 16)
    """for truncation: how many singular values of every ΔW are kept, or removed"""
    layers: bool = False
    """probe and patch the residual stream layer by layer too"""
    device: str = "auto"
    """"auto" (cuda, then mps, then cpu) or the name of a device"""
    threads: int | None = None
    """number of torch's threads on the CPU; None is torch's default"""

    def run(self) -> None:
        set_threads(self.threads)
        from ocr_interp.llm.inside.inside import inspect_run
        from ocr_interp.llm.layers.movement import Movement
        from ocr_interp.llm.training.files.store import RunFolder

        chosen = {"cuts": self.cuts, "top_k": self.top_k, "layers": self.layers}
        found = inspect_run(self.run_dir, self.n_heads, self.device, base=self.base, **chosen)
        say(found.summary())
        recorded = RunFolder(self.run_dir).read_result().get("movement")
        moved = None if recorded is None else Movement.from_dict(recorded)
        if isinstance(moved, Movement):
            say(f"\n{moved.table()}")
