import numpy as np
import pytest

from laconic.coding import rans
from laconic.coding.static_model import ALL_COLUMNS_ALIKE

PRECISION = 12


def tables(top):
    """One table nearly certain of a symbol of frequency `top`, one broad, one of two symbols."""
    frequencies = np.zeros((3, 40), np.int64)
    rest = (1 << PRECISION) - top
    frequencies[0, [7, 3, 39]] = top, rest - rest // 2, rest // 2
    frequencies[1] = (1 << PRECISION) // 40
    frequencies[1, 0] += (1 << PRECISION) - frequencies[1].sum()
    frequencies[2, [7, 8]] = 1, (1 << PRECISION) - 1
    return frequencies


def drawn(top, n_rows=25, n=4000, lo=-7, column_drop=ALL_COLUMNS_ALIKE):
    """Integers from `lo` on under `tables(top)`, their classes and the frequencies."""
    rng = np.random.default_rng(top)
    frequencies = tables(top)
    row_class = (np.arange(n_rows) % 3).astype(np.uint8)
    drop = column_drop if column_drop.size else np.zeros(n // n_rows)
    table = np.maximum(row_class[:, None] - drop.astype(int), 0).ravel()
    shares = np.cumsum(frequencies, axis=1)[table] / (1 << PRECISION)
    symbols = (rng.random(n)[:, None] >= shares).sum(1)
    return (symbols + lo).astype(np.int32), (row_class, column_drop), frequencies, table


def encoded_by_division(symbols, table, frequencies, n_lanes):
    """The definition, in plain integers."""
    starts = np.cumsum(frequencies, axis=1) - frequencies
    states, words = [1 << 16] * n_lanes, []
    for i in range(len(symbols) - 1, -1, -1):
        f, start = (int(of[table[i], symbols[i]]) for of in (frequencies, starts))
        x = states[i % n_lanes]
        if x >= f << (32 - PRECISION):
            words.append(x & 0xFFFF)
            x >>= 16
        states[i % n_lanes] = (x // f << PRECISION) + x % f + start
    return states, words[::-1]


def encode_lanes(values, *of):
    return rans.encode_lanes(values, *of, np.empty(values.size + 1, np.uint16))


DROP = np.array([0, 1, 3, 0, 2], np.uint8)


@pytest.mark.parametrize("drop", [ALL_COLUMNS_ALIKE, np.tile(DROP, 32)], ids=["alike", "drops"])
@pytest.mark.parametrize("log2_lanes", range(9))
def test_states_and_words_are_those_of_the_definition_and_are_read_back(log2_lanes, drop):
    values, classes, frequencies, table = drawn(3000, column_drop=drop)
    reciprocals = rans.reciprocals(frequencies, PRECISION)
    states, words = encode_lanes(values, -7, classes, reciprocals, log2_lanes)
    expected = encoded_by_division(values + 7, table, frequencies, 1 << log2_lanes)
    assert states.tolist() == expected[0]
    assert words.tolist() == expected[1]
    out = np.empty_like(values)
    assert rans.decode(states, words, classes, rans.unfold(frequencies, PRECISION), -7, out)
    assert (out == values).all()


@pytest.mark.parametrize("top", [1, 2, 3, 1000, 2048, 2049, 3000, 4063, 4090, 4095, 4096])
@pytest.mark.parametrize("n_rows", [1, 25, 800])
def test_any_frequency_in_rows_of_any_length(top, n_rows):
    values, classes, frequencies, table = drawn(top, n_rows, lo=0)
    values = values.astype(np.uint8)
    tables_of_slots, out = rans.unfold(frequencies, PRECISION), np.empty_like(values)
    reciprocals = rans.reciprocals(frequencies, PRECISION)
    for log2_lanes in (0, 3):
        states, words = encode_lanes(values, 0, classes, reciprocals, log2_lanes)
        assert (states.tolist(), words.tolist()) == encoded_by_division(values, table, frequencies, 1 << log2_lanes)
        assert rans.decode(states, words, classes, tables_of_slots, 0, out)
        assert (out == values).all()
        damages = [np.append(words, np.uint16(7))]
        damages += [words[:-1], words[::-1].copy()] if words.size > 1 else []
        for damaged in damages:
            assert not rans.decode(states, damaged, classes, tables_of_slots, 0, out)


def test_as_many_lanes_as_keep_their_states_below_a_thousandth():
    few, many = (rans.encode(*_plain(drawn(1000, n=n))) for n in (25_000, 200_000))
    assert few[0] == 0 and few[2].nbytes < rans.MIN_LANE_BYTES
    assert many[0] == 3 and 1000 * many[1].size * 4 <= many[2].nbytes


def _plain(of):
    values, classes, frequencies, _ = of
    return values, -7, classes, frequencies, PRECISION


def test_values_outside_the_tables_are_their_last_symbol():
    frequencies = np.array([[2048, 1024, 1024]])
    classes = (np.zeros(1, np.uint8), ALL_COLUMNS_ALIKE)
    values = np.array([5, 6, 7, 4, -(2**31), 2**31 - 1], np.int32)
    _, states, words = rans.encode(values, 5, classes, frequencies, PRECISION)
    out = np.empty_like(values)
    assert rans.decode(states, words, classes, rans.unfold(frequencies, PRECISION), 5, out)
    assert out.tolist() == [5, 6, 7, 7, 7, 7]


def test_a_wrong_class_is_noticed():
    values, classes, frequencies, _ = drawn(3000, column_drop=np.tile(DROP, 32))
    _, states, words = rans.encode(values, -7, classes, frequencies, PRECISION)
    alike = (classes[0], ALL_COLUMNS_ALIKE)
    out = np.empty_like(values)
    assert not rans.decode(states, words, alike, rans.unfold(frequencies, PRECISION), -7, out)


@pytest.mark.parametrize("precision", [8, 12, 15])
def test_reciprocals_divide_every_state(precision):
    rng = np.random.default_rng(0)
    for f in np.unique(np.concatenate([np.arange(1, 300), rng.integers(2, 1 << precision, 500), [1 << precision]])):
        if f > 1 << precision:
            continue
        frequencies = np.array([[f, (1 << precision) - f]], np.int64)
        top, reciprocal, rest, last = rans.reciprocals(frequencies, precision)[0, 0].tolist()
        assert (top, rest, last >> 6) == (int(f) << (32 - precision), (1 << precision) - f, 0)
        near = [q * int(f) + r for q in (0, 1, top // int(f) - 1) for r in (0, 1, int(f) - 1)]
        for x in [*near, *map(int, rng.integers(0, top, 20))]:
            assert x * reciprocal < 1 << 64
            assert x * reciprocal >> (last & 63) == x // f
