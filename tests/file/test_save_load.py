import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import laconic
from laconic.codec.spec import DTYPES, GRID_DTYPES
from laconic.errors import FormatError, LimitError, MismatchError, NonFiniteError, UnsupportedError

SHAPES = [(), (0,), (1,), (3, 0), (7, 5), (4, 3, 2, 2), (300,), (2, 0, 3)]


def small_net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))


def same_bits(a, b):
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return not a.numel() or torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.lac"


@given(
    shape=st.lists(st.integers(0, 9), max_size=4),
    dtype=st.sampled_from(GRID_DTYPES),
    kind=st.sampled_from(["normal", "zero", "constant", "sparse", "tiny", "huge", "largest"]),
    error=st.sampled_from([0.5, 0.05, 0.002]),
    seed=st.integers(0, 99),
)
def test_floats_of_any_shape_keep_the_stated_error(tmp_path_factory, shape, dtype, kind, error, seed):
    torch.manual_seed(seed)
    values = {
        "normal": torch.randn(shape, dtype=torch.float64),
        "zero": torch.zeros(shape, dtype=torch.float64),
        "constant": torch.full(shape, -0.7, dtype=torch.float64),
        "sparse": torch.randn(shape, dtype=torch.float64) * (torch.rand(shape) < 0.1),
        "tiny": torch.randn(shape, dtype=torch.float64) * 1e-7,
        "huge": torch.randn(shape, dtype=torch.float64) * 1e4,
        "largest": torch.full(shape, torch.finfo(dtype).max, dtype=torch.float64),
    }[kind].to(dtype)
    path = tmp_path_factory.mktemp("f") / "t.lac"
    laconic.save({"w": values}, path, laconic.quantization.Grid(error), include=["w"])
    back = laconic.load(path)["w"]
    assert (back.dtype, back.shape) == (values.dtype, values.shape)
    exact = values.double()
    assert (back.double() - exact).norm() <= error * exact.norm() * (1 + 1e-6)
    laconic.save({"w": back}, path, quantizer=None)
    assert same_bits(laconic.load(path)["w"], back)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_type_is_exact_without_a_quantizer(path, dtype, shape):
    raw = torch.randint(0, 2, (math.prod(shape) * dtype.itemsize,), dtype=torch.uint8)
    tensor = raw.view(dtype).reshape(shape)
    laconic.save({"t": tensor}, path, quantizer=None)
    assert same_bits(laconic.load(path)["t"], tensor)


def test_nan_and_inf_survive_exactly_but_are_not_quantised(path):
    values = torch.tensor([[1.0, math.nan], [math.inf, -math.inf]])
    laconic.save({"w": values}, path, quantizer=None)
    assert same_bits(laconic.load(path)["w"], values)
    with pytest.raises(NonFiniteError, match=r"w\[0, 1\].*nan.*exclude"):
        laconic.save({"w": values}, path)
    assert same_bits(laconic.load(path)["w"], values), "a refused save leaves the old file"


def test_a_model_comes_back_whole(path):
    model = small_net()
    laconic.prune_(model, 0.9)
    n_bytes = laconic.save(model, path)
    assert n_bytes == path.stat().st_size
    other = laconic.load(path, into=small_net())
    for name, tensor in model.state_dict().items():
        back = other.state_dict()[name]
        if name.startswith("1."):
            assert same_bits(back, tensor), "norms and statistics are exact"
        else:
            assert (back - tensor).norm() <= 0.1001 * tensor.norm()
    assert other[3].weight.count_nonzero() <= model[3].weight.count_nonzero()


def test_saving_what_was_decoded_gives_the_same_file(path, tmp_path):
    laconic.save(small_net(), path)
    once = laconic.load(path)
    laconic.save(once, tmp_path / "exact.lac", quantizer=None)
    assert all(same_bits(t, once[n]) for n, t in laconic.load(tmp_path / "exact.lac").items())


def test_tied_tensors_are_stored_once_and_stay_tied(path):
    model = nn.ModuleDict({"a": nn.Embedding(100, 16), "b": nn.Linear(16, 100, bias=False)})
    model["b"].weight = model["a"].weight
    laconic.save(model, path)
    tensors = laconic.load(path)
    assert tensors["a.weight"].data_ptr() == tensors["b.weight"].data_ptr()
    alone = copy.deepcopy(model)
    assert laconic.save({"a.weight": alone["a"].weight}, path) + 40 > laconic.save(model, path)
    filled = laconic.load(path, into=alone)
    assert filled["a"].weight is filled["b"].weight
    only = laconic.load(path, names=["b.weight"])
    assert list(only) == ["b.weight"]


def test_wrapped_models_have_the_names_of_the_inner_one(path):
    model = small_net()
    n_bytes = laconic.save(model, path)
    compiled = torch.compile(model, backend="eager")
    assert laconic.save(compiled, path) == n_bytes
    assert laconic.load(path, into=compiled) is compiled
    assert set(laconic.load(path)) == set(model.state_dict())


def test_a_model_without_compressible_layers_is_stored_exactly(path):
    model = nn.Sequential(nn.LayerNorm(7), nn.PReLU())
    laconic.save(model, path)
    assert all(same_bits(t, model.state_dict()[n]) for n, t in laconic.load(path).items())


def test_mismatches_leave_the_model_alone(path):
    laconic.save(nn.Linear(3, 4), path)
    for model, message in [
        (nn.Linear(3, 5), r"weight: the model's is \(5, 3\), the file's \(4, 3\)"),
        (nn.Linear(3, 4, bias=False), "unexpected, such as 'bias'"),
        (small_net(), "missing"),
    ]:
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(MismatchError, match=message):
            laconic.load(path, into=model)
        assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    with pytest.raises(MismatchError, match="weights"):
        laconic.load(path, names=["weights"])


def test_a_small_file_of_many_zeros_needs_permission(path):
    laconic.save({"w": torch.zeros(5000, 5000)}, path)
    assert path.stat().st_size < 100
    with pytest.raises(LimitError, match="raise the limit"):
        laconic.load(path)
    assert laconic.load(path, limit=100_000_000)["w"].count_nonzero() == 0


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_what_has_no_place_is_named(path):
    with pytest.raises(UnsupportedError, match=r"c: .*complex64"):
        laconic.save({"c": torch.zeros(2, dtype=torch.complex64)}, path)
    with pytest.raises(UnsupportedError, match="s: .*sparse"):
        laconic.save({"s": torch.eye(3).to_sparse()}, path)
    with pytest.raises(UnsupportedError, match="n: expected a tensor with a shape, found a nested one"):
        laconic.save({"n": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, path)
    with pytest.raises(UnsupportedError, match="x: expected a tensor, found int"):
        laconic.save({"x": 3}, path)
    assert not path.exists()


def test_interrupted_writes_leave_nothing(path, monkeypatch):
    laconic.save(nn.Linear(3, 4), path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        laconic.save(nn.Linear(30, 40), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_header_and_directory_of_lenet5_fit_in_110_bytes(path):
    laconic.save(laconic.zoo.lenet5(), path)
    with laconic.file.Reader(path) as reader:
        entries = sum(entry.n_entry_bytes for entry in reader.entries.values())
        assert reader.n_header_bytes + entries <= 110


def test_small_chunks_stand_in_the_directory_and_cost_no_checksum(path):
    for n_elements, inline in ((0, True), (64, True), (65, False)):
        values = torch.arange(n_elements, dtype=torch.uint8)
        n_bytes = laconic.save({"w": values, "z": torch.tensor(True)}, path, quantizer=None)
        with laconic.file.Reader(path) as reader:
            entry = reader.entries["w"]
            assert (entry.n_chunk_bytes, entry.n_bytes_before) == (n_elements, 0 if inline else n_elements)
            assert entry.n_entry_bytes == (7 if inline else 11)
            assert reader.chunk(entry) == bytes(values.tolist())
        assert laconic.describe(path).model_bits == 8 * n_bytes
        assert same_bits(laconic.load(path)["w"], values)


def test_a_damaged_small_chunk_is_refused(path):
    laconic.save({"a": torch.tensor([7, 7]), "w": torch.randn(90)}, path, quantizer=None)
    data = path.read_bytes()
    at = data.index(bytes([7, 0, 0]))
    path.write_bytes(data[:at] + b"\6" + data[at + 1 :])
    with pytest.raises(FormatError, match="the directory's checksum"):
        laconic.load(path)


def test_non_contiguous_and_grad_tensors(path):
    weight = torch.randn(6, 8, requires_grad=True)
    laconic.save({"w": weight.t()}, path, quantizer=None)
    assert torch.equal(laconic.load(path)["w"], weight.t().detach())


def test_numpy_is_not_shared_with_the_file(path):
    laconic.save({"w": torch.ones(3)}, path, quantizer=None)
    loaded = laconic.load(path)["w"]
    loaded += 1
    assert np.all(laconic.load(path)["w"].numpy() == 1)
