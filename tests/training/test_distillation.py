import copy

import pytest
import torch
from torch import nn

import laconic
from laconic import Distillation, Training, train


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def test_the_loss_is_t_squared_times_the_divergence():
    student, teacher = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    s, t = ((logits / 2).double().softmax(-1) for logits in (student, teacher))
    expected = 4 * (t * (t / s).log()).sum(-1).mean()
    assert float(Distillation(network(0).eval(), 2)(student, teacher)) == pytest.approx(
        float(expected), rel=1e-5
    )
    assert float(Distillation(network(0).eval())(teacher, teacher)) == pytest.approx(0, abs=1e-6)


def test_the_student_comes_to_do_what_the_teacher_does_whatever_the_labels():
    torch.manual_seed(0)
    x = torch.randn(256, 4)
    batches = [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(64)]
    teacher, student = network(1).eval(), network(2)
    before = copy.deepcopy(teacher.state_dict())
    training = Training(60, lambda p: torch.optim.Adam(p, lr=1e-2), loss=Distillation(teacher))
    train(student, batches, training)
    assert (student(x).argmax(1) == teacher(x).argmax(1)).float().mean() > 0.95
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize(
    ("teacher", "temperature", "message"),
    [
        (network(0), 4.0, "expected evaluation mode"),
        (network(0).eval(), 0.0, "temperature: expected above 0, got 0.0"),
    ],
)
def test_refusals(teacher, temperature, message):
    with pytest.raises(ValueError, match=message):
        laconic.Distillation(teacher, temperature)
