"""Images in folders: train/ and val/, each with a folder of images for each class, the layout of ImageNet."""

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.distributed_sampler import RepeatAugSampler
from timm.utils import random_seed
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from tqdm.auto import tqdm

from ..data import DataError, DataUnavailable, data_folder, load_data
from ..utils.check import one_line


@dataclass(frozen=True)
class ImageFolder:
    """The two splits of an image folder, each a tuple of (path, class number)."""

    folder: Path
    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    val: tuple[tuple[str, int], ...]


def find(dataset, data_dir=None):
    """The image folder of a data set: `data_dir/NAME`, with `data_dir` as for `load_data`.

    "digits-folder" holds scikit-learn's handwritten digits as files. It is written if it is missing.

    Raises:
        DataUnavailable: if the folder is missing.
    """
    folder = data_folder(data_dir) / dataset
    if dataset == "digits-folder" and not folder.exists():
        _write_digits(folder)
    if not folder.is_dir():
        raise DataUnavailable(f"{folder} is missing; put the folder of {dataset} (train/ and val/) there, or set data_dir or "
                              "LC_DATA_DIR to the folder that holds it")
    return folder


def _write_digits(folder):
    digits = load_data("digits")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        for split, images, labels in (("train", digits.x_train, digits.y_train), ("val", digits.x_test, digits.y_test)):
            for i, (image, label) in enumerate(zip(images, labels.tolist())):
                path = Path(temporary, "digits", split, digits.classes[label], f"{i:04}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.squeeze(-1).numpy()).save(path)
        with suppress(OSError):  # another process may have been faster
            os.rename(Path(temporary, "digits"), folder)


def name_of(folder):
    """The name of the data set in an image folder: "imagenet" if it has ImageNet's classes, else the name of the folder.

    Raises:
        DataError: if it is no image folder.
    """
    images = open_folder(folder)
    return "imagenet" if images.classes[0] == "n01440764" and len(images.classes) == 1000 else images.folder.resolve().name


def open_folder(folder, classes=None, images_per_class=None):
    """Lists the images of an image folder. It reads none of them.

    Args:
        folder: holds `train/` and `val/`, each with a folder of images for each class.
        classes: take only so many classes, the first by name.
        images_per_class: take only so many training images of each class, the first by name.

    Raises:
        DataError: if the folder or a split is missing, a class is missing in one split or has no image, or there are too few
            classes or images to take.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the one that holds train/ and val/")
    splits = {split: _class_names(folder, split) for split in ("train", "val")}
    for split, other in (("train", "val"), ("val", "train")):
        missing = sorted({*splits[other]} - {*splits[split]})
        if missing:
            raise DataError(f"{folder}: {split}/ lacks the class folders {first_three(missing)} of {other}/")
    names = splits["train"][:classes]
    if classes and classes > len(names):
        raise DataError(f"{folder}: the recipe takes {classes} classes, but there are {len(names)}")
    return ImageFolder(folder, tuple(names), _samples(folder / "train", names, images_per_class), _samples(folder / "val", names))


def _class_names(folder, split):
    root = folder / split
    if not root.is_dir():
        raise DataError(f"{root} is missing; {folder} must hold train/ and val/, each with a folder of images for each class")
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"{root} has no class folders; sort its images into one folder for each class")
    return names


def _samples(root, names, most=None):
    try:
        samples = make_dataset(root, {name: i for i, name in enumerate(names)}, IMG_EXTENSIONS)
    except FileNotFoundError as error:  # it names the classes without images and the known file extensions
        raise DataError(f"{root}: {one_line(error)}") from None
    by_class = [list(group) for _, group in groupby(samples, key=lambda sample: sample[1])]
    fewest = min(map(len, by_class))
    if most and most > fewest:
        raise DataError(f"{root}: the recipe takes {most} images of each class, but one class has {fewest}")
    return tuple(sample for group in by_class for sample in group[:most])


def first_three(texts, separator=", "):
    """The first three of some texts, and how many more there are."""
    more = [f"and {len(texts) - 3} more"] if len(texts) > 3 else []
    return separator.join(texts[:3] + more)


class Images(Dataset):
    """Transformed images, uint8 `[3, size, size]`, and their class numbers.

    An index is an integer, or a pair of an integer and a seed. The seed decides all randomness of the transform, so the
    pixels depend neither on the process that reads the image nor on what was read before.

    Args:
        samples: a list of (path, class number).
    """

    def __init__(self, samples, transform):
        self.samples, self.transform = samples, transform

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        index, seed = index if isinstance(index, tuple) else (index, None)
        path, label = self.samples[index]
        if seed is not None:
            random_seed(seed)  # of PyTorch, NumPy and Python, all of which timm's transforms use
        return self.transform(decode(path)), label


def decode(path):
    """The RGB image in a file.

    Raises:
        DataError: if the file cannot be read as an image. The message names the path.
    """
    try:
        with open(path, "rb") as f, Image.open(f) as image:
            return image.convert("RGB")
    except Exception as error:  # PIL raises many kinds
        raise DataError(f"{path} cannot be read as an image ({one_line(error)}); replace or delete it") from None


def check_images(images, rank=0, world=1, workers=0, progress=None):
    """Reads every `world`-th image of an `ImageFolder` once, starting with image `rank`.

    Returns:
        A message for each image that cannot be read.
    """
    paths = [path for path, _ in images.train + images.val][rank::world]
    # The loader draws from a generator of its own, so the caller's stays as it is.
    loader = DataLoader(paths, batch_size=None, num_workers=workers, collate_fn=_fault, generator=torch.Generator())
    return list(filter(None, tqdm(loader, desc=f"checking {images.folder.name}", unit=" images", leave=False,
                                  disable=None if progress is None else not progress)))


def _fault(path):
    try:
        decode(path)
    except DataError as error:
        return str(error)


def seeds(count, *numbers):
    """`count` seeds below 2^32 that depend on some integers only."""
    return np.random.SeedSequence(numbers).generate_state(count).tolist()


def training_loader(images, recipe, seed, epoch, batch, shares, rank=0, world=1, workers=0, pin=False):
    """Yields one epoch's mini-batches of one process, in the order of the steps, without the last, smaller step.

    Each optimiser step takes `shares` mini-batches. timm's sampler of repeated augmentation splits the epoch into as many
    shares, and each process reads its part of them in turn. So the mini-batches of a step do not depend on the number of
    processes.

    Yields:
        Images uint8 `[batch, 3, size, size]`, labels int64 `[batch]`, and the seed of this mini-batch.
    """
    transform = create_transform(recipe.image_size, is_training=True, use_prefetcher=True, scale=(recipe.min_crop, 1),
                                 auto_augment=recipe.rand_augment, color_jitter=None, interpolation=recipe.interpolation)
    batches, batch_seeds = [], []
    for share in range(rank, shares, world):
        sampler = RepeatAugSampler(images.train, shares, share, num_repeats=recipe.repeats)
        sampler.set_epoch(*seeds(1, seed, epoch))
        samples = list(zip(sampler, seeds(len(sampler), seed, epoch, share, 0)))
        batches.append([samples[i:i + batch] for i in range(0, len(samples) - batch + 1, batch)])
        batch_seeds.append(seeds(len(batches[-1]), seed, epoch, share, 1))
    loader = DataLoader(Images(images.train, transform), batch_sampler=[batch for step in zip(*batches) for batch in step],
                        num_workers=workers, pin_memory=pin)
    for (x, y), batch_seed in zip(_read(loader), [s for step in zip(*batch_seeds) for s in step], strict=True):
        yield x, y, batch_seed


def steps_an_epoch(images, recipe, batch, shares):
    """The number of optimiser steps in an epoch.

    Raises:
        DataError: if there are fewer images than one step takes.
    """
    steps = len(RepeatAugSampler(images.train, shares, 0, num_repeats=recipe.repeats)) // batch
    if not steps:
        raise DataError(f"{images.folder}: {len(images.train)} training images are fewer than the {batch * shares} of a step; "
                        "use a recipe with a smaller batch_size")
    return steps


def validation_loader(images, recipe, batch, rank=0, world=1, workers=0, pin=False):
    """Yields every `world`-th validation image from `rank` on, as mini-batches: images uint8 `[n, 3, size, size]`, labels."""
    transform = create_transform(recipe.image_size, use_prefetcher=True, crop_pct=recipe.crop_ratio,
                                 interpolation=recipe.interpolation)
    return _read(DataLoader(Images(images.val[rank::world], transform), batch_size=batch, num_workers=workers, pin_memory=pin))


def _read(loader):
    try:
        yield from loader
    except DataError as error:  # a worker's message holds its traceback; the last line is the error's own
        raise DataError(str(error).strip().splitlines()[-1].rpartition("DataError: ")[2]) from None
