"""What people's batches and outputs are, and that each is judged as its own library would."""

from collections import UserDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import rnn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from laconic.errors import MismatchError
from laconic.model import Statistic, observe
from laconic.model.objective import Objective, check_batches, n_batches
from laconic.model.tasks import Binary, Classes, OwnLoss, Regression

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40}
IDS = torch.randint(0, 40, (3, 6), generator=torch.Generator().manual_seed(0))


def answer(model, batch, objective=None):
    with (objective or Objective()).on(model.eval()) as ask:
        return ask(batch)


def bert(head, **options):
    torch.manual_seed(0)
    return getattr(transformers, f"BertFor{head}")(transformers.BertConfig(**SMALL, **options))


def gpt2():
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40))


def t5():
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(**sizes, vocab_size=40, decoder_start_token_id=0)
    )


def ignored(labels):
    return labels.masked_fill(labels % 3 == 0, -100)


MANY = torch.tensor([[0.0, 1, 1], [1, 1, 0], [0, 0, 0]])
HUGGING_FACE = {
    "classes": (lambda: bert("SequenceClassification", num_labels=4), torch.tensor([0, 3, 2]), Classes()),
    "regression": (lambda: bert("SequenceClassification", num_labels=1), torch.randn(3), Regression()),
    "several labels": (lambda: bert("SequenceClassification", num_labels=3), MANY, Binary()),
    "tokens": (lambda: bert("TokenClassification", num_labels=5), ignored(IDS % 5), Classes(last=True)),
    "masked": (lambda: bert("MaskedLM"), ignored(IDS), Classes(last=True)),
    "causal": (gpt2, ignored(IDS), Classes(last=True, shifted=True)),
    "sequences": (t5, ignored(IDS), Classes(last=True)),
}


@pytest.mark.parametrize("kind", HUGGING_FACE)
def test_a_hugging_face_model_is_judged_as_it_judges_itself(kind):
    make, labels, task = HUGGING_FACE[kind]
    model = make()
    own = model.eval()(input_ids=IDS, labels=labels).loss
    inside = answer(model, {"input_ids": IDS, "labels": labels})
    beside = answer(model, ({"input_ids": IDS}, labels))
    for found in (inside, beside):
        assert found.task == task
        assert found.loss == own
        assert found.n == 3
        assert len(found.judged.nats) == 3
        total, n_labels = found.judged.nats.sum(), found.judged.n_labels.sum()
        assert torch.isclose(total / n_labels, own.double(), rtol=1e-4)


def test_outputs_as_a_tuple_are_the_same():
    found = answer(gpt2(), {"input_ids": IDS, "labels": IDS, "return_dict": False})
    assert found.task == Classes(last=True, shifted=True)
    assert found.loss.ndim == 0


def test_a_loss_of_no_known_task_is_one_entry():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(40, 4)

        def forward(self, input_ids, labels=None):
            return {"loss": self.table(input_ids).square().mean()}

    found = answer(Odd(), {"input_ids": IDS, "labels": IDS})
    assert found.task == OwnLoss()
    assert torch.isclose(found.judged.nats, found.loss.double() * IDS.numel()).all()
    assert found.judged.n_right is None


@dataclass(slots=True)
class Outputs:
    hidden: torch.Tensor
    logits: torch.Tensor


Named = namedtuple("Named", ["hidden", "logits"])


class Wrapped(nn.Module):
    """Gives its outputs in one of the forms that people's models do."""

    def __init__(self, form):
        super().__init__()
        self.layer, self.form = nn.Linear(4, 3), form

    def forward(self, x):
        return self.form(self.layer(x))


X, Y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
FORMS = {
    "tensor": lambda y: y,
    "tuple": lambda y: (y, y.sum()),
    "nested tuple": lambda y: ((y, y), y),
    "dict": lambda y: {"hidden": y[:, :1], "logits": y},
    "torchvision": lambda y: {"out": y, "aux": 2 * y},
    "one of any name": lambda y: {"scores": y},
    "dataclass": lambda y: Outputs(y[:, :1], y),
    "named tuple": lambda y: Named(y[:, :1], y),
    "named tuple of other names": lambda y: namedtuple("Other", ["scores", "hidden"])(y, y[:, :1]),
    "no loss without labels": lambda y: (None, y),
    "list": lambda y: [y],
    "mapping of a class": lambda y: UserDict(logits=y, hidden=y[:, :1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_in_any_form(form):
    model = Wrapped(FORMS[form])
    assert torch.isclose(answer(model, (X, Y)).loss, F.cross_entropy(model.layer(X), Y))


@pytest.mark.parametrize("form", [lambda y: {"boxes": y, "scores": y}, lambda y: None, lambda y: "text"])
def test_outputs_of_no_known_form_are_named(form):
    with pytest.raises(MismatchError, match="outputs: expected a tensor"):
        answer(Wrapped(form), (X, Y))


def test_how_a_model_is_run_is_a_choice():
    model = Wrapped(lambda y: {"boxes": y, "scores": 2 * y})
    objective = Objective(run=lambda model, x: model(x)["scores"])
    assert torch.isclose(answer(model, (X, Y), objective).loss, F.cross_entropy(2 * model.layer(X), Y))


OWN = {
    "a scalar": lambda loss, y: loss,
    "a list": lambda loss, y: [loss, y],
    "a named tuple": lambda loss, y: namedtuple("Out", ["logits", "loss"])(y, loss),
    "one element": lambda loss, y: {"loss": loss[None], "logits": y},
}


@pytest.mark.parametrize("form", OWN)
def test_a_models_own_loss_in_any_form(form):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x, labels=None):
            y = self.layer(x)
            return OWN[form](2 * F.cross_entropy(y, labels), y)

    model = Model()
    found = answer(model, {"x": X, "labels": Y})
    assert torch.isclose(found.loss, 2 * F.cross_entropy(model.layer(X), Y))


READERS = {
    "an attribute": lambda outputs, targets: F.cross_entropy(outputs.logits, targets),
    "the tensor": lambda outputs, targets: F.cross_entropy(outputs, targets, label_smoothing=0.0),
    "a method of the tensor": lambda outputs, targets: -outputs.log_softmax(1)[range(6), targets],
    "PyTorch's own": nn.CrossEntropyLoss(),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_loss_reads_what_the_model_returns_or_the_logits_in_it(reader):
    model = Wrapped(lambda y: Outputs(y[:, :1], y))
    found = answer(model, (X, Y), Objective(READERS[reader]))
    assert torch.isclose(found.loss, F.cross_entropy(model.layer(X), Y))
    assert int(found.judged.n_right.sum()) == int((model.layer(X).argmax(1) == Y).sum())


def test_a_loss_of_several_outputs_gets_them_all():
    """The first of them alone would have a first row, too, in the place of the first output."""
    model = Wrapped(lambda y: (y, 2 * y, 3 * y))
    found = answer(model, (X, X[:, :3]), Objective(lambda o, t: F.mse_loss(o[0], t) + o[1].mean() + o[2].sum()))
    y = model.layer(X)
    assert torch.isclose(found.loss, F.mse_loss(y, X[:, :3]) + 2 * y.mean() + 3 * y.sum())


def test_a_loss_without_a_gradient_is_refused():
    found = answer(nn.Linear(4, 3), (X, Y), Objective(lambda o, t: F.cross_entropy(o.detach(), t)))
    with pytest.raises(MismatchError, match="loss: expected one that depends on the model's parameters"):
        _ = found.differentiable_loss


Pair = namedtuple("Pair", ["x", "y"])
PACKED = rnn.pack_sequence([torch.randn(n, 4) for n in (3, 1, 2, 3, 2, 1)], enforce_sorted=False)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.GRU(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.cells(x)[1][-1])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


DIVIDED = {
    "named tuple": (lambda: nn.Linear(4, 3), [Pair(X, Y)]),
    "list": (lambda: nn.Linear(4, 3), [[X, Y]]),
    "a mapping of a class": (lambda: Wrapped(lambda y: y), [UserDict(x=X, labels=Y)]),
    "packed sequences": (Recurrent, [(PACKED, Y)]),
    "nested tuples": (lambda: nn.Bilinear(4, 4, 3), [((X, X), Y)]),
    "a loader of an iterable data set": (lambda: nn.Linear(4, 3), DataLoader(Stream(), 4)),
    "one hot": (lambda: nn.Linear(4, 3), [(X, F.one_hot(Y))]),
}


@pytest.mark.parametrize("kind", DIVIDED)
def test_batches_divide_into_examples_whatever_their_form(kind):
    """Fisher statistics run each example by itself."""
    make, batches = DIVIDED[kind]
    torch.manual_seed(0)
    model = make().eval()
    check_batches(batches)
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for i in range(6):
        one = rnn.pack_sequence([rnn.unpack_sequence(PACKED)[i]])
        x = {"packed sequences": (one,), "nested tuples": (X[i : i + 1],) * 2}.get(kind, (X[i : i + 1],))
        loss = F.cross_entropy(model(*x), Y[i : i + 1])
        for total, gradient in zip(expected, torch.autograd.grad(loss, [*model.parameters()]), strict=True):
            total.add_(gradient.square() / 6)
    found = observe(model, batches, [Statistic.FISHER])
    assert found.n == 6
    for (name, _), value in zip(model.named_parameters(), expected, strict=True):
        assert torch.allclose(found.of(Statistic.FISHER, name), value, rtol=1e-3, atol=1e-7)


def test_the_number_of_batches_may_be_unknown():
    assert n_batches(DataLoader(Stream(), 4)) is None
    assert n_batches(iter([])) is None
    assert n_batches([X, X]) == 2


def test_several_inputs_and_targets_of_any_kind_with_a_loss():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, a, b):
            return {"left": self.layer(a), "right": self.layer(b)}

    def contrast(outputs, targets):
        return (outputs["left"] - outputs["right"] - targets["shift"]).square().mean(1)

    for batch in ([X, X + 1, {"shift": torch.ones(6, 2)}], ((X, X + 1), {"shift": torch.ones(6, 2)})):
        found = answer(Siamese(), batch, Objective(contrast))
        assert found.judged.nats.shape == (6,)


def test_the_first_batch_decides_what_the_targets_are():
    """Each row of the second batch sums to one, as probabilities would."""
    model = nn.Linear(4, 3)
    with Objective().on(model) as ask:
        assert ask((X[:3], MANY)).task == Binary()
        assert ask((X[:3], torch.eye(3))).task == Binary()


NO_BATCHES = {
    "a tensor": X,
    "a row": [X],
    "nothing": None,
    "a number": 3,
    "a mapping without labels": {"input": X},
    "NumPy arrays": (X.numpy(), Y.numpy()),
    "an empty one": (X[:0], Y[:0]),
    "an empty mapping of tensors": ({"input": X[:0]}, Y[:0]),
    "a list of mappings": [{"input": X[0], "labels": Y[0]}],
    "a dataclass": Outputs(X, X),
    "a loader": [DataLoader(TensorDataset(X, Y)), DataLoader(TensorDataset(X, Y))],
    "a pair of lists": ([(X, Y)], [(X, Y)]),
}


@pytest.mark.parametrize("kind", NO_BATCHES)
def test_what_is_no_batch_is_refused_in_one_line(kind):
    model = Wrapped(lambda y: y)
    model.forward = model.layer.forward  # takes no labels
    with pytest.raises(MismatchError, match="^batch: expected") as error:
        answer(model, NO_BATCHES[kind])
    assert "\n" not in str(error.value)


SOURCES = {
    "a generator": (batch for batch in [(X, Y)]),
    "a pair of loaders": (DataLoader(TensorDataset(X, Y)), DataLoader(TensorDataset(X, Y))),
    "a pair of lists": ([(X, Y)], [(X, Y)]),
    "an empty list": [],
    "a dict": {"x": X},
    "nothing": None,
    "a tensor": X,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_what_are_no_batches_is_refused_in_one_line(kind):
    with pytest.raises(MismatchError, match="^data: expected"):
        check_batches(SOURCES[kind], "data")


@pytest.mark.parametrize("batches", [[(X, Y)], DataLoader(TensorDataset(X, Y)), [(X, Y), (X, Y)], [{"x": X}]])
def test_batches_are_taken(batches):
    check_batches(batches)
