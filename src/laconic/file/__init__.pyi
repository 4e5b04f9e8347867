from .container import Reader
from .exporting import export
from .workers import FileOptions

__all__ = ["FileOptions", "Reader", "export"]
