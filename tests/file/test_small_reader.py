"""The page as a specification: a reader written from it alone agrees with Laconic's."""

import ast
import random
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import laconic
from file import small_reader
from file.small_reader import Refused
from file.test_golden import CASES, CUT, FOLDER
from file.test_hostile import CRAFTED, PLANS
from fuzz import surgeon
from laconic.codec import DTYPES, GRID_DTYPES
from laconic.errors import LaconicError

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
    tree = ast.parse(Path(small_reader.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files(path):
    assert small_reader.read(path.read_bytes()) == by_laconic(path)


def test_the_golden_files_are_all_here():
    assert {path.stem for path in GOLDEN} == set(CASES)


def test_the_golden_plan():
    data = (FOLDER / "plan.lac").read_bytes()
    sets, settings, left_out = small_reader.plan(data)
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
    quantizer = laconic.Grid(error) if dtype in GRID_DTYPES else None
    tensors = {"w": values.to(dtype).reshape(shape), "w.raw": torch.randint(0, 2, (n,), dtype=torch.uint8)}
    path = tmp_path_factory.mktemp("f") / "t.lac"
    laconic.save(tensors, path, quantizer, include=["w"] if quantizer else None)
    assert small_reader.read(path.read_bytes()) == by_laconic(path)


def change(rng):
    """Mutations of a few bytes."""

    def changed(part):
        part = bytearray(part)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = min(rng.randrange(len(part) + 1), rng.randrange(64))
            part[at : at + rng.randint(0, 2)] = rng.choice(
                [b"", b"\0", b"\xff", rng.randbytes(1), rng.randbytes(2)]
            )
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
            theirs = by_laconic(path, max_bytes=LIMIT)
            with laconic.Reader(path) as reader:
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
    assert min(outcomes.count(True), outcomes.count(False)) > N_MUTANTS // 10


@pytest.mark.parametrize("name", [*CRAFTED, *PLANS])
def test_crafted_files_are_refused(name):
    data, *_ = CRAFTED.get(name) or PLANS[name]
    with pytest.raises(Refused):
        small_reader.read(data)
        small_reader.plan(data)
