"""Laconic turns a trained network into the shortest file that still does its job, and proves it.

The public names are listed, with their types, in `__init__.pyi`. Each is imported when first used, so
that `import laconic` costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
