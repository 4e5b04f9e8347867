import copy

import accelerate
import pytest
import torch
from torch import nn

import laconic
from laconic.errors import MismatchError, UnsupportedError
from laconic.formats.parts import plain_names
from laconic.surgery.plan import Plan


class Tied(nn.Module):
    """As language models are: the output's weight is the input's, its bias stands twice."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 20)
        self.head.weight = self.embed.weight
        self.bias = self.head.bias


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


def same(model, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


LEFT_OUT = [["head.weight"], ["embed.weight"], ["head.weight", "bias"], ["embed.weight", "head.bias"]]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("left_out", LEFT_OUT)
def test_of_tied_tensors_a_file_needs_one(tmp_path, left_out, device):
    state = Tied().state_dict()
    laconic.save(without(state, *left_out), tmp_path / "t.lac", None)
    with torch.device(device):
        model = Tied()
    assert laconic.load(tmp_path / "t.lac", into=model) is model
    assert same(model, state)
    assert model.head.weight is model.embed.weight and model.bias is model.head.bias


def test_tied_views_and_buffers_count_as_well(tmp_path):
    model = nn.Module()
    model.register_buffer("a", torch.randn(4))
    model.register_buffer("b", model.a)
    model.register_buffer("c", model.a.view(4))
    state = copy.deepcopy(model.state_dict())
    laconic.save({"b": state["b"]}, tmp_path / "t.lac", None)
    model.a.zero_()
    assert same(laconic.load(tmp_path / "t.lac", into=model), state)


def test_what_the_model_does_not_tie_is_missing(tmp_path):
    apart = Tied()
    apart.head.weight = nn.Parameter(torch.zeros(20, 8))
    laconic.save(without(apart.state_dict(), "head.weight"), tmp_path / "t.lac", None)
    before = copy.deepcopy(apart.state_dict())
    with pytest.raises(MismatchError, match="1 missing, such as 'head.weight'"):
        laconic.load(tmp_path / "t.lac", into=apart)
    assert same(apart, before)
    with torch.device("meta"):
        apart = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    laconic.save(without(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).state_dict(), "1.bias"), tmp_path / "m.lac")
    with pytest.raises(MismatchError, match="1 missing, such as '1.bias'"):
        laconic.load(tmp_path / "m.lac", into=apart)
    assert all(parameter.is_meta for parameter in apart.parameters())


def test_a_meta_model_is_filled_in_its_own_types(tmp_path):
    dense = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    laconic.save(dense, tmp_path / "d.lac", None)
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 4).half(), nn.BatchNorm1d(4))
    model[0].bias.requires_grad_(False)
    laconic.load(tmp_path / "d.lac", into=model)
    assert model[0].weight.dtype == torch.float16 and model[0].weight.requires_grad
    assert not model[0].bias.requires_grad and model[1].num_batches_tracked.dtype == torch.int64
    assert torch.equal(model[0].weight, dense[0].weight.half())


def test_a_model_that_is_half_on_meta_is_filled(tmp_path):
    dense = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    laconic.save(dense, tmp_path / "d.lac", None)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, device="meta"))
    first = model[0].weight
    assert same(laconic.load(tmp_path / "d.lac", into=model), dense.state_dict())
    assert model[0].weight is first


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.register_buffer("ids", torch.arange(3), persistent=False)


def test_a_buffer_on_meta_that_no_file_stores_is_refused_by_name(tmp_path):
    dense = Positions()
    laconic.save(dense, tmp_path / "d.lac", None)
    with torch.device("meta"):
        model = Positions()
    with pytest.raises(MismatchError, match="ids: expected a tensor with values.* no file stores"):
        laconic.load(tmp_path / "d.lac", into=model)
    assert model.fc.weight.is_meta
    with accelerate.init_empty_weights():
        model = Positions()
    assert same(laconic.load(tmp_path / "d.lac", into=model), dense.state_dict())


def test_a_meta_model_is_not_saved(tmp_path):
    with pytest.raises(UnsupportedError, match="weight: expected a tensor with values, found one on the meta device"):
        laconic.save(nn.Linear(2, 2, device="meta"), tmp_path / "x.lac")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_plan_cuts_a_meta_model(tmp_path, device):
    kept = torch.tensor([0, 2, 5])
    dense = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    shapes = {"0.weight": (8, 6), "0.bias": (8,), "2.weight": (3, 8)}
    plan = Plan(shapes, {"0.weight": {0: kept}, "0.bias": {0: kept}, "2.weight": {1: kept}}, {}, {})
    small = laconic.shrink(copy.deepcopy(dense), plan)
    laconic.save(small, tmp_path / "s.lac", None, plan=plan)
    filled = laconic.load(tmp_path / "s.lac", into=copy.deepcopy(dense).to(device))
    assert torch.equal(filled(torch.ones(2, 6)), small(torch.ones(2, 6)))


@pytest.mark.parametrize("wrap", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_names_of_wrappers_do_not_matter(tmp_path, wrap):
    dense = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    laconic.save({wrap + name: tensor for name, tensor in dense.state_dict().items()}, tmp_path / "w.lac", None)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert same(laconic.load(tmp_path / "w.lac", into=model), dense.state_dict())


def test_a_model_with_compiled_layers_and_one_without_fill_each_other(tmp_path):
    plain = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    partly = nn.Sequential(nn.Linear(3, 4), torch.compile(nn.Linear(4, 2), backend="eager"))
    assert "1._orig_mod.weight" in partly.state_dict()
    laconic.save(plain, tmp_path / "p.lac", None)
    laconic.load(tmp_path / "p.lac", into=partly)
    assert torch.equal(partly[1].weight, plain[1].weight)
    laconic.save(partly, tmp_path / "c.lac", None)
    other = laconic.load(tmp_path / "c.lac", into=nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    assert other.state_dict().keys() == plain_names(partly.state_dict()).keys()
    assert same(other, plain.state_dict())


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"scale": 3}

    def set_extra_state(self, state):
        assert state == {"scale": 3}


def test_what_is_no_tensor_stays_as_it_is(tmp_path):
    dense = Extra(3, 2)
    torch.save(dense.state_dict(), tmp_path / "e.pt")
    opened = laconic.formats.open_checkpoint(tmp_path / "e.pt")
    assert opened.left_out == {"_extra_state": 0}
    laconic.save(opened, tmp_path / "e.lac", None)
    assert torch.equal(laconic.load(tmp_path / "e.lac", into=Extra(3, 2)).weight, dense.weight)
