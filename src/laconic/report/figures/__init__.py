"""Figures of a compression, each a function of values that returns a `matplotlib.figure.Figure`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
