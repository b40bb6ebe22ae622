"""Image data sets as uint8 tensors, and the paper's augmentation on their device (Appendix A)."""

import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .utils import check
from .utils.check import one_line
from .utils.files import expanded, lock, open_npz, save_npz

# name: (torchvision class, channel mean, channel standard deviation, augmentation in training)
KNOWN = {
    "cifar10": ("CIFAR10", (0.49139968, 0.48215841, 0.44653091),
                (0.24703223, 0.24348513, 0.26158784), True),
    "cifar100": ("CIFAR100", (0.50707516, 0.48654887, 0.44091784),
                 (0.26733429, 0.25643846, 0.27615047), True),
    "svhn": ("SVHN", (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), False),
    "fashion-mnist": ("FashionMNIST", (0.2860,), (0.3530,), False),
}
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN",
          "fashion-mnist": "Fashion-MNIST", "imagenet": "ImageNet",
          "tiny-imagenet-40": "Tiny-ImageNet, 40 classes"}
TRAINING_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257, "fashion-mnist": 60_000,
                   "digits": 1_437}
LAYOUT = ("x_train and x_test, uint8 [N, size, size, 1 or 3]; y_train and y_test, integers [N] "
          "from 0; classes, a list of names as text")
DIGITS = [str(i) for i in range(10)]
SIZE = 32
PAD = 4


class DataError(ValueError):
    """The data set is unknown, unreachable, or damaged."""


class DataUnavailable(DataError):
    """The data set is known, but not on this machine, and cannot be downloaded or written."""


@dataclass(frozen=True)
class Data:
    """Images uint8 `[N, height, width, channels]` and labels int64 `[N]`, on the CPU."""

    name: str
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # by channel, of images in [0, 1]
    std: tuple[float, ...]
    augment: bool  # zero-pad by 4 px, random flip, random crop in training

    @property
    def channels(self):
        return self.x_train.shape[-1]


def data_folder(data_dir=None):
    """The folder of the data sets, as `load_data` says."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return expanded(data_dir or os.environ.get("LC_DATA_DIR") or Path(cache, "lc"))
    except ValueError:
        raise DataError("the user's home folder, and so that of the data sets, is not known; set "
                        "LC_DATA_DIR or data_dir to one that can be written") from None


def load_data(name, data_dir=None):
    """Loads a data set from `data_dir/name.npz`, to which torchvision downloads a known one first.

    Known are "cifar10", "cifar100", "svhn", "fashion-mnist", and "digits" (scikit-learn's, without
    a download). Any other name is that of a file of your own in the same layout: `x_train`,
    `x_test` uint8 `[N, size, size, 3]` (or 1 channel, or no channel axis), `y_train`, `y_test`
    integers `[N]` from 0, `classes` text. It is normalised by its training mean and standard
    deviation and not augmented.

    Args:
        data_dir: the folder; by default $LC_DATA_DIR, else `lc` in the user's cache directory.

    Returns:
        `Data` on the CPU, the same object as long as the file does not change. Images smaller than
        32x32 are upscaled to 32x32, as those of Fashion-MNIST in Appendix A, here bilinearly.

    Raises:
        DataError: if the data set is unknown or unreachable, or its file damaged or wrong.
        ValueError: if the name is no text.
    """
    check.kind("the name of a data set", name, str, "text")
    if name == "digits":
        return _load(name, None, None)
    path = data_folder(data_dir) / f"{name}.npz"
    if not os.path.exists(path):  # nor in a folder that one may not enter
        _make(name, path)
    return _load(name, path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)  # the sets of Table 1; a sweep then reads each file once
def _load(name, path, changed):
    arrays = _digits() if name == "digits" else _read(name, path)
    x_train, x_test = _upscale(arrays["x_train"]), _upscale(arrays["x_test"])
    if name in KNOWN:
        _, mean, std, augment = KNOWN[name]
    else:
        mean, std = _mean_and_std(x_train.flatten(0, 2))
        augment = False
        if not all(std):
            raise DataError(f"{path}: a channel of x_train is the same everywhere; leave it out, "
                            "or check how the file was made")
    if x_train.shape[-1] != len(mean):
        raise DataError(f"{name} has {len(mean)} channels, but the images of {path} have "
                        f"{x_train.shape[-1]}")
    classes = tuple(c.decode(errors="replace") if isinstance(c, bytes) else str(c)
                    for c in arrays["classes"])
    return Data(name, x_train, torch.from_numpy(arrays["y_train"]), x_test,
                torch.from_numpy(arrays["y_test"]), classes, mean, std, augment)


def _mean_and_std(pixels):
    """The mean and standard deviation of each channel of uint8 `[N, c]`, over 255."""
    sums = squares = 0  # not of all pixels at once, which would take eight times their memory
    for part in pixels.split(1 << 20):
        part = part.double().numpy()
        sums, squares = sums + part.sum(0), squares + np.square(part).sum(0)
    mean = sums / len(pixels)
    return tuple(mean / 255), tuple((squares / len(pixels) - mean ** 2) ** 0.5 / 255)


def _make(name, path):
    """Downloads a known data set to `path`. Two processes at once download it once."""
    if name not in KNOWN:
        raise DataError(f"unknown data set {name!r}; known: {', '.join(KNOWN)}, digits, or a file "
                        f"of your own at {path}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path.with_suffix(".lock")):
            if not path.exists():
                _download(name, path)


@contextmanager
def writing(path):
    """Turns an error of the disk into `DataUnavailable` that names the data set's path."""
    try:
        yield
    except OSError as error:
        raise DataUnavailable(
            f"{path} is missing, and {error.filename or path.parent} cannot be written "
            f"({error.strerror}); set LC_DATA_DIR or data_dir to a folder that can") from None


def _read(name, path):
    """The checked arrays of one `.npz`: images `[N, h, w, c]` uint8, labels int64, classes text."""
    arrays, key = {}, None
    try:
        with open_npz(path) as f:
            for key in ("x_train", "y_train", "x_test", "y_test", "classes"):
                arrays[key] = f[key]
    except PermissionError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); ask its owner to let "
                        "you") from None
    except Exception as error:  # numpy, zipfile and zlib raise many kinds
        what = f": {key} cannot be read" if key else " is damaged or not in lc's layout"
        remedy = "delete it to have it made again" if name in KNOWN else f"it must hold {LAYOUT}"
        raise DataError(f"{path}{what} ({one_line(error)}); {remedy}") from None

    def need(right, what):
        if not right:
            raise DataError(f"{path}: {what}; it must hold {LAYOUT}")

    classes = arrays["classes"]
    need(classes.ndim == 1, f"classes is {classes.tolist()!r}")
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        x = x[..., None] if x.ndim == 3 else x
        square = x.ndim == 4 and x.shape[1] == x.shape[2] and x.shape[3] in (1, 3)
        need(x.dtype == np.uint8 and square and x.size, f"x_{split} is {x.dtype} {list(x.shape)}")
        need(y.shape == (len(x),) and np.issubdtype(y.dtype, np.integer),
             f"y_{split} is {y.dtype} {list(y.shape)}, for {len(x)} images")
        need(y.min() >= 0 and y.max() < len(classes),
             f"y_{split} has labels {y.min()} to {y.max()}, for {len(classes)} classes")
        arrays[f"x_{split}"], arrays[f"y_{split}"] = x, y.astype(np.int64)
    shape, other = arrays["x_train"].shape[1:], arrays["x_test"].shape[1:]
    need(shape == other, f"training and test images differ in shape: {shape} and {other}")
    return arrays


def _download(name, path):
    import torchvision  # takes seconds

    dataset = getattr(torchvision.datasets, KNOWN[name][0])
    arrays = {"classes": DIGITS}
    try:
        for split in ("train", "test"):
            choice = {"split": split} if name == "svhn" else {"train": split == "train"}
            part = dataset(path.parent / "downloads", download=True, **choice)
            images, labels = part.data, part.labels if name == "svhn" else part.targets
            if name == "svhn":
                images = images.transpose(0, 2, 3, 1)
            else:
                arrays["classes"] = part.classes
            arrays[f"x_{split}"] = np.asarray(images)
            arrays[f"y_{split}"] = np.asarray(labels, dtype=np.int64)
    except Exception as error:  # torchvision raises many kinds
        raise DataUnavailable(f"{path} is missing and {name} could not be downloaded "
                              f"({one_line(error)}); connect to the network, or set LC_DATA_DIR "
                              f"to a folder that holds {path.name}") from None
    save_npz(path, **arrays)


def _digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = np.round(x.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    y = y.astype(np.int64)
    test = np.arange(len(y)) % 5 == 0  # scikit-learn gives no split
    return {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test],
            "classes": DIGITS}


def _upscale(images):
    images = torch.from_numpy(images)
    if images.shape[1] >= SIZE:
        return images
    resized = F.interpolate(images.permute(0, 3, 1, 2).float(), size=(SIZE, SIZE), mode="bilinear",
                            antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def pad(images):
    """Zero-pads uint8 images `[N, h, w, c]` by 4 px on each side, once for a whole training."""
    return F.pad(images, (0, 0, PAD, PAD, PAD, PAD))


def draw_epoch(n, augment, generator):
    """Draws an epoch: int64 `[n, 4]`, columns image, row offset, column offset, flip."""
    plan = torch.zeros(n, 4, dtype=torch.int64)
    plan[:, 0] = torch.randperm(n, generator=generator)
    if augment:
        plan[:, 1:3] = torch.randint(2 * PAD + 1, (n, 2), generator=generator)
        plan[:, 3] = torch.randint(2, (n,), generator=generator)
    return plan


def gather(images, plan, size):
    """The crops `[batch, size, size, c]` by a plan `[batch, 4]` from images `[N, h, w, c]`."""
    image, top, left, flip = plan.unbind(1)
    along = torch.arange(size, device=images.device)
    rows = top[:, None] + along
    columns = left[:, None] + torch.where(flip[:, None] > 0, size - 1 - along, along)
    return images[image[:, None, None], rows[:, :, None], columns[:, None, :]]


def to_unit(images):
    """uint8 `[N, h, w, c]` to float32 `[N, c, h, w]` in [0, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float() / 255
