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
from .pruning.mask import Mask, apply_, masked
from .pruning.select import Pruner, prune_, select
from .pruning.units import Weight
from .quantization.grid import Grid
from .tensors import tensors
from .training.iterative import Round, iterative
from .training.loop import Progress, Training, train
from .training.progress_bar import ProgressBar
from .training.rules import Attached, Gradual, Hold, Rule, attach, hold
from .training.schedules import Schedule, cubic, geometric, linear, one_shot

__version__: str

__all__ = [
    "Attached",
    "DataCode",
    "Density",
    "FormatError",
    "Gradual",
    "Grid",
    "Hold",
    "LaconicError",
    "Ledger",
    "LimitError",
    "Mask",
    "MismatchError",
    "Model",
    "NonFiniteError",
    "Progress",
    "ProgressBar",
    "Pruner",
    "Reader",
    "Round",
    "Row",
    "Rule",
    "Schedule",
    "Tensor",
    "Training",
    "UnsupportedError",
    "Weight",
    "apply_",
    "attach",
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
    "save",
    "select",
    "tensors",
    "train",
    "winners",
    "zoo",
]
