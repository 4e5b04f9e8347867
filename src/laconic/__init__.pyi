from . import datasets, zoo
from .description.bits_back import bits_back, expected_data_bits, residual_bits
from .description.data_code import DataCode, evaluate
from .description.describe import describe
from .description.ledger import Ledger, LedgerRow
from .description.prequential import (
    Learner,
    PrequentialCode,
    SentBlock,
    doubling,
    prequential,
    probe,
    timesteps,
)
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
from .gaussians import Gaussian, Mixture, spaced
from .pipeline import Work
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
from .pruning.mask import Mask, agreed, apply_, masked
from .pruning.pruner import Pruner, prune_
from .pruning.scan import Scan, scan
from .pruning.select import select
from .pruning.solvers import Cut, LeastSquares, Pick, Solver, SparseGpt, reestimate_batch_norm_
from .pruning.units import Block, Coupled, Unit, Weight
from .quantization.codebook import Codebook
from .quantization.fixed import FixedBits
from .quantization.grid import Grid, Quantizer, Rounder
from .quantization.legends import Legend, Rounded, RowSteps, Step, Values
from .quantization.rate import Curvature, RateLoss, data_bits, layer_error, squared_error
from .recipes.recipe import Recipe
from .recipes.results import Result, read_results, trials
from .recipes.run import run_recipe
from .report.compare import Comparison, compare
from .shortest import Compressed, compress
from .surgery.blocks import blocks
from .surgery.channels import channels
from .surgery.coupling import Coupling, Group, Part
from .surgery.folded import folded
from .surgery.heads import heads
from .surgery.macs import macs
from .surgery.plan import Plan
from .surgery.shrink import Bypass, shrink, shrink_
from .surgery.unread import unread
from .targets import Attempt, MaxBytes, MaxDrop, Shortest, Target
from .tensors import tensors
from .training.distillation import Distillation
from .training.gates import Gates
from .training.gradual import Gradual
from .training.iterative import Round, iterative
from .training.loop import Progress, Training, train
from .training.lottery import Snapshot, reinitialise_, shuffled
from .training.noise import Noisy
from .training.noisy_weights import NoisyWeights
from .training.progress_bar import ProgressBar
from .training.proximal import Proximal
from .training.regrow import AtRandom, ByGradient, DropAndGrow, Growth
from .training.rules import Attached, Hold, Moment, Rule, attach, hold
from .training.schedules import Schedule, cosine, cubic, exponential, geometric, linear, one_shot
from .training.sharing import Share
from .training.shorten import Shorten
from .training.variational import VariationalDropout

__version__: str

__all__ = [
    "AtRandom",
    "Attached",
    "Attempt",
    "Block",
    "Budget",
    "ByGradient",
    "Bypass",
    "Codebook",
    "Comparison",
    "Compressed",
    "Count",
    "Coupled",
    "Coupling",
    "Criterion",
    "Curvature",
    "Cut",
    "DataCode",
    "Density",
    "Distillation",
    "DropAndGrow",
    "Erk",
    "Evidence",
    "FixedBits",
    "FormatError",
    "Gates",
    "Gaussian",
    "Gradual",
    "Grid",
    "Group",
    "Growth",
    "Hold",
    "LaconicError",
    "Learner",
    "LeastSquares",
    "Ledger",
    "LedgerRow",
    "Legend",
    "LimitError",
    "Mask",
    "MaxBytes",
    "MaxDrop",
    "MismatchError",
    "Mixture",
    "Model",
    "Moment",
    "Noisy",
    "NoisyWeights",
    "NonFiniteError",
    "Part",
    "Pick",
    "Plan",
    "PrequentialCode",
    "Price",
    "Progress",
    "ProgressBar",
    "Proximal",
    "Pruner",
    "Quantizer",
    "RateLoss",
    "Rates",
    "Reader",
    "Recipe",
    "Result",
    "Round",
    "Rounded",
    "Rounder",
    "Row",
    "RowSteps",
    "Rule",
    "Run",
    "Scan",
    "Schedule",
    "Scope",
    "SentBlock",
    "Share",
    "Shorten",
    "Shortest",
    "Snapshot",
    "Solver",
    "SparseGpt",
    "Statistic",
    "Step",
    "Target",
    "Tensor",
    "Total",
    "Training",
    "Unit",
    "UnsupportedError",
    "Values",
    "VariationalDropout",
    "Weight",
    "Work",
    "agreed",
    "apply_",
    "attach",
    "bits_back",
    "blocks",
    "channels",
    "compare",
    "compress",
    "cosine",
    "criterion",
    "cubic",
    "data_bits",
    "datasets",
    "describe",
    "doubling",
    "evaluate",
    "expected_data_bits",
    "exponential",
    "fisher",
    "folded",
    "geometric",
    "heads",
    "hold",
    "iterative",
    "lamp",
    "layer_error",
    "linear",
    "load",
    "macs",
    "magnitude",
    "masked",
    "movement",
    "norm_scale",
    "obs",
    "observe",
    "one_shot",
    "output_error",
    "prequential",
    "probe",
    "prune_",
    "random",
    "read_results",
    "reestimate_batch_norm_",
    "reinitialise_",
    "residual_bits",
    "run_recipe",
    "sampled_labels",
    "save",
    "scan",
    "select",
    "shrink",
    "shrink_",
    "shuffled",
    "snip",
    "spaced",
    "squared_error",
    "squared_magnitude",
    "taylor",
    "tensors",
    "timesteps",
    "train",
    "trials",
    "unread",
    "wanda",
    "zoo",
]
