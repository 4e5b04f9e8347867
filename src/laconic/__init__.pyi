from . import datasets, zoo
from .description.data_code import DataCode, evaluate
from .description.describe import describe
from .description.ledger import Ledger, LedgerRow
from .errors import (
    FormatError,
    LaconicError,
    LimitError,
    MismatchError,
    NonFiniteError,
    UnsupportedError,
)
from .evidence import Evidence, Statistic, observe, sampled_labels
from .file.container import Reader
from .file.state import load, save
from .pruning.budgets import Count, Density, Erk, Price, Rates, Total
from .pruning.contests import Budget, Model, Row, Run, Scope, Tensor
from .pruning.criteria import (
    Criterion,
    criterion,
    fisher,
    lamp,
    magnitude,
    movement,
    norm_scale,
    obs,
    output_error,
    random,
    snip,
    squared_magnitude,
    taylor,
    wanda,
)
from .pruning.mask import Mask, apply_, masked
from .pruning.pruner import Pruner, prune_
from .pruning.select import select
from .pruning.solvers import Cut, LeastSquares, Pick, Solver, SparseGpt, reestimate_batch_norm_
from .pruning.units import Block, Coupled, Unit, Weight
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
    "Block",
    "Budget",
    "Count",
    "Coupled",
    "Criterion",
    "Cut",
    "DataCode",
    "Density",
    "Erk",
    "Evidence",
    "FormatError",
    "Gradual",
    "Grid",
    "Hold",
    "LaconicError",
    "LeastSquares",
    "Ledger",
    "LedgerRow",
    "LimitError",
    "Mask",
    "MismatchError",
    "Model",
    "NonFiniteError",
    "Pick",
    "Price",
    "Progress",
    "ProgressBar",
    "Pruner",
    "Rates",
    "Reader",
    "Round",
    "Row",
    "Rule",
    "Run",
    "Schedule",
    "Scope",
    "Solver",
    "SparseGpt",
    "Statistic",
    "Tensor",
    "Total",
    "Training",
    "Unit",
    "UnsupportedError",
    "Weight",
    "apply_",
    "attach",
    "criterion",
    "cubic",
    "datasets",
    "describe",
    "evaluate",
    "fisher",
    "geometric",
    "hold",
    "iterative",
    "lamp",
    "linear",
    "load",
    "magnitude",
    "masked",
    "movement",
    "norm_scale",
    "obs",
    "observe",
    "one_shot",
    "output_error",
    "prune_",
    "random",
    "reestimate_batch_norm_",
    "sampled_labels",
    "save",
    "select",
    "snip",
    "squared_magnitude",
    "taylor",
    "tensors",
    "train",
    "wanda",
    "zoo",
]
