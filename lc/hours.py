"""How long runs take on a device, and when those that are being trained will end."""

import math
import os
import sys
import time
from dataclasses import replace
from heapq import nsmallest
from statistics import median

import torch
import torch.nn.functional as F

from . import results
from .experiments import GRIDS
from .imagenet import RECIPES, ImageNetRun
from .models import build_model
from .run import PROFILES, Run
from .utils.device import device_name, own_randomness, resolve_precision, to_device

# Billions of operations of a forward pass at 224 px. To count them would take longer than `lc status` may.
OFF_THE_SHELF = {"ResNet-14": 2.7, "ResNet-18": 3.6, "ResNet-18d": 4.1, "ResNet-34": 7.3, "ResNet-50": 8.2, "ResNet-50d": 8.7,
                 "ResNet-101": 15.6, "ResNeXt-50-32x4d": 8.5, "Wide-ResNet-50x2": 22.8, "MobileNet-v2": 0.6,
                 "MobileNet-v3-S": 0.11, "MobileNet-v3-L": 0.43}
MEASURED = Run("ResNet-8-16", "cifar10", False, 0, "quick")
SILENCE = 600.0  # seconds between two lines about the same run


def work(run):
    """The floating-point operations of a training's forward passes, within a quarter."""
    return work_per_image(run) * run.training_images * run.recipe.epochs


def work_per_image(run):
    """The floating-point operations of one image's forward pass in training."""
    depth, width, expansion, kernel, between, *_ = run.architecture
    if depth:
        image, combining = 2 * 32**2 * width**2 * kernel**2 * (depth - 2), width / 42
    else:  # at 32 px, the networks of Figure 1a have fewer strides: they cost as much as at 64 or 128 px
        size = getattr(run.recipe, "image_size", 128 if run.model == "MobileNet-v2" else 64)
        image, combining = 1e9 * OFF_THE_SHELF[run.model.partition("-LCx")[0]] * (size / 224)**2, 3 * (224 / size)**2
    # Filters are combined once a mini-batch, but with operations between the convolutions every image passes E times as many.
    return image * (expansion if between else 1 + combining * expansion / min(256, run.recipe.batch_size))


def estimator(device, folder=None):
    """A function that estimates the seconds of a run on a device, and text that says what the estimates come from.

    A run takes as long as a row of this device with the same network, data set and profile. Without such a row, its time is
    proportional to its `work`. The rate is the median of the three rows with the most similar networks, of the same profile if
    there are any: small networks compute fewer operations a second. Without rows of the device, ten steps are measured.
    """
    name, known, rates = device_name(device), {}, []
    for row in results.load_rows(folder).values():
        if row["device"] == name:
            known[row["model"], row["dataset"], row["profile"]] = row["seconds"]
            low_resolution = math.isnan(row["accuracy_top5"])
            kind, recipes = (Run, PROFILES) if low_resolution else (ImageNetRun, RECIPES)
            if row["profile"] in recipes and "~map" not in row["model"]:  # a kind no longer built
                run = kind(*(row[c] for c in ("model", "dataset", "frozen", "seed", "profile")))
                rates.append((row["profile"], work_per_image(run), row["seconds"] / work(run)))
    source = "rows of this device"
    if not rates:
        source, rates = f"ten steps of {MEASURED.model} just now", [("", 1.0, _measured_rate(device))]

    def seconds(run):
        def unlike(rate):
            return rate[0] != run.recipe.profile, abs(math.log(rate[1] / work_per_image(run)))

        return (known.get((run.model, run.dataset, run.recipe.profile))
                or work(run) * median(rate for *_, rate in nsmallest(3, rates, unlike)))

    return seconds, source


def _measured_rate(device, steps=10):
    """Seconds per operation of a small network's training, without the optimiser, whose import takes a second."""
    batch = 2048 if device.type == "cuda" else 32  # a small mini-batch would measure the launching of kernels
    bf16 = resolve_precision("auto", device) == "bf16"
    with own_randomness(0, device), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        network = to_device(build_model(MEASURED.model), device)
        images, labels = torch.randn(batch, 3, 32, 32, device=device), torch.zeros(batch, dtype=torch.int64, device=device)
        for step in range(1 + steps):
            if step == 1:  # the first one allocates memory
                began = time.perf_counter()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            loss.item()  # waits for the device
    images = MEASURED.training_images * MEASURED.recipe.epochs
    return (time.perf_counter() - began) / (steps * batch) * images / work(MEASURED)


def announce(runs, device, folder=None, gpus=1):
    """Prints how many runs there are, on which device, and about how long they take there, one after another on each GPU.

    Where that is more than an hour on a CPU, it names the largest profile in which these networks take less. It prints nothing
    if there is no run. Returns the expected seconds of each run.
    """
    if not runs:
        return []
    seconds, source = estimator(device, folder)
    expected = [seconds(run) for run in runs]
    said = f"{len(runs)} run{'s' * (len(runs) > 1)} on {f'{gpus} x ' * (gpus > 1)}{device_name(device)}: about "
    said += f"{_words(sum(expected) / gpus)}, estimated from {source}."
    if device.type == "cpu" and sum(expected) > 3600:
        for profile in list(GRIDS)[1:]:
            smaller = sum(seconds(replace(run, recipe=profile)) for run in runs)
            if smaller < 3600:
                said += f" The profile {profile} would take about {_words(smaller)}."
                break
    print(said, flush=True)
    return expected


def _words(seconds):
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{max(1, round(seconds / 60))} min"


class Progress:
    """Says which of some runs is on, and when the last one ends unless other processes train some of them.

    It writes to the process's own standard error. The logs of papermill and of workers show it; a notebook does not store it.

    Args:
        expected: the seconds of each run.
        silent: whether to write nothing.
    """

    def __init__(self, runs, expected, silent):
        self.runs, self.expected, self.silent = runs, expected, silent
        self.start, self.passed = time.monotonic(), 0.0  # `passed` is in expected seconds

    def begin(self, i):
        """Says that run `i` begins."""
        pace = (time.monotonic() - self.start) / self.passed if self.passed else 1.0
        ends = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + pace * sum(self.expected[i:])))
        self.line = f"run {i + 1} of {len(self.runs)}: {self.runs[i].id}; the last ends at about {ends}\n"
        self.passed += self.expected[i]
        self.said = -math.inf
        self.tell()

    def tell(self):
        """Repeats the line, but not more often than every ten minutes."""
        if not self.silent and time.monotonic() - self.said > SILENCE:
            self.said = time.monotonic()
            try:
                own = sys.stderr.fileno()  # in a notebook, the standard error of its kernel
            except OSError:  # it is redirected
                own = 2
            os.write(own, self.line.encode())
