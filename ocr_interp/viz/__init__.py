"""Figures of circuits, and results as text; nothing here imports a model. Plot functions draw on given axes.

Names are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
