"""Every member of every axis. A new criterion, unit, scope, budget or solver is one entry here."""

import laconic
from laconic import (
    Block,
    Count,
    Coupled,
    Cut,
    Density,
    Erk,
    LeastSquares,
    Model,
    Price,
    Rates,
    Row,
    Run,
    SparseGpt,
    Tensor,
    Total,
    Weight,
)
from laconic.errors import MismatchError, UnsupportedError
from pruning.nets import COUPLING

CRITERIA = [
    laconic.magnitude,
    laconic.squared_magnitude,
    laconic.random(3),
    laconic.taylor,
    laconic.fisher,
    laconic.snip,
    laconic.movement,
    laconic.wanda,
    laconic.lamp,
    laconic.output_error,
    laconic.obs,
    laconic.norm_scale,
]
UNITS = [Weight(), Block(2, 2), Block(3, 5), Block(1, None), Block(None, 1), Coupled(COUPLING)]
SCOPES = [Model(), Tensor(), Row(), Run(4)]
BUDGETS = {  # from the density wanted
    "Density": Density,
    "Count": lambda density: Count(round(4 * density)),
    "Total": lambda density: Total(density * 100),
    "Price": lambda density: Price(density, each=8.0),
    "Erk": Erk,
    "Rates": lambda density: Rates({"re:": density}),
}
SOLVERS = [Cut(), LeastSquares(), SparseGpt(columns=8)]
REFUSED = (MismatchError, UnsupportedError)


def label(value):
    """Without a function's address, by which workers would disagree on the tests' names."""
    return value if isinstance(value, str) else getattr(value, "__name__", None) or type(value).__name__
