from . import figures
from .compare import Comparison
from .measurement import Quantity, Spread, Trial, measure
from .pages import Page, write_frontier_page, write_page
from .tensor_table import TensorRow, TensorTable, compare_tensors

__all__ = [
    "Comparison",
    "Page",
    "Quantity",
    "Spread",
    "TensorRow",
    "TensorTable",
    "Trial",
    "compare_tensors",
    "figures",
    "measure",
    "write_frontier_page",
    "write_page",
]
