"""Photographs in folders: train/ and val/, a folder of images for each class, as ImageNet is kept."""

import os
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..utils.check import one_line
from ..data import DataError, DataUnavailable, data_folder, load_data


@dataclass(frozen=True)
class Photos:
    """An image folder: the paths and class numbers of its two splits."""

    folder: Path
    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    val: tuple[tuple[str, int], ...]


def find(dataset, data_dir=None):
    """The image folder of a data set's name: `data_dir/NAME`, `data_dir` as for `load_data`.

    "digits-folder", scikit-learn's handwritten digits as files, is written there if it is missing.

    Raises:
        DataUnavailable: if it is not there.
    """
    folder = data_folder(data_dir) / dataset
    if dataset == "digits-folder" and not folder.exists():
        _write_digits(folder)
    if not folder.is_dir():
        raise DataUnavailable(f"{folder} is missing; put the folder of {dataset} (train/ and val/) there, or set data_dir or "
                              "LC_DATA_DIR to the folder that holds it")
    return folder


def _write_digits(folder):
    from PIL import Image

    digits = load_data("digits")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        for split, images, labels in (("train", digits.x_train, digits.y_train), ("val", digits.x_test, digits.y_test)):
            for i, (image, label) in enumerate(zip(images, labels.tolist())):
                path = Path(made, "digits", split, digits.classes[label], f"{i:04}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.squeeze(-1).numpy()).save(path)
        try:
            os.rename(Path(made, "digits"), folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise


def name_of(folder):
    """The name of the data set in an image folder: the folder's own, or "imagenet" where the classes are ImageNet's.

    Raises:
        DataError: if it is no image folder.
    """
    folder = Path(folder).expanduser()
    classes = open_folder(folder).classes
    return "imagenet" if len(classes) == 1000 and classes[0] == "n01440764" else folder.resolve().name


def open_folder(folder, classes=None, images_per_class=None):
    """The photographs of an image folder, listed but not read.

    Args:
        folder: holds `train/` and `val/`, each with a folder of images for each class.
        classes, images_per_class: only the first classes, and of each only the first images in training, by name.

    Raises:
        DataError: if the folder or a split is missing, a class is in one split only, has no image, or too few to choose from.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the one that holds train/ and val/")
    found = {split: _list(folder, split) for split in ("train", "val")}
    for here, there in (("train", "val"), ("val", "train")):
        only = sorted(found[here].keys() - found[there].keys())
        if only:
            raise DataError(f"{folder}: {_some(only)} {'is' if len(only) == 1 else 'are'} in {here}/ but not in {there}/; both "
                            "must have the same class folders")
    names = sorted(found["train"])
    fewest = min(len(found["train"][name]) for name in names[:classes])
    for what, wanted, there in (("classes", classes, len(names)), ("images of each class in train/", images_per_class, fewest)):
        if wanted and wanted > there:
            raise DataError(f"{folder}: the recipe takes {wanted} {what}, but there are {there}")
    names = names[:classes]
    train, val = (tuple((path, i) for i, name in enumerate(names) for path in found[split][name][:most])
                  for split, most in (("train", images_per_class), ("val", None)))
    return Photos(folder, tuple(names), train, val)


def _list(folder, split):
    """`{class: sorted paths of its images}` of one split."""
    from torchvision.datasets.folder import IMG_EXTENSIONS  # here, since it takes seconds

    root = folder / split
    if not root.is_dir():
        raise DataError(f"{root} is missing; {folder} must hold train/ and val/, each with a folder of images for each class")
    classes = {entry.name: [] for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")}
    if not classes:
        raise DataError(f"{root} has no class folders; sort its images into one folder for each class")
    for name, paths in classes.items():
        for where, _, files in os.walk(root / name, followlinks=True):
            paths += [os.path.join(where, file) for file in files if file.lower().endswith(IMG_EXTENSIONS)]
        paths.sort()
    empty = sorted(name for name, paths in classes.items() if not paths)
    if empty:
        raise DataError(f"{root}: no image in {_some(empty)}; known are files that end in {', '.join(IMG_EXTENSIONS)}")
    return classes


def _some(names):
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


class Images(Dataset):
    """Images uint8 `[3, size, size]` and class numbers of `samples`, read and transformed.

    An index is a number, or a pair with the key that all randomness of this one reading follows from: whatever process reads it,
    and however often, the same pixels result.
    """

    def __init__(self, samples, transform):
        self.samples, self.transform = samples, transform

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        index, key = index if isinstance(index, tuple) else (index, None)
        path, label = self.samples[index]
        if key is not None:
            seed_everything(key)
        return self.transform(decode(path)), label


def decode(path):
    """The RGB image of a file.

    Raises:
        DataError: naming the path, if it is none.
    """
    from PIL import Image

    try:
        with open(path, "rb") as f, Image.open(f) as image:
            return image.convert("RGB")
    except Exception as error:  # PIL raises whatever the damage does
        raise DataError(f"{path} cannot be read as an image ({one_line(error)}); replace or delete it") from None


def keys(count, *numbers):
    """`count` seeds below 2^32 that follow from some whole numbers."""
    return np.random.SeedSequence(numbers).generate_state(count).tolist()


def seed_everything(key):
    """Seed the generators that timm's and torchvision's transforms and Mixup draw from."""
    random.seed(key)
    np.random.seed(key)
    torch.manual_seed(key)


def check_images(photos, rank=0, world=1, workers=0, progress=None):
    """Read every `world`-th photograph once, from `rank` on; what is wrong with the bad ones, a message each."""
    paths = [path for path, _ in photos.train + photos.val][rank::world]
    loader = DataLoader(_Faults(paths), batch_size=64, num_workers=workers, collate_fn=list, generator=torch.Generator())
    faults = []
    with tqdm(total=len(paths), desc=f"checking {photos.folder.name}", unit=" images", leave=False,
              disable=None if progress is None else not progress) as bar:
        for found in loader:
            faults += filter(None, found)
            bar.update(len(found))
    return faults


class _Faults(Dataset):
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        try:
            decode(self.paths[index])
        except DataError as error:
            return str(error)


def training_loader(photos, recipe, seed, epoch, batch, replicas, rank=0, world=1, workers=0, pin=False):
    """One epoch's batches for one process: images uint8 `[batch, 3, size, size]`, labels, and the key of the batch's randomness.

    An optimiser step takes `replicas` batches. timm's sampler of repeated augmentation deals the epoch to so many replicas, of
    which each process has its share, one after another: a step's batches are the same, however many processes there are.

    Yields batches in the order of the steps; those of one step follow each other. The last, smaller step is left out.
    """
    from timm.data import create_transform

    transform = create_transform(recipe.image_size, is_training=True, use_prefetcher=True, scale=(recipe.min_crop, 1),
                                 auto_augment=recipe.rand_augment, color_jitter=None, interpolation=recipe.interpolation)
    order, of_batches = [], []
    for replica in range(rank, replicas, world):
        sampler = _sampler(photos, recipe, replicas, replica)
        sampler.set_epoch(*keys(1, seed, epoch))
        samples = list(zip(sampler, keys(len(sampler), seed, epoch, replica, 0)))
        order.append([samples[i:i + batch] for i in range(0, len(samples) - batch + 1, batch)])
        of_batches.append(keys(len(order[-1]), seed, epoch, replica, 1))
    loader = DataLoader(Images(photos.train, transform), batch_sampler=[batch for step in zip(*order) for batch in step],
                        num_workers=workers, pin_memory=pin)
    for (x, y), key in zip(_read(loader), [key for step in zip(*of_batches) for key in step], strict=True):
        yield x, y, key


def steps_an_epoch(photos, recipe, batch, replicas):
    """Optimiser steps in an epoch.

    Raises:
        DataError: if there are fewer images than one step takes.
    """
    steps = len(_sampler(photos, recipe, replicas)) // batch
    if not steps:
        raise DataError(f"{photos.folder}: {len(photos.train)} training images are fewer than the {batch * replicas} of a step; "
                        "use a recipe with a smaller batch_size")
    return steps


def _sampler(photos, recipe, replicas, replica=0):
    from timm.data.distributed_sampler import RepeatAugSampler

    return RepeatAugSampler(photos.train, replicas, replica, num_repeats=recipe.repeats)


def validation_loader(photos, recipe, batch, rank=0, world=1, workers=0, pin=False):
    """Every `world`-th validation image, from `rank` on: batches of images uint8 `[n, 3, size, size]` and labels."""
    from timm.data import create_transform

    transform = create_transform(recipe.image_size, use_prefetcher=True, crop_pct=recipe.crop_ratio,
                                 interpolation=recipe.interpolation)
    return _read(DataLoader(Images(photos.val[rank::world], transform), batch_size=batch, num_workers=workers, pin_memory=pin))


def _read(loader):
    try:
        yield from loader
    except DataError as error:  # a worker's comes with its traceback
        raise DataError(str(error).strip().splitlines()[-1].rpartition("DataError: ")[2]) from None
