"""OV circuits of any hooked model: structure, embeddings, attribution, alignment with a prediction.

`OVCircuit` and `attribute` stand at the root of the package; here are their results and further measurements.
Names are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
