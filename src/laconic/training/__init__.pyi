from . import schedules
from .distillation import Distillation
from .drop_and_grow import AtRandom, ByGradient, DropAndGrow, Growth
from .gates import Gates
from .gradual import Gradual
from .iterative import Round, Snapshot, prune_iteratively_, reinitialize_, shuffled
from .loop import Progress, ProgressBar
from .proximal import Proximal
from .rules import Attached, Hold, Rule, StepContext
from .schedules import Schedule
from .shared_values import SharedValues
from .stochastic import StochasticWeights
from .variational import VariationalDropout

__all__ = [
    "AtRandom",
    "Attached",
    "ByGradient",
    "Distillation",
    "DropAndGrow",
    "Gates",
    "Gradual",
    "Growth",
    "Hold",
    "Progress",
    "ProgressBar",
    "Proximal",
    "Round",
    "Rule",
    "Schedule",
    "SharedValues",
    "Snapshot",
    "StepContext",
    "StochasticWeights",
    "VariationalDropout",
    "prune_iteratively_",
    "reinitialize_",
    "schedules",
    "shuffled",
]
