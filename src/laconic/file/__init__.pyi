from .container import Reader
from .export import export
from .workers import FileOptions

__all__ = [
    "FileOptions",
    "Reader",
    "export",
]
