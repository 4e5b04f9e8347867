"""A run is done once, goes on where it was interrupted, and says what its file holds."""

import copy
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import laconic
from laconic import datasets
from laconic.errors import MismatchError
from laconic.recipes import parse_recipe, read_recipe, run_recipe, trials
from laconic.recipes import run as run_module
from laconic.training.checkpoint import load_state
from tests.support.typechecking import unchecked

DATA = datasets.blobs(n_train=300, n_test=90)
DENSE = {"epochs": 2, "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}
TRAINING = {"epochs": 2, "scheduler": "cosine"}
BASE = {"amount": 0.8, "dense": DENSE, "training": TRAINING}


def net():
    torch.manual_seed(4)
    layers = [nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)]
    return nn.Sequential(*layers)


@pytest.fixture
def reports():
    """Have the report drawn."""


@pytest.fixture(autouse=True)
def _no_reports(monkeypatch, request):
    """Figures take half a second, so only a test that reads them has them drawn."""
    if "reports" not in request.fixturenames:
        monkeypatch.setattr(run_module, "write_report", lambda *_: None)


def run(folder, values=BASE, model=None, data=DATA, **options):
    return unchecked(run_recipe)(parse_recipe(values), model or net(), data, folder, {"data": "blobs"}, **options)


def files_of(result):
    return {name: (result.folder / name).read_bytes() for name in ("model.lac", "dense.lac", "recipe.toml")}


def figures_of(result):
    return replace(result, seconds=0.0, folder=Path())


RUNS = {
    "one-shot": BASE,
    "least squares": {**BASE, "criterion": "output-error", "solver": "least-squares", "reestimate": True},
    "iterative": {**BASE, "criterion": "fisher", "method": {"name": "iterative", "rounds": 3}},
    "lottery": {**BASE, "method": {"name": "lottery", "rounds": 2, "rewind": 7}},
    "gradual": {**BASE, "criterion": "wanda", "method": {"name": "gradual", "every": 2}},
    "movement": {**BASE, "criterion": "movement", "method": {"name": "gradual", "every": 2}},
    "set": {**BASE, "criterion": "random", "method": {"name": "set", "every": 2}},
    "rigl": {**BASE, "scope": "tensor", "budget": "erk", "method": {"name": "rigl", "every": 2}},
    "gates": {"method": {"name": "gates", "penalty": 2.0, "lr": 0.1}, "training": TRAINING},
    "variational dropout": {"method": "variational-dropout", "training": TRAINING},
    "proximal": {"method": {"name": "proximal", "penalty": 0.3}, "unit": "1x5", "training": TRAINING},
    "code-length": {"method": {"name": "code-length", "price": 1.0, "every": 2}, "training": TRAINING},
    "price": {"criterion": "obs", "budget": "price", "dense": DENSE},
    "channels": {**BASE, "amount": 0.5, "unit": "channels"},
    "gates of channels": {
        "method": {"name": "gates", "penalty": 1.0, "lr": 0.5},
        "unit": "channels",
        "dense": DENSE,
        "training": {"epochs": 6},
    },
}


@pytest.mark.parametrize("case", RUNS)
def test_what_the_result_says_is_what_the_file_holds(case, tmp_path):
    result = run(tmp_path, RUNS[case])
    decoded = laconic.load(result.folder / "model.lac", into=net())
    assert result.pruned.n_bytes == (result.folder / "model.lac").stat().st_size
    code = laconic.evaluate(decoded, DATA.test.batches())
    assert result.pruned.score == code.accuracy
    assert result.pruned.data_bits == pytest.approx(laconic.evaluate(decoded, DATA.train.batches()).bits)
    assert result.pruned.n_parameters == sum(int(p.count_nonzero()) for p in decoded.parameters())
    left = sum(int(w.count_nonzero()) for w in laconic.model.compressible(decoded).values())
    assert result.pruned.sparsity == pytest.approx(1 - left / (20 * 16 + 16 * 3))
    assert result.dense.n_macs == 20 * 16 + 16 * 3
    assert result.pruned.sparsity >= max(result.recipe.get("amount", 0) - 0.01, result.dense.sparsity)
    smaller = result.pruned.n_macs < result.dense.n_macs
    assert smaller == ("channels" in case)


FROM_SCRATCH = ("gates", "variational dropout", "proximal", "code-length")


@pytest.mark.parametrize("case", [*FROM_SCRATCH, "rigl", "one-shot"])
def test_an_untrained_start_is_no_dense_network_to_compare_with(case, tmp_path):
    values = {key: value for key, value in RUNS[case].items() if key != "dense"}
    start = net()
    nn.init.normal_(start[-1].weight, std=0.01)  # the others happen to know nine of ten examples
    result = run(tmp_path, values, start)
    assert (result.dense.name, result.baseline) == ("at the start", None)
    assert trials([result])[0].dense is None
    trained = net()
    laconic.train(trained, DATA.train.batches(50), laconic.Training(10))
    result = run(tmp_path, values, trained)
    assert result.dense.name == "dense" and result.baseline == result.dense
    assert trials([result])[0].dense == result.dense
    laconic.prune_(trained, 0.5)
    assert run(tmp_path, values, trained).baseline is None


def test_channels_are_really_cut_and_the_plan_is_in_the_file(tmp_path):
    result = run(tmp_path, RUNS["channels"])
    assert result.pruned.n_macs == 8 * 20 + 3 * 8
    assert laconic.load(result.folder / "model.lac")["0.weight"].shape == (8, 20)
    assert laconic.load(result.folder / "model.lac", into=net())[0].out_features == 8


class Interrupter:
    """Interrupts a run: by Ctrl-C at a step of its training, or at the n-th call of a function."""

    def __init__(self, place, at):
        self.place, self.at, self.seen = place, at, 0

    def on(self, monkeypatch):
        if self.place == "step":
            monkeypatch.setattr(run_module.ProgressBar, "__call__", lambda bar, progress: self.step())
        else:
            monkeypatch.setattr(run_module, self.place, self.wrapped(getattr(run_module, self.place)))

    def step(self):
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGINT)

    def wrapped(self, function):
        def interrupting(*arguments, **options):
            self.seen += 1
            if self.seen == self.at:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return interrupting


PLACES = [
    *(("step", step) for step in (1, 5, 10, 11, 14, 20)),
    ("measure", 1),
    ("measure", 2),
    ("observe", 1),
    ("train", 2),
    ("total_macs", 2),
]
MANY = [*(("least squares", place) for place in PLACES), *(("iterative", place) for place in PLACES)]
ONCE = [
    ("lottery", ("step", 5)),
    ("lottery", ("step", 19)),
    ("gradual", ("step", 14)),
    ("set", ("step", 15)),
    ("gates", ("step", 3)),
    ("channels", ("step", 13)),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs, each made once."""
    done = {}

    def result(case):
        if case not in done:
            done[case] = run(tmp_path_factory.mktemp("whole"), RUNS[case])
        return done[case]

    return result


@pytest.mark.parametrize(("case", "place"), [*MANY, *ONCE], ids=str)
def test_an_interrupted_run_ends_with_the_same_bits(case, place, tmp_path, monkeypatch, whole):
    expected = whole(case)
    with monkeypatch.context() as patched:
        Interrupter(*place).on(patched)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, RUNS[case])
    assert not list(tmp_path.glob("*/result.json"))
    resumed = run(tmp_path, RUNS[case])
    assert files_of(resumed) == files_of(expected)
    assert figures_of(resumed) == figures_of(expected)


def test_resuming_does_not_train_again_what_was_trained(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        Interrupter("step", 17).on(patched)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, RUNS["iterative"])
    steps = []
    monkeypatch.setattr(run_module.ProgressBar, "__call__", lambda bar, progress: steps.append(1))
    run(tmp_path, RUNS["iterative"])
    assert len(steps) == (2 + 3 * 2) * 5 - 17


def test_a_finished_run_is_not_repeated(tmp_path, monkeypatch):
    first = run(tmp_path)

    def forbidden(*_):
        raise AssertionError

    monkeypatch.setattr(run_module, "train", forbidden)
    monkeypatch.setattr(run_module, "measure", forbidden)
    assert run(tmp_path) == first
    assert laconic.recipes.read_results(tmp_path) == [first]
    assert json.loads((first.folder / "result.json").read_text())["digest"] == first.folder.name


def test_a_run_is_known_by_recipe_references_and_initial_weights(tmp_path):
    quick = {"amount": 0.5}
    other = net()
    with torch.no_grad():
        other[0].bias[0] += 1e-6
    results = [
        run(tmp_path, quick),
        run(tmp_path, {"amount": 0.6}),
        run(tmp_path, quick, model=other),
        run_recipe(parse_recipe(quick), net(), DATA, tmp_path, {"data": "others"}),
    ]
    assert len({result.digest for result in results}) == 4
    assert [result.folder.name for result in results] == [result.digest for result in results]


def test_the_model_is_not_changed(tmp_path):
    model = net()
    before = copy.deepcopy(model.state_dict())
    run(tmp_path, model=model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training


def test_recipes_share_the_training_of_the_same_dense_network(tmp_path, monkeypatch):
    first = run(tmp_path)
    labels = []
    before = run_module.ProgressBar.__init__

    def noted(bar, label, console):
        labels.append((label, bar))
        before(bar, label, console)

    steps = []
    monkeypatch.setattr(run_module.ProgressBar, "__init__", noted)
    monkeypatch.setattr(run_module.ProgressBar, "__call__", lambda bar, progress: steps.append(bar))
    second = run(tmp_path, {**BASE, "amount": 0.5})
    assert [label for label, _ in labels] == ["dense", "training"]
    assert set(steps) == {labels[1][1]}
    assert second.dense == first.dense
    assert len(list(tmp_path.glob("dense-*.safetensors"))) == 1


def test_lottery_rewinds_to_the_weights_of_its_step(tmp_path):
    result = run(tmp_path, {**RUNS["lottery"], "training": {"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.0}}})
    (path,) = tmp_path.glob("dense-*.early.safetensors")
    early = load_state(path)["0.weight"]
    weight = load_state(result.folder / "round-2.safetensors")["model"]["0.weight"]
    assert torch.equal(weight[weight != 0], early[weight != 0])
    assert not torch.equal(early, net()[0].weight)


def test_zero_error_stores_exactly(tmp_path):
    result = run(tmp_path, {"amount": 0.5, "relative_error": 0})
    decoded = laconic.load(result.folder / "model.lac", into=net())
    mask = laconic.pruning.Pruner().at(0.5).mask(net())
    assert torch.equal(decoded[0].weight, laconic.pruning.masked(net()[0].weight, mask["0.weight"]))


def test_excluded_tensors_stay_whole(tmp_path):
    result = run(tmp_path, {"amount": 0.9, "exclude": ["0"], "relative_error": 0})
    assert laconic.load(result.folder / "model.lac")["0.weight"].all()


def test_batches_of_ones_own_do_as_well(tmp_path):
    batches = list(DATA.train.batches(64)), list(DATA.test.batches(30))
    result = run(tmp_path, {**BASE, "criterion": "wanda", "calibration": 100}, data=batches)
    assert result.pruned.score > 0.5


@pytest.mark.parametrize("step", [3, 13])
def test_loaders_that_shuffle_resume_with_the_same_bits(step, tmp_path, monkeypatch):
    values = {**BASE, "criterion": "wanda", "calibration": 100, "method": {"name": "gradual", "every": 2}}
    data = DATA.train.batches(50, shuffle=True), [*DATA.test.batches(30)]
    expected = run(tmp_path / "whole", values, data=data)
    with monkeypatch.context() as patched:
        Interrupter("step", step).on(patched)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "halves", values, data=data)
    torch.rand(5)  # what else the user draws does not matter
    resumed = run(tmp_path / "halves", values, data=data)
    assert files_of(resumed) == files_of(expected)
    assert figures_of(resumed) == figures_of(expected)


def test_however_much_is_removed_a_layer_keeps_a_channel(tmp_path):
    result = run(tmp_path, {"amount": 1, "unit": "channels", "training": TRAINING})
    assert result.pruned.n_macs == 20 + 3


REFUSED = {
    "a size of batches that are there": (
        {"training": {"epochs": 1, "batch_size": 9}},
        ([*DATA.train.batches(64)], [*DATA.test.batches(64)]),
        "training.batch_size: expected none, as the data come in batches, found 9",
    ),
    "one iterable": (
        {},
        list(DATA.train.batches()),
        r"data: expected a Dataset or a pair \(train, test\), found a list",
    ),
    "a generator": (
        {},
        (iter(DATA.train.batches()), []),
        "training data: expected a list or a loader, found a .*, which runs only once",
    ),
    "no batches": ({}, ([], []), "training data: expected some, found none"),
    "no pairs": ({}, ([torch.ones(3)], []), "or mappings with labels, found a Tensor"),
    "a selector": ({"exclude": ["1x"]}, DATA, "matches '1x', found none"),
    "runs that do not fit": ({"amount": None, "pattern": "3:7"}, DATA, "0.weight: expected inputs in runs of 7"),
    "steps beyond": (
        {"method": {"name": "lottery", "rounds": 2, "rewind": 11}},
        DATA,
        r"method.rewind: expected one of the 10 steps of \[dense\], found 11",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_written(case, tmp_path):
    values, data, message = REFUSED[case]
    values = {key: value for key, value in {**BASE, **values}.items() if value is not None}
    with pytest.raises(MismatchError, match=message):
        run(tmp_path / "runs", values, data=data)
    assert not (tmp_path / "runs").exists()


def test_a_damaged_result_is_named(tmp_path):
    result = run(tmp_path, {"amount": 0.5})
    (result.folder / "result.json").write_text("{}")
    with pytest.raises(laconic.errors.FormatError, match=r"result\.json: expected a run's result"):
        run(tmp_path, {"amount": 0.5})


@pytest.mark.usefixtures("reports")
def test_the_report_has_the_recipe(tmp_path):
    result = run(tmp_path, {"amount": 0.5, "criterion": "wanda"})
    page = (result.folder / "report.html").read_text()
    assert "Pruned by one-shot, wanda, weight" in page
    assert "relative_error" in page
    assert read_recipe(result.folder / "recipe.toml").to_dict() == result.recipe
