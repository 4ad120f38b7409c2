"""Before and after: which heads, MLPs and circuits changed, beside matched random changes.

    change = compare_models(before, after, inputs=cities, outputs=languages)   # fine-tuned, LoRA, checkpoints
    print(change.summary())              # every head's OV and QK circuit and every MLP, on these tokens
    compare(circuit, other).table()      # two circuits by degenerate block, with principal angles
    compare_graphs(graph, other)         # two circuit graphs; save_diagram draws both on one scale

Names are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
