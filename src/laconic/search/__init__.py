"""Where choosing and coding meet: the shortest file that meets a target."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
