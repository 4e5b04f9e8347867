from . import datasets, zoo
from .description.data_code import DataCode, evaluate
from .description.describe import describe
from .description.ledger import Ledger, Row
from .errors import (
    FormatError,
    LaconicError,
    LimitError,
    MismatchError,
    NonFiniteError,
    UnsupportedError,
)
from .file.container import Reader
from .file.state import load, save
from .pruning.contests import Density, Model, Tensor, winners
from .pruning.criteria import magnitude
from .pruning.mask import Mask, agreed, apply_, masked
from .pruning.select import Pruner, prune_, select
from .pruning.units import Weight
from .quantization.grid import Grid
from .tensors import tensors
from .training.gates import Gates
from .training.gradual import Gradual
from .training.iterative import Round, iterative
from .training.loop import Progress, Training, train
from .training.lottery import Snapshot, reinitialise_, shuffled
from .training.noise import Noisy
from .training.progress_bar import ProgressBar
from .training.proximal import Proximal
from .training.regrow import AtRandom, ByGradient, DropAndGrow, Growth
from .training.rules import Attached, Hold, Moment, Rule, attach, hold
from .training.schedules import Schedule, cosine, cubic, geometric, linear, one_shot
from .training.variational import VariationalDropout

__version__: str

__all__ = [
    "AtRandom",
    "Attached",
    "ByGradient",
    "DataCode",
    "Density",
    "DropAndGrow",
    "FormatError",
    "Gates",
    "Gradual",
    "Grid",
    "Growth",
    "Hold",
    "LaconicError",
    "Ledger",
    "LimitError",
    "Mask",
    "MismatchError",
    "Model",
    "Moment",
    "Noisy",
    "NonFiniteError",
    "Progress",
    "ProgressBar",
    "Proximal",
    "Pruner",
    "Reader",
    "Round",
    "Row",
    "Rule",
    "Schedule",
    "Snapshot",
    "Tensor",
    "Training",
    "UnsupportedError",
    "VariationalDropout",
    "Weight",
    "agreed",
    "apply_",
    "attach",
    "cosine",
    "cubic",
    "datasets",
    "describe",
    "evaluate",
    "geometric",
    "hold",
    "iterative",
    "linear",
    "load",
    "magnitude",
    "masked",
    "one_shot",
    "prune_",
    "reinitialise_",
    "save",
    "select",
    "shuffled",
    "tensors",
    "train",
    "winners",
    "zoo",
]
