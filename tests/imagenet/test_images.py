"""Images in folders: what is found, how it is read and shared by processes, and the messages about incomplete folders."""

import math
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from helpers import IMAGENET_TINY as TINY
from PIL import Image

import lc
from lc.data import DataError, DataUnavailable
from lc.imagenet import RECIPES
from lc.imagenet import images as folders


def test_the_images_are_transformed_as_the_recipe_says(flowers, monkeypatch):
    made, create = [], timm.data.create_transform
    monkeypatch.setattr(folders, "create_transform", lambda *a, **k: made.append(create(*a, **k)) or made[-1])
    opened = folders.open_folder(flowers)
    x, y, _ = next(folders.training_loader(opened, RECIPES["a2"], 0, 0, 2, 2))
    assert x.shape == (2, 3, 224, 224) and x.dtype == torch.uint8 and y.dtype == torch.int64
    next(iter(folders.validation_loader(opened, RECIPES["a2"], 2)))
    crop, flip, augment, _ = made[0].transforms
    assert (crop.size, crop.scale, crop.interpolation.value, flip.p) == ((224, 224), (0.08, 1), "bicubic", 0.5)
    assert len(augment.ops) == 15 and augment.num_layers == 2 and {(op.magnitude, op.magnitude_std) for op in augment.ops} == {
        (7, 0.5)}
    resize, centre, _ = made[1].transforms
    assert (resize.size, centre.size, resize.interpolation.value) == (math.floor(224 / 0.95), (224, 224), "bicubic")


def labelled(folder):
    """The image folder, with the number of each training image as its label."""
    opened = folders.open_folder(folder)
    return replace(opened, train=tuple((path, i) for i, (path, _) in enumerate(opened.train)))


def batches(folder, replicas=4, recipe=TINY, seed=0, epoch=0, batch=4, **reading):
    return list(folders.training_loader(labelled(folder), recipe, seed, epoch, batch, replicas, **reading))


def same(a, b):
    assert len(a) == len(b)
    return all(torch.equal(x, u) and torch.equal(y, v) and key == code for (x, y, key), (u, v, code) in zip(a, b))


def test_an_epoch_follows_from_its_seed_and_number_alone(flowers):
    first = batches(flowers)
    torch.rand(3), np.random.rand(3)
    assert same(first, batches(flowers, workers=2))
    assert not same(first, batches(flowers, epoch=1)) and not same(first, batches(flowers, seed=1))


def test_the_seed_decides_the_pixels(flowers):
    transform = timm.data.create_transform(32, is_training=True, use_prefetcher=True, auto_augment=TINY.rand_augment)
    images = folders.Images(folders.open_folder(flowers).train, transform)
    (x, label), (again, _), (other, _) = images[9, 1], images[9, 1], images[9, 2]
    assert label == 1 and np.array_equal(x, again) and not np.array_equal(x, other)
    drawn = folders.seeds(1000, 0, 1, 2)
    assert len(set(drawn)) == 1000 and not {*drawn} & {*folders.seeds(1000, 0, 1, 3)} and 0 <= min(drawn) <= max(drawn) < 2 ** 32


def test_a_steps_batches_are_the_same_with_any_number_of_processes(flowers):
    alone = batches(flowers)
    shared = [batches(flowers, rank=rank, world=2) for rank in (0, 1)]
    assert len(alone) == 8 and same(alone, [batch for pair in zip(*shared) for batch in pair])


@pytest.mark.parametrize("replicas, seen", [(1, [3] * 10 + [2]), (3, [3] * 8), (4, [3] * 10 + [2])])
def test_a_third_of_the_images_comes_three_times_each_in_its_own_pixels(replicas, seen, flowers):
    epoch = batches(flowers, replicas)
    readings = [(label, x.numpy().tobytes()) for images, labels, _ in epoch for x, label in zip(images, labels.tolist())]
    assert sorted(Counter(label for label, _ in readings).values(), reverse=True) == seen and len(set(readings)) == len(readings)
    if replicas == 3:
        for i in range(0, len(epoch), 3):  # the batches of a step, on three GPUs
            assert torch.equal(epoch[i][1], epoch[i + 1][1]) and torch.equal(epoch[i][1], epoch[i + 2][1])


def test_validation_reads_every_image_once_in_order(flowers):
    opened = folders.open_folder(flowers)
    whole = torch.cat([x for x, _ in folders.validation_loader(opened, TINY, 3)])
    parts = [torch.cat([x for x, _ in folders.validation_loader(opened, TINY, 3, rank, 2)]) for rank in (0, 1)]
    assert torch.equal(whole[0::2], parts[0]) and torch.equal(whole[1::2], parts[1]) and len(whole) == 8
    assert torch.cat([y for _, y in folders.validation_loader(opened, TINY, 3)]).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_first_classes_and_images_are_taken_by_name(copied):
    opened = folders.open_folder(copied, 2, 3)
    assert opened.classes == ("a", "b") and len(opened.val) == 4
    assert [(path[-8:], label) for path, label in opened.train] == [(f"{c}/{i}.JPEG", n) for n, c in enumerate("ab")
                                                                   for i in range(3)]


def test_classes_that_are_not_asked_for_need_not_have_enough_images(copied):
    (copied / "train/d/0.JPEG").unlink()
    assert folders.open_folder(copied, 3, 8).classes == ("a", "b", "c")


def test_images_in_subfolders_belong_to_the_class_and_hidden_folders_are_no_classes(copied):
    (copied / "train/.cache").mkdir()
    (copied / "train/b/more").mkdir()
    (copied / "train/b/7.JPEG").rename(copied / "train/b/more/7.jpg")
    (copied / "train/b/notes.txt").touch()
    opened = folders.open_folder(copied)
    assert opened.classes == ("a", "b", "c", "d")
    assert [path.removeprefix(f"{copied}/train/b/") for path, label in opened.train if label == 1] == [
        *(f"{i}.JPEG" for i in range(7)), "more/7.jpg"]


def remove(*parts):
    return lambda folder: [shutil.rmtree(folder / part) for part in parts]


def loose(folder):
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    shutil.copy(folder / "val/a/0.JPEG", folder / "train")


def empty(folder):
    for path in (folder / "val/c").iterdir():
        path.rename(path.with_suffix(".txt"))


@pytest.mark.parametrize("damage, message", [
    (remove("."), "flowers is no folder; name the one that holds train/ and val/"),
    (remove("train"), "flowers/train is missing; .*flowers must hold train/ and val/"),
    (remove("val"), "flowers/val is missing"), (loose, "flowers/train has no class folders"),
    (empty, "flowers/val: Found no valid file for the classes c. Supported extensions are: .jpg"),
    (remove("train/b"), "flowers: train/ lacks the class folders b of val/"),
    (remove("val/a", "val/d"), "flowers: val/ lacks the class folders a, d of train/"),
])
def test_an_incomplete_folder_is_reported_in_one_line(damage, message, copied):
    damage(copied)
    with pytest.raises(DataError, match=message) as told:
        folders.open_folder(copied)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("choice, message", [
    ((5, None), "takes 5 classes, but there are 4"),
    ((None, 9), "flowers/train: the recipe takes 9 images of each class, but one class has 8"),
])
def test_a_recipe_cannot_take_more_than_there_is(choice, message, flowers):
    with pytest.raises(DataError, match=message):
        folders.open_folder(flowers, *choice)


@pytest.mark.parametrize("mode, colour, kind, read", [
    ("L", 100, "JPEG", (100, 100, 100)), ("CMYK", (0, 0, 0, 0), "JPEG", (255, 255, 255)), ("P", 0, "PNG", (0, 0, 0)),
    ("RGB", (9, 99, 199), "PNG", (9, 99, 199)), ("RGBA", (9, 99, 199, 50), "PNG", (9, 99, 199)),
    ("LA", (7, 255), "PNG", (7, 7, 7)),
])
def test_images_of_all_kinds_are_read_as_rgb(mode, colour, kind, read, tmp_path):
    Image.new(mode, (8, 8), colour).save(tmp_path / "image.JPEG", kind)
    image = folders.decode(tmp_path / "image.JPEG")
    assert image.mode == "RGB" and np.abs(np.asarray(image, int) - read).max() <= 2


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_cannot_be_read_are_found(workers, copied):
    whole = (copied / "train/b/1.JPEG").read_bytes()
    (copied / "train/b/1.JPEG").write_bytes(whole[:-500])
    (copied / "val/c/0.JPEG").write_text("no image")
    (copied / "val/c/1.JPEG").write_bytes(b"")
    opened = folders.open_folder(copied)
    faults = folders.check_images(opened, workers=workers)
    assert [fault.split()[0][-8:] for fault in faults] == ["b/1.JPEG", "c/0.JPEG", "c/1.JPEG"]
    assert all("cannot be read as an image (" in fault and "\n" not in fault for fault in faults)
    assert sorted(folders.check_images(opened, 0, 2) + folders.check_images(opened, 1, 2)) == faults


def test_a_folder_gives_a_data_set_its_name(copied, monkeypatch, tmp_path):
    assert folders.name_of(copied) == "flowers"
    monkeypatch.chdir(copied)
    assert folders.name_of(".") == "flowers"
    with pytest.raises(DataError, match="train is missing"):
        folders.name_of(copied / "train")


def test_imagenet_is_known_by_its_classes(monkeypatch, copied):
    names = tuple(f"n{1440764 + i:08}" for i in range(1000))
    monkeypatch.setattr(folders, "open_folder", lambda folder: folders.ImageFolder(folder, names, (), ()))
    assert folders.name_of(copied) == "imagenet"


def test_digits_are_written_once(tmp_path, no_data_folder):
    folder = folders.find("digits-folder", tmp_path)
    written = (folder.stat().st_ino, folder.stat().st_mtime_ns)
    assert folders.find("digits-folder", tmp_path) == folder and (folder.stat().st_ino, folder.stat().st_mtime_ns) == written
    opened, digits = folders.open_folder(folder), lc.load_data("digits")
    assert opened.classes == digits.classes and len(opened.train) == 1437 and len(opened.val) == 360
    path, label = opened.val[-1]
    image = np.asarray(folders.decode(path))
    i = int(path[-8:-4])
    assert label == digits.y_test[i] == 9 and all(np.array_equal(image[..., c], digits.x_test[i, ..., 0]) for c in range(3))
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["digits-folder"]


def test_a_data_set_that_is_not_there_is_named(tmp_path, no_data_folder):
    with pytest.raises(DataUnavailable, match=f"{tmp_path}/imagenet is missing; put the folder of imagenet"):
        folders.find("imagenet", tmp_path)
