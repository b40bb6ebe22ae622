"""How long runs take on a device, by rows of the same network or of the nearest in cost."""

import math
import time
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from statistics import median

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from . import results
from .data import TRAINING_IMAGES
from .imagenet.networks import build_imagenet_model
from .imagenet.run import ImageNetRun
from .models import build_model
from .run import PROFILES, Recipe, Run, find_recipe
from .utils.device import device_name, own_randomness, resolve_precision, said_name, to_device
from .utils.log import log

MEASURED = Run("ResNet-8-16", "cifar10", False, 0, "quick")


def estimator(device):
    """A function that estimates the seconds of a run on a device, and its source as text.

    It is by the median of the rows of the same network, of the same profile if there are any, else
    of the network nearest in cost. Training and evaluation are in proportion to their operations,
    and set-up takes as long as theirs. It takes rows of this device, else of any of its kind (CPU
    or GPU). If there are none, ten steps are measured.
    """
    kind = "CPU" if device.type == "cpu" else "GPU"
    known = [(run, row) for row in results.load_rows().values()
             if (" CPU, " in row["device"]) == (kind == "CPU") and (run := _run_of(row))]
    mine = [(run, row) for run, row in known if row["device"] == device_name(device)]
    known, source = mine or known, f"rows of {'this device' if mine else f'another {kind}'}"
    if not known:
        known, source = [_measured(device)], f"ten steps of {MEASURED.model} just now"
    others = {run for run, _ in known}

    def seconds(run):
        same = [other for other in others if (type(other), other.model) == (type(run), run.model)]
        # counting the operations of networks that are no CIFAR-ResNets takes seconds
        family = [other for other in others
                  if (other.architecture.depth > 0) == (run.architecture.depth > 0)]
        nearest = min(same or family or others, key=lambda other: (
            other.recipe.profile != run.recipe.profile, abs(math.log(cost(other) / cost(run)))))
        taken = [(_work(run) / _work(other), _evaluated(run) / _evaluated(other), _parts(row))
                 for other, row in known
                 if (other.model, other.recipe) == (nearest.model, nearest.recipe)]
        return median(setup + longer * training + more * evaluation
                      for longer, more, (setup, training, evaluation) in taken)

    return seconds, source


def _run_of(row):
    """The run of a row but for its seed, or None if its network or its recipe is not known."""
    what = row["model"], row["dataset"], row["frozen"], 0
    profile = row["profile"]
    try:
        if not math.isnan(row["accuracy_top5"]):
            return ImageNetRun(*what, profile)
        alike = PROFILES.get(profile.partition("-")[0], Recipe())  # such as of quick-bf16
        own = replace(alike, profile=profile, epochs=row["epochs"],
                      train_images=row["train_images"])
        return Run(*what, find_recipe(profile, PROFILES) or own)
    except ValueError:  # it is of another version of lc
        return None


def _parts(row):
    """The seconds of a row's set-up (0 if it is not known), training and evaluation."""
    setup = 0.0 if math.isnan(row["setup_seconds"]) else row["setup_seconds"]
    left = row["seconds"] - setup
    training = min(left, row["epochs"] * row["train_images"] / row["images_per_second"])
    return setup, training, left - training


def _work(run):
    """The operations for all images of all epochs, with which a run's time grows."""
    pixels = getattr(run.recipe, "image_size", 32) ** 2
    return cost(run) * pixels * run.training_images * run.recipe.epochs


def _evaluated(run):
    """The operations of a run's evaluation: about a fifth as many images as for training, once, but
    on image folders after each epoch."""
    if isinstance(run, ImageNetRun):
        return _work(run) / 5
    fifth = TRAINING_IMAGES.get(run.dataset, 50_000) // 5
    return cost(run) * 32 ** 2 * min(run.recipe.test_images or fifth, fifth)


@cache
def cost(run):
    """About the operations of one forward pass for a pixel of an image."""
    depth, width, expansion, kernel, between, *_ = run.architecture
    if depth:
        # to combine filters of W, 2W and 4W channels, over convolving: W (1 + 8 + 64) / (3 * 32²)
        pixel, combining = 2 * width ** 2 * kernel ** 2 * (depth - 2), width / 42
    else:
        build = build_imagenet_model if isinstance(run, ImageNetRun) else build_model
        pixel = _operations(build, run.model.partition("-LCx")[0])
        combining = 3 * (224 / getattr(run.recipe, "image_size", 32)) ** 2
    if between:  # every image passes E times as many filters
        return pixel * expansion
    # filters are combined once a mini-batch
    return pixel * (1 + combining * expansion / min(256, run.recipe.batch_size))


@cache
def _operations(build, name):
    """The same of a network off the shelf, counted."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(name).eval()(torch.empty(1, 3, 64, 64))
    return counter.get_total_flops() / 64 ** 2


def _measured(device):
    """A run, and its seconds as in a row, by steps without the optimiser: its import is slow."""
    batch = 2048 if device.type == "cuda" else 32  # a small one would measure launches of kernels
    bf16, times = resolve_precision("auto", device) == "bf16", []
    with own_randomness(0, device), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        network = to_device(build_model(MEASURED.model), device)
        images = torch.randn(batch, 3, 32, 32, device=device)
        labels = torch.zeros(batch, dtype=torch.int64, device=device)
        for _ in range(1 + 10):
            began = time.perf_counter()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            loss.item()  # waits for the device
            times.append(time.perf_counter() - began)
    # the first one allocates memory, and what else runs makes some slower
    images, rate = MEASURED.training_images * MEASURED.recipe.epochs, batch / median(times[1:])
    return MEASURED, {"epochs": MEASURED.recipe.epochs, "train_images": MEASURED.training_images,
                      "images_per_second": rate, "setup_seconds": 0.0, "seconds": images / rate}


def announce(runs, device, workers=1, gpus=1):
    """Prints how many runs there are, on which device, and about how long they all take.

    The processes, `workers`, have as many threads each as this one, or train on this many `gpus`,
    each as fast as one process. Returns the seconds that each run adds to the time of all.
    """
    if not runs:
        return []
    at_once = gpus if device.type == "cuda" else workers
    seconds, source = estimator(device)
    expected = [seconds(run) / at_once for run in runs]
    said = f"{len(runs)} run{'s' * (len(runs) > 1)} on {f'{gpus} x ' * (gpus > 1)}"
    said += said_name(device) + f", by {workers} workers" * (workers > 1)
    said += f": about {_words(sum(expected))}, estimated from {source}."
    if device.type == "cpu" and sum(expected) > 3600:
        said += " A smaller profile takes less; `lc status` says how long."
    print(said, flush=True)
    return expected


def _words(seconds):
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(60 * hours))} min"


def log_run(i, runs, expected, began):
    """Logs that the i-th of some runs begins, and about when the last one ends.

    `expected` are the seconds of each, and the first one `began` then, by `time.monotonic`.
    """
    done = sum(expected[:i])
    pace = (time.monotonic() - began) / done if done else 1.0
    ends = datetime.now() + timedelta(seconds=pace * sum(expected[i:]))
    log("run %d of %d: %s; the last ends at about %s", i + 1, len(runs), runs[i].id,
        f"{ends:%Y-%m-%d %H:%M}")
