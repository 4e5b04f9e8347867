"""Golden files: what version 1 wrote stays readable, and is still what is written.

To add a file: add its tensors to TENSORS, or its integers and who writes their stream to INTEGERS, run
`python tests/file/test_golden.py`, and commit what it wrote.
From the first release on, a file that is there never changes; the encoder may learn to write shorter ones,
under new names.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import laconic
from laconic.codec.tensor import Method, TensorSpec
from laconic.coding import adaptive, stream
from laconic.coding.bitio import Cursor, varint
from laconic.coding.layout import Layout
from laconic.coding.prediction import Predictor
from laconic.coding.static_model import ALL_COLUMNS_ALIKE, Formula, StaticModel
from laconic.file import container
from laconic.file.writer import drafted
from laconic.quantization import Codebook, FixedBits, Grid
from laconic.quantization.rounded import N_SCALE_BYTES
from laconic.surgery import Plan
from tests.support.files import plan_of

FOLDER = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]


def noise(*shape, scale=1.0, seed=1):
    """Heavy-tailed numbers that are the same everywhere: integer arithmetic, then one division."""
    state, out = seed, np.empty(int(np.prod(shape)), np.float64)
    for i in range(out.size):
        total = 0
        for _ in range(3):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            total += (state >> 40) - 2**23
        out[i] = total**3 / 2**69
    return torch.from_numpy(out.reshape(shape) * scale)


TIED = noise(6, 5).float()
KEPT = torch.tensor([0, 1, 3, 7, 8, 11])
CUT = Plan(
    {"a.weight": (12, 5), "c.weight": (9, 12, 7)},
    {"a.weight": {0: KEPT}, "c.weight": {1: KEPT, 2: torch.tensor([0, 2, 6])}},
    {("attention.self", "n_heads"): 3, ("attention.self", "width"): 96, ("", "n"): 1},
    {"layers.2": 0, "layers.3": 2},
)
SPARSE = noise(40, 30) * (noise(40, 30, seed=2) > 1)
ALIVE = (noise(40, 30, seed=2) > 0.1) & (noise(40, 1, seed=3) > -0.3) & (noise(1, 30, seed=4) > -0.3)
TENSORS = {
    "exact": ({"i": torch.arange(-3, 4), "t": torch.tensor([True, False]), "f": noise(3).float()}, None),
    "adaptive": ({"fc.weight": noise(20, 30).float(), "fc.bias": noise(20, seed=3).float()}, Grid(0.1)),
    "adaptive-sparse": ({"fc.weight": (noise(40, 30) * ALIVE).float()}, Grid(0.02)),
    "adaptive-kernels": ({"a": noise(6, 5, 3, 3).float(), "b": noise(5, 3, 7, 5).float()}, Grid(0.02)),
    "adaptive-types": ({"h": noise(9, 9).half(), "b": noise(9, 9).bfloat16(), "d": noise(9, 9)}, Grid(0.1)),
    "adaptive-shapes": ({"e": torch.zeros(0, 4), "s": torch.tensor(1.5), "z": torch.zeros(50, 60)}, Grid(0.1)),
    "adaptive-tied": ({"a.weight": TIED, "b.weight": TIED}, Grid(0.1)),
    "adaptive-plan": ({"a.weight": TIED, "b.weight": TIED, "c.weight": noise(9, 6, 3).float()}, Grid(0.1), CUT),
    "adaptive-codebook": (
        {
            "fc.weight": (noise(20, 30) * ALIVE[:20]).float(),
            "fc.bias": noise(20, seed=3).float(),
            "long.weight": noise(4, 60).float(),
            "long.bias": noise(90, seed=5).float(),
            "conv.weight": noise(6, 5, 3, 3).float(),
            "few.weight": torch.tensor([-0.5, -0.0, 0.25]).repeat(20).reshape(6, 10),
            "one.weight": torch.full((30, 4), 0.1),
            "h": noise(9, 19).half(),
            "b": noise(9, 19).bfloat16(),
            "d": noise(9, 19),
            "e": torch.zeros(0, 4),
        },
        Codebook(8),
    ),
    "fixed-bits": (
        {
            "fc.weight": (noise(20, 30) * 2.0 ** torch.arange(20)[:, None] * ALIVE[:20]).float(),
            "fc.bias": noise(20, seed=3).float(),
            "conv.weight": noise(6, 5, 3, 3).float(),
            "h": (noise(9, 9) * 300).half(),
            "b": noise(9, 9).bfloat16(),
            "d": noise(9, 9),
            "z": torch.zeros(5, 6),
        },
        FixedBits(4),
    ),
    "planes": (
        {
            "f": (noise(60, 50) * 2.0 ** (torch.arange(60) % 5)[:, None]).float(),
            "h": noise(40, 40).half(),
            "b": noise(300, 120, seed=4).bfloat16(),
            "d": noise(20, 33),
            "zeros": SPARSE.float(),
            "steps": torch.arange(300),
            "run": noise(1000, seed=5).float(),
            "same": torch.full((40, 40), 3, dtype=torch.int32),
            "e4": noise(40, 40, seed=6).to(torch.float8_e4m3fn),
            "e5": noise(40, 40, seed=7).to(torch.float8_e5m2),
            "flags": noise(40, 40, seed=8) > 1,
        },
        None,
    ),
}
PARENT = {
    "f": noise(60, 50).float(),
    "b": noise(40, 40).bfloat16(),
    "d": noise(20, 33),
    "e4": noise(40, 40).to(torch.float8_e4m3fn),
    "i": torch.arange(300),
    "same": noise(60, 50).half(),
}
CHILD = {
    name: (t.double() + noise(*t.shape, scale=0.01, seed=9)).to(t.dtype) if name != "same" else t
    for name, t in PARENT.items()
} | {"new": noise(5, 5).float(), "exact": noise(3).float()}
DELTAS = {"delta": (CHILD, None), "delta-adaptive": (CHILD, Grid(0.01))}  # from PARENT


def integers(*shape, scale=1.0, seed=1):
    """About normally distributed; `scale` may differ from row to row and from column to column."""
    return np.rint(scale * np.cbrt(noise(*shape, seed=seed).numpy())).astype(np.int32)


def correlated(n_lines, n_columns):
    """Lines, each around a number of its own."""
    return integers(n_lines, 1, scale=20, seed=7) + integers(n_lines, n_columns, scale=3)


def written_adaptively(q, layout):
    return bytes([stream.ADAPTIVE]) + adaptive.encode(q, layout)


def written_statically(q, layout):
    return stream.write_static(q, layout)


def by_formula(escape, drops):
    """A writer: rows alternate between two classes; all columns but each third drop by two, where `drops`."""

    def write(q, layout):
        rows, columns = 2 + np.arange(layout.n_rows) % 2, 2 * (np.arange(layout.n_columns) % 3 > 0)
        table = Formula(12, 40, 24, escape, np.array([-40, 0, 8, 16]))
        classes = rows.astype(np.uint8), columns.astype(np.uint8) if drops else ALL_COLUMNS_ALIKE
        return stream.write_under(StaticModel(-50, 100, table, 12, *classes), q)

    return write


def predicted(residuals):
    """A writer: each integer from the one before and half of the first; coefficients are static."""

    def write(q, layout):
        m = layout.n_predicting
        coefficients = 3 * np.eye(m, m + 1, dtype=np.int64)
        coefficients[:, 0] = 5 - np.arange(m)
        coefficients[1:, 1] += 4
        found = Predictor(3, np.concatenate([coefficients[:, :1], np.tril(coefficients[:, 1:], -1)], 1))
        inner = stream.write_static(found.flat, Layout(1, found.flat.size))
        head = bytes([stream.PREDICTED, found.shift]) + varint(len(inner)) + inner
        return head + residuals(found.residuals(q.reshape(-1, m)).ravel(), layout)

    return write


ROWS, COLUMNS = np.arange(60)[:, None], np.arange(40)
OUTLYING = np.where(integers(30, 40, seed=5) > 2, 2_000_000_000, integers(30, 40, scale=20))
INTEGERS = {
    "extremes": (written_adaptively, np.array([[-(2**31), 2**31 - 1, 0], [1, -(2**31), -1]], np.int32)),
    "dead-rows": (written_statically, integers(60, 40, scale=ROWS % 3)),
    "scaled-rows": (written_statically, integers(60, 40, scale=2.0 ** (ROWS % 6))),
    "column-drops": (written_statically, integers(60, 40, scale=(1 + ROWS % 2) * (COLUMNS % 2))),
    "formula": (written_statically, integers(30, 40, scale=20)),
    "formula-classes": (by_formula(escape=0, drops=False), integers(30, 40, scale=12)),
    "formula-drops": (by_formula(escape=0, drops=True), integers(20, 40, scale=12)),
    "formula-escapes": (by_formula(escape=150, drops=True), OUTLYING[:20]),
    "predicted": (stream.write, correlated(400, 6)),
    "predicted-kernels": (stream.write, correlated(240, 9).reshape(10, 24, 3, 3)),
    "predicted-static": (predicted(written_statically), correlated(100, 6)),
    "predicted-kernels-static": (predicted(written_statically), correlated(60, 4).reshape(6, 10, 4)),
    "predicted-adaptive": (predicted(written_adaptively), correlated(100, 6)),
}
# What earlier encoders wrote: decoded for good.
FIRST = (
    *("one-table", "sparse", "row-classes", "outliers", "types", "odd-shapes", "tied", "many-lanes", "plan"),
    *("row-classes-by-profile", "row-classes-by-scale", "planes-in-lanes"),
)
WRITTEN = (*TENSORS, *INTEGERS)
CASES = (*FIRST, *WRITTEN)


def write(name, path):
    if name in TENSORS:
        tensors, quantizer, *plan = TENSORS[name]
        laconic.save(tensors, path, quantizer, plan=next(iter(plan), None))
        return
    writer, q = INTEGERS[name]
    spec = TensorSpec("w", torch.float32, q.shape, Method.GRID)
    step = b"\x80\x3e"  # a quarter
    with drafted(path, None) as draft:
        draft.append(spec, [step + writer(q.ravel(), spec.layout)])
        draft.finish({})


def digest(tensors):
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def digests():
    return json.loads((FOLDER / "digests.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_golden_files_decode_to_the_same_bits(name):
    assert digest(laconic.load(FOLDER / f"{name}.lac")) == digests()[name]


@pytest.mark.parametrize("name", WRITTEN)
def test_golden_files_are_what_is_written(name, tmp_path):
    write(name, tmp_path / "new.lac")
    assert (tmp_path / "new.lac").read_bytes() == (FOLDER / f"{name}.lac").read_bytes()


def test_kernels_mean_the_same_without_numba(tmp_path):
    """As fuzzing runs them; there, sums of NumPy's narrow integers wrap."""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-W", "error", "-m", "tests.file.test_golden", tmp_path]
    run = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    assert json.loads(run.stdout) == {name: digests()[name] for name in CASES}
    for name in set(WRITTEN) - {"planes"}:
        assert (tmp_path / f"{name}.lac").read_bytes() == (FOLDER / f"{name}.lac").read_bytes()


@pytest.mark.parametrize("name", ["delta-grid", *DELTAS])
def test_golden_differences_decode_to_the_same_bits(name):
    assert digest(laconic.load(FOLDER / f"{name}.lac", base=PARENT)) == digests()[name]


@pytest.mark.parametrize("name", DELTAS)
def test_golden_differences_are_what_is_written(name, tmp_path):
    path = FOLDER / f"{name}.lac"
    tensors, quantizer = DELTAS[name]
    laconic.save(tensors, tmp_path / "new.lac", quantizer, base=PARENT)
    assert (tmp_path / "new.lac").read_bytes() == path.read_bytes()


def test_golden_planes_and_exact_differences_are_lossless():
    assert digests()["planes"] == digest(TENSORS["planes"][0])
    assert digests()["delta"] == digest(CHILD)


@pytest.mark.parametrize("name", ["plan", "adaptive-plan"])
def test_the_golden_plan_is_read(name):
    assert plan_of(FOLDER / f"{name}.lac") == CUT


def parts_of(name):
    return {part for part, n_bytes in laconic.describe(FOLDER / f"{name}.lac").by_part().items() if n_bytes}


def traits(name):
    """What the streams of a file are made of."""
    with container.Reader(FOLDER / f"{name}.lac") as reader:
        for entry in reader.entries.values():
            if entry.spec.method is Method.GRID and entry.spec.numel and not entry.tied_to:
                yield from stream_traits(entry.spec, Cursor(reader.chunk(entry)[N_SCALE_BYTES:], name))


def stream_traits(spec, source):
    kind = stream.symbol_model(Cursor(source.data, "here"))
    yield (kind, "rows" if spec.layout.n_rows > 1 else "one row", "kernels" if spec.layout.kernel else "no kernels")
    if kind.startswith("predicted"):
        yield "a shift" if source.take(2)[1] else "no shift"
        source.take(source.varint())
    if kind.endswith("static"):
        parts = stream.measure(Cursor(source.data[source.at :], "here"), spec.layout)
        lanes, shape = source.take(2)
        yield "lanes" if lanes & 15 else "one lane"
        classes = "drops" if shape & stream.BY_COLUMN else "classes" if lanes >> 4 else "one class"
        yield "formula" if shape & stream.BY_FORMULA else "levels", classes, parts["escapes"] > 0


def test_together_they_use_every_part_of_a_stream():
    parts = set().union(*map(parts_of, CASES), laconic.describe(FOLDER / "delta.lac", base=PARENT).by_part())
    assert {"coded planes", "raw planes", "plane headers", "differences", "parent"} <= parts
    expected = {"tables", "classes", "weights", "escapes", "scale", "exact values", "plan", "prediction"}
    expected |= {"scales", "values"}
    assert expected <= parts
    found = {trait for name in CASES for trait in traits(name)}
    assert found >= {
        ("adaptive", "one row", "no kernels"),
        ("adaptive", "rows", "no kernels"),
        ("adaptive", "rows", "kernels"),
        ("predicted, adaptive", "rows", "no kernels"),
        ("predicted, adaptive", "rows", "kernels"),
        ("predicted, static", "rows", "no kernels"),
        ("predicted, static", "rows", "kernels"),
        "a shift",
        "lanes",
        "one lane",
        ("levels", "one class", True),
        ("levels", "classes", True),
        ("levels", "drops", True),
        ("formula", "one class", True),
        ("formula", "classes", False),
        ("formula", "drops", False),
        ("formula", "drops", True),
    }


if __name__ == "__main__" and sys.argv[1:]:
    for case in set(WRITTEN) - {"planes"}:  # kernels over bytes are read alike, but wrap when they write
        write(case, Path(sys.argv[1]) / f"{case}.lac")
    print(json.dumps({case: digest(laconic.load(FOLDER / f"{case}.lac")) for case in CASES}))
elif __name__ == "__main__":
    found = digests() if (FOLDER / "digests.json").exists() else {}
    for case in CASES:
        if case not in found:
            write(case, FOLDER / f"{case}.lac")
            found[case] = digest(laconic.load(FOLDER / f"{case}.lac"))
    for case, (state, grid) in DELTAS.items():
        if case not in found:
            laconic.save(state, FOLDER / f"{case}.lac", grid, base=PARENT)
            found[case] = digest(laconic.load(FOLDER / f"{case}.lac", base=PARENT))
    (FOLDER / "digests.json").write_text(json.dumps(found, indent=2) + "\n")
