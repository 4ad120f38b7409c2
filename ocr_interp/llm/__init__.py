"""Out-of-context reasoning in real language models: facts, fine-tuning, measurement, a look inside.

Needs the extra [llm]. The names of `__init__.pyi` are loaded when they are first used: `import
ocr_interp.llm` loads no torch. No other folder of the package imports this one, except the command line.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
