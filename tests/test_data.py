"""Augmentation against naive numpy, and data sets from your own and torchvision's files."""

import hashlib
import os
import pickle
import struct

import numpy as np
import pytest
import scipy.io
import scipy.stats
import torch
import torchvision
from sklearn.datasets import load_digits
from torchvision.transforms import Resize
from torchvision.transforms.functional import to_pil_image

import lc
from lc.data import KNOWN, _mean_and_std, draw_epoch, gather, pad, to_unit

REACHABLE = 9 * 9 * 2


def pictures(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def naive_crop(image, top, left, flip):
    padded = np.zeros((40, 40, image.shape[2]), np.uint8)
    padded[4:36, 4:36] = image
    crop = padded[top:top + 32, left:left + 32]
    return crop[:, ::-1] if flip else crop


def test_every_crop_and_flip_equals_numpy():
    images = pictures(2, 32, 32, 3)
    plan = torch.cartesian_prod(torch.arange(2), torch.arange(9), torch.arange(9), torch.arange(2))
    crops = gather(pad(torch.from_numpy(images)), plan, 32)
    assert crops.shape == (2 * REACHABLE, 32, 32, 3) and crops.dtype == torch.uint8
    for crop, (image, top, left, flip) in zip(crops.numpy(), plan.tolist()):
        np.testing.assert_array_equal(crop, naive_crop(images[image], top, left, flip))


def test_offsets_and_flips_are_uniform():
    plan = draw_epoch(100_000, True, torch.Generator().manual_seed(1))
    assert torch.equal(plan[:, 0].sort().values, torch.arange(100_000))
    assert plan[:, 1:].min() == 0 and plan[:, 1:3].max() == 8 and plan[:, 3].max() == 1
    augmentation = (plan[:, 1] * 9 + plan[:, 2]) * 2 + plan[:, 3]
    # whichever image, whenever shown
    for part in augmentation, augmentation[plan[:, 0] < 50_000], augmentation[:50_000]:
        assert 1e-4 < scipy.stats.chisquare(part.bincount(minlength=REACHABLE)).pvalue < 1 - 1e-4


def test_without_augmentation_each_image_comes_once_and_whole():
    images = torch.from_numpy(pictures(50, 32, 32, 1))
    plan = draw_epoch(50, False, torch.Generator().manual_seed(0))
    order = plan[:, 0]
    assert plan[:, 1:].eq(0).all()
    assert order.tolist() != sorted(order.tolist()) == list(range(50))
    assert torch.equal(gather(images, plan, 32), images[order])


def test_to_unit():
    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(2, 1, 1, 3)
    images[..., 1] = 255 - images[..., 1]
    unit = to_unit(images)
    assert unit.shape == (2, 3, 16, 16) and unit.dtype == torch.float32
    assert unit.is_contiguous(memory_format=torch.channels_last)
    levels = np.arange(256, dtype=np.float32) / 255
    np.testing.assert_array_equal(unit[1].flatten(1).numpy(), [levels, levels[::-1], levels])


def test_digits():
    data = lc.load_data("digits", "/nowhere")
    assert data.name == "digits" and data.classes == tuple("0123456789")
    assert data.channels == 1 and not data.augment and data.x_train.is_contiguous()
    assert data.x_train.shape == (1437, 32, 32, 1) and data.x_test.shape == (360, 32, 32, 1)
    assert data.x_train.dtype == torch.uint8 and data.y_test.dtype == torch.int64
    assert data.x_train.max() == 255 and data.y_train.bincount().min() > 100
    assert data.mean == pytest.approx([data.x_train.double().mean().item() / 255], rel=1e-9)
    assert data.y_test.tolist() == load_digits().target[::5].tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64])
def test_a_file_of_your_own(tmp_path, monkeypatch, layout, dtype):
    arrays = layout()
    np.savez(tmp_path / "my.flowers-2.npz", **arrays | {"y_train": arrays["y_train"].astype(dtype)})
    monkeypatch.setenv("LC_DATA_DIR", str(tmp_path))
    for data in (lc.load_data("my.flowers-2", tmp_path), lc.load_data("my.flowers-2")):
        for key in ("x_train", "y_train", "x_test", "y_test"):
            np.testing.assert_array_equal(getattr(data, key).numpy(), arrays[key])
        assert data.y_train.dtype == torch.int64 and not data.augment
        assert data.classes == tuple(arrays["classes"])
        unit = arrays["x_train"].reshape(-1, 3).astype(np.float64) / 255
        assert data.mean == pytest.approx(unit.mean(0), rel=1e-12)
        assert data.std == pytest.approx(unit.std(0), rel=1e-12)


def test_mean_and_deviation_of_many_pixels_are_numpys():
    pixels = torch.randint(0, 256, (3_000_000, 2), dtype=torch.uint8)
    for ours, theirs in zip(_mean_and_std(pixels), (np.mean, np.std)):
        assert ours == pytest.approx(theirs(pixels.numpy(), 0) / 255, rel=1e-12)
    assert _mean_and_std(torch.full((3_000_000, 1), 251, dtype=torch.uint8))[1] == (0,)


def test_the_data_folder_may_be_the_users_cache(tmp_path, no_data_folder, layout):
    (tmp_path / "cache" / "lc").mkdir(parents=True)
    np.savez(tmp_path / "cache" / "lc" / "mine.npz", **layout())
    assert lc.load_data("mine").channels == 3


@pytest.mark.parametrize("channels", [(), (1,)], ids=["no channel axis", "one channel"])
def test_small_images_are_upscaled_as_torchvision_does(tmp_path, layout, channels):
    arrays = layout(size=28, channels=channels)
    chessboard = np.indices((28, 28)).sum(0) % 2  # the hardest: single pixels
    arrays["x_train"][0] = 255 * chessboard.reshape(28, 28, *channels)
    np.savez(tmp_path / "fashion-mnist.npz", **arrays)
    data = lc.load_data("fashion-mnist", tmp_path)
    assert data.x_train.shape == (12, 32, 32, 1) and data.channels == 1
    for split in ("x_train", "x_test"):
        ours = getattr(data, split)[..., 0].int()
        for image, resized in zip(arrays[split].reshape(-1, 28, 28), ours):
            pil = torch.from_numpy(np.array(Resize((32, 32))(to_pil_image(image))))
            tensor = Resize((32, 32))(torch.from_numpy(image)[None])[0]
            for theirs in (pil, tensor):
                assert (theirs.int() - resized).abs().max() <= 1
            assert (tensor.int() - resized).float().mean().abs() < 0.1


def digest(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def cifar_files(folder, dataset, labels_key, names_key, train_files, arrays, monkeypatch):
    def write(name, content):
        (folder / dataset.base_folder / name).write_bytes(pickle.dumps(content))
        return [name, digest(folder / dataset.base_folder / name)]

    (folder / dataset.base_folder).mkdir(parents=True)

    def images(name, split, part=slice(None)):
        rows = arrays[f"x_{split}"][part].transpose(0, 3, 1, 2).reshape(-1, 3072)
        return write(name, {"data": rows, labels_key: arrays[f"y_{split}"][part].tolist()})

    parts = zip(train_files, np.array_split(np.arange(12), len(train_files)))
    name, md5 = write("meta", {names_key: arrays["classes"].tolist()})
    monkeypatch.setattr(dataset, "train_list", [images(f, "train", part) for f, part in parts])
    monkeypatch.setattr(dataset, "test_list", [images("test", "test")])
    monkeypatch.setattr(dataset, "meta", {"filename": name, "key": names_key, "md5": md5})


def cifar10(folder, arrays, monkeypatch):
    files = [f"data_batch_{i}" for i in range(1, 6)]
    cifar_files(folder, torchvision.datasets.CIFAR10, "labels", "label_names", files, arrays,
                monkeypatch)


def cifar100(folder, arrays, monkeypatch):
    cifar_files(folder, torchvision.datasets.CIFAR100, "fine_labels", "fine_label_names", ["train"],
                arrays, monkeypatch)


def svhn(folder, arrays, monkeypatch):
    folder.mkdir(parents=True)
    listed = {}
    for split in ("train", "test"):
        path, y = folder / f"{split}_32x32.mat", arrays[f"y_{split}"]
        digits = np.where(y == 0, 10, y)[:, None]  # the files call the digit 0 "10"
        scipy.io.savemat(path, {"X": arrays[f"x_{split}"].transpose(1, 2, 3, 0), "y": digits})
        listed[split] = ["", path.name, digest(path)]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)


def fashion_mnist(folder, arrays, monkeypatch):
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"].astype(np.uint8)
        images, labels = struct.pack(">4I", 0x803, *x.shape), struct.pack(">2I", 0x801, len(y))
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(images + x.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(labels + y.tobytes())


STATISTICS = {  # mean and standard deviation by channel
    "cifar10": ((0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)),
    "cifar100": ((0.50707516, 0.48654887, 0.44091784), (0.26733429, 0.25643846, 0.27615047)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
}


@pytest.mark.parametrize("name, write, shape, classes, augment", [
    ("cifar10", cifar10, {}, 10, True), ("cifar100", cifar100, {}, 100, True),
    ("svhn", svhn, {}, 10, False),
    ("fashion-mnist", fashion_mnist, dict(size=28, channels=()), 10, False),
])
def test_known_sets_are_made_from_torchvisions_files(tmp_path, monkeypatch, layout, name, write,
                                                     shape, classes, augment):
    arrays = layout(classes=classes, **shape)
    write(tmp_path / "new" / "downloads", arrays, monkeypatch)
    if name == "svhn":
        arrays["classes"] = np.array(list("0123456789"))
    if name == "fashion-mnist":
        arrays["classes"] = np.array(torchvision.datasets.FashionMNIST.classes)
    data = lc.load_data(name, tmp_path / "new")
    with np.load(tmp_path / "new" / f"{name}.npz") as written:
        assert set(written) == set(arrays)
        for key, expected in arrays.items():
            np.testing.assert_array_equal(written[key], expected)
            assert written[key].dtype == expected.dtype
    assert data.classes == tuple(arrays["classes"]) and data.augment == augment
    assert data.x_train.shape[1:3] == (32, 32)
    assert (data.mean, data.std) == STATISTICS[name]
    assert not list((tmp_path / "new").glob("*.partial"))

    monkeypatch.setattr(torchvision.datasets, KNOWN[name][0], None)  # now the file is all it takes
    assert torch.equal(lc.load_data(name, tmp_path / "new").x_test, data.x_test)


def test_a_file_is_read_once_as_long_as_it_stays_the_same(layout, tmp_path):
    path, arrays = tmp_path / "mine.npz", layout()
    np.savez(path, **arrays)
    first = lc.load_data("mine", tmp_path)
    assert lc.load_data("mine", tmp_path) is first
    assert lc.load_data("digits", tmp_path) is lc.load_data("digits", tmp_path)
    np.savez(path, **arrays | {"x_test": 255 - arrays["x_test"]})
    os.utime(path, ns=(0, 0))
    again = lc.load_data("mine", tmp_path)
    assert not torch.equal(again.x_test, first.x_test) and torch.equal(again.x_train, first.x_train)
