from .container import Reader
from .contents import export
from .workers import FileOptions

__all__ = ["FileOptions", "Reader", "export"]
