"""What a network is to Laconic: its parameters, its evidence, its modes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
