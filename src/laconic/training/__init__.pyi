from . import schedules
from .distillation import Distillation
from .drop_and_grow import AtRandom, ByGradient, DropAndGrow, Growth
from .iterative import Gradual, Round, Snapshot, prune_iteratively_, reinitialize_, shuffled
from .loop import Progress, ProgressBar
from .projections import Proximal, SharedValues
from .rules import Attached, Hold, Rule, StepContext
from .schedules import Schedule
from .stochastic import Gates, StochasticWeights, VariationalDropout

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
