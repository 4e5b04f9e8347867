import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import laconic
from laconic.quantization import grid, rounded
from laconic.quantization.grid import Grid

floats = st.floats(-(2.0**100), 2.0**100, width=32)
vectors = hnp.arrays(np.float32, st.integers(1, 60), elements=floats)


def on_grid(weights, scale):
    out = np.empty_like(weights)
    q = grid.quantize(weights, scale, float(np.finfo(weights.dtype).max))
    rounded._multiply(q, np.array([scale]), out)
    return out


@given(vectors, st.sampled_from([0.3, 0.05, 0.001]))
def test_the_stated_error_is_kept(weights, relative_error):
    scale = Grid(relative_error).scale(weights)
    if scale is None:
        return
    exact = weights.astype(np.float64)
    error = np.linalg.norm(on_grid(weights, scale).astype(np.float64) - exact)
    assert error <= relative_error * np.linalg.norm(exact) * (1 + 1e-6)


@pytest.mark.parametrize("relative_error", [0.3, 0.1, 0.01])
def test_the_step_is_the_coarsest(relative_error):
    weights = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    scale = Grid(relative_error).scale(weights)
    assert scale
    allowed = relative_error**2 * grid.moments(weights)[0]
    assert grid.squared_error(weights, scale) <= allowed < grid.squared_error(weights, scale * 1.02)


def test_decoded_weights_quantise_to_themselves():
    weights = np.random.default_rng(0).laplace(size=1000).astype(np.float32)
    scale = Grid(0.02).scale(weights)
    once = on_grid(weights, scale)
    assert (on_grid(once, scale) == once).all()


@pytest.mark.parametrize(
    ("weights", "scale"),
    [
        (np.zeros(5, np.float32), 1.0),
        (np.full(5, 1e-45, np.float32), None),
        (np.full(5, 1e200), None),
        (np.full(5, 3.4e38, np.float32), "any"),
        (np.array([1e30, 1e-30], np.float32), "any"),
    ],
)
def test_degenerate_weights(weights, scale):
    found = Grid(0.05).scale(weights)
    assert found == scale or (scale == "any" and found)


def test_largest_value_does_not_overflow():
    weights = np.array([65504.0, 1.0], np.float32)
    scale = grid.as_scale(9000.0)
    assert (abs(grid.quantize(weights, scale, 65504.0)) * scale <= 65504).all()


def test_a_vocabulary_has_no_more_error_than_the_largest_other_layer():
    shapes = {"table.weight": (5000, 64), "up.weight": (256, 64), "down.weight": (64, 64), "down.bias": (64,)}
    found = Grid(0.1).per_tensor({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    errors = {name: rounder.relative_error for name, rounder in found.items()}
    assert errors["table.weight"] == errors["up.weight"] == 0.1
    assert errors["down.weight"] == errors["down.bias"] == pytest.approx(0.1 * np.sqrt(65 / 256))
    alone = Grid(0.1).per_tensor({"table.weight": torch.empty(5000, 64, device="meta")})
    assert alone["table.weight"].relative_error == 0.1


@pytest.mark.parametrize("bad", [0, 1, -0.1, float("nan")])
def test_relative_error_is_checked(bad):
    with pytest.raises(ValueError, match="relative_error"):
        Grid(bad)


integers = hnp.arrays(np.int32, st.integers(1, 60), elements=st.integers(-300, 300))


@given(integers, st.floats(1e-30, 1e30), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_a_tensor_on_a_grid_is_found_to_be(q, scale, dtype):
    tensor = rounded.on_grid(q, grid.as_scale(scale), dtype)
    exact = rounded.on_grid(q, grid.as_scale(scale), torch.float64)
    found = grid.exactly(tensor)
    if torch.equal(tensor.double(), exact):
        assert found is not None
    if found is not None:
        assert torch.equal(rounded.on_grid(found.q, found.dequantizer.scale, dtype), tensor)


@pytest.mark.parametrize(
    "weights", [[0.5, -0.0], [0.5, float("nan")], [0.5, float("inf")], [1.0, 1e-6], [1.0, 2**-17], [0.1, 0.3]]
)
def test_what_is_on_no_grid(weights):
    assert grid.exactly(torch.tensor(weights)) is None


def test_one_number_among_many_can_be_off_the_grid():
    tensor = 0.125 * torch.arange(-2 * grid.N_FIRST, 2 * grid.N_FIRST, dtype=torch.float32)
    assert grid.exactly(tensor) is not None
    tensor[-1] += 1e-2
    assert grid.exactly(tensor) is None


def test_networks_on_grids_are_coded_so_without_being_asked(tmp_path):
    torch.manual_seed(0)
    tensor = 0.125 * torch.randint(-3, 4, (100, 50))
    assert laconic.save({"w": tensor}, tmp_path / "w.lac", None) < 100 * 50 * 3 / 8 + 50
    assert torch.equal(laconic.load(tmp_path / "w.lac")["w"], tensor)
