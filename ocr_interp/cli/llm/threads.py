"""Sets how many threads a command uses."""

from __future__ import annotations

from ocr_interp.checks import check_count


def set_threads(threads: int | None) -> None:
    """Sets the number of torch's threads on the CPU; None keeps torch's default and does not import torch.

    Raises:
        ConfigError: fewer than one.
    """
    if threads is not None:
        check_count("threads (--threads)", threads, 1)
        import torch

        torch.set_num_threads(threads)
