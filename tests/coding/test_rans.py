import numpy as np
import pytest

from laconic.coding import rans
from laconic.coding.symbol_models import ALL_COLUMNS_ALIKE


def coded(lanes, n=3000, n_rows=30, precision=12):
    rng = np.random.default_rng(lanes)
    frequencies = np.ones((2, 17), np.int64)
    frequencies[0, 8] += (1 << precision) - 17
    frequencies[1, 3:11] += ((1 << precision) - 17) // 8
    frequencies[1, 0] += (1 << precision) - frequencies[1].sum()
    row_class = rng.integers(0, 2, n_rows).astype(np.uint8)
    shares = frequencies / frequencies.sum(1, keepdims=True)
    symbols = np.concatenate([rng.choice(17, n // n_rows, p=shares[c]) for c in row_class])
    return symbols.astype(np.uint16), row_class, frequencies, precision


@pytest.mark.parametrize("lanes", range(9))
def test_decodes_what_it_encoded_close_to_the_ideal(lanes):
    symbols, row_class, frequencies, precision = coded(lanes)
    classes = (row_class, ALL_COLUMNS_ALIKE)
    states, words = rans.encode(symbols, classes, frequencies, lanes, precision)
    out = np.empty_like(symbols)
    slots = rans.unfold(frequencies, precision)
    assert rans.decode(states.copy(), words, classes, slots, out)
    assert (out == symbols).all()
    n_columns = symbols.size // row_class.size
    ideal = -np.log2(frequencies[row_class.repeat(n_columns), symbols] / 2**precision).sum()
    assert 16 * words.size <= ideal + 1 <= 16 * words.size + 16 * 2**lanes + 1


def test_columns_lower_the_class_to_the_first_at_most():
    symbols, _, frequencies, precision = coded(1)
    drop = np.array([0, 1, 3], np.uint8)
    classes = (np.ones(symbols.size // 3, np.uint8), drop)
    states, words = rans.encode(symbols, classes, frequencies, 1, precision)
    slots, out = rans.unfold(frequencies, precision), np.empty_like(symbols)
    assert rans.decode(states.copy(), words, classes, slots, out)
    assert (out == symbols).all()
    alike = (classes[0], np.ones(3, np.uint8))  # would read the first column from the wrong table
    assert not rans.decode(states.copy(), words, alike, slots, out)


def test_missing_extra_and_changed_words_are_noticed():
    symbols, row_class, frequencies, precision = coded(2)
    classes = (row_class, ALL_COLUMNS_ALIKE)
    states, words = rans.encode(symbols, classes, frequencies, 2, precision)
    slots = rans.unfold(frequencies, precision)
    out = np.empty_like(symbols)
    for damaged in (words[:-1], np.append(words, np.uint16(7)), words[::-1].copy()):
        assert not rans.decode(states.copy(), damaged, classes, slots, out)
