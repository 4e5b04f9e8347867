from .evidence import Evidence, Statistic, observe, sampled_labels
from .selectors import compressible

__all__ = ["Evidence", "Statistic", "compressible", "observe", "sampled_labels"]
