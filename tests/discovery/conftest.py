"""The folder's models by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "circuits"))  # hooked_models
