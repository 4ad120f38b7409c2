"""Packages that only language models need."""

from __future__ import annotations

import importlib.util

from ocr_interp.errors import ModelError


def require_packages(*names: str) -> None:
    """Requires that packages of the extra [llm] are installed, before anything is loaded.

    Raises:
        ModelError: a package is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:  # found, not imported
            raise ModelError(f"the package {name} is not installed: pip install 'ocr-interp[llm]'")
