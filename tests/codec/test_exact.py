import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import laconic
from laconic.codec import exact
from laconic.codec.spec import Method
from laconic.codec.tensor import decode_tensor, encode_tensor, tensor_parts
from tests.support.states import KINDS, TYPES, same_bits, tensor_of

SHAPES = [(), (0,), (1,), (600,), (3, 0), (40, 65), (9, 7, 5, 5), (2, 3000), (3000, 2)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.lac"


def there_and_back(tensor):
    form, pieces = encode_tensor("t", tensor, None)
    chunk = b"".join(pieces)
    assert len(chunk) <= form.n_bytes
    assert sum(tensor_parts(form, chunk).values()) == len(chunk)
    assert same_bits(decode_tensor(form, chunk), tensor)
    return form, chunk


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_shape_and_kind_keeps_every_bit(dtype, kind):
    for shape in SHAPES:
        there_and_back(tensor_of(dtype, shape, kind))


@given(
    shape=st.lists(st.integers(0, 40), max_size=3).map(tuple),
    dtype=st.sampled_from(TYPES),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 9),
)
def test_any_tensor_keeps_every_bit_also_in_small_blocks(shape, dtype, kind, seed):
    tensor = tensor_of(dtype, shape, kind, seed)
    there_and_back(tensor)
    whole, exact.BLOCK = exact.BLOCK, 150
    try:
        there_and_back(tensor)
    finally:
        exact.BLOCK = whole


def test_the_fast_lanes_code_what_a_large_tensor_holds():
    for kind in ("weights", "sparse", "awkward"):
        form, chunk = there_and_back(tensor_of(torch.float32, (300, 400), kind))
        assert form.method is Method.PLANES
        assert len(chunk) < 0.87 * form.n_bytes


def test_tensors_of_other_strides(path):
    tensor = tensor_of(torch.bfloat16, (200, 300), "weights").t()[::2]
    laconic.save({"w": tensor}, path, quantizer=None)
    assert same_bits(laconic.load(path)["w"], tensor)


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.84), (torch.bfloat16, 0.68), (torch.float16, 0.9)])
def test_trained_scales_compress(dtype, share):
    """Gaussian rows of different scales, whose exponents take about 2.6 bits."""
    rows = torch.randn(400, 500) * torch.rand(400, 1).exp() * 0.02
    form, chunk = there_and_back(rows.to(dtype))
    assert len(chunk) < share * form.n_bytes


def test_zeros_cost_about_their_mask():
    """A tenth of 200 000 weights: 26.7 bits for each, and 0.47 bits for whether it is there."""
    weights = torch.randn(400, 500) * (torch.rand(400, 500) < 0.1)
    _, chunk = there_and_back(weights.abs())
    assert 8 * len(chunk) < 200_000 * (0.1 * 27.2 + 0.49)


def test_noise_is_stored_as_it_is():
    form, _ = there_and_back(tensor_of(torch.float32, (100, 100), "noise"))
    assert form.method is Method.EXACT


def test_exact_tensors_beside_quantised_ones_are_coded_too(path):
    state = {"w": torch.randn(20, 30), "steps": torch.arange(4000)}
    laconic.save(state, path)
    with laconic.file.Reader(path) as reader:
        assert reader.entries["steps"].spec.method is Method.PLANES
        assert reader.entries["steps"].n_chunk_bytes < 0.3 * 8 * 4000
    assert same_bits(laconic.load(path)["steps"], state["steps"])


def test_the_ledger_counts_planes(path):
    n_bytes = laconic.save({"w": torch.randn(200, 300)}, path, quantizer=None)
    ledger = laconic.describe(path)
    assert ledger.model_bits == 8 * n_bytes
    assert {"coded planes", "raw planes", "plane headers"} <= set(ledger.by_part())
