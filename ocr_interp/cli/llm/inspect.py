"""`ocr-interp llm inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ocr_interp.cli.llm.threads import set_threads


@dataclass(frozen=True)
class Inspect:
    """Show which heads' OV circuits a run changed, and what taking them away does to the answers."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of a finished run that kept its model"""
    n_heads: int = 10
    """most changed heads to show and to take away"""
    device: str = "auto"
    """"auto" (cuda, then mps, then cpu) or a name"""
    threads: int | None = None
    """of torch on the CPU; None is torch's own choice"""

    def run(self) -> None:
        set_threads(self.threads)
        from ocr_interp.llm.inside.inside import inspect_run

        print(inspect_run(self.run_dir, self.n_heads, self.device).summary())
