"""Networks compared by their description length: the bits of each, and those of the same labels given it.

Of several explanations the shortest is to be preferred (Rissanen 1978; Hinton & van Camp 1993). Each network
is rounded as coarsely as its own total wants; to say which of the grids that is takes log2 of their number,
three bits of eight, and is left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

from laconic.core.text import as_text
from laconic.datasets.adapter import TrainTest
from laconic.datasets.standard import Dataset
from laconic.description.ledger import Measurement
from laconic.errors import MismatchError
from laconic.quantization.grid import Grid, KeepGrid, Quantizer
from laconic.report.measurement import fewest_bits, measure, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

Labelled: TypeAlias = Iterable[tuple[Any, Tensor]]
GRIDS: tuple[Quantizer, ...] = tuple(KeepGrid(Grid(error)) for error in (0.4, 0.3, 0.2, 0.14, 0.1, 0.07, 0.05, 0.03))


@dataclass(frozen=True)
class Comparison:
    """Networks and their bits.

    Attributes:
        networks: what each takes, as its file decodes, in the order in which they were given.
    """

    networks: tuple[Measurement, ...]

    @property
    def shortest(self) -> Measurement:
        """The network with the fewest bits in all."""
        return self.networks[fewest_bits(self.networks)]

    def figure(self) -> Figure:
        """Bits of each network and of the labels given it, as bars."""
        from laconic.report.figures.stages import description_bars

        return description_bars(self.networks)

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Table:
        return table(self.networks)


def compare(
    models: Mapping[str, nn.Module],
    data: Dataset | tuple[Labelled, Labelled],
    quantizers: Sequence[Quantizer | None] = GRIDS,
) -> Comparison:
    """Measure the description length of several networks on the same data.

    Each is saved, decoded and judged with every quantiser; the one of its fewest bits counts. Networks that
    lie on grids already, such as `CodeLengthRule` leaves, are kept as they are.

    Args:
        models: trained networks of any families, by name. They are not changed.
        data: a data set, or (training batches, test batches). The bits are of the training labels, which must
            be the same for all; accuracies are on the test examples.
        quantizers: what to round with; None for no rounding.

    Raises:
        MismatchError: there are no networks or no quantisers, or the data are no batches.
    """
    if not models or not quantizers:
        raise MismatchError("compare: expected at least one network and one quantizer, found none")
    examples = TrainTest.of(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.lac"
        found = [
            [measure(name, model, path, examples, quantizer)[0] for quantizer in quantizers]
            for name, model in models.items()
        ]
    return Comparison(tuple(stages[fewest_bits(stages)] for stages in found))
