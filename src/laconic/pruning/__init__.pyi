from . import budgets, criteria, scopes, solvers, units
from .budgets import Budget
from .criteria import Criterion, criterion
from .mask import Mask, apply_, broadcast_mask, masked
from .pruner import Pruner
from .scopes import Scope
from .selection import select
from .sensitivity import Scan, scan
from .solvers import Solver
from .units import Unit

__all__ = [
    "Budget",
    "Criterion",
    "Mask",
    "Pruner",
    "Scan",
    "Scope",
    "Solver",
    "Unit",
    "apply_",
    "broadcast_mask",
    "budgets",
    "criteria",
    "criterion",
    "masked",
    "scan",
    "scopes",
    "select",
    "solvers",
    "units",
]
