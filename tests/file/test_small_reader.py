"""The page as a specification: a reader written from it alone agrees with Laconic's."""

import ast
import math
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import laconic
from laconic.codec.spec import DTYPES, GRID_DTYPES
from laconic.coding import adaptive, stream
from laconic.coding.bitio import Cursor, varint
from laconic.coding.layout import Layout
from laconic.coding.prediction import Predictor
from laconic.coding.static_model import ALL_COLUMNS_ALIKE, Levels, StaticModel
from laconic.errors import LaconicError
from tests.coding.test_static_model import formulas
from tests.file import small_bytes, small_planes, small_reader, small_streams
from tests.file.small_reader import Refused
from tests.file.test_golden import CASES, CUT, DELTAS, FOLDER, PARENT, written_adaptively, written_statically
from tests.file.test_hostile import CRAFTED, LEGENDS, PLANS, STREAMS
from tests.fuzz import surgeon

GOLDEN = sorted(FOLDER.glob("*.lac"))
N_MUTANTS = 400
LIMIT = 1 << 16  # bytes that a mutant may decode to


def bits(tensor):
    """What the small reader gives for a tensor."""
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), raw


def by_laconic(path, **limit):
    return {name: bits(tensor) for name, tensor in laconic.load(path, **limit).items()}


def test_it_imports_nothing_but_the_standard_library():
    names = set()
    for module in (small_reader, small_planes, small_streams, small_bytes):
        tree = ast.parse(Path(module.__file__).read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names |= {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names | {"tests.file", "tests.file.small_streams", "tests.file.small_bytes"}


def test_the_page_lists_the_logistic_function_that_is_computed():
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    listed = [int(g) for g in re.search(r"k = 0 … 96:\s*`([\d,\s]+)`", page)[1].split(",")]
    assert listed == small_streams.G == adaptive.LOGISTIC.tolist()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files(path):
    if not path.stem.startswith("delta"):
        assert small_reader.read(path.read_bytes()) == by_laconic(path)
        return
    parent = {name: bits(tensor) for name, tensor in PARENT.items()}
    assert small_reader.read(path.read_bytes(), parent=parent) == by_laconic(path, base=PARENT)
    for other in (None, {}, parent | {"f": parent["d"]}):
        with pytest.raises(Refused, match="parent"):
            small_reader.read(path.read_bytes(), parent=other)


def test_the_golden_files_are_all_here():
    assert {path.stem for path in GOLDEN} == {*CASES, *DELTAS, "delta-grid"}


def test_the_golden_plan():
    data = (FOLDER / "plan.lac").read_bytes()
    stored = small_reader.plan(data)
    assert stored is not None
    sets, settings, left_out = stored
    names = [entry.name for entry in small_reader.directory(data)]
    kept, shapes = {}, {}
    for n, positions, places in sets:
        for i, axis in places:
            kept.setdefault(names[i], {})[axis] = positions
            shapes.setdefault(names[i], {})[axis] = n
    assert kept == {name: {a: k.tolist() for a, k in axes.items()} for name, axes in CUT.kept.items()}
    assert all(CUT.shapes[name][axis] == n for name, axes in shapes.items() for axis, n in axes.items())
    assert settings == {".".join(filter(None, key)): value for key, value in CUT.settings.items()}
    assert left_out == CUT.bypassed
    assert small_reader.plan((FOLDER / "tied.lac").read_bytes()) is None


def test_one_tensor_of_several():
    data = (FOLDER / "types.lac").read_bytes()
    assert list(small_reader.read(data, ["d"])) == ["d"]


KINDS = {
    "normal": lambda n: torch.randn(n, dtype=torch.float64),
    "sparse": lambda n: torch.randn(n, dtype=torch.float64) * (torch.rand(n) < 0.1),
    "outliers": lambda n: torch.randn(n, dtype=torch.float64) ** 9,
    "tiny": lambda n: torch.randn(n, dtype=torch.float64) * 2.0**-24,
}


@given(
    shape=st.lists(st.integers(0, 12), max_size=3),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(list(KINDS)),
    error=st.sampled_from([0.5, 0.05, 1e-4]),
    seed=st.integers(0, 99),
)
def test_files_of_any_kind(tmp_path_factory, shape, dtype, kind, error, seed):
    torch.manual_seed(seed)
    n = int(torch.tensor(shape).prod())
    values = KINDS[kind](n)
    quantizer = laconic.quantization.Grid(error) if dtype in GRID_DTYPES else None
    tensors = {"w": values.to(dtype).reshape(shape), "w.raw": torch.randint(0, 2, (n,), dtype=torch.uint8)}
    path = tmp_path_factory.mktemp("f") / "t.lac"
    laconic.save(tensors, path, quantizer, include=["w"] if quantizer else None)
    assert small_reader.read(path.read_bytes()) == by_laconic(path)


WRITERS = {"chosen": stream.write, "static": written_statically, "adaptive": written_adaptively}
INT32 = st.integers(-(2**31), 2**31 - 1)


@st.composite
def matrices(draw, elements, least_rows=1, most_kernels=4):
    """Integers in rows of whole kernels, and the shape of these."""
    kernel = draw(st.sampled_from([(), (), (4,), (4, 5), (5, 4), (2, 1)]))
    n_columns = math.prod(kernel) * draw(st.integers(1, most_kernels))
    n_rows = draw(st.integers(least_rows, least_rows + 20))
    return draw(hnp.arrays(np.int32, (n_rows, n_columns), elements=elements)), kernel


def agree(data, q, kernel):
    """Both readers find `q` in a stream."""
    assert (stream.read(Cursor(data, "here"), Layout(*q.shape, kernel)) == q.ravel()).all()
    source = small_bytes.Bytes(data)
    assert small_streams.integers(source, small_streams.Layout(q.size, len(q), kernel)) == q.ravel().tolist()
    assert not source.rest()


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@given(matrix=matrices(st.one_of(st.integers(-3, 3), st.integers(-3000, 3000), INT32)))
def test_streams_of_any_kind(write, matrix):
    q, kernel = matrix
    agree(write(q.ravel(), Layout(*q.shape, kernel)), q, kernel)


@given(
    matrix=matrices(st.integers(-(2**19), 2**19), least_rows=21, most_kernels=1),
    shift=st.integers(0, 10),
    seed=st.integers(0, 99),
    residuals=st.sampled_from([written_adaptively, written_statically]),
)
def test_predicted_streams(matrix, shift, seed, residuals):
    q, kernel = matrix
    q = q if kernel else q.repeat(2, axis=1)  # two columns at least
    m = math.prod(kernel) if kernel else q.shape[1]
    lines = q.reshape(-1, m)
    coefficients = np.random.default_rng(seed).integers(-60, 61, (m, m + 1))
    coefficients[:, 1:] = np.tril(coefficients[:, 1:], -1)
    found = Predictor(shift, coefficients)
    inner = stream.write(found.flat, Layout(1, found.flat.size))
    head = bytes([stream.PREDICTED, shift]) + varint(len(inner)) + inner
    agree(head + residuals(found.residuals(lines).ravel(), Layout(*q.shape, kernel)), q, kernel)


@st.composite
def static_models(draw, tables, n_rows, n_columns):
    n_classes = draw(st.integers(1, 5))
    labels = st.integers(0, n_classes - 1)
    rows = draw(hnp.arrays(np.uint8, n_rows, elements=labels))
    drops = draw(hnp.arrays(np.uint8, n_columns, elements=labels)) if n_classes > 1 else ALL_COLUMNS_ALIKE
    if draw(st.booleans()):
        drops = ALL_COLUMNS_ALIKE
    table = draw(tables(n_classes))
    return StaticModel(draw(st.integers(-60, 40)), 30, table, draw(st.integers(10, 15)), rows, drops)


TABLES = {
    "formula": lambda n: formulas(n_classes=n),
    "levels": lambda n: st.sampled_from([1, 2, 4, 8]).flatmap(
        lambda r: hnp.arrays(np.int64, (n, 31), elements=st.integers(1, 6 * r + 1)).map(lambda x: Levels(x, r))
    ),
}


@pytest.mark.parametrize("tables", TABLES.values(), ids=TABLES)
@settings(max_examples=40)
@given(data=st.data())
def test_static_streams_under_any_tables(tables, data):
    q, kernel = data.draw(matrices(st.one_of(st.integers(-60, 70), INT32)))
    model = data.draw(static_models(tables, *q.shape))
    if not model.frequencies[:, -1].all():  # nothing may escape
        q = q.clip(model.lo, model.lo + model.width - 1)
    agree(stream.write_under(model, q.ravel()), q, kernel)


def change(rng):
    """Mutations of a few bytes."""

    def changed(part):
        part = bytearray(part)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = min(rng.randrange(len(part) + 1), rng.randrange(64))
            part[at : at + rng.randint(0, 2)] = rng.choice([b"", b"\0", b"\xff", rng.randbytes(1), rng.randbytes(2)])
        return bytes(part)

    return changed


def test_mutants_are_refused_by_both_or_by_neither(tmp_path):
    rng, path = random.Random(0), tmp_path / "mutant.lac"
    seeds = [file.read_bytes() for file in GOLDEN if file.stat().st_size < 2000]
    outcomes = []
    for i in range(N_MUTANTS):
        mutant = surgeon.mutated(seeds[i % len(seeds)], change(rng), rng)
        path.write_bytes(mutant)
        try:
            theirs = by_laconic(path, limit=LIMIT)
            with laconic.file.Reader(path) as reader:
                assert reader.plan is None or reader.plan
        except LaconicError as refusal:
            theirs = refusal
        try:
            ours = small_reader.read(mutant, most_bytes=LIMIT)
            small_reader.plan(mutant)
        except Refused as refusal:
            ours = refusal
        refused = isinstance(ours, Refused), isinstance(theirs, LaconicError)
        assert refused in {(True, True), (False, False)}, (i, ours, theirs)
        assert refused[0] or ours == theirs
        outcomes.append(refused[0])
    assert min(outcomes.count(True), outcomes.count(False)) > N_MUTANTS // 20


@pytest.mark.parametrize("name", [*CRAFTED, *PLANS, *STREAMS, *LEGENDS])
def test_crafted_files_are_refused(name):
    data, *_ = CRAFTED.get(name) or PLANS.get(name) or STREAMS.get(name) or LEGENDS[name]
    with pytest.raises(Refused):
        small_reader.read(data)
        small_reader.plan(data)
