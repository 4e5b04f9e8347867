"""Every quantiser keeps the same promises. A new one is one entry in QUANTIZERS."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import laconic
from laconic.codec.spec import GRID_DTYPES
from laconic.codec.tensor import DEQUANTIZERS
from laconic.errors import NonFiniteError, UnsupportedError
from laconic.file.contents import inspect
from laconic.model.selectors import names_to_quantize
from laconic.quantization import Codebook, FixedBits, Grid, RateLoss, squared_error
from tests.file import small_reader
from tests.file.test_small_reader import by_laconic
from tests.support.states import same_bits

QUANTIZERS = {
    "grid": Grid(0.05),
    "rate": RateLoss(1e3, squared_error),
    "two values": Codebook(2),
    "codebook": Codebook(16),
    "large codebook": Codebook(300),
    "2 bits": FixedBits(2),
    "4 bits": FixedBits(4),
    "8 bits": FixedBits(8),
}
every_quantizer = pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=QUANTIZERS)
KINDS = {
    "normal": lambda *shape: torch.randn(shape, dtype=torch.float64),
    "zero": lambda *shape: torch.zeros(shape, dtype=torch.float64),
    "negative zero": lambda *shape: -torch.zeros(shape, dtype=torch.float64),
    "constant": lambda *shape: torch.full(shape, -0.7, dtype=torch.float64),
    "sparse": lambda *shape: torch.randn(shape, dtype=torch.float64) * (torch.rand(shape) < 0.1),
    "outliers": lambda *shape: torch.randn(shape, dtype=torch.float64) ** 9,
    "tiny": lambda *shape: torch.randn(shape, dtype=torch.float64) * 1e-40,
    "huge": lambda *shape: torch.randn(shape, dtype=torch.float64) * 1e4,
    "largest": lambda *shape: torch.randn(shape, dtype=torch.float64).sign() * 1e308,
}


@every_quantizer
@given(
    shape=st.lists(st.integers(0, 9), max_size=4),
    dtype=st.sampled_from(GRID_DTYPES),
    kind=st.sampled_from(list(KINDS)),
    seed=st.integers(0, 99),
)
def test_files_of_any_tensor_are_read_alike(tmp_path_factory, quantizer, shape, dtype, kind, seed):
    torch.manual_seed(seed)
    largest = torch.finfo(dtype).max
    weight = KINDS[kind](*shape).clamp(-largest, largest).to(dtype)
    path = tmp_path_factory.mktemp("f") / "t.lac"
    laconic.save({"w": weight}, path, quantizer, include=["w"])
    back = laconic.load(path)["w"]
    assert (back.dtype, back.shape) == (weight.dtype, weight.shape)
    assert back.isfinite().all()
    assert not back[weight == 0].any(), "zeros stay zero"
    assert small_reader.read(path.read_bytes()) == by_laconic(path)
    ledger = laconic.describe(path)
    assert ledger.model_bits == sum(row.bits for row in ledger.rows) == 8 * path.stat().st_size


@every_quantizer
def test_what_a_model_is_rounded_to_is_what_its_file_holds(quantizer, tmp_path):
    model = laconic.zoo.lenet5()
    model.tied = model.fc1
    laconic.prune_(model, 0.8)
    laconic.save(model, tmp_path / "a.lac", quantizer)
    state = model.state_dict()
    rounders = quantizer.per_tensor({name: state[name] for name in names_to_quantize(model, None, ())})
    decoded = laconic.load(tmp_path / "a.lac")
    with laconic.file.Reader(tmp_path / "a.lac") as reader:
        for name, weight in laconic.model.compressible(model).items():
            found = rounders[name].rounded(weight.detach())
            if found is None:
                assert same_bits(decoded[name], weight.detach())
                continue
            assert found.q.shape == (weight.numel(),)
            assert DEQUANTIZERS[reader.entries[name].spec.method][0] is type(found.dequantizer)
            from_integers = found.dequantizer.dequantize(found.q, tuple(state[name].shape), state[name].dtype)
            assert same_bits(decoded[name], from_integers)
    assert same_bits(decoded["tied.weight"], decoded["fc1.weight"])
    found = {tensor["name"]: tensor for tensor in inspect(tmp_path / "a.lac")["tensors"]}
    assert found["fc1.weight"]["model"]
    assert found["fc1.weight"]["sparsity"] >= float((model.fc1.weight == 0).float().mean())
    first = (tmp_path / "a.lac").read_bytes()
    laconic.save(model, tmp_path / "a.lac", quantizer)
    assert (tmp_path / "a.lac").read_bytes() == first


@every_quantizer
def test_what_cannot_be_rounded_is_refused(quantizer, tmp_path):
    weight = torch.ones(20, 20)
    weight[3, 4] = torch.nan
    with pytest.raises(NonFiniteError, match=r"w\[3, 4\]: expected a finite number"):
        laconic.save({"w": weight}, tmp_path / "w.lac", quantizer)
    if not isinstance(quantizer, Grid):
        with pytest.raises(UnsupportedError, match="w: expected a Grid for a difference, found"):
            laconic.save({"w": torch.eye(9)}, tmp_path / "w.lac", quantizer, base={"w": torch.eye(9)})
    assert not (tmp_path / "w.lac").exists()
