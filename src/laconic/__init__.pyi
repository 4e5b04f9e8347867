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
from .surgery.blocks import blocks
from .surgery.channels import channels
from .surgery.coupling import Coupling, Group, Part
from .surgery.heads import heads
from .surgery.macs import macs
from .surgery.plan import Plan
from .surgery.shrink import Bypass, shrink, shrink_
from .tensors import tensors
from .training.iterative import Round, iterative
from .training.loop import Progress, Training, train
from .training.progress_bar import ProgressBar
from .training.rules import Attached, Gradual, Hold, Rule, attach, hold
from .training.schedules import Schedule, cubic, geometric, linear, one_shot

__version__: str

__all__ = [
    "Attached",
    "Bypass",
    "Coupling",
    "DataCode",
    "Density",
    "FormatError",
    "Gradual",
    "Grid",
    "Group",
    "Hold",
    "LaconicError",
    "Ledger",
    "LimitError",
    "Mask",
    "MismatchError",
    "Model",
    "NonFiniteError",
    "Part",
    "Plan",
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
    "blocks",
    "channels",
    "cubic",
    "datasets",
    "describe",
    "evaluate",
    "geometric",
    "heads",
    "hold",
    "iterative",
    "linear",
    "load",
    "macs",
    "magnitude",
    "masked",
    "one_shot",
    "prune_",
    "save",
    "select",
    "shrink",
    "shrink_",
    "tensors",
    "train",
    "winners",
    "zoo",
]
