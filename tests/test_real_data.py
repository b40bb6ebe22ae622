"""On real CIFAR images, where $LC_DATA_DIR holds them."""

import pytest
import torch

import lc
from lc.data import KNOWN, data_folder


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_what_the_recipe_takes_it_for(name):
    if not (data_folder() / f"{name}.npz").exists():
        pytest.skip(f"$LC_DATA_DIR has no {name}.npz")
    data = lc.load_data(name)
    assert data.x_train.shape == (50_000, 32, 32, 3) and data.x_test.shape == (10_000, 32, 32, 3)
    assert data.x_train.dtype == torch.uint8 and len(data.classes) == int(name[5:]) and data.augment
    assert (torch.bincount(data.y_train) == 50_000 // len(data.classes)).all()
    for channel, mean, std in zip(data.x_train.unbind(-1), *KNOWN[name][1:3]):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        level = torch.arange(256) / 255
        assert mean == pytest.approx((share * level).sum().item(), abs=1e-6)
        assert std == pytest.approx((share * (level - mean) ** 2).sum().sqrt().item(), abs=1e-6)
