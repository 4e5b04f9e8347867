import gzip
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from laconic.datasets import Dataset, Split, blobs, cifar10, digits, mnist
from laconic.errors import DataError

ROOT = Path(os.environ.get("LACONIC_DATA", "."))
N_CASES = 10
SPLIT = Split(torch.arange(2.0 * N_CASES).view(N_CASES, 2), torch.arange(N_CASES))


def needs(file: str):
    found = "LACONIC_DATA" in os.environ and (ROOT / file).exists()
    return pytest.mark.skipif(not found, reason=f"LACONIC_DATA has no {file}")


def test_batches_keep_pairs_together_and_lose_no_case():
    for shuffle in (False, True):
        batches = list(SPLIT.batches(4, shuffle))
        assert [len(y) for _, y in batches] == [4, 4, 2]
        x, y = (torch.cat(part) for part in zip(*batches, strict=True))
        assert torch.equal(x[:, 0], 2.0 * y)
        assert torch.equal(y.sort().values, SPLIT.targets)
        assert torch.equal(y, SPLIT.targets) != shuffle


def test_full_batch_in_order_is_not_copied():
    [(x, y)] = SPLIT.batches()
    assert torch.equal(y, SPLIT.targets)
    assert x.data_ptr() == SPLIT.inputs.data_ptr()


def test_global_seed_fixes_the_order_of_each_pass():
    loader = SPLIT.batches(4, shuffle=True)

    def order(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return torch.cat([y for _, y in loader]).tolist()

    assert order(1) == order(1) != order(2)


def test_accelerate_prepares_the_same_batches():
    prepared = Accelerator(cpu=True).prepare(SPLIT.batches(4))
    assert [y.tolist() for _, y in prepared] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_split_refuses_targets_out_of_step():
    with pytest.raises(ValueError, match=r"targets: expected 10, .* found 9"):
        Split(SPLIT.inputs, SPLIT.targets[:9])


def test_blobs_repeat_and_share_centres():
    data, again = blobs(n_train=3000, n_test=3000), blobs(n_train=3000, n_test=3000)
    assert torch.equal(data.test.inputs, again.test.inputs)
    assert not torch.equal(data.test.inputs, blobs(n_train=3000, n_test=3000, seed=1).test.inputs)
    assert data.input_shape == (20,)
    for label in range(data.n_classes):
        train, test = (s.inputs[s.targets == label] for s in (data.train, data.test))
        torch.testing.assert_close(train.mean(0), test.mean(0), atol=0.2, rtol=0)
        torch.testing.assert_close(test.std(0), torch.ones(20), atol=0.15, rtol=0)


def test_digits_split_is_fixed_disjoint_and_stratified():
    data = digits()
    assert (len(data.train), len(data.test), data.input_shape) == (1437, 360, (64,))
    assert (data.train.inputs.min(), data.train.inputs.max()) == (0, 1)
    share = data.train.targets.bincount() / data.test.targets.bincount()
    assert share.min() > 3.8
    assert share.max() < 4.2
    assert torch.equal(data.test.targets, digits().test.targets)


def test_digits_without_sklearn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'pip install "laconic-nn\[demo\]"'):
        digits()


def _idx(*shape: int, fill: int) -> bytes:
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    return gzip.compress(header + bytes([fill]) * int(np.prod(shape)))


@pytest.fixture
def toy_root(tmp_path, monkeypatch):
    """Both data sets in miniature: MNIST 3 + 2 cases, CIFAR-10 2 a batch."""
    monkeypatch.setenv("LACONIC_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    for part, n in (("train", 3), ("t10k", 2)):
        (tmp_path / f"mnist/{part}-images-idx3-ubyte.gz").write_bytes(_idx(n, 28, 28, fill=255))
        (tmp_path / f"mnist/{part}-labels-idx1-ubyte.gz").write_bytes(_idx(n, fill=7))
    bins = tmp_path / "cifar10/cifar-10-batches-bin"
    bins.mkdir(parents=True)
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        record = bytes([i]) + bytes(1024) + bytes([51]) * 1024 + bytes([255]) * 1024
        (bins / f"{name}.bin").write_bytes(2 * record)
    return tmp_path


def test_mnist_reads_and_normalises(toy_root):
    data = mnist()
    assert data.train.inputs.shape == (3, 1, 28, 28)
    assert data.test.targets.tolist() == [7, 7]
    assert data.test.targets.dtype == torch.int64
    white = torch.full((3, 1, 28, 28), (1 - 0.1307) / 0.3081)
    torch.testing.assert_close(data.train.inputs, white)
    assert data.black == (-0.1307 / 0.3081,)


def test_mnist_refuses_labels_out_of_step(toy_root):
    (toy_root / "mnist/t10k-labels-idx1-ubyte.gz").write_bytes(_idx(3, fill=7))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: expected 2 labels, found 3"):
        mnist()


def test_cifar10_reads_in_order_and_normalises_each_channel(toy_root):
    data = cifar10()
    assert data.train.inputs.shape == (10, 3, 32, 32)
    assert data.train.targets.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert data.test.targets.tolist() == [5, 5]
    pixel = torch.tensor([-0.485 / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(data.test.inputs[1, :, 3, 4], pixel)
    assert data.black == pytest.approx((-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225))


def test_cifar10_refuses_a_cut_batch(toy_root):
    path = toy_root / "cifar10/cifar-10-batches-bin/data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin: .* records of 3073 bytes, found 6145"):
        cifar10()


def _check_real(data: Dataset, n_train: int, channel_means: list[float]):
    assert (len(data.train), len(data.test)) == (n_train, 10_000)
    assert data.train.targets.unique().tolist() == list(range(10))
    found = data.train.inputs.mean((0, 2, 3), dtype=torch.float64)
    expected = torch.tensor(channel_means, dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=5e-4, rtol=0)


@needs("mnist/train-images-idx3-ubyte.gz")
def test_real_mnist():
    _check_real(mnist(), 60_000, [0.0])


@needs("cifar10/cifar-10-batches-bin/data_batch_1.bin")
def test_real_cifar10():
    # The training set's own means are (.4914, .4822, .4465).
    means = [(0.4914 - 0.485) / 0.229, (0.4822 - 0.456) / 0.224, (0.4465 - 0.406) / 0.225]
    _check_real(cifar10(), 50_000, means)
