"""What people's batches and outputs are, and that each is judged as its own library would."""

from dataclasses import dataclass

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from laconic.errors import MismatchError
from laconic.model.objective import Objective, check_batches
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


@dataclass
class Outputs:
    logits: torch.Tensor
    hidden: torch.Tensor


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
    "dataclass": lambda y: Outputs(y, y[:, :1]),
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
