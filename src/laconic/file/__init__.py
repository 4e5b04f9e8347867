"""The container that a coded network lives in."""
# pyright: basic

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
