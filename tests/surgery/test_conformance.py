"""Every network of the list, cut in every way that applies to it, keeps the same promises.

A new architecture is one entry in `networks.py`.
"""

import copy

import pytest
import torch
from torch import nn

import laconic
from laconic.model.modules import call
from laconic.surgery import Plan
from laconic.surgery.verify import floats
from tests.support.files import plan_of
from tests.support.networks import NETWORKS

KINDS = {
    "channels": laconic.surgery.find_channels,
    "heads": laconic.surgery.find_heads,
    "blocks": laconic.surgery.find_residual_blocks,
}
CASES = [(name, kind) for name, net in NETWORKS.items() for kind in KINDS if getattr(net, kind)]
every_case = pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda value: value)


def step(model, inputs, optimizer):
    """One step of training on something that reaches every parameter."""
    optimizer.zero_grad()
    outputs = list(floats(call(model.train(), inputs)))
    sum((out - torch.linspace(-1, 1, out.numel()).reshape(out.shape)).square().mean() for out in outputs).backward()
    optimizer.step()
    return outputs  # whoever holds them holds the graph of this step


@torch.no_grad()
def run(model, inputs):
    return list(floats(call(model.eval(), inputs)))


def half(coupling, model):
    """A mask that removes half the members of each group (of blocks, every other block), and how many stay."""
    mask = {
        name: torch.ones_like(weight, dtype=torch.bool) for name, weight in laconic.model.compressible(model).items()
    }
    stay = {}
    for i, group in enumerate(coupling.groups):
        gone = torch.randperm(group.n)[: group.n // 2 if group.n > 1 else i % 2]
        stay[group.name] = group.n - len(gone)
        for part in group.parts if len(gone) else ():
            if part.tensor in mask:
                mask[part.tensor].index_fill_(part.axis, part.index[gone].flatten(), False)
    return laconic.pruning.Mask(mask), stay


def masked(model, mask, plan):
    """The model with zeros where the mask says so, and all of a block where it goes."""
    model = copy.deepcopy(model)
    laconic.pruning.apply_(model, mask)
    for name in plan.bypassed:
        for parameter in model.get_submodule(name).parameters():
            nn.init.zeros_(parameter)
    return model


def agree(a, b):
    assert [t.shape for t in a] == [t.shape for t in b]
    return all(float((x - y).abs().max()) <= 1e-5 * float(x.abs().max()) for x, y in zip(a, b, strict=True))


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def couplings():
    """Each found once; on a model that is not the one that is cut, since a coupling is data."""
    return {}


def found(couplings, name, kind):
    if (name, kind) not in couplings:
        torch.manual_seed(1)
        couplings[name, kind] = KINDS[kind](NETWORKS[name].make(), NETWORKS[name].inputs())
    return couplings[name, kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_groups_are_found_or_refused_by_name(couplings, name, kind):
    coupling = found(couplings, name, kind)
    assert {group.name: group.n for group in coupling.groups} == getattr(NETWORKS[name], kind)
    for refused, reason in getattr(NETWORKS[name], f"not_{kind}").items():
        assert reason in coupling.refused[refused]


@every_case
def test_the_smaller_model_computes_what_the_masked_one_does(couplings, name, kind, tmp_path):
    network, coupling = NETWORKS[name], found(couplings, name, kind)
    model, inputs = network.make(), network.inputs()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    graphs = [step(model, inputs, optimizer) for _ in range(2)]
    mask, stay = half(coupling, model)
    plan = Plan.of(coupling, mask, model)
    expected, names, n_before = (run(masked(model, mask, plan), inputs), list(model.state_dict()), n_parameters(model))

    laconic.surgery.shrink_(model, plan, optimizer, inputs)

    assert agree(expected, run(model, inputs))
    assert n_parameters(model) < n_before
    left = [n for n in names if not any(n.startswith(f"{block}.") for block in plan.bypassed)]
    assert list(model.state_dict()) == left
    assert plan.bypassed.keys() == {g.name for g in coupling.groups if not stay[g.name]}

    laconic.save(model, tmp_path / "small.lac", None, plan=plan)
    dense = network.make()
    assert laconic.load(tmp_path / "small.lac", into=dense) is dense
    assert agree(run(dense, inputs), run(model, inputs))
    assert plan_of(tmp_path / "small.lac") == plan
    again = laconic.load(tmp_path / "small.lac", into=laconic.shrink(network.make(), plan))
    assert agree(run(again, inputs), run(model, inputs))

    before = copy.deepcopy(model.state_dict())
    graphs.append(step(model, inputs, optimizer))
    assert all(not torch.equal(before[n], parameter) for n, parameter in model.named_parameters())
    live = {id(parameter) for parameter in model.parameters()}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == live == set(map(id, optimizer.state))


@pytest.mark.parametrize("name", ["mobilenet", "tied embedding", "llama"])
def test_smaller_models_are_copied_and_compiled(couplings, name):
    network = NETWORKS[name]
    model, inputs = network.make(), network.inputs()
    groups = [g for kind in KINDS if getattr(network, kind) for g in found(couplings, name, kind).groups][:-1]
    mask, _ = half(laconic.surgery.Coupling(tuple(groups), {}), model)
    small = laconic.shrink(model, Plan.of(groups, mask, model), inputs)
    expected = run(small, inputs)
    assert agree(expected, run(copy.deepcopy(small), inputs))
    torch._dynamo.reset()
    assert agree(expected, run(torch.compile(small, backend="aot_eager"), inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_is_not_touched_by_tracing(name):
    network = NETWORKS[name]
    model, inputs = network.make().train(), network.inputs()
    next(model.parameters()).requires_grad_(False)
    next(model.children()).register_forward_hook(lambda *_: None)
    state, flags = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    chance = torch.random.get_rng_state()
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks), m.training) for m in model.modules()]
    coupling = laconic.surgery.find_channels(model, inputs)
    assert torch.equal(chance, torch.random.get_rng_state())
    assert {group.name for group in coupling.groups} == set(network.channels)
    assert all(torch.equal(state[n], t) for n, t in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [(dict(m._forward_hooks), dict(m._forward_pre_hooks), m.training) for m in model.modules()] == hooks
