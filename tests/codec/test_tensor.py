import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import laconic
from laconic.codec.spec import Method
from laconic.codec.tensor import decode_tensor, encode_tensor, tensor_parts
from laconic.errors import MismatchError, UnsupportedError
from laconic.file.save_load import open_parent
from laconic.model.modules import state_digest
from laconic.quantization import Grid
from tests.support.states import KINDS, TYPES, same_bits, tensor_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.lac"


def tuned(parent, change=1e-3):
    """What fine-tuning leaves: every float moved a little, everything else as it was."""
    noise = torch.Generator().manual_seed(1)
    return {
        name: (t + change * t.abs().mean() * torch.randn(t.shape, generator=noise)).to(t.dtype)
        if t.is_floating_point()
        else t.clone()
        for name, t in parent.items()
    }


def parent_state(dtype=torch.float32):
    torch.manual_seed(0)
    return {
        "a.weight": (torch.randn(120, 90) * 0.1).to(dtype),
        "a.bias": torch.randn(120).to(dtype),
        "b.weight": (torch.randn(40, 8, 3, 3) * 0.1).to(dtype),
        "steps": torch.arange(7),
    }


@given(
    shape=st.lists(st.integers(0, 40), max_size=3).map(tuple),
    dtype=st.sampled_from(TYPES),
    kind=st.sampled_from(KINDS),
    of_parent=st.sampled_from(KINDS),
)
def test_any_difference_keeps_every_bit(shape, dtype, kind, of_parent):
    tensor, parent = tensor_of(dtype, shape, kind, 1), tensor_of(dtype, shape, of_parent, 2)
    for near in (tensor, parent):
        form, pieces = encode_tensor("t", tensor, None, near)
        chunk = b"".join(pieces)
        assert sum(tensor_parts(form, chunk).values()) == len(chunk) <= form.n_bytes
        assert same_bits(decode_tensor(form, chunk, near), tensor)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_what_did_not_change_costs_nothing(dtype):
    tensor = tensor_of(dtype, (500, 400), "noise")
    form, pieces = encode_tensor("t", tensor, None, tensor)
    assert form.method is Method.DELTA
    assert sum(map(len, pieces)) < 20


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.75), (torch.bfloat16, 0.4)])
def test_differences_are_shorter_than_weights(path, dtype, share):
    parent = parent_state(dtype)
    child = tuned(parent)
    alone = laconic.save(child, path, None)
    assert laconic.save(child, path, None, base=parent) < share * alone
    back = laconic.load(path, base=parent)
    assert all(same_bits(back[name], tensor) for name, tensor in child.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("error", [0.1, 0.001])
def test_a_grid_keeps_the_error_of_the_tensor(path, dtype, error):
    parent = parent_state(dtype)
    child = tuned(parent, change=0.1)
    laconic.save(child, path, Grid(error))
    alone = path.stat().st_size
    assert laconic.save(child, path, Grid(error), base=parent) < alone
    for name, back in laconic.load(path, base=parent).items():
        exact = child[name].double()
        assert (back.double() - exact).norm() <= error * exact.norm() * (1 + 1e-6)
        assert back.dtype == child[name].dtype


def test_what_the_parent_lacks_is_coded_on_its_own(path):
    parent = parent_state()
    child = {**tuned(parent), "new": torch.randn(50, 60), "a.bias": torch.randn(130)}
    laconic.save(child, path, None, base=parent)
    with laconic.file.Reader(path) as reader:
        methods = {name: entry.spec.method for name, entry in reader.entries.items()}
    assert methods["a.weight"] is Method.DELTA
    assert Method.DELTA not in (methods["new"], methods["a.bias"])
    back = laconic.load(path, base=parent)
    assert all(same_bits(back[name], tensor) for name, tensor in child.items())


def test_another_parent_or_none_is_refused_by_name(path):
    parent = parent_state()
    laconic.save({**tuned(parent), "new": torch.ones(3)}, path, None, base=parent)
    other = {**parent, "steps": torch.arange(7) + 1}
    told = state_digest(parent)[:12]
    with pytest.raises(MismatchError, match=f"a.weight: expected the parent {told}…, found none"):
        laconic.load(path)
    with pytest.raises(MismatchError, match=f"{told}…, found {state_digest(other)[:12]}…"):
        laconic.load(path, base=other)
    assert list(laconic.load(path, names=["new"])) == ["new"], "this one is no difference"


def test_the_digest_covers_names_types_shapes_and_values_but_not_order_or_ties():
    state = {"a": torch.ones(2, 3), "b": torch.zeros(2)}
    same = {"b": torch.zeros(2), "a": torch.ones(3, 2).t()}
    assert state_digest(state) == state_digest(same)
    others = [
        {"a": torch.ones(2, 3), "c": torch.zeros(2)},
        {"a": torch.ones(2, 3), "b": torch.zeros(2, dtype=torch.int32)},
        {"a": torch.ones(3, 2), "b": torch.zeros(2)},
        {"a": torch.ones(2, 3), "b": -torch.zeros(2)},
        {"a": torch.ones(2, 3)},
    ]
    assert len({state_digest(other) for other in [state, *others]}) == 6


def test_a_parent_may_come_in_any_form(path, tmp_path):
    from safetensors.torch import save_file

    model = nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 5))
    torch.save(model.state_dict(), tmp_path / "p.pt")
    save_file(model.state_dict(), tmp_path / "p.safetensors")
    laconic.save(model, tmp_path / "p.lac", None)
    child = tuned(model.state_dict())
    forms = [model, model.state_dict(), *(tmp_path / f"p.{kind}" for kind in ("pt", "safetensors", "lac"))]
    assert len({state_digest(open_parent(form)) for form in forms}) == 1
    files = set()
    for form in forms:
        laconic.save(child, path, None, base=form)
        files.add(path.read_bytes())
        filled = laconic.load(path, into=nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 5)), base=form)
        assert all(same_bits(filled.state_dict()[name], tensor) for name, tensor in child.items())
    assert len(files) == 1


def test_a_difference_is_no_parent(path, tmp_path):
    parent = parent_state()
    laconic.save(tuned(parent), path, None, base=parent)
    with pytest.raises(UnsupportedError, match="decompress it first"):
        laconic.save(parent, tmp_path / "x.lac", None, base=path)


def test_a_large_network_that_did_not_change_needs_no_permission(path):
    parent = {"w": torch.zeros(5000, 4000)}
    assert laconic.save(parent, path, None, base=parent) < 300
    assert same_bits(laconic.load(path, base=parent)["w"], parent["w"])


def test_a_parent_with_infinities_is_passed_over_by_a_grid(path):
    weight = torch.randn(30, 40)
    parent = torch.where(weight > 2, torch.inf, weight)
    laconic.save({"w": weight}, path, Grid(0.01), base={"w": parent})
    assert (laconic.load(path, base={"w": parent})["w"] - weight).norm() <= 0.01 * weight.norm()


def test_the_ledger_and_the_inspection_know_differences(path):
    from laconic.file.contents import inspect

    parent = parent_state()
    n_bytes = laconic.save(tuned(parent), path, None, base=parent)
    ledger = laconic.describe(path, base=parent)
    assert ledger.model_bits == 8 * n_bytes
    assert {"parent", "differences", "coded planes"} <= set(ledger.by_part())
    found = inspect(path)
    assert found["parent"] == state_digest(parent)
    assert found["sparsity"] is None
    assert found["tensors"][0]["method"] == "delta"
