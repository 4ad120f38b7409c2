"""Circuits found in any model: which edges between heads, MLPs, input and logits carry a behaviour.

    contrast = Contrast.of(model, prompts, donors, answers)   # what is asked, and what it is compared with
    circuit = find_circuit(model, contrast, size=25)           # top edges by integrated gradients
    print(evaluate_circuit(model, circuit, contrast).summary())  # by real ablation, beside random circuits
    circuit_as_graph(circuit)                                  # a CircuitGraph, as all other diagrams

Edges are named as in EAP-IG, "a0.h1->a1.h3<k>"; `ablation.Edges` patches them by hand. `patch_every_edge` is
the exact effect of each, to check the estimates on small models; `to_eap_ig`, `from_eap_ig` and
`to_auto_circuit` exchange circuits with these libraries. Names are imported when they are first used.
"""

from typing import Any

import lazy_loader

_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"{__name__} has no attribute {name!r}; it has {', '.join(__all__)}", name=name)
    return _lazy(name)
