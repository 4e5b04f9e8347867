from . import (
    datasets,
    description,
    errors,
    file,
    formats,
    mdl,
    model,
    pruning,
    quantization,
    recipes,
    report,
    search,
    surgery,
    training,
    zoo,
)
from .description.describe import describe, evaluate
from .errors import LaconicError
from .file.contents import inspect
from .file.save_load import load, save
from .pruning.pruner import prune_
from .report.compare import compare
from .search.compress import compress
from .search.targets import MaxBytes, MaxDrop, Shortest
from .surgery.shrink import shrink
from .training.loop import Training, train
from .training.rules import attach, hold

__version__: str

__all__ = [
    "LaconicError",
    "MaxBytes",
    "MaxDrop",
    "Shortest",
    "Training",
    "attach",
    "compare",
    "compress",
    "datasets",
    "describe",
    "description",
    "errors",
    "evaluate",
    "file",
    "formats",
    "hold",
    "inspect",
    "load",
    "mdl",
    "model",
    "prune_",
    "pruning",
    "quantization",
    "recipes",
    "report",
    "save",
    "search",
    "shrink",
    "surgery",
    "train",
    "training",
    "zoo",
]
