"""Noisy weights, bits back and prequential codes (Hinton & van Camp 1993): readable on its own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
