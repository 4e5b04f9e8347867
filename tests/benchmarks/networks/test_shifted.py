import pytest
import torch

from benchmarks.networks.shifted import Shifted
from laconic.datasets import Split

FILL = (-1.0, -2.0, -3.0)
IMAGES = Split(1 + torch.rand(9, 3, 5, 4), torch.arange(9))


@pytest.mark.parametrize("flips", [False, True])
def test_images_are_shifted_and_what_comes_in_is_the_fill_of_each_channel(flips):
    torch.manual_seed(0)
    batches = list(Shifted(IMAGES, 4, 1, FILL, flips))
    assert [len(targets) for _, targets in batches] == [4, 4, 1]
    images, order = (torch.cat(part) for part in zip(*batches, strict=True))
    assert sorted(order.tolist()) == list(range(9))
    padded = torch.tensor(FILL)[:, None, None].repeat(9, 1, 7, 6)
    padded[:, :, 1:-1, 1:-1] = IMAGES.inputs
    for image, target in zip(images, order.tolist(), strict=True):
        sides = [padded[target], padded[target].flip(2)] if flips else [padded[target]]
        shifts = [side[:, y : y + 5, x : x + 4] for side in sides for y in range(3) for x in range(3)]
        assert any(torch.equal(image, shift) for shift in shifts)


def test_one_value_is_for_all_channels_and_no_shift_changes_nothing():
    (images, order), *_ = Shifted(IMAGES, 9, 0, (0.0,))
    assert torch.equal(images, IMAGES.inputs[order])
    assert len(list(Shifted(IMAGES, 9, 2, (0.0,)))) == 1
