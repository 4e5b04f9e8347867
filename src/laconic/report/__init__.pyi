from . import figures
from .compare import Comparison
from .measurement import measure
from .pages.frontier_page import write_frontier_page
from .pages.page import Page, write_page
from .tensor_table import TensorRow, TensorTable, compare_tensors
from .trials import Quantity, Spread, Trial

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
