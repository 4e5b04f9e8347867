"""Rate–loss rounding: each weight goes to the integer that minimises bits + price × loss.

The bits are those of the symbol model that codes the tensor: it is fitted to the nearest integers, and the weights are
rounded again at its prices. The loss is a quadratic form of the rounding errors, row by row. If it has the Gram matrix
H of a layer's inputs, columns are rounded one after another, and later columns compensate for each error (GPTQ; Frantar
et al. 2023): with U the upper Cholesky factor of H⁻¹, column j's error costs (w − ŵ)²/U_jj², and row j of U/U_jj says
how the others change. Zero is just the cheapest integer: pruning and quantising are one act.

The scale follows from the price. On a fine grid a weight costs −log2 Δ bits and h·Δ²/12 of loss, h being the loss's
curvature: the sum with price λ is least at Δ² = 6 / (ln 2 · λ·h), with the mean of h over a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from typing_extensions import override

from laconic.coding.fit import fit
from laconic.coding.layout import Layout
from laconic.coding.static_model import ALL_COLUMNS_ALIKE, StaticModel
from laconic.core.jit import F64, I32, U8, kernel
from laconic.errors import MismatchError
from laconic.model.evidence import BITS_PER_NAT, FISHER, GRAM, NO_EVIDENCE, SENSITIVITY, Evidence
from laconic.model.uses import PLAIN, Form
from laconic.quantization.grid import MAX_Q, Quantizer, Rounder, as_scale
from laconic.quantization.rounded import PerTensorScale, Rounded

OF_CHANNELS = 16  # a number of a bias or norm acts on a whole channel, and there are few


@dataclass(frozen=True)
class Curvature:
    """A loss as a quadratic form: Σ over rows of scale · (w − ŵ) H (w − ŵ)ᵀ.

    Attributes:
        scale: a factor of the loss; a number, or one for each row, (out,).
        gram: H for each group of rows, (groups, d, d), positive definite; None if it is diagonal.
        diagonal: H's diagonals, in the weight's shape; None for ones.
        form: how the weight's rows meet `gram`.
    """

    scale: float | Float[Tensor, " out"] = 1.0
    gram: Float[Tensor, "groups d d"] | None = None
    diagonal: Tensor | None = None
    form: Form = PLAIN


Loss: TypeAlias = Callable[[str, Tensor, Evidence], Curvature]


def squared_error(name: str, weight: Tensor, evidence: Evidence = NO_EVIDENCE) -> Curvature:
    """‖w − ŵ‖², summed over all tensors: what other codecs minimise. It needs no data."""
    del name, weight, evidence
    return Curvature()


def data_bits(name: str, weight: Tensor, evidence: Evidence = NO_EVIDENCE) -> Curvature:
    """½ (w − ŵ) F (w − ŵ)ᵀ in bits of all the data's targets: at a price of 1 this is two-part MDL.

    The Fisher matrix F is its diagonal, if that was observed (OBD); else, for a layer, the Gram matrix of its inputs
    times the squared gradient of each output (K-FAC; Martens & Grosse 2015).

    Raises:
        MismatchError: neither FISHER nor GRAM and SENSITIVITY of the tensor were observed.
    """
    del weight
    bits = evidence.n * BITS_PER_NAT / 2
    if name in evidence.found.get(GRAM, {}) and FISHER not in evidence.found:
        sensitivity = evidence.of(SENSITIVITY, name).double()
        floor = 1e-6 * sensitivity.mean() + 1e-300  # dead outputs
        return Curvature(bits * (sensitivity + floor), evidence.damped(name), form=evidence.form(name))
    fisher = evidence.of(FISHER, name).double()
    return Curvature(bits, diagonal=fisher + 1e-6 * fisher.mean() + 1e-300)


def layer_error(name: str, weight: Tensor, evidence: Evidence = NO_EVIDENCE) -> Curvature:
    """‖(W − Ŵ)X‖² / ‖WX‖²: a layer's squared error, relative to its output, on the examples that were observed.

    For tensors without a Gram matrix it is ‖w − ŵ‖² / ‖w‖², and `OF_CHANNELS` times as much for those of one dimension.
    Tables whose rows are looked up count as often as `Evidence.counts` says.
    """
    if name not in evidence.found.get(GRAM, {}):
        scale = OF_CHANNELS if weight.ndim < 2 else evidence.counts(name)
        return Curvature(scale / max(float(weight.double().square().sum()), 1e-300))
    gram, rows = evidence.damped(name), evidence.rows(name, weight.double())
    output = max(float(((rows @ gram) * rows).sum()), 1e-300)
    return Curvature(evidence.counts(name) / output, gram, form=evidence.form(name))


def price_at(loss: float, n_weights: int) -> float:
    """The price at which weights on fine grids keep about this loss: each keeps 1 / (2·ln 2·price) of it."""
    return n_weights * BITS_PER_NAT / 2 / loss


@dataclass(frozen=True)
class RateLoss(Quantizer):
    """A quantiser that spends a bit only where it saves more loss than its price.

    Attributes:
        price: bits that a unit of loss is worth. Higher values give longer files and lower loss; `price_at` has the
            price of a stated loss. With `layer_error`, a layer of n weights keeps a relative error of √(0.7·n/price).
        loss: `squared_error`, `data_bits`, `layer_error`, or a function like them.
        evidence: the statistics that the loss needs; see `laconic.model.observe`.
    """

    price: float
    loss: Loss = layer_error
    evidence: Evidence = NO_EVIDENCE

    def __post_init__(self) -> None:
        if not 0 < self.price < math.inf:
            raise ValueError(f"price: expected above 0 and finite, got {self.price}")

    def __repr__(self) -> str:  # the same in every process: interrupted files are resumed by it
        loss = getattr(self.loss, "__qualname__", repr(self.loss))
        return f"RateLoss({self.price!r}, {loss}, evidence.n={self.evidence.n})"

    @override
    def per_tensor(self, tensors: Mapping[str, Tensor]) -> dict[str, _Rounding]:
        return {name: _Rounding(name, self) for name in tensors}


@dataclass(frozen=True)
class _Rounding(Rounder):
    name: str
    quantizer: RateLoss

    @override
    def rounded(self, tensor: Tensor) -> Rounded | None:
        weight = tensor.detach().cpu()
        if not float(weight.abs().max()) > 0:
            return Rounded(np.zeros(weight.numel(), np.int32), PerTensorScale(1.0))
        curvature = self.quantizer.loss(self.name, weight, self.quantizer.evidence)
        rows, factors, costs = _whitened(self.name, weight, curvature, self.quantizer.price)
        scale = as_scale(math.sqrt(6 * BITS_PER_NAT / costs.mean()))
        if scale == 0 or float(weight.abs().max()) / scale > MAX_Q:
            return None
        q = _round(rows, factors, costs, scale, None)
        # Prices are by the tensor's own rows, or by those of its inputs where they are others.
        n_rows = q.shape[0] * q.shape[1]
        as_stored = factors is None or (curvature.form == PLAIN and n_rows == len(weight))
        model, _ = fit(q.ravel(), Layout.of(weight.shape if as_stored else (n_rows, q.shape[2])))
        q = _round(rows, factors, costs, scale, model)
        if factors is not None:
            q = curvature.form.weight(torch.from_numpy(q), weight.shape).numpy()
        largest = min(torch.finfo(tensor.dtype).max / scale, MAX_Q)
        return Rounded(np.clip(q.ravel(), -largest, largest).astype(np.int32), PerTensorScale(scale))


def _whitened(name: str, weight: Tensor, curvature: Curvature, price: float) -> tuple[F64, F64 | None, F64]:
    """The rows (groups, rows, d), U (groups, d, d) if there is one, and the bits a unit of each squared error costs.

    Costs are those that remain once later weights have compensated. MismatchError if shapes differ.
    """
    if curvature.gram is not None:
        return _whitened_by_gram(name, weight, curvature, price)
    n_rows = len(weight) if weight.ndim > 1 else 1
    scale = price * torch.as_tensor(curvature.scale, dtype=torch.float64).cpu().reshape(-1, 1)
    if len(scale) not in (1, n_rows):
        raise MismatchError(f"{name}: curvature has {len(scale)} rows, tensor is {tuple(weight.shape)}")
    rows = weight.double().reshape(1, n_rows, -1)
    diagonal = torch.ones_like(rows) if curvature.diagonal is None else curvature.diagonal.double()
    if diagonal.numel() != rows.numel():
        raise MismatchError(f"{name}: curvature is {tuple(diagonal.shape)}, tensor is {tuple(weight.shape)}")
    return rows.numpy(), None, (scale * diagonal.cpu().reshape(rows.shape)).numpy()


def _whitened_by_gram(name: str, weight: Tensor, curvature: Curvature, price: float) -> tuple[F64, F64, F64]:
    gram, form = curvature.gram, curvature.form
    assert gram is not None
    groups, d, _ = gram.shape
    width, n_groups = form.width or d, groups // form.n_blocks(d)
    n_rows = weight.numel() // width
    if weight.numel() % width or n_rows % n_groups:
        raise MismatchError(f"{name}: curvature is {(groups, d, d)}, tensor is {tuple(weight.shape)}")
    scale = price * torch.as_tensor(curvature.scale, dtype=torch.float64).cpu().reshape(-1)
    if len(scale) not in (1, n_rows):
        raise MismatchError(f"{name}: curvature has {len(scale)} rows, tensor is {tuple(weight.shape)}")
    upper, rows = _factor(gram), form.rows(weight.double(), groups, d)
    costs = form.per_row(scale.expand(n_rows), groups, d) / upper.diagonal(dim1=1, dim2=2).square()[:, None]
    return rows.contiguous().numpy(), upper.numpy(), costs.contiguous().numpy()


_FACTORS = WeakTensorKeyDictionary()  # a Gram matrix is factorised once, however often a network is rounded


def _factor(gram: Float[Tensor, "groups d d"]) -> Float[Tensor, "groups d d"]:
    """U, the upper Cholesky factor of the inverse."""
    if gram not in _FACTORS:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram.cpu().double()))
        _FACTORS[gram] = torch.linalg.cholesky(inverse, upper=True)
    return _FACTORS[gram]


def _round(rows: F64, factors: F64 | None, costs: F64, scale: float, model: StaticModel | None) -> I32:
    """Integers like `rows`: the nearest, or at the model's prices."""
    groups, n_rows, _ = rows.shape
    classes, lo, prices, drop = np.zeros((groups, n_rows), np.uint8), 0, np.zeros((1, 1)), ALL_COLUMNS_ALIKE
    if model:
        classes, lo, prices = model.row_class.reshape(groups, n_rows), model.lo, model.symbol_bits()
        drop = model.column_drop
    q = np.empty(rows.shape, np.int32)
    for g in range(groups):
        factor = np.zeros((0, 0)) if factors is None else factors[g]
        _round_rows(rows[g].copy(), factor, costs[g], scale, (prices, lo, classes[g], drop), q[g])
    return q


@kernel
def _round_rows(rows: F64, factor: F64, costs: F64, scale: float, model: tuple[F64, int, U8, U8], q: I32) -> None:
    """Fill `q`; the rows are overwritten. The model: prices (classes, symbols), first integer, classes, drops."""
    prices, lo, row_class, drop = model
    width = prices.shape[1] - 1
    for row in range(rows.shape[0]):
        values = rows[row]
        price = prices[row_class[row]]
        for column in range(rows.shape[1]):
            if drop.size:
                price = prices[max(np.int64(row_class[row]) - drop[column], 0)]
            x = min(max(values[column] / scale, -2147483646.0), 2147483646.0)
            nearest = np.rint(x)
            best, best_bits = nearest, np.inf
            for candidate in (nearest, nearest - np.sign(nearest), 0.0):
                symbol = np.int64(candidate) - lo
                bits = price[symbol if 0 <= symbol < width else width]
                bits += costs[row, column] * (x - candidate) ** 2 * scale * scale
                if bits < best_bits:
                    best, best_bits = candidate, bits
            q[row, column] = np.int32(best)
            if factor.size:
                error = (values[column] - best * scale) / factor[column, column]
                for later in range(column + 1, rows.shape[1]):
                    values[later] -= error * factor[column, later]
