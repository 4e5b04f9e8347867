import numpy as np
import pytest

from laconic.coding import lanes, rans
from laconic.coding.symbol_models import ALL_COLUMNS_ALIKE


def coded(precision, top, n=4000, n_rows=25):
    """Symbols under two tables: one nearly certain of a symbol of frequency `top`, one broad."""
    rng = np.random.default_rng(top)
    sharp = np.zeros(40, np.int64)
    rest = (1 << precision) - top
    sharp[7], sharp[3], sharp[39] = top, rest - rest // 2, rest // 2
    broad = np.full(40, (1 << precision) // 40, np.int64)
    broad[0] += (1 << precision) - broad.sum()
    frequencies = np.stack([sharp, broad])
    row_class = (np.arange(n_rows) % 2).astype(np.uint8)
    shares = frequencies / frequencies.sum(1, keepdims=True)
    symbols = np.concatenate([rng.choice(40, n // n_rows, p=shares[c]) for c in row_class])
    return symbols.astype(np.uint8), row_class, frequencies


TOPS = [1, 2, 3, 1000, 2048, 2049, 3000, 4063, 4090, 4095, 4096]


@pytest.mark.parametrize("top", TOPS)
@pytest.mark.parametrize("n_rows", [1, 25, 800])
def test_the_lanes_write_what_rans_writes_and_read_it(top, n_rows):
    symbols, row_class, frequencies = coded(12, top)
    row_class = np.resize(row_class, n_rows)
    possible = frequencies[row_class.repeat(symbols.size // n_rows), symbols] > 0
    symbols = np.where(possible, symbols, 7).astype(np.uint8)
    states, words = rans.encode(symbols, (row_class, ALL_COLUMNS_ALIKE), frequencies, lanes.LOG2_LANES, 12)
    mine = lanes.encode(symbols, row_class, lanes.encoder_tables(frequencies, 12), 12)
    assert (mine[0] == states).all()
    assert (mine[1] == words).all()
    slots, out = rans.unfold(frequencies, 12), np.empty_like(symbols)
    assert lanes.decode(states, words, row_class, slots, out)
    assert (out == symbols).all()
    for damaged in [np.append(words, np.uint16(7)), *([words[:-1]] if words.size else [])]:
        assert not lanes.decode(states, damaged, row_class, slots, out)


@pytest.mark.parametrize("precision", [8, 12, 15])
def test_reciprocals_divide_every_state(precision):
    rng = np.random.default_rng(0)
    for f in np.unique(
        np.concatenate([np.arange(2, 300), rng.integers(2, 1 << precision, 500), [1 << precision]])
    ):
        if f > 1 << precision:
            continue
        frequencies = np.array([[f, (1 << precision) - f]], np.int64)
        packed = int(lanes.encoder_tables(frequencies, precision)[0, 0, 0])
        reciprocal, shift, down = packed & 0xFFFFFFFF, packed >> 32 & 31, packed >> 37 & 1
        top = int(f) << (32 - precision)
        near = [q * int(f) + r for q in (0, 1, top // int(f) - 1) for r in (0, 1, int(f) - 1)]
        for x in [*near, *map(int, rng.integers(0, top, 20))]:
            assert (x + down) * reciprocal < 1 << 64
            assert (x + down) * reciprocal >> 32 >> shift == x // f
