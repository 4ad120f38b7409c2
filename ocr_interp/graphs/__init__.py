"""Circuit graphs: one data model, and what makes them from circuits, prompts and whole heads.

| graph of | call |
|---|---|
| the mechanism of a fact-recall run, over all its prompts | `mechanism_graph(run)` |
| one prompt of a fact-recall run, by degenerate block | `prompt_graph(run, prompt, answer, against)` |
| one head of any model on a prompt, by degenerate block | `head_graph(model, ..., layer=..., head=...)` |
| an OV circuit by itself, from groups of tokens to groups of tokens | `circuit_graph(circuit)` |
| an attribution, whatever it is of | `attribution_graph(attribute(model, ...))` |

`ocr_interp.viz.save_diagram(graph, "circuit.svg")` draws one. Names are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
