import pytest
import torch
from torch.nn import functional as F

from laconic.errors import MismatchError
from laconic.model.tasks import Binary, Classes, Custom, Regression, SoftClasses, infer

TORCH = torch.Generator().manual_seed(0)


def floats(*shape):
    return torch.randn(shape, generator=TORCH)


def classes(below, *shape, dtype=torch.int64):
    return torch.randint(below, shape, generator=TORCH).to(dtype)


SOFT = floats(6, 4).softmax(1)
INFERRED = {
    "classes": (floats(6, 4), classes(4, 6), Classes()),
    "int32": (floats(6, 4), classes(4, 6, dtype=torch.int32), Classes()),
    "uint8": (floats(6, 4), classes(4, 6, dtype=torch.uint8), Classes()),
    "a column of classes": (floats(6, 4), classes(4, 6, 1), Classes()),
    "pixels": (floats(2, 5, 8, 8), classes(5, 2, 8, 8), Classes()),
    "volume": (floats(2, 5, 3, 4, 4), classes(5, 2, 3, 4, 4), Classes()),
    "tokens, classes last": (floats(2, 7, 5), classes(5, 2, 7), Classes(last=True)),
    "tokens, classes first": (floats(2, 5, 7), classes(5, 2, 7), Classes()),
    "both axes fit: PyTorch's": (floats(2, 5, 5), classes(5, 2, 5), Classes()),
    "soft": (floats(6, 4), SOFT, SoftClasses()),
    "soft, of pixels": (floats(2, 4, 3, 3), floats(2, 4, 3, 3).softmax(1), SoftClasses()),
    "one hot, of integers": (floats(6, 4), F.one_hot(classes(4, 6), 4), SoftClasses()),
    "several labels": (floats(6, 4), classes(2, 6, 4).float(), Binary()),
    "several labels of integers": (floats(6, 4), classes(2, 6, 4), Binary()),
    "one label of floats": (floats(6, 1), classes(2, 6).float(), Binary()),
    "one label of booleans": (floats(6), classes(2, 6).bool(), Binary()),
    "numbers": (floats(6, 1), floats(6), Regression()),
    "images": (floats(2, 3, 8, 8), floats(2, 3, 8, 8).abs(), Regression()),
    "counts": (floats(6, 1), classes(50, 6), Regression()),
}


@pytest.mark.parametrize("kind", INFERRED)
def test_the_task_follows_from_types_shapes_and_values(kind):
    outputs, targets, expected = INFERRED[kind]
    assert infer(outputs, targets) == expected


@pytest.mark.parametrize("kind", INFERRED)
def test_entries_add_up_to_the_mean_and_right_answers_are_a_fraction(kind):
    outputs, targets, _ = INFERRED[kind]
    task = infer(outputs, targets)
    judged = task.judge(outputs, targets)
    assert len(judged.nats) == len(judged.n_labels) == len(outputs)
    assert torch.isclose(judged.nats.sum() / judged.n_labels.sum(), task.mean(outputs, targets)[0], rtol=1e-4)
    assert int(judged.n_labels.sum()) == int(task.mean(outputs, targets)[1])
    if judged.n_right is not None:
        assert (judged.n_right <= judged.n_labels).all()
    parts = [task.judge(outputs[i : i + 1], targets[i : i + 1]).nats for i in range(len(outputs))]
    assert torch.allclose(torch.cat(parts), judged.nats, rtol=1e-4)


def test_classes_of_both_axes_when_the_last_is_preferred():
    assert infer(floats(2, 5, 5), classes(5, 2, 5), last=True) == Classes(last=True)


@pytest.mark.parametrize("ignore_index", [-100, 255])
def test_labels_that_do_not_count(ignore_index):
    outputs, targets = floats(2, 5, 8, 8), classes(5, 2, 8, 8)
    targets[0, :4] = ignore_index
    judged = Classes(ignore_index).judge(outputs, targets)
    assert judged.n_labels.tolist() == [32, 64]
    assert torch.equal(judged.n_right[1], (outputs[1].argmax(0) == targets[1]).sum())
    expected = F.cross_entropy(outputs, targets, ignore_index=ignore_index)
    assert torch.isclose(Classes(ignore_index).mean(outputs, targets)[0], expected)


@pytest.mark.parametrize("places", [(), (8,), (3, 3)])
def test_a_batch_in_which_no_label_counts_trains_nothing(places):
    outputs = floats(2, 5, *places).requires_grad_()
    Classes().mean(outputs, torch.full((2, *places), -100))[0].backward()
    assert not outputs.grad.any()


def test_a_class_that_the_outputs_lack_is_named():
    with pytest.raises(MismatchError, match=r"classes below 5, or -100 .* found 255; see Objective\(ignore_index=\)"):
        Classes().judge(floats(1, 5, 2), torch.tensor([[0, 255]]))
    with pytest.raises(MismatchError, match="classes below 5, .* found 255"):
        Classes().mean(floats(2, 5), torch.tensor([0, 255]))


def test_shifted_labels_are_the_next_positions():
    outputs, targets = floats(2, 7, 5), classes(5, 2, 7)
    expected = F.cross_entropy(outputs[:, :-1].reshape(-1, 5), targets[:, 1:].reshape(-1))
    assert torch.isclose(Classes(last=True, shifted=True).mean(outputs, targets)[0], expected)


def test_targets_of_no_task_are_refused():
    with pytest.raises(MismatchError, match=r"found outputs \(6, 4\) and int64 targets \(5,\)"):
        infer(floats(6, 4), classes(4, 5))
    with pytest.raises(MismatchError, match="expected a tensor, found a dict; pass objective="):
        infer(floats(6, 4), {"boxes": floats(6, 4)})
    for outputs, targets in ((floats(4), classes(4)), (floats(), floats(6)), (floats(1, 4), classes(4))):
        with pytest.raises(MismatchError, match="expected a first axis of examples, found a single number"):
            infer(outputs, targets)


def test_a_column_of_outputs_is_not_broadcast_against_a_row_of_targets():
    outputs, targets = floats(6, 1), floats(6)
    assert torch.isclose(Regression().mean(outputs, targets)[0], (outputs[:, 0] - targets).square().mean())


def test_a_loss_of_the_users_may_be_a_mean_or_a_value_for_each():
    outputs, targets = floats(6, 4), classes(4, 6)
    whole = Custom(F.cross_entropy).judge(outputs, targets)
    each = Custom(lambda o, t: F.cross_entropy(o, t, reduction="none")).judge(outputs, targets)
    assert whole.nats.shape == (1,)
    assert torch.isclose(whole.nats[0], each.nats.sum())
    assert whole.n_labels.tolist() == [6]
    assert int(whole.n_right[0]) == int(each.n_right.sum())


@pytest.mark.parametrize("returned", [None, 0.5, torch.tensor(1)])
def test_a_loss_that_returns_no_tensor_of_floats_is_named(returned):
    def mine(outputs, targets):
        return returned

    with pytest.raises(MismatchError, match="expected a tensor of floats from mine"):
        Custom(mine).mean(floats(1), floats(1))


def test_losses_of_half_precision_are_added_in_float64():
    nats = Custom(lambda o, t: o).judge(torch.full((3000,), 1.0009765625, dtype=torch.float16), None).nats
    assert float(nats.sum()) == 3000 * 1.0009765625


def test_a_sum_is_refused():
    with pytest.raises(MismatchError, match="reduction='sum'"):
        Custom(torch.nn.CrossEntropyLoss(reduction="sum")).mean(floats(2, 3), classes(3, 2))
