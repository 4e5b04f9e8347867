from .compress import Compressed
from .targets import Attempt, Target
from .under_code import CodeLengthRule

__all__ = ["Attempt", "CodeLengthRule", "Compressed", "Target"]
