"""Mitigations: keep the deduction that is wanted, lose the one that is not.

Two implications of a fact are told alike, one causal and one spurious. `mitigate(task, "r3", "routed")`
trains a model with a method and measures what is deduced of either for untold subjects; `compare` makes a
table of several methods. `mitigations` has them by name, `Mitigation` is what a method of your own inherits.
Names are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
