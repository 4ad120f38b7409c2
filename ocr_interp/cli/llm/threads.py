"""Sets how many threads a command uses."""

from __future__ import annotations


def set_threads(threads: int | None) -> None:
    """Sets the number of torch's threads on the CPU; None keeps torch's default and does not import torch."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
