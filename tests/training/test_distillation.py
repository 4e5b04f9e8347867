import copy

import pytest
import torch
from torch import nn

import laconic
from laconic import Training, train
from laconic.training import Distillation


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def test_the_loss_is_t_squared_times_the_divergence():
    student, teacher = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    s, t = ((logits / 2).double().softmax(-1) for logits in (student, teacher))
    expected = 4 * (t * (t / s).log()).sum(-1).mean()
    assert float(Distillation(network(0).eval(), 2)(student, teacher)) == pytest.approx(float(expected), rel=1e-5)
    assert float(Distillation(network(0).eval())(teacher, teacher)) == pytest.approx(0, abs=1e-6)


def test_another_loss_takes_the_place_of_the_divergence():
    x, teacher, student = torch.randn(6, 4), network(1).eval(), network(2)
    distillation = Distillation(teacher, loss=nn.functional.mse_loss, hints=["0"], hint_weight=2)
    with distillation.on(student) as answer, torch.no_grad():
        outputs, inner = student(x) - teacher(x), student[0](x) - teacher[0](x)
        expected = outputs.square().mean() + 2 * inner.square().sum() / teacher[0](x).square().sum()
        assert float(answer(x).loss) == pytest.approx(float(expected), rel=1e-5)


def test_the_student_comes_to_do_what_the_teacher_does_whatever_the_labels():
    torch.manual_seed(0)
    x = torch.randn(256, 4)
    batches = [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(64)]
    teacher, student = network(1).eval(), network(2)
    before = copy.deepcopy(teacher.state_dict())
    training = Training(60, lambda p: torch.optim.Adam(p, lr=1e-2), objective=Distillation(teacher))
    train(student, batches, training)
    assert (student(x).argmax(1) == teacher(x).argmax(1)).float().mean() > 0.95
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_hints_add_their_relative_squared_errors():
    x, teacher, student = torch.randn(6, 4), network(1).eval(), network(2)
    distillation = Distillation(teacher, hints=["re:[01]"], hint_weight=3)
    with distillation.on(student) as answer, torch.no_grad():
        found = answer(x).loss
        expected = distillation(student(x), teacher(x))
        for n in (1, 2):
            s, t = student[:n](x), teacher[:n](x)
            expected += 3 * ((s - t) ** 2).sum() / (t**2).sum()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert not any(module._forward_hooks for net in (teacher, student) for module in net.modules())


def test_a_student_with_hints_learns_the_inner_outputs():
    torch.manual_seed(0)
    x = torch.randn(256, 4)
    teacher, students = network(1).eval(), [network(2), network(2)]
    for student, hints in zip(students, [(), ["0"]], strict=True):
        objective = Distillation(teacher, hints=hints, hint_weight=10)
        train(student, [(x, x)], Training(60, lambda p: torch.optim.Adam(p, lr=1e-2), objective))
    with torch.no_grad():
        without, having = (float((student[0](x) - teacher[0](x)).norm()) for student in students)
    assert having < 0.5 * without


def test_hints_of_a_compiled_student():
    x, teacher, student = torch.randn(6, 4), network(1).eval(), network(2)
    compiled = torch.compile(student, backend="eager")
    compiled(x)
    distillation = Distillation(teacher, hints=["0"], hint_weight=3)
    losses = []
    for model in (student, compiled):
        with distillation.on(model) as answer:
            found = answer(x).loss
            found.backward()
            losses.append(float(found.detach()))
    assert losses[0] == pytest.approx(losses[1])
    assert compiled(x).shape == (6, 3)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Unpaired(nn.Module):
    def forward(self, x):
        return x[0]


@pytest.mark.parametrize(
    ("student", "teacher", "hint", "error", "message"),
    [
        (network(0), network(1), "9", laconic.errors.MismatchError, "a module of the student that matches '9'"),
        (nn.Sequential(network(0)), network(1), "0.1", laconic.errors.MismatchError, "'0.1' of the teacher"),
        (
            nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 3)),
            network(1),
            "0",
            laconic.errors.MismatchError,
            r"0: the student's output is \(2, 9\), the teacher's \(2, 8\)",
        ),
        (
            nn.Sequential(Pair(), Unpaired()),
            network(1),
            "0",
            laconic.errors.UnsupportedError,
            "0: a hint needs a tensor",
        ),
    ],
)
def test_hints_that_cannot_be_given(student, teacher, hint, error, message):
    x = torch.randn(2, 4)
    with pytest.raises(error, match=message), Distillation(teacher.eval(), hints=[hint]).on(student) as answer:
        answer(x)


@pytest.mark.parametrize(
    ("teacher", "temperature", "message"),
    [(network(0), 4.0, "expected evaluation mode"), (network(0).eval(), 0.0, "temperature: expected above 0, got 0.0")],
)
def test_refusals(teacher, temperature, message):
    with pytest.raises(ValueError, match=message):
        laconic.training.Distillation(teacher, temperature)
