"""One line of an account of compression: a network, its file, and how well the file does."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.description.ledger import Ledger


@dataclass(frozen=True)
class Stage:
    """A network at one point of its compression.

    Attributes:
        name: what was done, such as ``dense`` or ``round 3``.
        sparsity: the fraction of the compressed tensors' weights that are zero.
        n_active: parameters that are not zero, of the whole model.
        accuracy: the fraction of test cases that the *decoded file* gets right.
        file_bytes: the file's length.
        ledger: where its bits went, with the training data's.
    """

    name: str
    sparsity: float
    n_active: int
    accuracy: float
    file_bytes: int
    ledger: Ledger
