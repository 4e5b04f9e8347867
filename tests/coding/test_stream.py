import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from laconic.coding import adaptive, stream
from laconic.coding.bitio import Cursor
from laconic.coding.layout import Layout
from laconic.errors import FormatError

INT32 = np.iinfo(np.int32)

matrices = hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.one_of(st.integers(-3, 3), st.integers(INT32.min, INT32.max)),
)


def write_adaptive(q, layout):
    return bytes([stream.ADAPTIVE]) + adaptive.encode(q, layout)


WRITERS = {"chosen": stream.write, "static": stream.write_static, "adaptive": write_adaptive}


def round_trip(matrix, write=stream.write):
    data = write(matrix.ravel(), Layout(*matrix.shape))
    back = stream.read(Cursor(data, "here"), Layout(*matrix.shape))
    assert (back == matrix.ravel()).all()
    assert sum(stream.measure(Cursor(data, "here"), Layout(*matrix.shape)).values()) == len(data)
    return data


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@given(matrix=matrices)
def test_any_integers_round_trip(write, matrix):
    round_trip(matrix, write)


def laplace(scale, shape, seed=0):
    return np.rint(np.random.default_rng(seed).laplace(0, scale, shape)).astype(np.int32)


def entropy_bytes(q):
    counts = np.unique(q, return_counts=True)[1]
    return -(counts * np.log2(counts / counts.sum())).sum() / 8


CASES = {
    "zeros": np.zeros((300, 500), np.int32),
    "constant far from zero": np.full((10, 50), 123_456, np.int32),
    "fine": laplace(300, (200, 300)),
    "coarse": laplace(0.3, (200, 300)),
    "outliers": np.where(laplace(1, (200, 300), 1) > 7, 2_000_000_000, laplace(2, (200, 300))),
    "rows of different scales": laplace(1, (256, 300)) * 2 ** (np.arange(256)[:, None] % 6),
    "dead rows": laplace(5, (256, 300)) * (np.arange(256)[:, None] % 4 == 0),
    "dead columns": laplace(5, (256, 300)) * (np.arange(300) % 4 == 0),
    "rows and columns": laplace(1, (256, 300)) * 2 ** (np.arange(256)[:, None] % 5) * 2 ** (np.arange(300) % 3),
    "one row": laplace(4, (1, 5000)),
    "one column": laplace(4, (5000, 1)),
    "extremes": np.array([[INT32.min, INT32.max, 0]], np.int32),
}


@pytest.mark.parametrize("name", CASES)
def test_round_trip_near_entropy(name):
    matrix = CASES[name].astype(np.int32)
    assert len(round_trip(matrix)) <= 1.03 * entropy_bytes(matrix) + 40


@pytest.mark.parametrize("name", ["rows of different scales", "dead rows", "dead columns", "rows and columns"])
def test_classes_beat_the_entropy_of_all_together(name):
    matrix = CASES[name].astype(np.int32)
    assert len(round_trip(matrix)) < 0.85 * entropy_bytes(matrix)


@pytest.mark.parametrize("name", ["coarse", "dead rows", "dead columns", "fine"])
def test_adaptive_streams_learn_rows_and_columns_by_themselves(name):
    matrix = CASES[name].astype(np.int32)
    share = 0.85 if name.startswith("dead") else 1.02
    assert len(round_trip(matrix, write_adaptive)) < share * entropy_bytes(matrix)


def test_the_shortest_is_chosen():
    chosen = {name: stream.symbol_model(Cursor(round_trip(q.astype(np.int32)), "here")) for name, q in CASES.items()}
    assert set(chosen.values()) == {"static", "adaptive"}
    for q in CASES.values():
        assert len(round_trip(q.astype(np.int32))) <= len(
            stream.write_static(q.astype(np.int32).ravel(), Layout(*np.atleast_2d(q).shape))
        )
    assert chosen["fine"] == "static"  # too long to be worth an adaptive model's time


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_truncation_and_extension_is_refused_or_other_integers(write):
    """Almost all bytes are an adaptive stream of some integers; a file's checksums tell them apart."""
    matrix = CASES["outliers"][:20].astype(np.int32)
    data = write(matrix.ravel(), Layout(*matrix.shape))
    refused = 0
    wrong = [*(data[:end] for end in range(len(data))), data + b"\0", data + b"\0\0"]
    for stream_of_others in wrong:
        try:
            found = stream.read(Cursor(stream_of_others, "here"), Layout(*matrix.shape))
        except FormatError:
            refused += 1
        else:
            assert write is write_adaptive and (found != matrix.ravel()).any()
    assert refused > 0.9 * len(wrong)


def test_nested_classes_of_classes_are_refused():
    rows = CASES["rows of different scales"].astype(np.int32)
    data = bytearray(stream.write_static(rows.ravel(), Layout(*rows.shape)))
    parts = stream.measure(Cursor(bytes(data), "here"), Layout(*rows.shape))
    assert parts["classes"] > 0
    data[parts["code header"] + parts["tables"]] |= 0x10  # the class stream claims two classes
    with pytest.raises(FormatError, match="header"):
        stream.read(Cursor(bytes(data), "here"), Layout(*rows.shape))


def test_overhead_of_a_small_tensor():
    sparse = np.zeros((100, 200), np.int32)
    where = np.random.default_rng(0).choice(20_000, 2000, replace=False)
    sparse.ravel()[where] = laplace(3, 2000)
    assert len(round_trip(sparse)) - entropy_bytes(sparse) <= 40


def sparse(n_rows, n_columns, density):
    """Laplacian integers; every third row and every second column are empty."""
    rng = np.random.default_rng(0)
    q = np.rint(rng.laplace(0, 3, (n_rows, n_columns))) * (rng.random((n_rows, n_columns)) < density)
    q[::3] = 0
    q[:, ::2] = 0
    return q.astype(np.int32)


def lengths(q):
    return np.frexp(np.abs(q.ravel()).astype(float))[1]


@pytest.mark.parametrize("shape", [(60, 80), (1500, 800)], ids=["adaptive", "static"])
def test_prices_add_up_to_the_stream(shape):
    q = sparse(*shape, 0.3)
    found = stream.prices(q.ravel(), Layout(*shape), 8)
    total = found.tables[found.index, lengths(q)].sum()
    coded = stream.write(q.ravel(), Layout(*shape))
    assert ("adaptive" in str(stream.symbol_model(Cursor(coded, "here")))) == (shape[0] == 60)
    assert total == pytest.approx(8 * len(coded), rel=0.03)


@pytest.mark.parametrize("shape", [(60, 80), (1500, 800)], ids=["adaptive", "static"])
def test_a_weight_costs_more_where_all_others_are_zero(shape):
    q = sparse(*shape, 0.3)
    bits = (found := stream.prices(q.ravel(), Layout(*shape), 8)).tables[found.index].reshape(*shape, 8)
    dead, alive = bits[3::3, 0::2], bits[1::3, 1::2]
    assert dead[..., 0].mean() < 0.2 < alive[..., 0].mean()
    assert dead[..., 1].mean() > alive[..., 1].mean() + 2
    assert (np.diff(bits[..., 2:5].mean((0, 1))) > 0.3).all()
