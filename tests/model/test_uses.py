"""Every use of a weight is found, whatever module or function it goes through."""

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import rnn

from laconic.model.uses import Watch, as_rows, from_rows

GENERATOR = torch.Generator().manual_seed(0)


def floats(*shape):
    return torch.randn(shape, generator=GENERATOR)


class Bare(nn.Module):
    """Products of parameters that no layer holds, by every function."""

    def __init__(self, product, *shape):
        super().__init__()
        self.w, self.product = nn.Parameter(floats(*shape)), product

    def forward(self, x):
        return self.product(x, self.w)


def grouped(x, w):
    return torch._grouped_mm(x, w.transpose(1, 2), offs=torch.tensor([1, 4, 4, 8], dtype=torch.int32))


def mixtral():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 40, "num_local_experts": 4}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes, **heads))


def gpt2():
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=40))


IDS = torch.randint(0, 40, (2, 5), generator=GENERATOR)
NETS = {
    "linear": (nn.Linear(4, 3), (floats(2, 5, 4),)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (floats(2, 4, 9),)),
    "conv2d": (nn.Conv2d(3, 5, (3, 2), dilation=(2, 1), padding=(1, 0)), (floats(2, 3, 8, 8),)),
    "conv2d of one image": (nn.Conv2d(3, 5, 3), (floats(3, 8, 8),)),
    "reflected": (nn.Conv2d(3, 5, 3, padding="same", padding_mode="reflect"), (floats(2, 3, 8, 8),)),
    "same": (nn.Conv2d(3, 5, (2, 4), padding="same", dilation=2), (floats(2, 3, 9, 9),)),
    "conv3d": (nn.Conv3d(2, 3, 2), (floats(2, 2, 4, 4, 4),)),
    "channels last": (nn.Conv2d(4, 6, 3, groups=2).to(memory_format=torch.channels_last), (floats(2, 4, 6, 6),)),
    "transposed, channels last": (
        nn.ConvTranspose2d(4, 6, 2, stride=2).to(memory_format=torch.channels_last),
        (floats(2, 4, 5, 5),),
    ),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6), (floats(2, 6, 5, 5),)),
    "transposed": (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), (floats(2, 4, 5, 5),)),
    "lstm": (nn.LSTM(3, 4, num_layers=2, bidirectional=True), (floats(5, 2, 3),)),
    "lstm, projected": (nn.LSTM(3, 4, proj_size=2, batch_first=True), (floats(2, 5, 3),)),
    "gru": (nn.GRU(3, 4, num_layers=2, batch_first=True), (floats(2, 5, 3),)),
    "rnn": (nn.RNN(3, 4, nonlinearity="relu", bias=False), (floats(5, 2, 3),)),
    "lstm cell": (nn.LSTMCell(3, 4), (floats(2, 3),)),
    "gru cell": (nn.GRUCell(3, 4), (floats(2, 3),)),
    "attention": (nn.MultiheadAttention(8, 2, batch_first=True), (floats(2, 5, 8),) * 3),
    "attention to others": (nn.MultiheadAttention(8, 2), (floats(5, 2, 8), *(floats(6, 2, 8),) * 2)),
    "attention to three": (nn.MultiheadAttention(8, 2), (floats(5, 2, 8), floats(6, 2, 8), floats(6, 2, 8))),
    "other widths": (nn.MultiheadAttention(8, 2, kdim=4, vdim=6), (floats(5, 2, 8), floats(6, 2, 4), floats(6, 2, 6))),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16), (floats(5, 2, 8),)),
    "transformer": (nn.Transformer(8, 2, 1, 1, 16, batch_first=True), (floats(2, 5, 8), floats(2, 4, 8))),
    "x @ w": (Bare(lambda x, w: x @ w, 4, 3), (floats(2, 5, 4),)),
    "x @ wᵀ": (Bare(lambda x, w: x @ w.T, 3, 4), (floats(2, 5, 4),)),
    "w @ x": (Bare(lambda x, w: w @ x.mT, 3, 4), (floats(5, 4),)),
    "addmm": (Bare(lambda x, w: torch.addmm(torch.zeros(3), x, w), 4, 3), (floats(5, 4),)),
    "bmm": (Bare(torch.bmm, 2, 4, 3), (floats(2, 5, 4),)),
    "bmm, rows first": (Bare(lambda x, w: x @ w.mT, 2, 3, 4), (floats(2, 5, 4),)),
    "experts one by one": (Bare(lambda x, w: torch.stack([F.linear(x, e) for e in w]), 3, 2, 4), (floats(5, 4),)),
    "a slice of columns": (Bare(lambda x, w: x @ w[:, 2:5], 4, 6), (floats(5, 4),)),
    "GPT-2": (gpt2(), (IDS,)),
    "Mixtral": (mixtral(), (IDS,)),
}


if hasattr(torch, "_grouped_mm"):  # from PyTorch 2.8 on
    NETS["grouped"] = Bare(grouped, 4, 16, 8), (floats(8, 8),)


def seen(model, args):
    uses = []
    with Watch(model, uses.append) as watch:
        output = model(*args)
    return output, uses, watch.notes


def first(output):
    return first(output[0]) if not isinstance(output, torch.Tensor) else output


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("kind", NETS)
def test_watching_changes_nothing_and_sees_every_matrix(kind):
    model, args = NETS[kind]
    model.eval()
    expected = model(*args)
    output, uses, notes = seen(model, args)
    assert torch.allclose(first(output), first(expected), atol=1e-5)
    matrices = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    assert matrices - notes.looked_up <= {use.name for use in uses}


WITHOUT_NORMS = [kind for kind in NETS if kind not in ("encoder", "transformer", "GPT-2", "Mixtral")]


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("kind", WITHOUT_NORMS)
def test_inputs_times_rows_are_what_the_function_returned(kind):
    """Σ over positions of the squared output, without bias: by the Gram matrix, and by the function itself."""
    model, args = NETS[kind]
    model.eval()
    for parameter in model.parameters():
        if parameter.ndim < 2:
            nn.init.zeros_(parameter)
    _, uses, _ = seen(model, args)
    parameters = dict(model.named_parameters())
    for use in uses:
        x = use.inputs().double()
        assert x.shape[1] == use.n_positions
        d = x.shape[2]
        weight = parameters[use.name].detach().double()
        rows = as_rows(weight, d, use.step)
        assert torch.equal(from_rows(rows, weight.shape, use.step), weight)
        w = rows[slice(*use.rows)].reshape(len(x), -1, d)
        product = torch.einsum("gpd,grd->gpr", x, w)
        squares = use.squares(use.output.detach())
        if isinstance(model, nn.ConvTranspose2d):
            assert torch.isclose(product.square().sum(), squares.sum())
        else:
            assert torch.allclose(product.square().sum(1).flatten(), squares, rtol=1e-4, atol=1e-6)


def test_what_enters_other_functions_is_noted_by_name():
    model = Bare(lambda x, w: torch.einsum("ni,oi->no", x, w), 3, 4)
    _, uses, notes = seen(model, (floats(5, 4),))
    assert not uses
    assert "einsum" in notes.elsewhere["w"]


def test_a_product_with_rows_that_are_not_in_order_is_noted():
    model = Bare(F.linear, 4, 3)
    model.w.data = model.w.data.mT
    _, uses, notes = seen(model, (floats(2, 4),))
    assert not uses
    assert notes.elsewhere == {"w": "torch.nn.functional.linear"}


def test_a_packed_sequence_is_noted():
    model = nn.LSTM(3, 4)
    _, uses, notes = seen(model, (rnn.pack_padded_sequence(floats(5, 2, 3), [5, 3]),))
    assert not uses
    assert notes.elsewhere["weight_ih_l0"] == "torch.lstm"


def test_tables_are_noted():
    _, _, notes = seen(nn.Sequential(nn.Embedding(9, 4)), (torch.tensor([1]),))
    assert notes.looked_up == {"0.weight"}
