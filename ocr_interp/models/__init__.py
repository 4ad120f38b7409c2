"""Models of the fact-recall task: configurations, starts, the token-count form, HookedTransformers.

`build_model`, `save_model` and `load_model` are for users; they are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
