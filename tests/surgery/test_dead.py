import pytest
import torch

import laconic
from tests.support.networks import NETWORKS
from tests.surgery.test_conformance import KINDS, run

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
