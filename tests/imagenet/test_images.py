"""Images in folders: how they are read and shared by processes, and what is not accepted."""

import math
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CPU, IMAGENET_TINY as TINY
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

import lc
from lc.data import DataError, DataUnavailable
from lc.imagenet import RECIPES
from lc.imagenet import images as folders
from lc.utils.files import ROOT


def test_the_documented_script_takes_every_fifth_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, lines = tmp_path / "tiny-imagenet-200", []
    (source / "val" / "images").mkdir(parents=True)
    for i in range(10):
        folder = source / "train" / f"n{i}" / "images"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / f"n{i}_0.JPEG")
        Image.new("RGB", (8, 8)).save(source / "val" / "images" / f"val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\tn{i}\t0\t0\t8\t8")
    (source / "val" / "val_annotations.txt").write_text("\n".join(lines))
    page = (ROOT / "docs" / "imagenet.md").read_text()
    exec(re.search(r"```python\n(from pathlib.*?)```", page, re.DOTALL)[1], {})
    found = {str(path.relative_to("tiny-imagenet-40"))
             for path in Path("tiny-imagenet-40").rglob("*.JPEG")}
    assert found == {f"{split}/n{i}/{name}_{file}.JPEG" for i in (0, 5)
                     for split, name, file in (("train", f"n{i}", 0), ("val", "val", i))}


@pytest.fixture
def process(monkeypatch):
    """Lets this process take the place of one of several."""
    def take(rank, world):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))

    return take


def batches(folder, recipe=TINY, seed=0, epoch=0, batch=4, workers=0):
    """An epoch's mini-batches, with the number of each training image as its label."""
    images, _ = folders.open_folder(folder, recipe)
    images.samples = [(path, i) for i, (path, _) in enumerate(images.samples)]
    return list(folders.training_batches(images, recipe, seed, epoch, batch, CPU, workers))


def same(a, b):
    return all(torch.equal(x, u) and torch.equal(y, v)
               for (x, y), (u, v) in zip(a, b, strict=True))


def test_the_images_are_transformed_as_the_recipe_says(flowers):
    train, val = folders.open_folder(flowers, RECIPES["a2"])
    crop, flip, augment, _ = train.transform.transforms
    assert (crop.size, crop.scale) == ((224, 224), (0.08, 1))
    assert [each.value for each in crop.interpolation] == ["bilinear", "bicubic"]
    assert flip.p == 0.5 and len(augment.ops) == 15 and augment.num_layers == 2
    assert {(op.magnitude, op.magnitude_std) for op in augment.ops} == {(7, 0.5)}
    resize, centre, _ = val.transform.transforms
    assert (resize.size, centre.size) == (math.floor(224 / 0.95), (224, 224))
    assert resize.interpolation.value == "bicubic"
    train, _ = folders.open_folder(flowers, replace(RECIPES["short"], classes=4))
    assert train.transform.transforms[0].interpolation.value == "bicubic"


def test_training_images_are_normalised_and_validation_images_are_not(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.new("RGB", (40, 40), (255, 0, 51)).save(tmp_path / split / "a" / "0.png")
    recipe = replace(RECIPES["smoke"], images_per_class=None)
    train, val = folders.open_folder(tmp_path, recipe)
    colour = torch.tensor([1, 0, 0.2])
    normalised = (colour - torch.tensor(IMAGENET_DEFAULT_MEAN)) / torch.tensor(IMAGENET_DEFAULT_STD)
    (x, _), = folders.training_batches(train, recipe, 0, 0, 1, CPU)
    torch.testing.assert_close(x[0, :, 9, 9], normalised)
    (x, y), = folders.validation_batches(val, 1, CPU)
    torch.testing.assert_close(x[0, :, 9, 9], colour)
    assert x.shape == (1, 3, 32, 32) and y.tolist() == [0]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_follows_from_its_seed_and_number(workers, flowers):
    first = batches(flowers, workers=workers)
    torch.rand(3), np.random.rand(3)
    assert same(first, batches(flowers, workers=workers))
    for other in (dict(epoch=1), dict(seed=1)):
        assert not same(first, batches(flowers, workers=workers, **other))


@pytest.mark.parametrize("world, seen", [(1, [3] * 10 + [2]), (3, [3] * 8)])
def test_a_third_of_the_images_comes_three_times_each_in_its_own_pixels(
        world, seen, flowers, process):
    shares = []
    for rank in range(world):
        process(rank, world)
        shares.append(batches(flowers))
    readings = [(label, x.numpy().tobytes()) for share in shares for images, labels in share
                for x, label in zip(images, labels.tolist())]
    counted = Counter(label for label, _ in readings)
    assert sorted(counted.values(), reverse=True) == seen and len(set(readings)) == len(readings)
    if world == 3:  # each process has one of the three
        for (_, first), *others in zip(*shares):
            assert all(torch.equal(first, labels) for _, labels in others)


def test_validation_reads_every_image_once_in_order(flowers, process):
    _, val = folders.open_folder(flowers, TINY)
    whole, labels = map(torch.cat, zip(*folders.validation_batches(val, 3, CPU)))
    assert labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for rank in (0, 1):
        process(rank, 2)
        part = torch.cat([x for x, _ in folders.validation_batches(val, 3, CPU, workers=1)])
        assert torch.equal(part, whole[rank::2])


def test_the_first_classes_and_images_are_taken_by_name(copied):
    (copied / "train/d/0.JPEG").unlink()  # a class that is not taken need not have enough images
    train, val = folders.open_folder(copied, replace(TINY, classes=2, images_per_class=8))
    assert train.classes == val.classes == ["a", "b"] and len(val) == 4
    assert [(path[-8:], label) for path, label in train.samples] == [
        (f"{name}/{i}.JPEG", label) for label, name in enumerate("ab") for i in range(8)]


def remove(*parts):
    return lambda folder: [shutil.rmtree(folder / part) for part in parts]


def loose(folder):
    remove("train/a", "train/b", "train/c", "train/d")(folder)
    shutil.copy(folder / "val/a/0.JPEG", folder / "train")


def no_image(folder):
    (folder / "val/a/0.JPEG").write_text("version https://git-lfs.github.com/spec/v1")


@pytest.mark.parametrize("damage, changes, message", [
    (remove("train"), {}, "flowers must hold train/ and val/, each with a folder .*"
     "No such file or directory: '.*flowers/train'"),
    (loose, {}, "Couldn't find any class folder in .*flowers/train"),
    (remove("val/a", "val/d"), {}, "train/ and val/ must have the same classes; only one has a, d"),
    (no_image, {}, "flowers/val/a/0.JPEG cannot be read as an image .*; replace or delete it"),
    (remove(), {"classes": 5}, "flowers/train: the recipe takes 5 classes"),
    (remove(), {"images_per_class": 9}, "flowers/train: the recipe takes all classes and 9"),
])
def test_an_incomplete_folder_is_reported_in_one_line(damage, changes, message, copied):
    damage(copied)
    with pytest.raises(DataError, match=message) as told:
        folders.open_folder(copied, replace(TINY, **changes))
    assert "\n" not in str(told.value)


def test_digits_are_written_once_and_a_data_set_that_is_not_there_is_named(
        tmp_path, no_data_folder):
    folder = folders.find("digits-folder", tmp_path)
    before = folder.stat().st_ino
    assert folders.find("digits-folder", tmp_path) == folder and folder.stat().st_ino == before
    train, val = folders.open_folder(folder, RECIPES["short"])
    digits = lc.load_data("digits")
    assert tuple(train.classes) == digits.classes and (len(train), len(val)) == (1437, 360)
    path, label = val.samples[-1]
    image, i = np.asarray(folders.decode(path)), int(path[-8:-4])
    assert label == digits.y_test[i] == 9
    assert np.array_equal(image, np.repeat(digits.x_test[i].numpy(), 3, axis=-1))
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"digits-folder"}
    message = f"{tmp_path}/imagenet is missing; put the folder of imagenet"
    with pytest.raises(DataUnavailable, match=message):
        folders.find("imagenet", tmp_path)
