"""Max-margin solutions of fact-recall tasks: closed forms, solvers, certificates (numpy, scipy, cvxpy).

The public names are imported when they are first used: `import ocr_interp.theory` loads neither torch nor
cvxpy. `theory.solve` and `theory.norms` are the function and the registry, also after the modules that they
come from have been imported (lazy_loader sees to that).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
