"""Every member of every axis. A new unit, scope, budget or solver is one entry here."""

from laconic.errors import MismatchError, UnsupportedError
from laconic.pruning import criteria
from laconic.pruning.budgets import Count, Density, Erk, Price, Rates, Total
from laconic.pruning.scopes import NM, Global, PerRow, PerTensor
from laconic.pruning.solvers import Cut, LeastSquares, SparseGPT
from laconic.pruning.units import Block, Coupled, Weight
from tests.support.nets import COUPLING

CRITERIA = [*criteria.CRITERIA.values(), criteria.random(3)]  # those register themselves
UNITS = [Weight(), Block(2, 2), Block(3, 5), Block(1, None), Block(None, 1), Coupled(COUPLING)]
SCOPES = [Global(), PerTensor(), PerRow(), NM(4)]
BUDGETS = {  # from the density wanted
    "Density": Density,
    "Count": lambda density: Count(round(4 * density)),
    "Total": lambda density: Total(density * 100),
    "Price": lambda density: Price(density, each=8.0),
    "Erk": Erk,
    "Rates": lambda density: Rates({"re:": density}),
}
SOLVERS = [Cut(), LeastSquares(), SparseGPT(columns=8)]
REFUSED = (MismatchError, UnsupportedError)


def label(value):
    """Without a function's address, by which workers would disagree on the tests' names."""
    return value if isinstance(value, str) else getattr(value, "__name__", None) or type(value).__name__
