import pytest
import torch
from torch import nn

import laconic
from laconic import zoo
from laconic.errors import MismatchError, UnsupportedError
from laconic.pruning import units
from laconic.surgery import Coupling, Group, Part, Plan, find_channels
from tests.support.networks import NETWORKS
from tests.surgery.test_conformance import KINDS, run


def rows(tensor, axis, n, width=1):
    return Part(tensor, axis, torch.arange(n * width).reshape(n, width))


HIDDEN = Group("0", (rows("0.weight", 0, 6), rows("0.bias", 0, 6), rows("2.weight", 1, 6)))


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def everything(model):
    return {
        name: torch.ones_like(weight, dtype=torch.bool) for name, weight in laconic.model.compressible(model).items()
    }


def test_a_member_goes_only_if_all_its_weights_go(model):
    mask = everything(model)
    mask["0.weight"][1], mask["2.weight"][:, 1] = False, False
    mask["0.weight"][2] = False  # its column stays
    mask["2.weight"][:, 3] = False  # its row stays
    mask["0.weight"][4, :3], mask["2.weight"][:, 4] = False, False
    plan = Plan.of([HIDDEN], laconic.pruning.Mask(mask), model)
    assert plan.kept["0.weight"][0].tolist() == plan.kept["2.weight"][1].tolist() == [0, 2, 3, 4, 5]
    assert plan.shapes == {"0.bias": (6,), "0.weight": (6, 4), "2.weight": (3, 6)}
    assert {name: plan.cut_shape(name) for name in plan.shapes} == {
        "0.bias": (5,),
        "0.weight": (5, 4),
        "2.weight": (3, 5),
    }


def test_tensors_that_the_mask_is_silent_on_follow(model):
    kept = torch.ones(6, 4, dtype=torch.bool)
    kept[5] = False
    plan = Plan.of(Coupling((HIDDEN,), {}), {"0.weight": kept}, model)
    assert plan.kept["0.bias"][0].tolist() == plan.kept["2.weight"][1].tolist() == [0, 1, 2, 3, 4]
    assert not Plan.of([HIDDEN], {}, model)


def test_nothing_removed_is_an_empty_plan(model):
    plan = Plan.of([HIDDEN], everything(model), model)
    assert not plan
    assert plan == Plan()
    assert all(
        torch.equal(a, b) for a, b in zip(laconic.shrink(model, plan).parameters(), model.parameters(), strict=True)
    )


def test_a_group_keeps_a_member(model):
    mask = {name: torch.zeros_like(kept) for name, kept in everything(model).items()}
    with pytest.raises(UnsupportedError, match="^0: expected a member to stay, found all 6 removed"):
        Plan.of([HIDDEN], mask, model)


def test_masks_and_couplings_of_other_models_are_refused(model):
    with pytest.raises(MismatchError, match=r"2.weight: mask is \(3, 5\), group 0 reaches 6 along axis 1"):
        Plan.of([HIDDEN], {"2.weight": torch.ones(3, 5, dtype=torch.bool)}, model)
    removed = {"0.weight": torch.arange(6)[:, None].expand(6, 4) > 0}
    with pytest.raises(MismatchError, match=r"2.weight: coupling reaches 6 along axis 1, tensor is \(3, 5\)"):
        Plan.of([HIDDEN], removed, nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(5, 3)))
    with pytest.raises(MismatchError, match="0.bias: the coupling has it, the model does not"):
        Plan.of([HIDDEN], removed, nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3)))


def test_settings_count_what_stays(model):
    group = Group("a", (rows("0.weight", 0, 3, width=2),), (("a", "heads", 1), ("a", "width", 2)))
    kept = torch.ones(6, 4, dtype=torch.bool)
    kept[2:4] = False
    plan = Plan.of([group], {"0.weight": kept}, model)
    assert plan.settings == {("a", "heads"): 2, ("a", "width"): 4}
    assert plan.kept["0.weight"][0].tolist() == [0, 1, 4, 5]


def test_groups_may_share_an_axis(model):
    left = Group("left", (Part("2.weight", 1, torch.tensor([[0], [2]])),))
    right = Group("right", (Part("2.weight", 1, torch.tensor([[5], [1]])),))
    kept = torch.ones(3, 6, dtype=torch.bool)
    kept[:, [2, 5]] = False
    assert Plan.of([left, right], {"2.weight": kept}, model).kept["2.weight"][1].tolist() == [0, 1, 3, 4]


def test_groups_inside_a_bypassed_block_go_with_it():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4)))
    inner = Group("1.0", (rows("1.0.weight", 0, 6), rows("1.1.weight", 1, 6)), (("1.0", "heads", 1),))
    stream = Group("0", (rows("0.weight", 0, 4), rows("1.1.weight", 0, 4)))
    block = Group("1", tuple(rows(n, 0, 1, len(t)) for n, t in model[1].state_dict(prefix="1.").items()), bypassed="1")
    mask = everything(model)
    mask["1.0.weight"][:], mask["1.1.weight"][:], mask["0.weight"][1] = False, False, False
    plan = Plan.of([inner, stream, block], mask, model)
    assert plan.bypassed == {"1": 0}
    assert not plan.settings
    assert {name: {a: k.tolist() for a, k in axes.items()} for name, axes in plan.kept.items()} == {
        "0.weight": {0: [0, 2, 3]}
    }


def member_plan(model, gone):
    kept = torch.ones(model[0].weight.shape, dtype=torch.bool)
    kept[gone] = False
    return Plan.of(
        [Group("0", (rows("0.weight", 0, len(kept)), rows("0.bias", 0, len(kept)), rows("2.weight", 1, len(kept))))],
        {"0.weight": kept},
        model,
    )


def test_two_cuts_are_one_plan_for_the_dense_model(model):
    first = member_plan(model, [0, 3])
    smaller = laconic.shrink(model, first)
    second = member_plan(smaller, [1])
    both = first.then(second)
    twice, once = laconic.shrink(smaller, second), laconic.shrink(model, both)
    assert both.kept["0.weight"][0].tolist() == [1, 4, 5]
    assert both.shapes == first.shapes
    assert all(torch.equal(a, b) for a, b in zip(twice.state_dict().values(), once.state_dict().values(), strict=True))
    assert Plan().then(first) == first == first.then(Plan())
    with pytest.raises(MismatchError, match=r"0.bias: expected \(6,\), the first plan leaves \(4,\)"):
        first.then(first)


def test_a_plan_after_a_plan_that_bypasses(model):
    first = member_plan(model, [0])
    second = Plan({"2.weight": (3, 5)}, {"2.weight": {0: torch.tensor([0, 1])}}, {("0", "n"): 1}, {"0": 0})
    both = first.then(second)
    assert both.bypassed == {"0": 0}
    assert not both.settings
    assert both.shapes == {"2.weight": (3, 6)}
    assert {a: k.tolist() for a, k in both.kept["2.weight"].items()} == {0: [0, 1], 1: [1, 2, 3, 4, 5]}
    with pytest.raises(MismatchError, match="the second plan has it, the first removes it"):
        second.then(first)


def test_a_block_around_a_bypassed_one():
    assert Plan(bypassed={"a.b": 0}).then(Plan(bypassed={"a": 1})).bypassed == {"a": 1}


def test_plans_cut_masks_too(model):
    plan = member_plan(model, [2])
    mask = everything(model)
    small = laconic.shrink(model, plan)
    assert {n: plan.cut(n, m).shape for n, m in mask.items()} == {
        n: w.shape for n, w in laconic.model.compressible(small).items()
    }


CASES = [(name, kind) for name, net in NETWORKS.items() for kind in ("channels", "heads") if getattr(net, kind)]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda value: value)
def test_what_no_weight_reads_is_cut_and_nothing_else(name, kind):
    torch.manual_seed(0)
    network = NETWORKS[name]
    model, inputs = network.make().eval(), network.inputs()
    coupling = KINDS[kind](model, inputs)
    state, gone = model.state_dict(), {}
    for group in coupling.groups:
        takes = [part for part in group.parts if part.axis > 0]
        gone[group.name] = torch.randperm(group.n)[: group.n // 2] if takes else torch.zeros(0).long()
        for part in takes:
            state[part.tensor].index_fill_(part.axis, part.index[gone[group.name]].flatten(), 0)
    before = run(model, inputs)
    plan = laconic.surgery.dead_channels(coupling, model)
    stay = [(g, torch.ones(g.n).bool().index_fill(0, gone[g.name], False)) for g in coupling.groups]
    assert plan == laconic.surgery.Plan.keeping(stay, model)
    laconic.surgery.shrink_(model, plan, inputs=inputs)
    for one, other in zip(run(model, inputs), before, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_one_member_stays_where_none_is_read():
    model = laconic.zoo.mlp(4, 3, 2)
    torch.nn.init.zeros_(model.fc2.weight)
    coupling = laconic.surgery.find_channels(model, torch.zeros(1, 4))
    assert laconic.surgery.dead_channels(coupling, model).cut_shape("fc1.weight") == (1, 4)


def test_couplings_and_plans_are_a_line_and_a_table():
    model = zoo.lenet5()
    coupling = find_channels(model, torch.zeros(1, 1, 28, 28))
    mask = laconic.prune_(model, 0.5, unit=units.Coupled(coupling))
    plan = Plan.of(coupling, mask, model)
    for value in (coupling, plan, coupling.groups[0], coupling.groups[0].parts[0]):
        assert "\n" not in repr(value) and len(repr(value)) < 80
    assert repr(coupling) == "Coupling(3 groups of 570 members, 1 refused)"
    assert "fc2     refused" in str(coupling) and "conv1.weight: 0, conv1.bias: 0, conv2.weight: 1" in str(coupling)
    n = int(mask["fc2.weight"].any(0).sum())
    assert f"10×{n}" in str(plan)
    assert max(map(len, (str(coupling) + str(plan)).splitlines())) <= 80
