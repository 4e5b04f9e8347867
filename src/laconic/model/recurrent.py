"""Recurrent layers step by step: the equations of PyTorch's fused LSTM, GRU and RNN, in products that can be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

_Step: TypeAlias = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


def _lstm(of_input: Tensor, of_hidden: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor | None]:
    assert cell is not None
    i, f, g, o = (of_input + of_hidden).chunk(4, -1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _gru(of_input: Tensor, of_hidden: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor | None]:
    assert hidden is not None
    (r, z, n), (r_h, z_h, n_h) = of_input.chunk(3, -1), of_hidden.chunk(3, -1)
    new = (n + (r + r_h).sigmoid() * n_h).tanh()
    z = (z + z_h).sigmoid()
    hidden = (1 - z) * new + z * hidden
    return hidden, hidden


def _rnn(activation: Callable[[Tensor], Tensor]) -> _Step:
    return lambda of_input, of_hidden, _: (activation(of_input + of_hidden), None)


_STEPS: dict[Any, _Step] = {
    torch.lstm: _lstm,
    torch.gru: _gru,
    torch.rnn_tanh: _rnn(torch.tanh),
    torch.rnn_relu: _rnn(torch.relu),
}
_CELLS: dict[Any, _Step] = {
    torch.lstm_cell: _lstm,
    torch.gru_cell: _gru,
    torch.rnn_tanh_cell: _rnn(torch.tanh),
    torch.rnn_relu_cell: _rnn(torch.relu),
}
RECURRENT = {*_STEPS, *_CELLS}


def unrolled(func: Any, args: Sequence[Any]) -> Callable[[], Any] | None:
    """What computes `func(*args)` step by step, in evaluation mode; None for packed sequences."""
    if func in _CELLS:
        return lambda: _cell(_CELLS[func], *args)
    if isinstance(args[3], (tuple, list)):  # the weights, where a packed sequence's batch sizes come before them
        return None
    return lambda: _layers(func, *args)


def _cell(step: _Step, x: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, *biases: Tensor) -> Any:
    hidden, cell = hx if isinstance(hx, (tuple, list)) else (hx, hx)
    b_ih, b_hh = biases or (None, None)
    hidden, cell = step(F.linear(x, w_ih, b_ih), F.linear(hidden, w_hh, b_hh), cell)
    return (hidden, cell) if step is _lstm else hidden


def _layers(  # noqa: PLR0913 – the arguments of PyTorch's function
    func: Any, x: Tensor, hx: Any, flat: Sequence[Tensor], biases: bool, n_layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool = False,
) -> tuple[Tensor, ...]:  # fmt: skip
    del dropout, train
    hidden, cells = hx if func is torch.lstm else (hx, hx)
    n_each = len(flat) // (n_layers * (1 + bidirectional))
    each: Iterator[int] = iter(range(0, len(flat), n_each))
    found = x.transpose(0, 1) if batch_first else x
    last: list[list[Any]] = []
    for _ in range(n_layers):
        directions = []
        for backward in range(1 + bidirectional):
            weights = flat[(at := next(each)) : at + n_each]
            state = hidden[at // n_each], cells[at // n_each]
            steps = found.flip(0) if backward else found
            outputs, *end = _direction(_STEPS[func], steps, state, weights, biases)
            directions.append(outputs.flip(0) if backward else outputs)
            last.append(end)
        found = torch.cat(directions, -1)
    ends = [torch.stack([h for h, _ in last])]
    if func is torch.lstm:
        ends.append(torch.stack([cell for _, cell in last]))
    return (found.transpose(0, 1) if batch_first else found, *ends)


def _direction(
    step: _Step, x: Tensor, state: tuple[Tensor, Tensor], weights: Sequence[Tensor], biases: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Outputs of all steps, and the last state."""
    w_ih, w_hh, *rest = weights
    b_ih, b_hh = rest[:2] if biases else (None, None)
    w_hr = rest[2 * biases] if len(rest) > 2 * biases else None
    of_inputs = F.linear(x, w_ih, b_ih)
    hidden, cell = state
    outputs = []
    for of_input in of_inputs:
        hidden, cell = step(of_input, F.linear(hidden, w_hh, b_hh), cell)
        hidden = hidden if w_hr is None else F.linear(hidden, w_hr)
        outputs.append(hidden)
        cell = hidden if cell is None else cell
    return torch.stack(outputs), hidden, cell
