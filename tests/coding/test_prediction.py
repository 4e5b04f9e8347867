import numpy as np
import pytest

from laconic.coding import stream
from laconic.coding.bitio import Cursor, varint
from laconic.coding.layout import Layout
from laconic.coding.prediction import MAX_COLUMNS, Predictor, predictor
from laconic.errors import FormatError
from tests.support.layouts import in_rows


def correlated(n_rows=3000, n_columns=24, scale=20.0, seed=0):
    """Columns that share three factors, and an offset."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 2, (n_rows, 3)) @ rng.normal(0, 1, (3, n_columns))
    columns = np.linspace(-2, 2, n_columns)
    return np.rint(scale * (shared + rng.normal(0, 1, (n_rows, n_columns)) + columns)).astype(np.int32)


def some_predictor(n_columns, shift=4, seed=0):
    rng = np.random.default_rng(seed)
    coefficients = rng.integers(-30, 30, (n_columns, n_columns + 1))
    coefficients[:, 1:] = np.tril(coefficients[:, 1:], -1)
    return Predictor(shift, coefficients)


@pytest.mark.parametrize("shape", [(1, 2), (7, 1), (5, 16), (1025, 17), (40, 130)])
@pytest.mark.parametrize("shift", [0, 3, 10])
def test_integers_come_back_from_residuals(shape, shift):
    q = np.random.default_rng(1).integers(-1000, 1000, shape).astype(np.int32)
    found = some_predictor(shape[1], shift)
    assert (found.integers(found.residuals(q)) == q).all()
    again = Predictor.from_flat(shift, shape[1], found.flat)
    assert (again.coefficients == found.coefficients).all()


def test_residuals_are_what_the_formula_says():
    q = np.array([[5, -3, 8]], np.int32)
    found = Predictor(2, np.array([[3, 0, 0, 0], [-1, 2, 0, 0], [0, -3, 5, 0]]))
    predicted = [(3 + 2) // 4, (-1 + 2 * 5 + 2) // 4, (-3 * 5 + 5 * -3 + 2) // 4]
    assert found.residuals(q).tolist() == [[5 - predicted[0], -3 - predicted[1], 8 - predicted[2]]]


def test_residuals_of_more_than_32_bits_are_not_coded(monkeypatch):
    """Coefficients are found from some of the rows, and may suit others badly."""
    wild = some_predictor(5, shift=0)
    wild.coefficients[4, 1:5] = 2047
    q = np.zeros((20, 5), np.int32)
    q[13] = [2**20 - 1, 2**20 - 1, 2**20 - 1, 0, 0]
    assert wild.residuals(q) is None
    monkeypatch.setattr(stream, "predictor", lambda _: wild)
    assert (stream.read(Cursor(stream.write(q.ravel(), in_rows(100, 20)), "here"), in_rows(100, 20)) == q.ravel()).all()


def test_correlated_columns_are_coded_shorter_and_others_as_before():
    q = correlated()
    data = stream.write(q.ravel(), Layout(*q.shape))
    assert stream.symbol_model(Cursor(data, "here")).startswith("predicted")
    assert (stream.read(Cursor(data, "here"), Layout(*q.shape)).reshape(q.shape) == q).all()
    shuffled = np.random.default_rng(2).permuted(q, axis=0)
    assert len(data) < 0.9 * len(stream.write(shuffled.ravel(), Layout(*q.shape)))
    parts = stream.measure(Cursor(data, "here"), Layout(*q.shape))
    assert parts["prediction"] > 0
    assert sum(parts.values()) == len(data)
    noise = np.random.default_rng(3).normal(0, 20, q.shape).astype(np.int32)
    assert predictor(noise) is None


def test_kernels_are_predicted_from_their_own_weights():
    kernels = correlated(600, 9).reshape(20, 30 * 9)
    data = stream.write(kernels.ravel(), in_rows(kernels.size, 20, (3, 3)))
    assert stream.symbol_model(Cursor(data, "here")).startswith("predicted")
    assert (stream.read(Cursor(data, "here"), in_rows(kernels.size, 20, (3, 3))) == kernels.ravel()).all()
    assert len(data) < len(stream.write(kernels.ravel(), in_rows(kernels.size, 20)))


@pytest.mark.parametrize("shape", [(3000, 1), (20, 24), (MAX_COLUMNS + 2, MAX_COLUMNS + 1)])
def test_shapes_that_are_not_predicted(shape):
    assert predictor(np.ones(shape, np.int32)) is None


def test_damaged_predictions_are_refused():
    q = correlated(200, 5)
    data = stream.write(q.ravel(), Layout(*q.shape))
    assert data[0] == stream.PREDICTED
    with pytest.raises(FormatError, match="shift"):
        stream.read(Cursor(data[:1] + b"\x0b" + data[2:], "here"), Layout(*q.shape))
    with pytest.raises(FormatError, match="columns"):
        stream.read(Cursor(data, "here"), Layout(q.size, 1))
    flat = some_predictor(5).flat
    flat[0] = 5000
    inner = stream.write(flat, Layout(1, flat.size))
    head = bytes([stream.PREDICTED, 4]) + varint(len(inner)) + inner
    with pytest.raises(FormatError, match="coefficients of at most"):
        stream.read(Cursor(head + stream.write(q.ravel(), Layout(*q.shape)), "here"), Layout(*q.shape))
    flat[:5] = 2000  # predicts integers beyond 32 bits
    inner = stream.write(flat, Layout(1, flat.size))
    largest = stream.write(np.full(q.size, 2**31 - 1, np.int32), Layout(*q.shape))
    head = bytes([stream.PREDICTED, 0]) + varint(len(inner)) + inner
    with pytest.raises(FormatError, match="32 bits"):
        stream.read(Cursor(head + largest, "here"), Layout(*q.shape))
