"""Image folders in ImageNet's layout: train/ and val/, each with a folder of images a class."""

import os
import tempfile
from contextlib import suppress
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np
from PIL import Image
from timm.data import create_transform
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.loader import PrefetchLoader
from timm.utils import random_seed
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from ..data import DataError, DataUnavailable, data_folder, load_data, writing
from ..utils.check import one_line
from ..utils.files import expanded
from .processes import rank, world


def find(dataset, data_dir=None):
    """The image folder of a data set: `data_dir/NAME`, with `data_dir` as for `load_data`.

    "digits-folder", the handwritten digits as files, is written if it is missing. If it cannot be,
    and for any other, this raises DataUnavailable.
    """
    folder = data_folder(data_dir) / dataset
    # pathlib would raise an error below a folder that one may not enter
    if dataset == "digits-folder" and not os.path.exists(folder):
        data = load_data("digits")
        with writing(folder):
            _write_digits(data, folder)
    if not os.path.isdir(folder):
        raise DataUnavailable(
            f"{folder} is missing; put the folder of {dataset} (train/ and val/) there, or set "
            "data_dir or LC_DATA_DIR to the folder that holds it; `lc imagenet` also has --data")
    return folder


def _write_digits(data, folder):
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        written = Path(temporary, "digits")
        for split, images, labels in (("train", data.x_train, data.y_train),
                                      ("val", data.x_test, data.y_test)):
            for name in data.classes:
                (written / split / name).mkdir(parents=True)
            for i, (image, label) in enumerate(zip(images, labels)):
                path = written / split / data.classes[label] / f"{i:04}.png"
                Image.fromarray(image.squeeze(-1).numpy()).save(path)
        with suppress(OSError):  # another process may have been faster
            os.rename(written, folder)


def open_folder(folder, recipe):
    """The training and validation images, as torchvision's data sets with the recipe's transforms.

    An item is an image, uint8 `[3, image_size, image_size]`, and the number of its class.

    Raises:
        DataError: if the folder is incomplete, the splits differ in their classes, the recipe takes
            more than there is, or a split's first image cannot be read.
    """
    folder = expanded(folder)
    transform = partial(create_transform, recipe.image_size, use_prefetcher=True)
    augmented = transform(is_training=True, scale=(recipe.min_crop, 1), color_jitter=None,
                          auto_augment=recipe.rand_augment, interpolation=recipe.interpolation)
    cropped = transform(crop_pct=recipe.crop_ratio, interpolation="bicubic")
    try:
        train = ImageFolder(folder / "train", augmented, loader=decode)
        val = ImageFolder(folder / "val", cropped, loader=decode)
    except OSError as error:  # it names the missing folder, or the classes without images
        raise DataError(f"{folder} must hold train/ and val/, each with a folder of images for "
                        f"each class ({one_line(error)})") from None
    if train.classes != val.classes:
        raise DataError(f"{folder}: train/ and val/ must have the same classes; only one has "
                        + ", ".join(sorted({*train.classes} ^ {*val.classes})[:3]))
    for images, most in ((train, recipe.images_per_class), (val, None)):
        images.classes = images.classes[:recipe.classes]
        by_class = islice(groupby(images.samples, itemgetter(1)), recipe.classes)
        images.samples = [item for _, items in by_class for item in islice(items, most)]
        decode(images.samples[0][0])  # a folder of files that are no images is reported now
    classes, of_each = recipe.classes or 0, recipe.images_per_class or 0
    if len(train.classes) < classes or len(train) < of_each * len(train.classes):
        raise DataError(f"{folder}/train: the recipe takes {classes or 'all'} classes and "
                        f"{of_each or 'all'} images of each, but there are fewer")
    return train, val


def decode(path):
    """The RGB image in a file. Raises DataError with its path if it cannot be read."""
    try:
        with open(path, "rb") as f, Image.open(f) as image:
            return image.convert("RGB")
    except Exception as error:  # PIL raises many kinds
        raise DataError(f"{path} cannot be read as an image ({one_line(error)}); replace or delete "
                        "it") from None


def training_batches(images, recipe, seed, epoch, batch, device, workers=0):
    """This process's mini-batches of one epoch: normalised images `[batch, 3, h, w]` and labels.

    It seeds PyTorch, NumPy and Python, from which augmentation, Mixup and stochastic depth draw: an
    epoch depends on the seed, its number, the rank and the number of workers alone.
    """
    numbers = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]) // 2  # rank is added
    random_seed(numbers, rank())
    sampler = RepeatAugSampler(images, world(), rank(), num_repeats=recipe.repeats)
    sampler.set_epoch(numbers)
    loader = DataLoader(images, batch, sampler=sampler, drop_last=True, num_workers=workers,
                        pin_memory=device.type == "cuda")
    return PrefetchLoader(loader, device=device)


def validation_batches(images, batch, device, workers=0):
    """This process's part of the validation images: images `[n, 3, h, w]` in [0, 1], and labels."""
    part = range(rank(), len(images), world())
    loader = DataLoader(images, batch, sampler=part, num_workers=workers,
                        pin_memory=device.type == "cuda")
    return PrefetchLoader(loader, mean=(0, 0, 0), std=(1, 1, 1), device=device)
