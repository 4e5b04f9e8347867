from . import tasks
from .evidence import Evidence, Statistic, observe, sampled_labels
from .objective import Objective
from .selectors import compressible

__all__ = ["Evidence", "Objective", "Statistic", "compressible", "observe", "sampled_labels", "tasks"]
