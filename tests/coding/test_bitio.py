import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.coding import bitio
from laconic.coding.bitio import Cursor
from laconic.errors import FormatError

naturals = st.lists(st.integers(0, 2**33), max_size=50).map(lambda v: np.array(v, np.int64))


@given(st.integers(0, 2**63 - 1))
def test_varints_round_trip_in_shortest_form(value):
    code = bitio.varint(value)
    assert len(code) == max(1, -(-value.bit_length() // 7))
    source = Cursor(code, "here")
    assert source.varint() == value
    assert not len(source)


@pytest.mark.parametrize("code", [b"", b"\x80", b"\x80\x00", b"\xff" * 9, b"\xff" * 9 + b"\x01"])
def test_bad_varints_are_named(code):
    with pytest.raises(FormatError, match="here"):
        Cursor(code, "here").varint()


@given(st.integers(-(2**40), 2**40))
def test_zigzag_inverts(value):
    assert bitio.unzigzag(bitio.zigzag(value)) == value
    assert bitio.zigzag(value) >= 0


@given(naturals, st.integers(0, 31))
def test_golomb_round_trips(values, order):
    n_bits = bitio.golomb_bits(values, order)
    out = np.zeros((n_bits + 7) // 8, np.uint8)
    bitio.write_golomb(values, order, out)
    back = np.empty_like(values)
    assert bitio.read_golomb(out, order, back) == n_bits
    assert (back == values).all()
    if out.size:
        assert bitio.read_golomb(out[:-1], order, back) == -1


@given(st.lists(st.integers(0, 300), max_size=50), st.integers(0, 7))
def test_rice_round_trips(values, order):
    values = np.array(values, np.int64)
    n_bits = bitio.rice_bits(values, order)
    out = np.zeros((n_bits + 7) // 8, np.uint8)
    bitio.write_rice(values, order, out)
    back = np.empty_like(values)
    assert bitio.read_rice(out, order, 300, back) == n_bits
    assert (back == values).all()
    if out.size:
        assert bitio.read_rice(out[:-1], order, 300, back) == -1


def test_endless_codes_stop():
    values = np.empty(1, np.int64)
    assert bitio.read_rice(np.full(10_000, 255, np.uint8), 0, 300, values) == -1
    assert bitio.read_golomb(np.zeros(10_000, np.uint8), 3, values) == -1
