from collections import OrderedDict, defaultdict

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from laconic.core.text import listed
from laconic.errors import CheckpointError
from laconic.formats.parts import choose, plain_names, told

NET = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
SD = NET.state_dict()
EMA = {name: tensor + 1 for name, tensor in SD.items()}


def optimizer_state(kind=torch.optim.AdamW):
    optimizer = kind(NET.parameters(), lr=0.1)
    NET(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


ONE = {
    "flat": (SD, []),
    "entries without tensors": ({**SD, "step": 3, "norm._extra_state": None}, ["step", "norm._extra_state"]),
    "state_dict": ({"state_dict": SD, "epoch": 3}, ["epoch"]),
    "only an average": ({"ema": SD, "step": 7}, ["step"]),
    "two levels": ({"checkpoint": {"state_dict": SD, "note": "x"}, "v": 2}, ["v", "checkpoint.note"]),
    "optimizer": ({"model": SD, "optimizer": optimizer_state(), "epoch": 1}, ["optimizer", "epoch"]),
    "two optimizers": (
        {"net": SD, "opts": [optimizer_state(), optimizer_state()], "sgd": optimizer_state(torch.optim.SGD)},
        ["opts", "sgd"],
    ),
    "optimizer by names": (
        {"model": SD, "opt": {"state": {n: {"exp_avg": t} for n, t in SD.items()}, "param_groups": []}},
        ["opt"],
    ),
    "random numbers": ({"model": SD, "rng": torch.get_rng_state(), "r": {"cpu": torch.get_rng_state()}}, ["rng", "r"]),
    "best score": ({"model": SD, "callbacks": {"best": {"score": torch.tensor(0.5)}}}, ["callbacks"]),
    "a tensor beside": ({"model": SD, "class_weights": torch.ones(3)}, ["class_weights"]),
    "the same twice": ({"model": SD, "module": SD}, ["module"]),
    "numbers as keys": ({"model": {**SD, 0: torch.ones(1)}}, ["model.0"]),
    "parameters": ({"p": OrderedDict((n, nn.Parameter(t)) for n, t in SD.items()), "log": defaultdict(list)}, ["log"]),
    "integers alone": ({"w": torch.arange(3)}, []),
}


@pytest.mark.parametrize("case", ONE)
def test_one_part_is_found_by_itself_and_the_rest_is_listed(case):
    content, left_out = ONE[case]
    tensors, others = choose(content)
    expected = SD if case != "integers alone" else content
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) and not tensors[name].requires_grad for name in expected)
    assert list(others) == left_out


SEVERAL = {
    "average": ({"model": SD, "ema": EMA}, "model (4 tensors), ema (4 tensors)"),
    "networks": ({"nets": {"g": SD, "d": EMA}}, "nets.g (4 tensors), nets.d (4 tensors)"),
    "the top and a part": ({**SD, "ema": EMA}, ". (4 tensors), ema (4 tensors)"),
    "a module each": ({"enc": {"w": torch.ones(2)}, "dec": SD}, "enc (1 tensor), dec (4 tensors)"),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_parts_are_listed(case):
    content, found = SEVERAL[case]
    with pytest.raises(CheckpointError) as caught:
        choose(content)
    assert f"found several: {found}; choose one by its key" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "key", "expected"),
    [
        ({"model": SD, "ema": EMA}, "ema", EMA),
        ({"nets": {"g": SD, "d": EMA}}, "nets.d", EMA),
        ({**SD, "ema": EMA}, ".", SD),
        ({"model": SD, "model.ema": EMA}, "model.ema", EMA),
        ({"a.b": {"c": EMA}}, "a.b.c", EMA),
        (
            {"tree": {"enc": {"w": SD["0.bias"]}, "dec": [SD["1.bias"]]}},
            "tree",
            {"enc.w": SD["0.bias"], "dec.0": SD["1.bias"]},
        ),
    ],
)
def test_a_key_chooses(content, key, expected):
    tensors, _ = choose(content, key)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_an_optimizers_state_is_read_when_asked_for():
    tensors, others = choose({"model": SD, "optimizer": optimizer_state()}, "optimizer")
    assert {"optimizer.state.0.exp_avg", "state.0.exp_avg"} & tensors.keys() == {"state.0.exp_avg"}
    assert others["model"] == 4
    assert "optimizer.param_groups.0.lr" in others


@pytest.mark.parametrize(
    ("content", "key", "finding"),
    [
        ({"model": SD, "ema": EMA}, "emma", "expected a part 'emma', found model, ema; did you mean 'ema'?"),
        ({"epoch": 3}, "model", "expected a part 'model', found epoch"),
        ({"model": SD, "epoch": 3}, "epoch", "expected named tensors under 'epoch', found a int"),
        (SD["0.weight"], None, "found a Tensor"),
        ([SD], None, "found a list"),
        ({"t": {"a": {"b.c": torch.ones(1)}, "a.b": {"c": torch.ones(1)}}}, "t", "found 'a.b.c' twice"),
        (optimizer_state(), None, "found a dict of 'state', 'param_groups'"),
        ({0: torch.ones(2)}, None, "found a dict of 0"),
    ],
)
def test_what_has_no_such_part_is_refused(content, key, finding):
    with pytest.raises(CheckpointError) as caught:
        choose(content, key)
    assert finding in str(caught.value)


def test_what_holds_itself_ends():
    loop = {"model": SD}
    loop["again"] = loop
    loop["list"] = [loop, loop]
    assert choose(loop)[0].keys() == SD.keys()
    wide = SD
    for _ in range(30):
        wide = {str(i): wide for i in range(30)}
    choose({"model": SD, "wide": [wide]}, "model")


@pytest.mark.parametrize(
    "names",
    [
        ["module.0.weight", "module.0.bias"],
        ["_orig_mod.0.weight", "_orig_mod.0.bias"],
        ["module._orig_mod.0.weight", "module._orig_mod.0.bias"],
        ["_orig_mod.module.0.weight", "_orig_mod.module.0.bias"],
        ["module.module.0.weight", "module.module.0.bias"],
        ["n_averaged", "module.0.weight", "module.0.bias"],
        ["0._orig_mod.weight", "0.bias"],
        ["_fsdp_wrapped_module.0._fsdp_wrapped_module.weight", "_fsdp_wrapped_module.0.bias"],
        ["0._checkpoint_wrapped_module.weight", "0.bias"],
    ],
)
def test_names_of_wrappers_are_dropped(names):
    assert list(plain_names(names)) == ["0.weight", "0.bias"]
    assert set(plain_names(names).values()) == set(names) - {"n_averaged"}


@pytest.mark.parametrize(
    "names",
    [
        ["module.a", "b"],
        ["n_averaged", "0.weight"],
        ["n_averaged"],
        ["module"],
        ["a._orig_mod.w", "a.w"],
        ["x.module.w"],
    ],
)
def test_names_of_the_modules_own_stay(names):
    assert plain_names(names) == {name: name for name in names}


def test_an_averaged_models_own_file():
    averaged = AveragedModel(NET)
    assert plain_names(averaged.state_dict()).keys() == SD.keys()


def test_what_is_left_out_is_told_in_a_line():
    assert (
        told({"optimizer": 18, "epoch": 0, "n_averaged": 1}) == "optimizer (18 tensors), epoch, n_averaged (1 tensor)"
    )
    assert told({"new\nline": 0, "\ud800": 0}) == r"'new\nline', '\ud800'"
    assert listed(map(str, range(11))) == "0, 1, 2, 3, 4, 5, 6, 7 and 3 more"
