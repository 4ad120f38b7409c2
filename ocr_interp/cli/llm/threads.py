"""How many threads a command uses."""

from __future__ import annotations


def set_threads(threads: int | None) -> None:
    """Sets torch's threads on the CPU; None leaves torch's own choice, and torch unloaded."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
