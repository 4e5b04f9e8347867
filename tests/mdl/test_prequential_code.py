import json
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

import laconic
from laconic import Training, zoo
from laconic.datasets import Split, blobs
from laconic.errors import NonFiniteError
from laconic.mdl import Learner


class Known(nn.Module):
    """Logits that are columns of the inputs, sharpened; nothing to learn."""

    def __init__(self, first=0, times=1.0):
        super().__init__()
        self.times = nn.Parameter(torch.tensor(times))
        self.first = first

    def forward(self, inputs):
        return self.times * inputs[:, self.first : self.first + 3]


def untrained(name, model):
    return Learner(name, model, lambda n: Training(0), lambda sent: [])


def trained(name="linear", epochs=2):
    return Learner(
        name,
        partial(zoo.mlp, 20, 3),
        lambda n: Training(epochs, partial(torch.optim.SGD, lr=0.05)),
        lambda sent: sent.batches(8, shuffle=True),
    )


@pytest.fixture
def data():
    return Split(torch.randn(50, 6), torch.randint(0, 3, (50,)))


@pytest.fixture
def learnable():
    return blobs(n_train=200).train


ENDS = (8, 16, 32, 50)


def test_a_uniform_model_needs_the_bits_of_the_uniform_code(data):
    code = laconic.mdl.prequential([untrained("flat", partial(Known, times=0.0))], data, ENDS, 3)
    assert code.total_bits == pytest.approx(50 * math.log2(3), rel=1e-12)
    assert code.total_bits == pytest.approx(code.uniform_bits, rel=1e-12)
    assert code.compression == pytest.approx(1)
    firsts = (data.targets[:8] == 0).sum() / 8
    assert code.blocks[0].code.accuracy == pytest.approx(float(firsts)), "of equals, the first class"


def test_known_probabilities_give_their_bits(data):
    code = laconic.mdl.prequential([untrained("known", Known)], data, ENDS, 3)
    log_p = data.inputs[:, :3].double().log_softmax(1)
    bits = -log_p[torch.arange(50), data.targets] / math.log(2)
    bits[:8] = math.log2(3)
    for start, block in zip((0, *ENDS), code.blocks, strict=False):
        assert block.code.bits == pytest.approx(float(bits[start : block.end].sum()))
        assert block.code == block.by_learner["known"], "one learner is the plain code"
    right = (log_p.argmax(1) == data.targets)[8:16]
    assert code.blocks[1].code.n_right == int(right.sum())
    assert code.n_examples == 50


def slow_mixture(log_probabilities, labels, ends):
    """The sum over all sequences of learners, one a block: their prior times the labels' probability."""
    n_learners, n_blocks = len(log_probabilities), len(ends) - 1
    total = 0.0
    for number in range(n_learners**n_blocks):
        sequence = [number // n_learners**i % n_learners for i in range(n_blocks)]
        p = 1 / n_learners
        for b, (one, other) in enumerate(pairwise(sequence), start=1):
            shared = (b + 1) ** -2
            p *= (one == other) * (1 - shared) + shared / n_learners
        for k, (start, end) in zip(sequence, pairwise(ends), strict=True):
            p *= math.exp(sum(float(log_probabilities[k][t, labels[t]]) for t in range(start, end)))
        total += p
    return ends[0] * math.log2(3) - math.log2(total)


KNOWN = [untrained("a", Known), untrained("b", partial(Known, first=3)), untrained("sharp", partial(Known, times=2.0))]


@pytest.mark.parametrize("ends", [ENDS, (8, 50), (1, 2, 3, 4, 5, 6)])
def test_the_mixture_is_that_over_all_sequences_of_learners(data, ends):
    code = laconic.mdl.prequential(KNOWN, data, ends, 3)
    models = [learner.model() for learner in KNOWN]
    log_p = [model(data.inputs).double().log_softmax(1).detach() for model in models]
    assert code.total_bits == pytest.approx(slow_mixture(log_p, data.targets, ends), rel=1e-9)


def test_each_label_is_predicted_with_weights_of_those_before(data):
    """Label by label, with weights turned one by one, as a decoder would."""
    code = laconic.mdl.prequential(KNOWN, data, ENDS, 3)
    p = torch.stack([learner.model()(data.inputs).double().softmax(1).detach() for learner in KNOWN])
    weights = torch.full((3,), 1 / 3, dtype=torch.float64)
    for b, (start, block) in enumerate(zip(ENDS, code.blocks[1:], strict=False)):
        if b:
            weights = (1 - (b + 1) ** -2) * weights + (b + 1) ** -2 / 3
        bits, n_right = 0.0, 0
        for t in range(start, block.end):
            mixed = (weights[:, None] * p[:, t]).sum(0)
            bits -= math.log2(mixed[data.targets[t]])
            n_right += int(mixed.argmax() == data.targets[t])
            weights = weights * p[:, t, data.targets[t]]
            weights /= weights.sum()
        assert (block.code.bits, block.code.n_right) == (pytest.approx(bits), n_right)


def test_the_mixture_is_near_the_best_sequence_of_learners():
    """Learner a is right in the first half, b in the second: one switch, and its price."""
    labels = torch.randint(0, 3, (4096,))
    right, wrong = nn.functional.one_hot(labels, 3).float(), torch.zeros(4096, 3)
    early = torch.arange(4096)[:, None] < 1024
    inputs = 8 * torch.cat([torch.where(early, right, wrong), torch.where(early, wrong, right)], 1)
    ends = laconic.mdl.doubling(4096)
    code = laconic.mdl.prequential(KNOWN[:2], Split(inputs, labels), ends, 3)
    best = sum(min(one.bits for one in block.by_learner.values()) for block in code.blocks)
    switch = ends.index(1024)
    assert best < code.total_bits <= best + 1 + (2 * math.log2(switch + 1) + 1) + 1
    assert code.total_bits < min(code.learner_bits.values()) / 2
    single = laconic.mdl.prequential(KNOWN, Split(inputs[:512], labels[:512]), ends[:7], 3)
    assert single.total_bits <= min(single.learner_bits.values()) + math.log2(3) + 1


class Recorder:
    """A learner's three functions, which note what they were given."""

    def __init__(self):
        self.seen = []

    def training(self, n):
        self.seen.append(("n", n))
        return Training(1)

    def batches(self, sent):
        self.seen.append(("sent", sent.inputs.clone(), sent.targets.clone()))
        return [(sent.inputs, sent.targets)]


def test_learners_see_what_is_sent_and_no_more(data):
    recorder = Recorder()
    learner = Learner("r", partial(zoo.mlp, 6, 3), recorder.training, recorder.batches)
    laconic.mdl.prequential([learner], data, ENDS[:-1], 3)
    assert [entry[1] for entry in recorder.seen if entry[0] == "n"] == [8, 16]
    for end, (_, inputs, targets) in zip(ENDS, (e for e in recorder.seen if e[0] == "sent"), strict=False):
        assert torch.equal(inputs, data.inputs[:end])
        assert torch.equal(targets, data.targets[:end])


def test_later_labels_change_nothing_before(learnable):
    other = Split(learnable.inputs, learnable.targets.clone())
    other.targets[40:] = 2 - other.targets[40:]
    ends = (10, 20, 40, 100)
    one, two = (laconic.mdl.prequential([trained()], split, ends, 3) for split in (learnable, other))
    assert one.blocks[:3] == two.blocks[:3]
    assert one.blocks[3] != two.blocks[3]


def test_labels_teach(learnable):
    code = laconic.mdl.prequential([trained(epochs=20)], learnable, (10, 50, 200), 3)
    each = [block.code.bits / block.code.n_examples for block in code.blocks]
    assert each[0] == pytest.approx(math.log2(3))
    assert each[-1] < 0.2
    assert code.compression > 2


def test_models_predict_in_evaluation_mode(data):
    modes = []

    class Spy(Known):
        def forward(self, inputs):
            modes.append(self.training)
            return super().forward(inputs)

    laconic.mdl.prequential([untrained("spy", Spy)], data, ENDS, 3)
    assert modes == [False] * 3


def test_a_seed_decides_all(learnable):
    ends = (20, 50, 100)
    first, again, other = (laconic.mdl.prequential([trained()], learnable, ends, 3, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.total_bits != other.total_bits


def test_blocks_and_learners_start_from_other_weights(data):
    starts = []

    def model():
        starts.append(zoo.mlp(6, 3))
        return starts[-1]

    laconic.mdl.prequential([untrained("a", model), untrained("b", model)], data, ENDS, 3)
    assert len({start.fc1.weight[0, 0].item() for start in starts}) == 6


def test_an_interrupted_code_goes_on(learnable, tmp_path):
    ends = (20, 50, 100)
    whole = laconic.mdl.prequential([trained()], learnable, ends, 3)
    steps = []

    def interrupting(sent):
        for batch in sent.batches(8, shuffle=True):
            steps.append(len(sent))
            if len(steps) == 10:
                raise KeyboardInterrupt
            yield batch

    class Once:
        def __init__(self, sent):
            self.sent = sent

        def __iter__(self):
            return interrupting(self.sent)

    with pytest.raises(KeyboardInterrupt):
        laconic.mdl.prequential([replace(trained(), batches=Once)], learnable, ends, 3, folder=tmp_path / "runs")
    assert steps == [20] * 6 + [50] * 4
    resumed = laconic.mdl.prequential([replace(trained(), batches=Once)], learnable, ends, 3, folder=tmp_path / "runs")
    assert resumed == whole
    assert len(steps) == 10 + 14, "the first block is not trained on again"


def test_the_table_and_the_dict_say_the_same(data):
    code = laconic.mdl.prequential(KNOWN[:2], data, ENDS, 3)
    text, plain = str(code), json.loads(json.dumps(code.to_dict()))
    assert f"{code.total_bits:,.0f}" in text
    assert "a alone" in text
    assert max(map(len, text.splitlines())) <= 80
    assert plain["total_bits"] == pytest.approx(sum(block["bits"] for block in plain["blocks"]))
    assert plain["learner_bits"]["b"] == pytest.approx(sum(b["learner_bits"]["b"] for b in plain["blocks"]))
    assert [block["end"] for block in plain["blocks"]] == list(ENDS)


def test_the_ledger_has_no_model_and_all_data(data):
    code = laconic.mdl.prequential(KNOWN, data, ENDS, 3)
    assert code.ledger.model_bits == 0
    assert code.ledger.total_bits == code.ledger.data_bits == code.total_bits
    assert code.ledger.n_examples == 50
    assert code.ledger.references == {"uniform": code.uniform_bits}


def test_ends_of_the_protocols():
    assert laconic.mdl.doubling(60_000) == (*(8 * 2**i for i in range(13)), 60_000)
    assert laconic.mdl.doubling(32, 8) == (8, 16, 32)
    assert laconic.mdl.doubling(5) == (5,)
    percents = (10, 20, 40, 80, 160, 320, 625, 1250, 2500, 5000, 10_000)
    assert laconic.mdl.timesteps(10_000) == percents
    assert laconic.mdl.timesteps(20) == (1, 2, 5, 10, 20), "ends that coincide are one"
    for n in range(1, 300):
        for ends in (laconic.mdl.doubling(n), laconic.mdl.timesteps(n)):
            assert ends[-1] == n
            assert list(ends) == sorted(set(ends))
    for wrong in (
        partial(laconic.mdl.doubling, 0),
        partial(laconic.mdl.doubling, 9, 0),
        partial(laconic.mdl.timesteps, 0),
    ):
        with pytest.raises(ValueError, match="positive"):
            wrong()


def test_probing_tells_representations_apart(learnable):
    scrambled = learnable.targets[torch.randperm(200)]
    ends = (60, 200)
    informed = laconic.mdl.probe(1000 * learnable.inputs, learnable.targets, 3, ends=ends)
    control = laconic.mdl.probe(learnable.inputs, scrambled, 3, [8], ends)
    assert informed.compression > 2 > control.compression
    assert informed.blocks[-1].code.accuracy > 0.95


def test_probes_are_coded_at_the_usual_timesteps(learnable):
    code = laconic.mdl.probe(learnable.inputs[:5], learnable.targets[:5], 3)
    assert tuple(block.end for block in code.blocks) == laconic.mdl.timesteps(5)


@pytest.mark.parametrize(
    ("learners", "ends", "n_classes", "message"),
    [
        ([], ENDS, 3, "at least one"),
        ([KNOWN[0]] * 2, ENDS, 3, r"\['a', 'a'\]"),
        (KNOWN, (), 3, "ascending"),
        (KNOWN, (8, 8, 50), 3, r"\[8, 8, 50\]"),
        (KNOWN, (0, 8), 3, "ascending"),
        (KNOWN, (8, 51), 3, "1 to 50"),
        (KNOWN, ENDS, 2, "labels: expected 0 to 1, found 0 to 2"),
        (KNOWN, ENDS, 4, r"a: expected logits of shape \(8, 4\), found \(8, 3\)"),
    ],
)
def test_errors_name_what_is_wrong(data, learners, ends, n_classes, message):
    with pytest.raises(ValueError, match=message):
        laconic.mdl.prequential(learners, data, ends, n_classes)


def test_what_is_not_finite_is_refused(data):
    with pytest.raises(NonFiniteError, match="a: expected finite"):
        laconic.mdl.prequential([untrained("a", partial(Known, times=math.nan))], data, ENDS, 3)
