"""The optimal brain surgeon's eliminations, row by row.

A layer's output error is (w − ŵ)ᵀ H (w − ŵ) for each row w of its weight, with H the Gram matrix of its inputs.
Removing weight q while the row's others make up for it as well as they can adds w_q² / [H⁻¹]_qq (Hassibi & Stork 1993),
after which H⁻¹ loses q by one step of Gaussian elimination. Rows are independent (Frantar & Alistarh 2022, "Optimal
Brain Compression", algorithm 1). A row of d weights takes d³/3 multiply-adds.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from laconic.core.jit import F64, I64, kernel
from laconic.core.threads import n_cores


def added_errors(rows: F64, inverse: F64) -> F64:
    """What each weight adds to its row's error when its turn comes, cheapest first until none is left.

    Args:
        rows: (rows, d).
        inverse: H⁻¹, (d, d), symmetric positive definite.

    Returns:
        (rows, d), in the unit of w² · H. Errors do not decrease along the order of elimination: a weight is charged at
        least as much as every weight that went before it.
    """
    added = np.empty_like(rows)
    with ThreadPoolExecutor(max(min(len(rows), n_cores()), 1)) as threads:
        list(threads.map(lambda i: _eliminate(rows[i].copy(), inverse.copy(), added[i]), range(len(rows))))
    return added


@kernel
def _eliminate(w: F64, inverse: F64, added: F64) -> None:
    """One row; `w` and `inverse` are used up. The weights still there are kept in front."""
    d = w.size
    place: I64 = np.arange(d)
    highest = 0.0
    for left in range(d, 0, -1):
        q = 0
        lowest = np.inf
        for i in range(left):
            error = w[i] * w[i] / inverse[i, i]
            if error < lowest:
                lowest, q = error, i
        highest = max(highest, lowest)
        added[place[q]] = highest
        last = left - 1
        if q != last:
            place[q] = place[last]
            w[q], w[last] = w[last], w[q]
            for j in range(left):
                inverse[q, j], inverse[last, j] = inverse[last, j], inverse[q, j]
            for j in range(left):
                inverse[j, q], inverse[j, last] = inverse[j, last], inverse[j, q]
        pivot = 1.0 / inverse[last, last]
        for i in range(last):
            factor = inverse[i, last] * pivot
            w[i] -= factor * w[last]
            row, gone = inverse[i], inverse[last]
            for j in range(last):
                row[j] -= factor * gone[j]
