import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F

import laconic
from laconic.errors import MismatchError


def net():
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=0.1)


def with_momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)


OPTIMIZERS = [
    with_momentum,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.NAdam,
    lbfgs,
]


def steps(model, optimizer, n=5):
    for _ in range(n):
        inputs, targets = torch.randn(16, 6), torch.randint(0, 3, (16,))

        def closure(inputs=inputs, targets=targets):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            return loss

        optimizer.step(closure)


def holds(model, mask):
    return all(not p[~mask[n]].any() for n, p in laconic.model.compressible(model).items())


@pytest.mark.parametrize("make", OPTIMIZERS, ids=lambda make: make.__name__)
def test_the_mask_survives_any_optimizer(make):
    model = net()
    optimizer = make(model.parameters())
    steps(model, optimizer)  # momentum that would move what is pruned next
    mask = laconic.prune_(model, 0.8, scope=laconic.pruning.scopes.PerTensor())
    before = {n: p.clone() for n, p in laconic.model.compressible(model).items()}
    attached = laconic.hold(mask, model, optimizer)
    steps(model, optimizer)
    assert holds(model, mask)
    assert attached.step == 5
    assert all((before[n] != p)[mask[n]].any() for n, p in laconic.model.compressible(model).items())
    attached.remove()
    steps(model, optimizer)
    assert not holds(model, mask), "without the rule this optimizer moves pruned weights"


def test_the_model_stays_as_it_was():
    model = net()
    keys = set(model.state_dict())
    with laconic.hold(laconic.prune_(model, 0.5), model, torch.optim.Adam(model.parameters())):
        assert set(model.state_dict()) == keys
        clone = copy.deepcopy(model)
        assert holds(clone, laconic.pruning.Pruner().at(0.5).mask(model))
        net().load_state_dict(model.state_dict())


def test_it_holds_through_torch_compile():
    model = net()
    mask = laconic.prune_(model, 0.7, scope=laconic.pruning.scopes.PerTensor())
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.AdamW(compiled.parameters())
    with laconic.hold(mask, compiled, optimizer):
        steps(compiled, optimizer)
    assert holds(model, mask)


def test_it_holds_in_a_loop_of_accelerate():
    model = net()
    mask = laconic.prune_(model, 0.7, scope=laconic.pruning.scopes.PerTensor())
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, with_momentum(model.parameters()))
    with laconic.hold(mask, prepared, optimizer) as attached:
        steps(prepared, optimizer)
    assert attached.step == 5
    assert holds(model, mask)


def test_a_foreign_mask_is_refused_before_training():
    model, other = net(), nn.Linear(4, 4)
    mask = laconic.prune_(other, 0.5)
    with pytest.raises(MismatchError, match="weight: the mask has it"):
        laconic.hold(mask, model, torch.optim.Adam(model.parameters()))


def test_gradual_pruning_follows_its_schedule_and_never_regrows():
    model = net()
    optimizer = with_momentum(model.parameters())
    rule = laconic.training.Gradual(laconic.training.Schedule(0.9, end=20), every=5)
    sparsities, before = [], None
    with laconic.attach(rule, model, optimizer) as attached:
        for _ in range(25):
            steps(model, optimizer, 1)
            mask = attached.mask
            assert holds(model, mask)
            assert before is None or all(not (mask[n] & ~before[n]).any() for n in mask)
            before = mask
            sparsities.append(mask.sparsity)
    expected = [rule.schedule(5 * (step // 5)) if step < 20 else 0.9 for step in range(1, 26)]
    assert sparsities == pytest.approx(expected, abs=0.01)


def test_rules_resume():
    torch.manual_seed(1)
    model = net()
    optimizer = with_momentum(model.parameters())
    rule = laconic.training.Gradual(laconic.training.Schedule(0.9, end=20), every=5)
    attached = laconic.attach(rule, model, optimizer)
    steps(model, optimizer, 7)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), attached.state_dict()))
    rng = torch.get_rng_state()
    steps(model, optimizer, 8)
    other = net()
    again = with_momentum(other.parameters())
    resumed = laconic.attach(rule, other, again)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    resumed.load_state_dict(saved[2])
    torch.set_rng_state(rng)
    steps(other, again, 8)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    assert resumed.step == attached.step == 15


class Counting(laconic.training.Rule):
    """A rule of one's own: it counts, and trains a parameter beside the model's."""

    needs_gradients = True

    def init(self, now):
        scale = nn.Parameter(torch.ones(()))
        now.optimizer.add_param_group({"params": [scale], "lr": 0.5, "weight_decay": 0.0})
        return {"counts": {"before": torch.zeros(()), "after": torch.zeros(())}, "trained": {"scale": scale}}

    def before(self, state, now):
        state["trained"]["scale"].grad = torch.ones(())
        counts = {**state["counts"], "before": torch.tensor(now.step)}
        assert all(p.grad is not None for p in now.model.parameters())
        return {**state, "counts": counts}

    def update(self, state, now):
        assert state["counts"]["before"] == now.step
        return {**state, "counts": {**state["counts"], "after": torch.tensor(now.step)}}

    def finish(self, state, now):
        now.model[0].bias.fill_(7.0)


def plain_step(model, optimizer):
    optimizer.zero_grad()
    model(torch.randn(16, 6)).square().mean().backward()
    optimizer.step()


def test_a_rule_of_ones_own_sees_gradients_and_trains_what_it_adds():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with laconic.attach(Counting(), model, optimizer) as attached:
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
        for _ in range(4):
            plain_step(model, optimizer)
            scheduler.step()
        scale = attached.state["trained"]["scale"]
        assert scale.item() == pytest.approx(1 - 2 * 0.5 - 2 * 0.05)
        saved = copy.deepcopy(attached.state_dict())
        plain_step(model, optimizer)
        attached.load_state_dict(saved)
        assert attached.state["trained"]["scale"] is scale, "what the optimizer holds is restored in place"
        assert scale.item() == saved["state"]["trained"]["scale"]
        assert attached.state["counts"]["after"] == attached.step == 4
        bias = model[0].bias.clone()
        with attached.deterministic() as deterministic:
            assert (deterministic[0].bias == 7).all()
        assert torch.equal(model[0].bias, bias)
    assert (model[0].bias == 7).all()
    assert len(optimizer.param_groups) == 1
    assert scale not in optimizer.state


def test_a_failing_block_still_detaches():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="mine"), laconic.attach(Counting(), model, optimizer):
        raise RuntimeError("mine")
    assert len(optimizer.param_groups) == 1
    assert not optimizer._optimizer_step_pre_hooks


def test_gradients_that_are_still_scaled_are_refused():
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    with laconic.attach(laconic.training.Gates(1.0, 10), model, optimizer):
        optimizer.grad_scale = torch.tensor(2.0)  # as torch.amp.GradScaler leaves it to a fused optimizer
        with pytest.raises(laconic.errors.UnsupportedError, match="unscale its gradients"):
            optimizer.step()


def test_callbacks_see_the_settled_network():
    model, seen = net(), []

    def callback(progress):
        noisy = model[0].weight.detach().clone()
        with progress.deterministic() as deterministic:
            seen.append(deterministic[0].weight.detach().clone())
        assert torch.equal(model[0].weight, noisy)
        assert not torch.equal(seen[-1], noisy)

    batches = [(torch.randn(16, 6), torch.randint(0, 3, (16,))) for _ in range(4)]
    laconic.train(model, batches, laconic.Training(1), [laconic.training.Gates(1.0, 64)], [callback])
    assert torch.equal(model[0].weight, seen[-1])
