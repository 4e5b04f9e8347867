"""Golden files: what version 1 wrote stays readable, and is still what is written.

To add a file: add its tensors to CASES, run `python tests/file/test_golden.py`, and commit what it wrote.
A file that is there never changes; the encoder may learn to write shorter ones, under new names.
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
from laconic import Grid, Plan

FOLDER = Path(__file__).parent / "golden"


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


SPARSE = noise(40, 30) * (noise(40, 30, seed=2) > 1)
TIED = noise(6, 5).float()
KEPT = torch.tensor([0, 1, 3, 7, 8, 11])
CUT = Plan(
    {"a.weight": (12, 5), "c.weight": (9, 12, 7)},
    {"a.weight": {0: KEPT}, "c.weight": {1: KEPT, 2: torch.tensor([0, 2, 6])}},
    {("attention.self", "n_heads"): 3, ("attention.self", "width"): 96, ("", "n"): 1},
    {"layers.2": 0, "layers.3": 2},
)
CASES = {
    "one-table": ({"fc.weight": noise(20, 30).float(), "fc.bias": noise(20, seed=3).float()}, Grid(0.1)),
    "sparse": ({"fc.weight": SPARSE.float()}, Grid(0.05)),
    "row-classes": ({"w": (noise(60, 50) * (1 + 40 * (torch.arange(60) % 3)[:, None])).float()}, Grid(0.02)),
    "outliers": (
        {"w": torch.where(noise(30, 30) > 4, noise(30, 30) * 1e6, noise(30, 30)).float()},
        Grid(1e-6),
    ),
    "types": ({"h": noise(9, 9).half(), "b": noise(9, 9).bfloat16(), "d": noise(9, 9)}, Grid(0.1)),
    "exact": ({"i": torch.arange(-3, 4), "t": torch.tensor([True, False]), "f": noise(3).float()}, None),
    "odd-shapes": ({"e": torch.zeros(0, 4), "s": torch.tensor(1.5), "z": torch.zeros(50, 60)}, Grid(0.1)),
    "tied": ({"a.weight": TIED, "b.weight": TIED}, Grid(0.1)),
    "many-lanes": ({"w": noise(300, 200).float()}, Grid(0.002)),
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
    "plan": ({"a.weight": TIED, "b.weight": TIED, "c.weight": noise(9, 6, 3).float()}, Grid(0.1), CUT),
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
DELTAS = {"delta": (CHILD, None), "delta-grid": (CHILD, Grid(0.01))}  # from PARENT


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


@pytest.mark.parametrize("name", CASES)
def test_golden_files_are_what_is_written(name, tmp_path):
    tensors, quantizer, *plan = CASES[name]
    laconic.save(tensors, tmp_path / "new.lac", quantizer, plan=next(iter(plan), None))
    assert (tmp_path / "new.lac").read_bytes() == (FOLDER / f"{name}.lac").read_bytes()


def test_kernels_mean_the_same_without_numba():
    """As fuzzing runs them; there, sums of NumPy's narrow integers wrap."""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, __file__, "digests"]
    run = subprocess.run(command, env=environment, check=True, capture_output=True)
    assert json.loads(run.stdout) == digests()


@pytest.mark.parametrize("name", DELTAS)
def test_golden_differences_decode_to_the_same_bits_and_are_what_is_written(name, tmp_path):
    path = FOLDER / f"{name}.lac"
    assert digest(laconic.load(path, base=PARENT)) == digests()[name]
    tensors, quantizer = DELTAS[name]
    laconic.save(tensors, tmp_path / "new.lac", quantizer, base=PARENT)
    assert (tmp_path / "new.lac").read_bytes() == path.read_bytes()


def test_golden_planes_and_exact_differences_are_lossless():
    assert digests()["planes"] == digest(CASES["planes"][0])
    assert digests()["delta"] == digest(CHILD)


def test_the_golden_plan_is_read():
    assert laconic.Reader(FOLDER / "plan.lac").plan == CUT


def test_together_they_use_every_part_of_a_stream():
    parts = set().union(*(laconic.describe(FOLDER / f"{name}.lac").by_part() for name in CASES))
    parts |= set(laconic.describe(FOLDER / "delta.lac", base=PARENT).by_part())
    assert {"tables", "classes", "weights", "escapes", "step", "exact values", "plan"} <= parts
    assert {"coded planes", "raw planes", "plane headers", "differences", "parent"} <= parts


if __name__ == "__main__" and sys.argv[1:] == ["digests"]:
    print(json.dumps({case: digest(laconic.load(FOLDER / f"{case}.lac")) for case in CASES}))
elif __name__ == "__main__":
    found = digests() if (FOLDER / "digests.json").exists() else {}
    for case, (state, grid, *cut) in CASES.items():
        if case not in found:
            laconic.save(state, FOLDER / f"{case}.lac", grid, plan=next(iter(cut), None))
            found[case] = digest(laconic.load(FOLDER / f"{case}.lac"))
    for case, (state, grid) in DELTAS.items():
        if case not in found:
            laconic.save(state, FOLDER / f"{case}.lac", grid, base=PARENT)
            found[case] = digest(laconic.load(FOLDER / f"{case}.lac", base=PARENT))
    (FOLDER / "digests.json").write_text(json.dumps(found, indent=2) + "\n")
